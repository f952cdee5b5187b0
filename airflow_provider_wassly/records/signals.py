"""Accesses that no signal may interrupt."""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

#: All signals with a name. Airflow uses no real-time signals, and checking them would take as long again.
_SIGNALS = tuple(number for number in signal.valid_signals() if isinstance(number, signal.Signals))


def in_one_piece(access: Callable[[], T]) -> T:
    """
    Finish a read or write whatever signals arrive; their handlers run afterwards.

    A handler (``execution_timeout``, SIGTERM on Airflow 2) raises wherever the main thread happens to be. In the middle
    of an access, it would leave the record, or the task's channel to Airflow, in an unknown state.

    :raises BaseException: the exception of a handler, otherwise that of ``access``.
    """
    if threading.current_thread() is not threading.main_thread():
        return access()  # Python runs handlers in the main thread only
    gate = _Gate()
    try:
        try:
            gate.close()
        except BaseException:
            # A handler that was not deferred yet raised. The access is made all the same.
            with suppress(Exception):
                in_one_piece(access)
            raise
        return access()
    finally:
        gate.open()


class _Gate:
    """
    Replaces the handlers of all signals: while it is closed it keeps the signals, then it passes them on.

    It replaces each handler until :meth:`open` has restored it. So it does no harm if a restored handler interrupts
    that with an exception; the next gate then replaces this one.
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
        """Replace the handlers. Signals without a handler keep the default action of the system."""
        for signum in _SIGNALS:
            handler = signal.getsignal(signum)
            while isinstance(handler, _Gate) and handler._is_open:
                handler = handler._handlers[signum]
            if callable(handler):
                self._handlers[signum] = handler
                signal.signal(signum, self)

    def open(self) -> None:
        """Run the handlers of the signals that arrived, and restore them all."""
        try:
            self._pass_on()
        finally:
            for signum, handler in self._handlers.items():
                if signal.getsignal(signum) is self:
                    signal.signal(signum, handler)

    def _pass_on(self) -> None:
        raised: BaseException | None = None
        while True:
            # While the gate is closed, no handler can raise here, so no signal is lost. The check after the opening
            # finds a signal that arrived just before it; a later signal calls this method.
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
