"""How fast a broadcast sends."""

from __future__ import annotations

import math
import random
import threading

from airflow_provider_wassly.client.clock import SYSTEM, Clock

#: How late a message may be, as a fraction of the gap, before the next one moves too. Longer delays are not made up.
_SLACK = 0.05


#: Seconds; a message does not wait for longer in a thread when Wassly asks for a pause.
MAX_RETRY_AFTER = 600.0


class _Shared:
    """What stops or holds all devices of a broadcast."""

    def __init__(self, clock: Clock) -> None:
        self.held_until = 0.0
        self.stopped = clock.event()


class Pace:
    """
    Tells several threads when each of their messages may leave.

    The pace is steady: a late sender does not speed up the ones after it.

    :param messages_per_minute: the average; ``None`` for no limit.
    :param jitter: random variation of each gap, as a fraction from 0 to 1. The average stays the same.
    :param clock: tells the time and waits.
    """

    def __init__(
        self,
        messages_per_minute: float | None,
        jitter: float = 0.0,
        *,
        clock: Clock = SYSTEM,
    ) -> None:
        self.messages_per_minute = messages_per_minute
        self._gap = 60 / messages_per_minute if messages_per_minute else 0.0
        self._jitter = jitter
        self._clock = clock
        self._lock = threading.Lock()
        # The next slot, and how long before or after it its message leaves. The slots themselves are evenly spaced, so
        # that short lists keep the average too.
        self._slot = 0.0
        self._shift = 0.0
        self._shared = _Shared(clock)

    def another(self) -> Pace:
        """Return the pace of another device: just as fast, but independent. Both are held and stopped together."""
        pace = Pace(self.messages_per_minute, self._jitter, clock=self._clock)
        pace._shared = self._shared
        return pace

    def wait_for_turn(self, leaves_before: float = math.inf) -> bool:
        """
        Wait until a message may leave.

        :param leaves_before: when it must have left, by the monotonic clock.
        :return: ``False`` if it cannot leave in time, after a long pause that Wassly asked for, or after :meth:`stop`.
        """
        while not self._shared.stopped.is_set():
            with self._lock:
                now, due = self._clock.monotonic(), self._due()
                if max(now, due) >= leaves_before or self._shared.held_until - now > MAX_RETRY_AFTER:
                    return False
                if now >= due:
                    lost = max(due, now - _SLACK * self._gap) - (self._slot + self._shift)
                    self._slot += lost + self._gap
                    self._shift = self._gap * self._jitter * random.uniform(-0.5, 0.5)
                    return True
            self._shared.stopped.wait(due - now)
        return False

    def seconds_to_next(self, waiting: int) -> float:
        """Return how many seconds a message has to wait if ``waiting`` others go first."""
        with self._lock:
            now = self._clock.monotonic()
            return max(self._due(), now) - now + waiting * self._gap

    def hold(self, seconds: float) -> None:
        """Let nothing leave for a while, from any device, because Wassly asked for it."""
        with self._lock:
            self._shared.held_until = max(self._shared.held_until, self._clock.monotonic() + seconds)

    def stop(self) -> None:
        """Let nothing more leave, from any device; wake the threads that wait."""
        self._shared.stopped.set()

    def _due(self) -> float:
        return max(self._slot + self._shift, self._shared.held_until)
