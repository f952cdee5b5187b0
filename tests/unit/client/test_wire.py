"""How a body leaves and an answer begins, without a connection."""

from __future__ import annotations

import errno
import http.client
import io
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_wassly.client.transport.wire import WatchedBody, Wire

BODY = b"a file and a text" + b"LAST"
HARMLESS = len(BODY) - 4


class Socket:
    """The other side says these pieces, one at a time, and then nothing more."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.timeout: float | None = None

    def settimeout(self, seconds: float | None) -> None:
        self.timeout = seconds

    def recv(self, size: int) -> bytes:
        if self.timeout == 0:
            raise BlockingIOError
        return self.pieces.pop(0) if self.pieces else b""

    def send(self, data: memoryview) -> int:
        return len(data)


def body_of(wire: Wire, sock: Any = None) -> WatchedBody:
    wire.connection = SimpleNamespace(sock=sock or Socket())  # type: ignore[assignment]
    stream: Any = io.BytesIO(BODY)
    stream.len = len(BODY)
    return WatchedBody(wire, stream)


@pytest.mark.parametrize("size", [1, 5, HARMLESS - 1, HARMLESS, HARMLESS + 1, len(BODY), 10**6])
def test_a_block_ends_where_the_last_part_begins(size: int) -> None:
    given: list[bytes] = []
    departures: list[bytes] = []
    wire = Wire(1, HARMLESS, lambda: departures.append(b"".join(given)))
    body = body_of(wire)
    while data := body.read(size):
        # It is called whole not before all else has left, and from then on.
        assert wire.request_whole is (len(b"".join(given)) >= HARMLESS)
        given.append(data)
    assert max(map(len, given)) <= size
    assert b"".join(given) == BODY
    assert departures == [BODY[:HARMLESS]]


def test_a_body_that_is_read_at_once_departs_before_it_is_given() -> None:
    departed: list[bool] = []
    wire = Wire(1, HARMLESS, lambda: departed.append(wire.request_whole))
    assert body_of(wire).read() == BODY
    assert departed == [False]
    assert wire.request_whole


def test_a_connection_that_nobody_can_look_at_does_not_keep_a_body_from_leaving() -> None:
    wire = Wire(1, HARMLESS)
    body = body_of(wire)
    wire.connection = None
    assert [body.read(100), body.read(100), body.read(100)] == [BODY[:HARMLESS], b"LAST", b""]
    assert wire.request_whole


def test_a_departure_that_raises_holds_the_last_part_back() -> None:
    refusal = ValueError("not now")

    def refuse() -> None:
        raise refusal

    wire = Wire(1, HARMLESS, refuse)
    body = body_of(wire)
    assert body.read(HARMLESS) == BODY[:HARMLESS]
    with pytest.raises(ValueError, match="not now"):
        body.read(10)
    assert (wire.held_back_by, wire.request_whole) == (refusal, False)


class Failing(Socket):
    def __init__(self, takes: int) -> None:
        super().__init__()
        self.takes = takes

    def send(self, data: memoryview) -> int:
        if not self.takes:
            raise TimeoutError
        sent = min(self.takes, len(data))
        self.takes -= sent
        return sent


@pytest.mark.parametrize(
    ("takes", "may_be_whole"), [(0, False), (HARMLESS - 1, False), (HARMLESS, False), (HARMLESS + 1, True)]
)
def test_a_failed_write_is_a_no_as_long_as_none_of_the_last_part_was_taken(takes: int, may_be_whole: bool) -> None:
    wire = Wire(1, HARMLESS)
    sock = Failing(takes)
    body = body_of(wire)

    # urllib3 sends a block before it asks for the next one.
    blocks = iter(lambda: body.read(6), b"")

    def upload() -> None:
        for block in blocks:
            left = memoryview(block)
            while left:
                left = left[wire.send(sock, left) :]

    with pytest.raises(TimeoutError):
        upload()
    assert (wire.request_whole, wire.body_sent) == (may_be_whole, takes)


def test_a_socket_that_was_closed_meanwhile_took_nothing() -> None:
    wire = Wire(1, HARMLESS)
    sock = Socket()
    body = body_of(wire, sock)
    body.read(HARMLESS)
    last = body.read(9)

    def closed(seconds: float | None) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    sock.settimeout = closed  # type: ignore[method-assign]
    with pytest.raises(OSError, match="Bad file"):
        wire.send(sock, memoryview(last))
    assert not wire.request_whole


def test_the_headers_are_not_counted_as_body() -> None:
    wire = Wire(1, HARMLESS)
    sock = Socket()
    wire.send(sock, memoryview(b"POST / HTTP/1.1"))
    body = body_of(wire, sock)
    wire.send(sock, memoryview(body.read(5)))
    assert wire.body_sent == 5


FINAL = b"HTTP/1.1 200 OK\r\n\r\n{}"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\n\n"


def pieces(text: bytes, size: int) -> list[bytes]:
    return [text[start : start + size] for start in range(0, len(text), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 25, 1000])
@pytest.mark.parametrize("begun", [0, 4, len(INTERIM), len(INTERIM) + 3])
def test_interim_answers_are_passed_over_however_they_come(size: int, begun: int) -> None:
    wire = Wire(1)
    wire.ahead, rest = (INTERIM + FINAL)[:begun], (INTERIM + FINAL)[begun:]
    sock = Socket(*pieces(rest, size))
    wire.await_answer(sock)
    assert wire.ahead + b"".join(sock.pieces) == FINAL
    assert wire.ahead


@pytest.mark.parametrize(
    "text", [b"220 smtp.example.com ESMTP\r\n", b"HTTP/1.1 1234 Odd\r\n", b"HTTP/1.1 1x Odd\r\n", b"HTTX", b"\r\n"]
)
def test_what_is_no_interim_answer_is_not_waited_for(text: bytes) -> None:
    wire = Wire(1)
    sock = Socket(text, b"more")
    wire.await_answer(sock)
    assert (wire.ahead, sock.pieces) == (text, [b"more"])


@pytest.mark.parametrize("begun", [b"", b"HT", b"HTTP/1.1 10", b"HTTP/1.1 103 Early Hints\r\n"])
def test_an_answer_that_ends_early_is_left_as_it_is(begun: bytes) -> None:
    wire = Wire(1)
    wire.await_answer(Socket(begun))
    assert wire.ahead == begun


def test_an_interim_answer_without_end_is_given_up() -> None:
    wire = Wire(1)
    sock = Socket(b"HTTP/1.1 103 Early Hints\r\n", *[b"Link: </x>\r\n" * 100] * 1000)
    with pytest.raises(http.client.HTTPException, match="without end"):
        wire.await_answer(sock)
    assert len(sock.pieces) > 900


@pytest.mark.parametrize(
    "read", [Wire.await_answer, lambda wire, sock: wire.read_answer(sock, io.BytesIO(), bytearray(9))]
)
def test_an_answer_that_is_overdue_is_not_read(
    read: Callable[[Wire, Any], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("airflow_provider_wassly.client.transport.wire.time.monotonic", lambda: now[0])
    wire = Wire(3)
    wire.await_answer(Socket(FINAL[:10]))
    wire.ahead = b""
    monkeypatch.setattr(wire, "answer_limit", -1.0)
    now[0] = 6.0
    with pytest.raises(TimeoutError):
        read(wire, Socket(FINAL))
    assert wire.answer_overdue
