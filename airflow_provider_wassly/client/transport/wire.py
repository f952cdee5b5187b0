"""
Watch what happens on the connection.

Whether Wassly can have accepted a failed call depends on how many bytes the socket took, not on the exception: the same
``ConnectionResetError`` means "no" in the middle of the body and "unknown" after its end.
"""

from __future__ import annotations

import contextvars
import functools
import http.client
import io
import re
import ssl
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, PoolManager
from urllib3.connection import HTTPConnection

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: The smallest of 64 KiB to 1 MiB at which an upload is as fast as curl's (measured by tests/benchmarks/upload.py).
BLOCK_SIZE = 512 * 1024

#: A kept-alive connection that was idle for more seconds is not used again. Servers close idle connections after 5 s or
#: more; a request that meets that moment is lost without an answer, so its outcome is unknown.
MAX_IDLE = 2.0

#: The size of one TLS record. A longer write can fail after some of its records were sent, and nobody says how many.
_TLS_RECORD = 16 * 1024

#: How many read timeouts a whole answer may take. The service may think for one; its answer is a few hundred bytes,
#: which arrive at once or not at all. The second is for a service that sends interim answers first.
_ANSWER_TIMEOUTS = 2

#: More bytes than the beginning of an answer has, with any sensible number of interim ones.
_MAX_AHEAD = 64 * 1024

_INTERIM_ANSWERS = re.compile(rb"(?:HTTP/[0-9.]+ +1[0-9]{2}\b[^\n]*\n(?:[^\r\n][^\n]*\n)*\r?\n)*")
_SUCCESS = re.compile(rb"HTTP/[0-9.]+ +2")
#: Matches what cannot be the beginning of a success or of an interim answer.
_NO_SUCCESS = re.compile(rb"HTTP/[0-9.]+ +[^ 12]|(?!HTTP/|HTTP?\Z|HT?\Z|\Z)")


