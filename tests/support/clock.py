"""A virtual clock: time passes only when no thread can run, and a seed decides which thread runs next."""

from __future__ import annotations

import math
import queue
import random
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from greenlet import getcurrent, greenlet

from airflow_provider_wassly.client.clock import Clock

_TICK = 1e-6


class NothingCanHappen(AssertionError):
    """Raised when all threads wait for something that none of them will do."""


class VirtualClock(Clock):
    """
    Runs all threads of a test within the test's own thread, each until it waits; the seed decides which one runs next.

    Time stops while any thread can run, then jumps to the next moment that a thread waits for. So a simulated day takes
    only as long as the work done in it, and the same seed gives the same order of events.

    :param seed: shown when a test fails. Default: from :mod:`random`, which pytest-randomly seeds.
    :param begin: the time of day at which it begins, in UTC.
    """

    def __init__(self, seed: int | None = None, begin: datetime | None = None) -> None:
        seed = random.getrandbits(32) if seed is None else seed
        print(f"VirtualClock(seed={seed})")
        self._random = random.Random(seed)
        self._time = 1000.0
        self._midnight = datetime(2026, 11, 24, tzinfo=timezone.utc)
        if begin is not None:
            # In UTC, because in other zones a sum is the time on the wall, which can leave out an hour.
            self._midnight = begin.astimezone(timezone.utc) - timedelta(seconds=self._time)
        self._main = getcurrent()
        #: The waiting threads, what each waits for, and its deadline.
        self._waiting: dict[greenlet, tuple[Callable[[], bool], float]] = {}

    def monotonic(self) -> float:
        # Two readings are never the same.
        self._time += _TICK
        return self._time

    def now(self) -> datetime:
        return self._midnight + timedelta(seconds=self._time)

    def advance(self, seconds: float) -> None:
        """Let time pass although a thread could run, as on a busy machine."""
        self._time += seconds

    def sleep(self, seconds: float) -> None:
        self.wait(lambda: False, seconds)

    async def pause(self, seconds: float) -> None:
        self._time += seconds

    def let_others_go_on(self) -> None:
        """Let other threads run here, without time passing."""
        self.wait(lambda: True)

    def start(self, work: Callable[[], object], name: str) -> None:
        def live(*_: object) -> None:
            work()
            # A greenlet that ends continues in its parent.
            getcurrent().parent = self._next()

        self._waiting[greenlet(live, parent=self._main)] = (lambda: True, math.inf)

    def event(self) -> Any:
        return _Event(self)

    def queue(self) -> Any:
        return _Queue(self)

    def wait(self, is_over: Callable[[], bool], seconds: float = math.inf) -> None:
        """Wait until a condition holds, or for a time."""
        me = getcurrent()
        self._waiting[me] = (is_over, self._time + max(0.0, seconds))
        if (other := self._next()) is not me:
            other.switch()

    def _next(self) -> greenlet:
        """Return the thread to run next."""
        while True:
            ready = [
                who for who, (is_over, until) in self._waiting.items() if until <= self._time or (is_over() is True)
            ]
            if ready:
                chosen = self._random.choice(ready)
                del self._waiting[chosen]
                return chosen
            until = min(until for _, until in self._waiting.values())
            if until == math.inf:
                self._waiting.clear()
                raise NothingCanHappen
            self._time = until


class _Event:
    """Has the interface of :class:`threading.Event`."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True

    def wait(self, timeout: float | None = None) -> bool:
        if not self._is_set:
            self._clock.wait(self.is_set, math.inf if timeout is None else timeout)
        return self._is_set


class _Queue:
    """Has the interface of :class:`queue.SimpleQueue`."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._items: deque[Any] = deque()

    def put(self, item: Any) -> None:
        self._items.append(item)

    def get_nowait(self) -> Any:
        if not self._items:
            raise queue.Empty
        return self._items.popleft()

    def get(self, timeout: float | None = None) -> Any:
        if not self._items:
            self._clock.wait(lambda: bool(self._items), math.inf if timeout is None else timeout)
        return self.get_nowait() if timeout is not None else self._wait_for_one()

    def _wait_for_one(self) -> Any:
        while not self._items:  # another thread was faster
            self._clock.wait(lambda: bool(self._items))
        return self._items.popleft()
