"""
What really happened on the connection.

Whether a failed call can have been accepted is decided by how much of the body has left, not by
the name of an exception: the same ``ConnectionResetError`` means "no" in the middle of the body
and "unknown" after its end.

The body itself notes when its last part is asked for. So a library that changes how it sends can turn a "no" into
"unknown", but never an "unknown" into "no". docs/private-names.md lists what we rely on for the rest.
"""

from __future__ import annotations

import contextvars
import functools
import http.client
import io
import math
import re
import ssl
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, PoolManager
from urllib3.connection import HTTPConnection

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

T = TypeVar("T")

#: Of 64 KiB to 1 MiB the smallest at which an upload was measured as fast as curl's (tests/benchmarks/upload.py).
BLOCK_SIZE = 512 * 1024

#: A kept-alive connection that rested longer is not used again. Servers close idle connections after
#: 5 s and more; a request that meets that moment is lost without an answer, and so unknown.
MAX_IDLE = 2.0

#: What fits into one TLS record. A write of more can fail after some of its records left, and nobody says how many.
_TLS_RECORD = 16 * 1024

#: How many times the timeout a whole answer may take. The service may think for one of them; what it then says is a
#: few hundred bytes, which come at once or not at all. The second is for a service that says early that it is thinking.
_ANSWER_TIMEOUTS = 2

#: More than the beginning of an answer, with any number of interim ones that makes sense, has.
_MAX_AHEAD = 64 * 1024

_INTERIM_ANSWERS = re.compile(rb"(?:HTTP/[0-9.]+ +1[0-9]{2}\b[^\n]*\n(?:[^\r\n][^\n]*\n)*\r?\n)*")
_SUCCESS = re.compile(rb"HTTP/[0-9.]+ +2")
#: Not the beginning of a success or of an interim answer, as far as it is there.
_NO_SUCCESS = re.compile(rb"HTTP/[0-9.]+ +[^ 12]|(?!HTTP/|HTTP?\Z|HT?\Z|\Z)")
#: The beginning of an interim answer, or so little that it can become one.
_MAYBE_INTERIM = re.compile(rb"HTTP/[0-9.]+ +1(?:[0-9]{2}\b|[0-9]?\Z)|(?:H|HT|HTT|HTTP|HTTP/[0-9.]*|HTTP/[0-9.]+ +)?\Z")


