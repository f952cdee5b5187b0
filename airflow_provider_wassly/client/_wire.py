"""
What really happened on the connection.

Whether a failed call can have been accepted is decided by the bytes that the socket took, not by
the name of an exception: the same ``ConnectionResetError`` means "no" in the middle of the body
and "unknown" after its end.
"""

from __future__ import annotations

import contextvars
import functools
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, PoolManager
from urllib3.connection import HTTPConnection

#: Of 64 KiB to 1 MiB the smallest at which an upload was measured as fast as curl's (tests/benchmarks/upload.py).
BLOCK_SIZE = 512 * 1024

#: A kept-alive connection that rested longer is not used again. Servers close idle connections after
#: 5 s and more; a request that meets that moment is lost without an answer, and so unknown.
MAX_IDLE = 2.0


class Wire(AbstractContextManager["Wire"]):
    """
    Watches the connection of the one call made inside its ``with`` block, in the same thread.

    :param write_timeout: seconds that the socket may take to accept the next bytes.
    """

    _current: contextvars.ContextVar[Wire | None] = contextvars.ContextVar("wassly_wire", default=None)

    def __init__(self, write_timeout: float) -> None:
        self.write_timeout = write_timeout
        #: Bytes of the body that may have left: exact, but an upper bound when a signal interrupted.
        self.body_sent = 0

    def __enter__(self) -> Wire:
        self._token = self._current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._current.reset(self._token)

    @classmethod
    def current(cls) -> Wire | None:
        """Return the watch of the call under way in this thread."""
        return cls._current.get()


class _Watched(HTTPConnection):
    """
    Mixed into every connection class that urllib3 uses, for a proxy's too.

    Counts the body's bytes as the kernel (or the TLS layer) takes them, and knows when the
    connection may be used again.
    """

    _in_body = False
    _reusable = False
    _last_used = 0.0

    @property
    def is_connected(self) -> bool:
        # A request that did not leave whole may have been answered early: what follows is no answer to the next one.
        rested = time.monotonic() - self._last_used
        return self._reusable and rested < MAX_IDLE and super().is_connected

    def request(self, *args: Any, **kwargs: Any) -> None:
        self._reusable = self._in_body = False
        super().request(*args, **kwargs)
        self._reusable = True

    def endheaders(self, *args: Any, **kwargs: Any) -> None:
        super().endheaders(*args, **kwargs)
        self._in_body = True
        if (wire := Wire.current()) is not None:
            # urllib3 would let the connect timeout, which is short, rule the upload too.
            self.sock.settimeout(wire.write_timeout)

    def send(self, data: Any) -> None:
        wire = Wire.current()
        if wire is None or not self._in_body:
            super().send(data)
            return
        view = memoryview(data)
        while view:
            before = wire.body_sent
            # Counted first: a signal handler may raise after the kernel took the bytes and before we know.
            wire.body_sent = before + len(view)
            try:
                sent = self.sock.send(view)
            except OSError:
                wire.body_sent = before
                raise
            wire.body_sent = before + sent
            view = view[sent:]

    def getresponse(self) -> Any:
        self._in_body = False
        response = super().getresponse()
        self._last_used = time.monotonic()
        return response


@functools.cache
def _watched_pool(pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
    connection = type(f"Watched{pool.ConnectionCls.__name__}", (_Watched, pool.ConnectionCls), {})
    return type(f"Watched{pool.__name__}", (pool,), {"ConnectionCls": connection})


def _watch(manager: PoolManager) -> None:
    manager.pool_classes_by_scheme = {
        scheme: _watched_pool(pool) for scheme, pool in manager.pool_classes_by_scheme.items()
    }


class WatchedAdapter(HTTPAdapter):
    """
    A requests adapter whose connections report to :class:`Wire`; it repeats nothing by itself.

    :param pool_maxsize: connections kept open, one for each thread that sends at the same time.
    """

    def __init__(self, pool_maxsize: int) -> None:
        super().__init__(pool_connections=1, pool_maxsize=pool_maxsize, max_retries=0)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: Any) -> None:
        """Create the pools, with our connections and block size."""
        super().init_poolmanager(connections, maxsize, block, blocksize=BLOCK_SIZE, **pool_kwargs)
        _watch(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        """Return the pools for a proxy, with our connections and block size."""
        known = proxy in self.proxy_manager
        manager = super().proxy_manager_for(proxy, blocksize=BLOCK_SIZE, **proxy_kwargs)
        if not known:
            _watch(manager)
        return manager