class Wire(AbstractContextManager["Wire"]):
    """
    Watches the connection of the one call made inside its ``with`` block, in the same thread.

    :param timeout: seconds to wait until the socket accepts the next bytes, or receives the next bytes of the answer.
    :param harmless: for a message: how many bytes of the body can be sent without forming a valid request.
    :param on_departure: called before the first byte beyond ``harmless`` is sent. If it raises, none of them is.
    :param fresh: whether to open a new connection even if a kept one is available.
    """

    _current: contextvars.ContextVar[Wire | None] = contextvars.ContextVar("wassly_wire", default=None)

    def __init__(
        self,
        timeout: float,
        harmless: int | None = None,
        on_departure: Callable[[], None] | None = None,
        fresh: bool = False,
    ) -> None:
        self.timeout = timeout
        self.harmless = harmless
        self.fresh = fresh
        self._on_departure = on_departure
        #: What ``on_departure`` raised. It is no failure of the connection, whatever the libraries in between call it.
        self.held_back_by: Exception | None = None
        #: Whether a connection was made, TLS included, or a kept one was used.
        self.connected = False
        #: Bytes of the body that may have been sent. Never too few; too many only after an interruption by a signal.
        self.body_sent = 0
        #: Whether the connection has served an earlier call.
        self.kept = False
        #: Whether the other side has closed the connection without an answer.
        self.ended = False
        #: The part of the answer that arrived before the request was complete, and still has to be read.
        self.ahead = b""
        #: Seconds that the whole answer may take.
        self.answer_limit = _ANSWER_TIMEOUTS * timeout
        #: Whether the answer took longer.
        self.answer_overdue = False
        self._answer_due: float | None = None
        self._at_the_edge = False

    def __enter__(self) -> Wire:
        self._token = self._current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._current.reset(self._token)

    @property
    def request_whole(self) -> bool:
        """Whether enough may have been sent for a parser to take the request as complete."""
        return self.harmless is None or self.body_sent > self.harmless

    @property
    def was_stale(self) -> bool:
        """
        Whether the call failed because the kept connection had been closed, so that a new one should work.

        Not after more than one block: a service that closes the connection during an upload refuses the upload.
        """
        return self.ended_while_kept and not self.request_whole and self.body_sent <= BLOCK_SIZE

    @property
    def ended_while_kept(self) -> bool:
        """Whether the service had closed the kept connection without announcing it."""
        return self.kept and self.ended

    def next_piece(self, data: memoryview) -> memoryview:
        """
        Return the part of ``data`` to write at once.

        Up to ``harmless`` it does not matter how much of a failed write was sent. Beyond it, a piece is one TLS record,
        which the other side gets completely or cannot read.
        """
        room = (self.harmless or 0) - self.body_sent
        return data[: room if room > 0 else _TLS_RECORD]

    def may_leave(self, sock: Any) -> None:
        """
        Called before each piece is written.

        :raises Exception: what ``on_departure`` raised, or ``BrokenPipeError``, if nothing more may be sent.
        """
        if self._at_the_edge or self.harmless is None or self.body_sent < self.harmless:
            return
        self._at_the_edge = True
        # Before, because a refusal saves the announcement; and again afterwards, because the announcement takes time.
        self._refuse_if_pointless(sock)
        if self._on_departure is not None:
            try:
                self._on_departure()
            except Exception as error:
                self.held_back_by = error
                raise
            self._refuse_if_pointless(sock)

    def _refuse_if_pointless(self, sock: Any) -> None:
        """
        Check whether the other side has closed the connection or already refused.

        An early success does not count: the request continues, and the complete answer decides.

        :raises BrokenPipeError: if so. urllib3 then reads the answer, if there is one.
        """
        self._look_ahead(sock)
        answer = _INTERIM_ANSWERS.sub(b"", self.ahead, count=1)
        if _NO_SUCCESS.match(answer) or (self.ended and not _SUCCESS.match(answer)):
            raise BrokenPipeError("the other side closed the connection or answered early")

    def _look_ahead(self, sock: Any) -> None:
        """Read what has arrived, without waiting. Only reading tells an answer from TLS's own data, such as tickets."""
        sock.settimeout(0)
        try:
            while not self.ended and len(self.ahead) < _MAX_AHEAD:
                data = sock.recv(_MAX_AHEAD)
                if data:
                    self.ahead += data
                else:
                    self.ended = True
        except (BlockingIOError, TimeoutError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass  # nothing more has arrived
        except OSError:
            self.ended = True
        finally:
            sock.settimeout(self.timeout)

    def expect_answer(self) -> None:
        """Start measuring the time of the whole answer."""
        self._answer_due = time.monotonic() + self.answer_limit

    def read_answer(self, sock: Any, raw: io.RawIOBase, buffer: WriteableBuffer) -> int | None:
        """
        Read the next part of the answer.

        :param sock: the connection's socket.
        :param raw: reads from it.
        :param buffer: is filled.
        :return: how many bytes were read, 0 at the end.
        :raises TimeoutError: when nothing arrived in time, or the whole answer is overdue.
        """
        if self._answer_due is None:  # a proxy's answer, before the connection is made
            return raw.readinto(buffer)
        if self.ahead:
            view = memoryview(buffer).cast("B")
            data, self.ahead = self.ahead[: len(view)], self.ahead[len(view) :]
            view[: len(data)] = data
            return len(data)
        left = self._answer_due - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            sock.settimeout(min(self.timeout, left))
            return raw.readinto(buffer)
        except TimeoutError:
            self.answer_overdue = time.monotonic() >= self._answer_due
            raise

    @classmethod
    def current(cls) -> Wire | None:
        """Return the watch on this thread's current call, ``None`` if there is none."""
        return cls._current.get()


class _Answer(io.RawIOBase):
    """Reads an answer through :class:`Wire`."""

    def __init__(self, wire: Wire, sock: Any, raw: io.RawIOBase) -> None:
        super().__init__()
        self._wire = wire
        self._sock = sock
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        return self._wire.read_answer(self._sock, self._raw, buffer)

    def close(self) -> None:
        # The socket counts its readers and closes after the last one.
        self._raw.close()
        super().close()


class _FinalResponse(http.client.HTTPResponse):
    """
    Reads through :class:`Wire` and skips every interim answer.

    http.client skips only 100 and takes a 102 or 103 for the answer. The real one would then stay in the connection and
    be read as the answer to the next request.
    """

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        if (wire := Wire.current()) is not None:
            raw = self.fp.detach()
            self.fp = io.BufferedReader(_Answer(wire, sock, raw))

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        return version, http.client.CONTINUE if 100 <= status < 200 else status, reason


class _Watched(HTTPConnection):
    """
    Mixed into every connection class that urllib3 uses, including those to a proxy.

    Counts the body's bytes as the kernel (or the TLS layer) takes them, and knows whether the connection may be reused.
    """

    response_class = _FinalResponse
    _in_body = False
    _reusable = False
    _kept = False
    _last_used = 0.0

    @property
    def is_connected(self) -> bool:
        if (wire := Wire.current()) is not None and wire.fresh:
            return False
        # An incomplete request may have been answered early; what follows is not the answer to the next one.
        rested = time.monotonic() - self._last_used
        return self._reusable and rested < MAX_IDLE and super().is_connected

    def connect(self) -> None:
        self._kept = False
        super().connect()
        if (wire := Wire.current()) is not None:
            wire.connected = True

    def request(self, *args: Any, **kwargs: Any) -> None:
        self._reusable = self._in_body = False
        if (wire := Wire.current()) is not None:
            wire.connected = not self.is_closed
            wire.kept = self._kept and wire.connected
        super().request(*args, **kwargs)
        self._reusable = True

    def endheaders(self, *args: Any, **kwargs: Any) -> None:
        super().endheaders(*args, **kwargs)
        self._in_body = True
        if (wire := Wire.current()) is not None:
            # urllib3 would apply the connect timeout, which is short, to the upload too.
            self.sock.settimeout(wire.timeout)

    def send(self, data: Any) -> None:
        wire = Wire.current()
        if wire is None or not self._in_body:
            try:
                super().send(data)
            except OSError as error:
                self._note(error)
                raise
            return
        view = memoryview(data)
        while view:
            wire.may_leave(self.sock)
            before = wire.body_sent
            piece = wire.next_piece(view)
            # Count first: a signal handler may raise after the kernel has taken the bytes and before we know.
            wire.body_sent = before + len(piece)
            try:
                sent = self.sock.send(piece)
            except OSError as error:
                wire.body_sent = before
                self._note(error)
                raise
            wire.body_sent = before + sent
            view = view[sent:]

    @staticmethod
    def _note(error: OSError) -> None:
        if (wire := Wire.current()) is not None and not isinstance(error, TimeoutError):
            wire.ended = True

    def getresponse(self) -> Any:
        self._in_body = False
        if (wire := Wire.current()) is not None:
            wire.expect_answer()
        try:
            response = super().getresponse()
        except OSError as error:
            self._note(error)
            raise
        self._last_used = time.monotonic()
        self._kept = True
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
    A requests adapter whose connections report to :class:`Wire`. It never repeats a request.

    :param pool_maxsize: how many connections to keep open: one for each thread that sends at the same time.
    """

    def __init__(self, pool_maxsize: int) -> None:
        super().__init__(pool_connections=1, pool_maxsize=pool_maxsize, max_retries=0)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: Any) -> None:
        """Create the pools with our connections and block size."""
        super().init_poolmanager(connections, maxsize, block, blocksize=BLOCK_SIZE, **pool_kwargs)
        _watch(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        """Return the pools for a proxy with our connections and block size."""
        known = proxy in self.proxy_manager
        manager = super().proxy_manager_for(proxy, blocksize=BLOCK_SIZE, **proxy_kwargs)
        if not known:
            _watch(manager)
        return manager