class Wire(AbstractContextManager["Wire"]):
    """
    Watches the connection of the one call made inside its ``with`` block, in the same thread.

    :param timeout: seconds that the socket may take to accept the next bytes, or to have the next ones of the answer.
    :param harmless: of a send: how many bytes of the body may have left without it being a valid request.
    :param on_departure: called before the first byte beyond ``harmless`` leaves. If it raises, none of them does.
    :param fresh: use no kept connection.
    """

    _current: contextvars.ContextVar[Wire] = contextvars.ContextVar("wassly_wire")

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
        #: What ``on_departure`` raised: no failure of the connection, whatever the libraries in between make of it.
        self.held_back_by: Exception | None = None
        #: The connection on which the call is made, once there is one.
        self.connection: HTTPConnection | None = None
        #: Whether so much may have left that a parser could take it for a whole request. True from the moment when
        #: urllib3 is given the last part; false again only if the socket took none of it.
        self.request_whole = harmless is None
        #: Bytes that the socket took: of the headers, and then of the body alone.
        self.body_sent = 0
        #: Whether the connection is one that has served an earlier call.
        self.kept = False
        #: Whether the other side was seen to have ended the connection without an answer.
        self.ended = False
        #: What came of the answer before the request had left, and is still to be read as part of it.
        self.ahead = b""
        #: Seconds that the whole answer may take.
        self.answer_limit = _ANSWER_TIMEOUTS * timeout
        #: Whether it took longer.
        self.answer_overdue = False
        self._answer_due = math.inf
        #: Whether urllib3 has the last part and the socket took none of it yet.
        self._last_part_unsent = False

    def __enter__(self) -> Wire:
        self._token = self._current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._current.reset(self._token)

    @property
    def was_stale(self) -> bool:
        """
        Whether the call failed because the kept connection had ended, so that a fresh one may well do better.

        Not when it took more than a block: a service that ends an upload half-way means the upload.
        """
        return self.ended_while_kept and not self.request_whole and self.body_sent <= BLOCK_SIZE

    @property
    def ended_while_kept(self) -> bool:
        """Whether the service had said nothing about it and yet did not keep the connection for this call."""
        return self.kept and self.ended

    def depart(self) -> None:
        """Called before the last part is given to urllib3; see ``on_departure``. Raises if it is not to leave."""
        if self.request_whole:
            return
        # Twice: what is known before spares an announcement, and the announcement takes its time.
        self._refuse_if_pointless()
        if self._on_departure is not None:
            try:
                self._on_departure()
            except Exception as error:
                self.held_back_by = error
                raise
            self._refuse_if_pointless()
        self.request_whole = self._last_part_unsent = True

    def send(self, sock: Any, data: memoryview) -> int:
        """
        Write some of ``data``; return how many bytes.

        Before the last part it does not matter how much of a failed write left. From there on, each write is one TLS
        record, which the other side gets whole or cannot read.
        """
        # urllib3 would let the connect timeout, which is short, rule the upload too.
        sock.settimeout(self.timeout)
        try:
            sent: int = sock.send(data[:_TLS_RECORD] if self.request_whole else data)
        except OSError as error:
            self.note(error)
            if self._last_part_unsent:
                self.request_whole = False
            raise
        self._last_part_unsent = False
        self.body_sent += sent
        return sent

    def note(self, error: OSError) -> None:
        """Note that the connection failed."""
        if not isinstance(error, TimeoutError):
            self.ended = True

    def _refuse_if_pointless(self) -> None:
        """
        Look whether the other side has ended the connection, or has already said no.

        An early success is nothing that we know how to read; the request goes on, and what comes of it will be seen.

        :raises BrokenPipeError: if so. urllib3 then reads the answer, if there is one.
        """
        if (sock := getattr(self.connection, "sock", None)) is not None:
            self._look_ahead(sock)
        answer = _INTERIM_ANSWERS.sub(b"", self.ahead, count=1)
        if _NO_SUCCESS.match(answer) or (self.ended and not _SUCCESS.match(answer)):
            raise BrokenPipeError("the other side had ended the connection or answered")

    def _look_ahead(self, sock: Any) -> None:
        """Read what is there, without waiting. Only a true read tells what belongs to TLS alone, as its tickets do."""
        sock.settimeout(0)
        try:
            while not self.ended and len(self.ahead) < _MAX_AHEAD:
                data = sock.recv(_MAX_AHEAD)
                if data:
                    self.ahead += data
                else:
                    self.ended = True
        except (BlockingIOError, TimeoutError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass  # nothing more by now
        except OSError:
            self.ended = True
        finally:
            sock.settimeout(self.timeout)

    def await_answer(self, sock: Any) -> None:
        """
        Wait for the final answer to begin: from now on the time of the whole answer counts.

        http.client skips only a 100 and takes a 102 or 103 for the answer. The true one would then stay in the
        connection, as the answer to whatever is sent next.
        """
        self._answer_due = time.monotonic() + self.answer_limit
        while True:
            self.ahead = _INTERIM_ANSWERS.sub(b"", self.ahead, count=1)
            if not _MAYBE_INTERIM.match(self.ahead):
                return
            if len(self.ahead) > _MAX_AHEAD:
                raise http.client.HTTPException("an interim answer without end")
            data = self._in_time(sock, lambda: sock.recv(_MAX_AHEAD))
            if not data:
                return
            self.ahead += data

    def read_answer(self, sock: Any, raw: io.RawIOBase, buffer: WriteableBuffer) -> int | None:
        """
        Read some of the answer.

        :raises TimeoutError: when nothing came in time, or the answer as a whole is overdue.
        """
        if self.ahead:
            view = memoryview(buffer).cast("B")
            data, self.ahead = self.ahead[: len(view)], self.ahead[len(view) :]
            view[: len(data)] = data
            return len(data)
        return self._in_time(sock, lambda: raw.readinto(buffer))

    def _in_time(self, sock: Any, read: Callable[[], T]) -> T:
        left = self._answer_due - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            sock.settimeout(min(self.timeout, left))
            return read()
        except TimeoutError:
            self.answer_overdue = time.monotonic() >= self._answer_due
            raise

    @classmethod
    def current(cls) -> Wire:
        """Return the watch of the call under way in this thread."""
        return cls._current.get()


class WatchedBody:
    """
    The body of a send. urllib3 reads it in blocks and sends each before it asks for the next.

    One block ends where the last part begins. When urllib3 asks for that part, the message departs.

    :param stream: the whole body, with its length as ``len``.
    """

    def __init__(self, wire: Wire, stream: Any) -> None:
        self._wire = wire
        self._stream = stream
        self._left = wire.harmless or 0
        #: As requests asks for it.
        self.len: int = stream.len

    def read(self, size: int = -1) -> bytes:
        """Return the next ``size`` bytes, or fewer where the last part begins."""
        if self._left == self._wire.harmless:
            self._wire.body_sent = 0
        if size >= 0 and self._left > 0:
            size = min(size, self._left)
        data: bytes = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            # After the reading, so that nothing takes time between the last look at the connection and the write.
            self._wire.depart()
        return data


class _Answer(io.RawIOBase):
    """The answer as it comes from a socket, watched."""

    def __init__(self, wire: Wire, sock: Any) -> None:
        super().__init__()
        self._wire = wire
        self._sock = sock
        self._raw: io.RawIOBase = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        return self._wire.read_answer(self._sock, self._raw, buffer)

    def close(self) -> None:
        # The socket counts who reads it, and is closed when nobody does.
        self._raw.close()
        super().close()


class _WatchedSocket:
    """A connected socket, or what urllib3 uses in its place, that writes and reads as :class:`Wire` says."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[Wire.current().send(self._sock, view) :]

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Answer(Wire.current(), self._sock))


class _Watched(HTTPConnection):
    """
    Mixed into every connection class that urllib3 uses, for a proxy's too.

    Watches its socket, and knows when it may be used again.
    """

    _reusable = False
    _kept = False
    _last_used = 0.0

    @property
    def is_connected(self) -> bool:
        if Wire.current().fresh:
            return False
        # A request that did not leave whole may have been answered early: what follows is no answer to the next one.
        rested = time.monotonic() - self._last_used
        return self._reusable and rested < MAX_IDLE and super().is_connected

    def connect(self) -> None:
        self._kept = Wire.current().kept = False
        super().connect()
        self.sock: Any = _WatchedSocket(self.sock)

    def request(self, *args: Any, **kwargs: Any) -> None:
        self._reusable = False
        wire = Wire.current()
        wire.connection = self
        wire.kept = self._kept
        super().request(*args, **kwargs)
        self._reusable = True

    def getresponse(self) -> Any:
        wire = Wire.current()
        try:
            wire.await_answer(self.sock)
            response = super().getresponse()
        except OSError as error:
            wire.note(error)
            raise
        if response.status < 200:
            self._reusable = False  # the true answer is still to come
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
