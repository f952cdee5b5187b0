"""How much memory something takes."""

from __future__ import annotations

import contextlib
import gc
import tracemalloc
from collections.abc import Iterator


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
