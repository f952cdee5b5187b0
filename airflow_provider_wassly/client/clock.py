"""Time, and what waits for it."""

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
    The system's clock, with the threads, queues and events that wait by it.

    Everything that waits takes a clock. A test can pass its own, on which a day takes no time and events always come in
    the same order.
    """

    def monotonic(self) -> float:
        """Return seconds that only ever grow."""
        return time.monotonic()

    def now(self) -> datetime:
        """Return the time of day, in UTC."""
        return datetime.now(timezone.utc)

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    async def pause(self, seconds: float) -> None:
        """Wait, while the event loop goes on."""
        await asyncio.sleep(seconds)

    def start(self, work: Callable[[], object], name: str) -> None:
        """
        Run ``work`` in a thread of its own.

        It is a daemon: a process that ends does not wait for a Wassly that does not answer.
        """
        threading.Thread(target=work, name=name, daemon=True).start()

    def event(self) -> threading.Event:
        """Return an event, not set."""
        return threading.Event()

    def queue(self) -> queue.SimpleQueue[Any]:
        """Return an empty queue."""
        return queue.SimpleQueue()


SYSTEM = Clock()
