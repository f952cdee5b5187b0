"""
Watch what happens on the connection.

Whether Wassly can have accepted a failed call depends on how much of the body was sent, not on the exception: the same
``ConnectionResetError`` means "no" in the middle of the body and "unknown" after its end.

The body itself notes when its last part is asked for. So a library that changes how it sends can turn a "no" into
"unknown", but never an "unknown" into a "no". docs/private-names.md lists what the rest relies on.
"""

from __future__ import annotations

import contextvars
import functools
import http.client
import io
import math
import re
import ssl
import threading
import time
import traceback
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
#: The beginning of an interim answer, or so little that it can become one.
_MAYBE_INTERIM = re.compile(rb"HTTP/[0-9.]+ +1(?:[0-9]{2}\b|[0-9]?\Z)|(?:H|HT|HTT|HTTP|HTTP/[0-9.]*|HTTP/[0-9.]+ +)?\Z")


class Wire(AbstractContextManager["Wire"]):
    """
    Watches the connection of the one call made inside its ``with`` block, in the same thread.

    :param timeout: seconds to wait until the socket accepts the next bytes, or receives the next bytes of the answer.
    :param harmless: for a message: how many bytes of the body can be sent without forming a valid request.
    :param on_departure: called before the first byte beyond ``harmless`` is sent. If it raises, none of them is.
    :param fresh: whether to open a new connection even if a kept one is available.
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
        #: What ``on_departure`` raised. It is no failure of the connection, whatever the libraries in between call it.
        self.held_back_by: Exception | None = None
        #: Whether a connection was made, TLS included, or a kept one was used.
        self.connected = False
        #: The connection that the call uses, once there is one.
        self.connection: HTTPConnection | None = None
        #: Whether enough may have been sent for a parser to take the request as complete. True as soon as urllib3 has
        #: the last part; false again only if the socket took none of it.
        self.request_whole = harmless is None
        #: How many bytes the socket took: of the headers first, then of the body alone.
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
        self._answer_due = math.inf
        #: Whether urllib3 has the last part and the socket has taken none of it yet.
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
        Whether the call failed because the kept connection had been closed, so that a new one should work.

        Not after more than one block: a service that closes the connection during an upload refuses the upload.
        """
        return self.ended_while_kept and not self.request_whole and self.body_sent <= BLOCK_SIZE

    @property
    def ended_while_kept(self) -> bool:
        """Whether the service had closed the kept connection without announcing it."""
        return self.kept and self.ended

    def depart(self) -> None:
        """
        Called before urllib3 gets the last part.

        :raises Exception: what ``on_departure`` raised, or ``BrokenPipeError``, if that part may not be sent.
        """
        if self.request_whole:
            return
        # Before, because a refusal saves the announcement; and again afterwards, because the announcement takes time.
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

        Before the last part it does not matter how much of a failed write was sent. From there on, each write is one
        TLS record, which the other side gets completely or cannot read.
        """
        try:
            # urllib3 would apply the connect timeout, which is short, to the upload too.
            sock.settimeout(self.timeout)
            sent: int = sock.send(data[:_TLS_RECORD] if self.request_whole else data)
        except OSError as error:
            self.note(error)
            if self._last_part_unsent and not _signal_may_have_raised(error, sock):
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
        Check whether the other side has closed the connection or already refused.

        An early success does not count: the request continues, and the complete answer decides.

        :raises BrokenPipeError: if so. urllib3 then reads the answer, if there is one.
        """
        if (sock := getattr(self.connection, "sock", None)) is not None:
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

    def await_answer(self, sock: Any) -> None:
        """
        Wait for the final answer to begin, and start measuring the time of the whole answer.

        http.client skips only 100 and takes a 102 or 103 for the answer. The real one would then stay in the connection
        and be read as the answer to the next request.
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
        Read the next part of the answer.

        :param sock: the connection's socket.
        :param raw: reads from it.
        :param buffer: is filled.
        :return: how many bytes were read, 0 at the end.
        :raises TimeoutError: when nothing arrived in time, or the whole answer is overdue.
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
        """Return the watch on this thread's current call."""
        return cls._current.get()


def _signal_may_have_raised(error: OSError, sock: Any) -> bool:
    """
    Whether a signal handler, and not the socket, may have raised ``error``.

    A handler can run when the socket has just taken everything, and many raise a ``TimeoutError`` to limit the time of
    their own code. Python runs handlers in the main thread only.

    :param error: what the write raised.
    :param sock: what was written to.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    # TLS inside TLS writes to a socket of ssl.
    packages = {"ssl", *(kind.__module__.partition(".")[0] for kind in type(sock).__mro__)}
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(frame.f_globals.get("__name__", "").partition(".")[0] not in packages for frame in frames[1:])


class WatchedBody:
    """
    The body of a message. urllib3 reads it in blocks, and sends each before it asks for the next.

    One block ends where the last part begins. When urllib3 asks for that part, the message departs.

    :param stream: the whole body, with its length as ``len``.
    """

    def __init__(self, wire: Wire, stream: Any) -> None:
        self._wire = wire
        self._stream = stream
        self._left = wire.harmless or 0
        #: The length in bytes, under the name that requests looks for.
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
            # After reading, so that no time passes between the last check of the connection and the write.
            self._wire.depart()
        return data


class _Answer(io.RawIOBase):
    """Reads an answer through :class:`Wire`."""

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
        # The socket counts its readers and closes after the last one.
        self._raw.close()
        super().close()


class _WatchedSocket:
    """A connected socket, or urllib3's stand-in for one, that writes and reads through :class:`Wire`."""

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
    Mixed into every connection class that urllib3 uses, including those to a proxy.

    Watches its socket, and knows whether the connection may be reused.
    """

    _reusable = False
    _kept = False
    _last_used = 0.0

    @property
    def is_connected(self) -> bool:
        if Wire.current().fresh:
            return False
        # An incomplete request may have been answered early; what follows is not the answer to the next one.
        rested = time.monotonic() - self._last_used
        return self._reusable and rested < MAX_IDLE and super().is_connected

    def connect(self) -> None:
        self._kept = Wire.current().kept = False
        super().connect()
        self.sock: Any = _WatchedSocket(self.sock)
        Wire.current().connected = True

    def request(self, *args: Any, **kwargs: Any) -> None:
        self._reusable = False
        wire = Wire.current()
        wire.connection = self
        wire.connected = not self.is_closed
        wire.kept = self._kept and wire.connected
        super().request(*args, **kwargs)
        self._reusable = True

    def getresponse(self) -> Any:
        wire = Wire.current()
        if wire.held_back_by is not None:
            # urllib3 ignores a few errors, such as ConnectionResetError, and asks for an answer.
            raise wire.held_back_by
        try:
            wire.await_answer(self.sock)
            response = super().getresponse()
        except OSError as error:
            wire.note(error)
            raise
        if response.status < http.client.OK:
            # An interim answer whose status line only http.client can read: the final one is still to come.
            self._reusable = False
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
