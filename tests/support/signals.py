"""Signals, as Airflow sends them to the process of a task."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.task import Stopped


@contextmanager
def signalled(when: Callable[[], bool], then: Callable[[], None]) -> Iterator[None]:
    """Call ``then`` in the main thread, as Airflow's signals do, once ``when`` returns true."""
    over, lost = threading.Event(), threading.Event()
    report = sys.unraisablehook

    def wait() -> None:
        due = when
        while not over.is_set():
            if due():
                lost.clear()
                due = lost.is_set
                os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.001)

    def handle(signum: int, frame: Any) -> None:
        if not over.is_set():
            then()

    def find(unraisable: Any) -> None:
        # Python drops an exception raised during a weak reference's callback, so the signal is sent again.
        if isinstance(unraisable.exc_value, Stopped):
            lost.set()
        else:
            report(unraisable)

    before = signal.signal(signal.SIGUSR1, handle)
    sys.unraisablehook = find
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    try:
        try:
            yield
        finally:
            over.set()  # a signal right before this line may raise here
    finally:
        over.set()
        thread.join()
        sys.unraisablehook = report
        signal.signal(signal.SIGUSR1, before)
