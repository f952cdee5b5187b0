"""Checks for triggers: each runs in its own thread, and triggers that ask the same question share one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async

from airflow_provider_wassly.client.clock import SYSTEM, Clock


class _Threads(Executor):
    """
    Runs each call in its own daemon thread.

    The event loop's executor would not do: its few threads also resolve host names for all other triggers. Nor would a
    pool: calls that get no reply would block those for other accounts, and keep the triggerer from stopping.
    """

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call(*args, **kwargs))
                except BaseException as error:
                    future.set_exception(error)

        SYSTEM.start(run, "wassly-look")
        return future


_THREADS: Any = _Threads()


@dataclass(frozen=True)
class LookResult:
    """
    The result of a check.

    :param value: what the check returned.
    :param error: what it raised, or ``None``.
    :param came_at: when it ended, by :meth:`~Clock.monotonic`, in seconds.
    """

    value: Any
    error: Exception | None
    came_at: float


class Look:
    """
    A check that many triggers share.

    :param clock: the clock for the age of an answer.
    """

    _of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, Look]] = WeakKeyDictionary()

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._answer: LookResult | None = None
        self._under_way: asyncio.Future[LookResult] | None = None

    @classmethod
    def at(cls, subject: Hashable, clock: Clock) -> Look:
        """Return the running event loop's only check of ``subject``."""
        return cls._of_loops.setdefault(asyncio.get_running_loop(), {}).setdefault(subject, cls(clock))

    async def newer_than(self, known_at: float, ask: Callable[[], Any]) -> LookResult:
        """
        Return an answer that came after ``known_at``: the last one, or one from a check that is running or started now.

        Cancelling a caller does not cancel the check, because others may be waiting for it.

        :param known_at: a time, by :meth:`~Clock.monotonic`, in seconds.
        :param ask: performs the check; it may block.
        """
        if self._answer is not None and self._answer.came_at > known_at:
            return self._answer
        if self._under_way is None:
            self._under_way = asyncio.ensure_future(self._look(ask))
        return await asyncio.shield(self._under_way)

    async def _look(self, ask: Callable[[], Any]) -> LookResult:
        value, error = None, None
        try:
            # Not asyncio.to_thread: Airflow's own calls reach this event loop only from a thread of asgiref's.
            value = await sync_to_async(ask, thread_sensitive=False, executor=_THREADS)()
        except Exception as raised:
            error = raised
        finally:
            self._under_way = None
        self._answer = LookResult(value, error, self._clock.monotonic())
        return self._answer
