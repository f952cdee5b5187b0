"""How much memory something takes."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import sys
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds that a measurement may take.
_PATIENCE = 120


def in_own_process(measure: Callable[[], T]) -> T:
    """
    Return what a function returns when it is called in a fork of this process.

    Threads that earlier tests left, and those of the test runner, are not in the fork. What they allocate would count.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def work() -> None:
        sys.settrace(None)  # measuring coverage needs memory too
        sender.send(measure())

    process: Any = context.Process(target=work)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the other threads hold no lock that the fork needs
        process.start()
    sender.close()
    try:
        assert receiver.poll(_PATIENCE), "the measurement takes too long"
        result: T = receiver.recv()
        return result
    except EOFError:
        raise AssertionError("the measurement failed; its output says why") from None
    finally:
        receiver.close()
        process.kill()
        process.join()


@contextlib.contextmanager
def traced() -> Iterator[None]:
    """
    Trace what is allocated, for :func:`tracemalloc.get_traced_memory`.

    Garbage is collected as often as in a process that has just started: the other tests let it lie longer, and the
    more objects there are, the longer it lies.
    """
    threshold = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    gc.collect()
    gc.freeze()
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()
        gc.unfreeze()
        gc.set_threshold(*threshold)
