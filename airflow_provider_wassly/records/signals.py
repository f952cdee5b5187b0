"""What no signal may interrupt."""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

#: All that have names. The others, real-time signals, nothing in Airflow uses, and looking at them takes as long again.
_SIGNALS = tuple(number for number in signal.valid_signals() if isinstance(number, signal.Signals))


def in_one_piece(access: Callable[[], T]) -> T:
    """
    Read or write to the end, whatever signals come; their handlers run after that.

    A handler (``execution_timeout``, SIGTERM on Airflow 2) raises wherever the main thread happens to be. In the middle
    of an access, the record, or the task's channel to Airflow, would be left in a state that nobody knows.

    :raises BaseException: what ``access`` raises, or rather what a handler did.
    """
    if threading.current_thread() is not threading.main_thread():
        return access()  # Python runs handlers in the main thread only
    gate = _Gate()
    try:
        try:
            gate.close()
        except BaseException:
            # From a handler that was not parked yet. What was to be read or written still is.
            with suppress(Exception):
                in_one_piece(access)
            raise
        return access()
    finally:
        gate.open()


class _Gate:
    """
    Stands in for the handlers of all signals: first it keeps what comes, later it passes it on.

    Until :meth:`open` has put a handler back, this goes on standing in for it. So it does no harm if a handler that is
    back already interrupts that by an exception; the next gate takes the place of this one then.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._parked: deque[tuple[int, FrameType | None]] = deque()
        self._is_open = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self._parked.append((signum, frame))
        if self._is_open:
            self._pass_on()

    def close(self) -> None:
        """Begin to stand in. What the system does by itself where there is no handler stays as it is."""
        for signum in _SIGNALS:
            handler = signal.getsignal(signum)
            while isinstance(handler, _Gate) and handler._is_open:
                handler = handler._handlers[signum]
            if callable(handler):
                self._handlers[signum] = handler
                signal.signal(signum, self)

    def open(self) -> None:
        """Run the handlers of what has come, and put them all back."""
        try:
            self._pass_on()
        finally:
            for signum, handler in self._handlers.items():
                if signal.getsignal(signum) is self:
                    signal.signal(signum, handler)

    def _pass_on(self) -> None:
        raised: BaseException | None = None
        while True:
            # While it is closed nothing can raise here, so that none is lost. One that comes between the last look and
            # the opening is seen by the look after it; one that comes later runs this method in between.
            self._is_open = False
            while self._parked:
                signum, frame = self._parked.popleft()
                try:
                    self._handlers[signum](signum, frame)
                except BaseException as error:
                    raised = error if raised is None else raised
            self._is_open = True
            if not self._parked:
                break
        if raised is not None:
            raise raised
