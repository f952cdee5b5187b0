"""Looks of triggers: each in a thread of its own, and one for all that want to know the same."""

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
    Runs each call in a daemon thread of its own.

    Not in the event loop's executor: its few threads also resolve names for every other trigger. Nor in a pool: there,
    a Wassly that does not answer would hold up the looks at another account, and the end of the triggerer.
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
class Answer:
    """
    What came of a look.

    :param value: what it returned.
    :param error: what it raised, ``None`` if nothing.
    :param came_at: when, by the clock's :meth:`~Clock.monotonic`.
    """

    value: Any
    error: Exception | None
    came_at: float


class Look:
    """
    A look that many triggers share.

    :param clock: what the age of an answer is counted by.
    """

    _of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, Look]] = WeakKeyDictionary()

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._answer: Answer | None = None
        self._under_way: asyncio.Future[Answer] | None = None

    @classmethod
    def at(cls, subject: Hashable, clock: Clock) -> Look:
        """Return the one look at ``subject`` in the running event loop."""
        return cls._of_loops.setdefault(asyncio.get_running_loop(), {}).setdefault(subject, cls(clock))

    async def newer_than(self, known_at: float, ask: Callable[[], Any]) -> Answer:
        """
        Return an answer that came after ``known_at``: the last one, that of the look under way, or that of a new look.

        Whoever is cancelled meanwhile does not end the look, for which others may wait.

        :param ask: looks; it may block.
        """
        if self._answer is not None and self._answer.came_at > known_at:
            return self._answer
        if self._under_way is None:
            self._under_way = asyncio.ensure_future(self._look(ask))
        return await asyncio.shield(self._under_way)

    async def _look(self, ask: Callable[[], Any]) -> Answer:
        value, error = None, None
        try:
            # Not asyncio.to_thread: Airflow's own calls go back to this event loop from a thread that asgiref knows.
            value = await sync_to_async(ask, thread_sensitive=False, executor=_THREADS)()
        except Exception as raised:
            error = raised
        finally:
            self._under_way = None
        self._answer = Answer(value, error, self._clock.monotonic())
        return self._answer
