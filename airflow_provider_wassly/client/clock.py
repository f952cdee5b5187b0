"""The clock that everything waits by."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any


class Clock:
    """
    The system's clock, with the threads, queues and events that use it.

    Everything that waits takes a clock. A test can pass its own, in which a day takes no time and events always happen
    in the same order.
    """

    def monotonic(self) -> float:
        """Return seconds that never decrease, for measuring durations."""
        return time.monotonic()

    def now(self) -> datetime:
        """Return the time of day, in UTC."""
        return datetime.now(timezone.utc)

    def sleep(self, seconds: float) -> None:
        """Block for this many seconds."""
        time.sleep(seconds)

    async def pause(self, seconds: float) -> None:
        """Wait for this many seconds without blocking the event loop."""
        await asyncio.sleep(seconds)

    def start(self, work: Callable[[], object], name: str) -> None:
        """
        Run ``work`` in a new thread.

        It is a daemon thread, so that a process can exit while Wassly does not answer.

        :param work: called once, without arguments.
        :param name: the thread's name.
        """
        threading.Thread(target=work, name=name, daemon=True).start()

    def event(self) -> threading.Event:
        """Return a new event that is not set."""
        return threading.Event()

    def queue(self) -> queue.SimpleQueue[Any]:
        """Return a new, empty queue."""
        return queue.SimpleQueue()


SYSTEM = Clock()
