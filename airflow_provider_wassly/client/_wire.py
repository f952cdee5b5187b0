"""
What really happened on the connection.

Whether a failed call can have been accepted is decided by the bytes that the socket took, not by
the name of an exception: the same ``ConnectionResetError`` means "no" in the middle of the body
and "unknown" after its end.
"""

from __future__ import annotations

import contextvars
import functools
import http.client
import time
from collections.abc import Callable
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

#: What fits into one TLS record. A write of more can fail after some of its records left, and nobody says how many.
_TLS_RECORD = 16 * 1024


class Wire(AbstractContextManager["Wire"]):
    """
    Watches the connection of the one call made inside its ``with`` block, in the same thread.

    :param write_timeout: seconds that the socket may take to accept the next bytes.
    :param harmless: of a send: how many bytes of the body may have left without it being a valid request.
    :param on_departure: called before the first byte beyond ``harmless`` leaves. If it raises, none of them does.
    """

    _current: contextvars.ContextVar[Wire | None] = contextvars.ContextVar("wassly_wire", default=None)

    def __init__(
        self, write_timeout: float, harmless: int | None = None, on_departure: Callable[[], None] | None = None
    ) -> None:
        self.write_timeout = write_timeout
        self.harmless = harmless
        self._on_departure = on_departure
        #: What ``on_departure`` raised: no failure of the connection, whatever the libraries in between make of it.
        self.held_back_by: Exception | None = None
        #: Whether there was a connection on which to begin.
        self.began = False
        #: Bytes of the body that may have left. Never too few; too many only when a signal interrupted.
        self.body_sent = 0

    def __enter__(self) -> Wire:
        self._token = self._current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._current.reset(self._token)

    @property
    def request_whole(self) -> bool:
        """Whether so much may have left that a parser could take it for a whole request."""
        return self.harmless is None or self.body_sent > self.harmless

    def next_piece(self, data: memoryview) -> memoryview:
        """
        Return the part of ``data`` to be written at once.

        Up to ``harmless`` it does not matter how much of a failed write left. Beyond, a piece is one
        TLS record, which the other side gets whole or cannot read.
        """
        room = (self.harmless or 0) - self.body_sent
        return data[: room if room > 0 else _TLS_RECORD]

    def may_leave(self) -> None:
        """Called before each piece is written; see ``on_departure``."""
        if self._on_departure is not None and self.harmless is not None and self.body_sent >= self.harmless:
            on_departure, self._on_departure = self._on_departure, None
            try:
                on_departure()
            except Exception as error:
                self.held_back_by = error
                raise

    @classmethod
    def current(cls) -> Wire | None:
        """Return the watch of the call under way in this thread."""
        return cls._current.get()


class _FinalResponse(http.client.HTTPResponse):
    """
    Passes over every interim answer.

    http.client does so with 100 only and takes a 102 or 103 for the answer. The true one would then stay in the
    connection, as the answer to whatever is sent next.
    """

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        return version, http.client.CONTINUE if 100 <= status < 200 else status, reason


class _Watched(HTTPConnection):
    """
    Mixed into every connection class that urllib3 uses, for a proxy's too.

    Counts the body's bytes as the kernel (or the TLS layer) takes them, and knows when the
    connection may be used again.
    """

    response_class = _FinalResponse
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
        if (wire := Wire.current()) is not None:
            wire.began = True
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
            wire.may_leave()
            before = wire.body_sent
            piece = wire.next_piece(view)
            # Counted first: a signal handler may raise after the kernel took the bytes and before we know.
            wire.body_sent = before + len(piece)
            try:
                sent = self.sock.send(piece)
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
