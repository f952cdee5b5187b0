"""Connections that end, or on which an answer arrives, while a message is about to leave; endless answers."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable

import pytest
import tenacity

from airflow_provider_wassly.client import (
    MessageParameters,
    SendObserver,
    SendReceipt,
    WasslyAuthError,
    WasslyClient,
    WasslyError,
    WasslyOutcomeUnknown,
    WasslyRejected,
    WasslyUnavailable,
)
from airflow_provider_wassly.client import client as client_module
from airflow_provider_wassly.client.transport import wire

from ..sandbox.wire import eventually
from .conftest import Connect
from .servers import INSTANCE, NUMBER, SUCCESS, SUCCESS_BODY, Behaviour, Peer, PeerGoneError, RawServer, Request, answer
from .test_classification import ACCEPTED, PATIENCE, Serve, failure, send


class Departure(SendObserver):
    """An observer whose announcement waits for the service to do something."""

    def __init__(self) -> None:
        self.count = 0
        self.refusals = 0
        self._begun = threading.Event()
        self._over = threading.Event()

    def departing(self) -> None:
        self.count += 1
        super().departing()
        self._begun.set()
        assert self._over.wait(PATIENCE)

    def refused(self, error: WasslyError) -> None:
        self.refusals += 1
        super().refused(error)

    def meanwhile(self, act: Callable[[], None]) -> None:
        """Called by the service."""
        assert self._begun.wait(PATIENCE)
        try:
            act()
        finally:
            self._over.set()

    def send(self, client: WasslyClient) -> SendReceipt:
        message = client.prepare(MessageParameters(NUMBER, "hello", instance_id=INSTANCE))
        return client.send(message, observer=self)

    def failure(self, client: WasslyClient) -> WasslyError:
        with pytest.raises(WasslyError) as caught:
            self.send(client)
        return caught.value


def say_goodbye(peer: Peer) -> None:
    """Close TLS with an alert, but keep reading, as a lingering service does."""
    if isinstance(peer.sock, ssl.SSLSocket):
        peer.sock.settimeout(0)
        # Its own half is done at once; do not wait for the other half.
        with contextlib.suppress(ssl.SSLError):
            peer.sock.unwrap()
        peer.sock.settimeout(None)
    peer.end()


ENDS: dict[str, Callable[[Peer], None]] = {
    "with a goodbye": say_goodbye,
    "in order": Peer.end,
    "at once": Peer.close,
    "with a reset": Peer.reset,
}


def valid(server: RawServer) -> int:
    return sum(request.is_valid for request in server.sends)


# Connections that end during the announcement.


@pytest.mark.parametrize("how", ENDS)
def test_a_kept_connection_that_ends_under_a_message_costs_nothing(how: str, serve: Serve, connect: Connect) -> None:
    departure = Departure()

    def behave(peer: Peer, request: Request) -> None:
        if len(server.sends) == 2:
            departure.meanwhile(lambda: ENDS[how](peer))
            peer.read_body(request)
        else:
            peer.read_body(request)
            peer.send(SUCCESS)

    server = serve(behave)
    client = connect(server.url, max_attempts=1)
    send(client)
    assert departure.send(client) == ACCEPTED
    assert server.connections == 2
    assert valid(server) == 2
    # The first announcement was withdrawn before the second.
    assert (departure.count, departure.refusals) == (2, 1)


@pytest.mark.parametrize("how", ENDS)
def test_a_fresh_connection_that_ends_under_a_message_is_a_no(how: str, serve: Serve, connect: Connect) -> None:
    departure = Departure()

    def behave(peer: Peer, request: Request) -> None:
        departure.meanwhile(lambda: ENDS[how](peer))
        peer.read_body(request)

    server = serve(behave)
    error = departure.failure(connect(server.url))
    assert type(error) is WasslyUnavailable
    assert str(error).startswith(
        f"the connection to {server.url}/api/whatsapp-web-send-message failed before the request was complete: "
    )
    assert (server.connections, valid(server)) == (1, 0)
    assert (departure.count, departure.refusals) == (1, 1)


def test_after_the_end_of_a_kept_connection_there_is_no_wait(connect: Connect) -> None:
    departure = Departure()

    def behave(peer: Peer, request: Request) -> None:
        if len(server.sends) == 2:
            departure.meanwhile(peer.end)
            peer.drain()
        else:
            peer.read_body(request)
            peer.send(SUCCESS)

    with RawServer(behave) as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(client_module, "_BACKOFF", tenacity.wait_fixed(600))
        client = connect(server.url, max_attempts=3)
        send(client)
        assert departure.send(client) == ACCEPTED


def test_a_second_end_is_not_answered_at_once_again(serve: Serve, connect: Connect) -> None:
    departure = Departure()

    def behave(peer: Peer, request: Request) -> None:
        if len(server.sends) == 1:
            peer.read_body(request)
            peer.send(SUCCESS)
        else:
            departure.meanwhile(peer.end)
            peer.drain()

    server = serve(behave)
    client = connect(server.url, max_attempts=1)
    send(client)
    # Nothing waits for the second end, so it may come too late to be noticed.
    assert type(departure.failure(client)) in {WasslyUnavailable, WasslyOutcomeUnknown}
    assert server.connections == 2


@pytest.mark.parametrize("certain", [True, False])
def test_who_ended_one_kept_connection_is_given_no_other(certain: bool, serve: Serve, connect: Connect) -> None:
    departure = Departure()

    def behave(peer: Peer, request: Request) -> None:
        if len(server.sends) == 2:
            if certain:
                departure.meanwhile(peer.end)
            peer.read_body(request)
            peer.close()
        else:
            peer.read_body(request)
            peer.send(SUCCESS)

    server = serve(behave)
    client = connect(server.url, max_attempts=1)
    send(client)
    if certain:
        departure.send(client)
    else:
        assert type(failure(client)) is WasslyOutcomeUnknown
        send(client)
    assert server.connections == 2
    for _ in range(3):
        assert send(client) == ACCEPTED
    assert server.connections == 5


def test_through_a_proxy_too(connect: Connect, trusted: tuple[ssl.SSLContext, str]) -> None:
    departure = Departure()
    bodies: list[bytearray] = []

    def tunnel(peer: Peer, request: Request) -> None:
        peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        inner = Peer(trusted[0].wrap_socket(peer.sock, server_side=True))
        while True:
            sent = inner.read_head()
            bodies.append(sent.body)
            if len(bodies) == 2:
                departure.meanwhile(inner.end)
                inner.drain()
                raise PeerGoneError
            inner.read_body(sent)
            inner.send(SUCCESS)

    with RawServer(tunnel) as proxy:
        client = connect("https://localhost", proxies={"https": f"http://127.0.0.1:{proxy.port}"}, max_attempts=1)
        send(client)
        assert departure.send(client) == ACCEPTED
    assert proxy.connections == 2
    assert [INSTANCE.encode() in body for body in bodies] == [True, False, True]


def test_through_a_proxy_that_is_itself_reached_by_tls_too(
    connect: Connect, trusted: tuple[ssl.SSLContext, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS inside TLS is not a socket, but behaves much like one."""
    departure = Departure()
    passed_on = threading.Event()

    def end(peer: Peer) -> None:
        """End the connection, and wait until the client, behind the proxy, can see it."""
        peer.end()
        assert passed_on.wait(PATIENCE)

    def behave(peer: Peer, request: Request) -> None:
        if len(server.sends) == 2:
            departure.meanwhile(lambda: end(peer))
            peer.drain()
        else:
            peer.read_body(request)
            peer.send(SUCCESS)

    def tunnel(peer: Peer, request: Request) -> None:
        assert isinstance(peer.sock, ssl.SSLSocket)
        with socket.create_connection(("127.0.0.1", server.port)) as service:
            peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            while True:
                ready = [peer.sock] if peer.sock.pending() else select.select([peer.sock, service], [], [])[0]
                if peer.sock in ready:
                    service.sendall(peer.receive())
                if service in ready:
                    data = service.recv(65536)
                    if not data:
                        peer.close()
                        passed_on.set()
                        raise PeerGoneError
                    peer.send(data)

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", trusted[1])
    with RawServer(behave, tls=trusted[0]) as server, RawServer(tunnel, tls=trusted[0]) as proxy:
        client = connect(
            server.url.replace("127.0.0.1", "localhost"),
            proxies={"https": proxy.url.replace("127.0.0.1", "localhost")},
            max_attempts=1,
        )
        send(client)
        assert departure.send(client) == ACCEPTED
        assert proxy.connections == 2
        assert valid(server) == 2


# Libraries that use a connection differently than they do today.


@pytest.mark.parametrize(
    ("owner", "unseen"),
    [
        (wire._WatchedSocket, "sendall"),
        (wire._WatchedSocket, "makefile"),
        (wire._Watched, "connect"),
        (wire._Watched, "request"),
        (wire._Watched, "getresponse"),
    ],
)
def test_a_whole_request_is_never_called_a_no_however_a_library_writes_it(
    owner: type, unseen: str, serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(owner, unseen)

    def behave(peer: Peer, request: Request) -> None:
        peer.read_body(request)
        peer.reset()

    server = serve(behave)
    assert type(failure(connect(server.url))) is WasslyOutcomeUnknown
    assert valid(server) == 1


# Answers that arrive during the announcement.


@pytest.mark.parametrize(
    "interim", [b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x.css>\r\n\r\n"], ids=["alone", "after 103"]
)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Some services send an extra empty line after an answer.
        (b"\r\n", WasslyUnavailable),
        (answer(401, "{}"), WasslyAuthError),
        (answer(422, "{}"), WasslyRejected),
        (answer(500, "x" * 200_000), WasslyUnavailable),
        (answer(408), WasslyUnavailable),
        (answer(302, "", "Location: /"), WasslyUnavailable),
        (b"no HTTP\r\n\r\n", WasslyUnavailable),
    ],
    ids=["empty line", "401", "422", "500", "408", "302", "garbage"],
)
def test_after_an_early_no_the_last_part_does_not_leave(
    interim: bytes, text: bytes, expected: type[WasslyError], serve: Serve, connect: Connect
) -> None:
    departure = Departure()

    def behave(peer: Peer, request: Request) -> None:
        # A large answer is sent while the client reads.
        departure.meanwhile(lambda: peer.send(interim + text[:1000]))
        peer.send(text[1000:])
        peer.read_body(request)

    server = serve(behave)
    assert type(departure.failure(connect(server.url))) is expected
    assert valid(server) == 0
    assert departure.refusals == 1


@pytest.mark.parametrize(
    "early",
    [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHT", SUCCESS[:9], SUCCESS],
    ids=["100", "103 and a part", "a part", "success"],
)
def test_an_early_answer_that_is_no_no_is_read_to_its_end(early: bytes, serve: Serve, connect: Connect) -> None:
    departure = Departure()
    whole = SUCCESS if SUCCESS.startswith(early) else b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + SUCCESS
    if early.startswith(b"HTTP/1.1 100"):
        whole = early + SUCCESS

    def behave(peer: Peer, request: Request) -> None:
        if len(server.sends) == 1:
            departure.meanwhile(lambda: peer.send(early))
            peer.read_body(request)
            peer.send(whole[len(early) :])
        else:
            peer.read_body(request)
            peer.send(answer(422, '{"message": "second"}'))

    server = serve(behave)
    client = connect(server.url)
    assert departure.send(client) == ACCEPTED
    assert eventually(lambda: valid(server) == 1)
    error = failure(client)
    assert isinstance(error, WasslyRejected)
    assert error.reason == "second"


# Answers that do not end.


def saying(*parts: bytes, every: float, end: bytes = b"") -> Behaviour:
    """Read the request and send the parts of the answer in turn, repeating the last one unless there is an ``end``."""

    def behave(peer: Peer, request: Request) -> None:
        peer.read_body(request)
        for part in parts:
            peer.sock.sendall(part)
            time.sleep(every)
        while not end:
            peer.sock.sendall(parts[-1])
            time.sleep(every)
        peer.sock.sendall(end)

    return behave


INTERIM = b"HTTP/1.1 102 Processing\r\n\r\n"
ENDLESS: dict[str, tuple[Behaviour, type[WasslyError]]] = {
    "a status line": (saying(b"HTTP/1.1 200 ", b"x", every=0.05), WasslyOutcomeUnknown),
    "headers": (saying(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", every=0.05), WasslyOutcomeUnknown),
    "a body": (saying(answer(200, SUCCESS_BODY, length=10**6), b" ", every=0.05), WasslyOutcomeUnknown),
    "a body without length": (saying(b"HTTP/1.1 200 OK\r\n\r\n", b" ", every=0.05), WasslyOutcomeUnknown),
    "chunks": (
        saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", every=0.05),
        WasslyOutcomeUnknown,
    ),
    "interim answers": (saying(INTERIM, every=0.05), WasslyOutcomeUnknown),
    "a flood of interim answers": (
        saying(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, every=0),
        WasslyOutcomeUnknown,
    ),
    # The status alone shows that nothing was accepted.
    "the body of a 401": (saying(answer(401, "{", length=10**6), b" ", every=0.05), WasslyAuthError),
    "the body of a redirect to the login page": (
        saying(answer(302, "<", "Location: /login", length=10**6), b" ", every=0.05),
        WasslyAuthError,
    ),
}


@pytest.mark.realtime
@pytest.mark.parametrize("name", ENDLESS)
def test_an_answer_without_end_is_given_up(name: str, serve: Serve, connect: Connect) -> None:
    behaviour, expected = ENDLESS[name]
    server = serve(behaviour)
    client = connect(server.url, read_timeout=0.6, max_attempts=3)
    started = time.monotonic()
    error = failure(client)
    assert time.monotonic() - started < PATIENCE
    assert type(error) is expected
    if expected is WasslyOutcomeUnknown:
        assert str(error) == "the complete request was sent, but the answer was not complete after 1.2 s"
    assert len(server.sends) == 1


@pytest.mark.realtime
def test_a_login_answer_without_end_is_given_up(serve: Serve, connect: Connect) -> None:
    server = serve(ENDLESS["headers"][0])
    client = connect(server.url, read_timeout=0.6, token=None, email="a@example.com", password="the-password")
    error = failure(client)
    assert type(error) is WasslyUnavailable
    assert "the answer was not complete after 1.2 s" in str(error)


@pytest.mark.realtime
@pytest.mark.parametrize("pieces", ["interim answers", "headers", "body"])
def test_a_slow_answer_that_comes_to_its_end_is_an_answer(pieces: str, serve: Serve, connect: Connect) -> None:
    """The whole answer takes longer than the read timeout, but no pause does."""
    if pieces == "interim answers":
        parts = [INTERIM] * 8
        end = SUCCESS
    else:
        cut = 8 if pieces == "headers" else len(SUCCESS) - 8
        parts = [SUCCESS[:cut], *(SUCCESS[cut + number : cut + number + 1] for number in range(7))]
        end = SUCCESS[cut + 7 :]
    server = serve(saying(*parts, every=0.15, end=end))
    client = connect(server.url, read_timeout=1)
    assert send(client) == ACCEPTED


@pytest.mark.realtime
def test_a_silence_is_still_measured_by_itself(serve: Serve, connect: Connect) -> None:
    def behave(peer: Peer, request: Request) -> None:
        peer.read_body(request)
        peer.send(INTERIM)
        peer.drain()

    error = failure(connect(serve(behave).url, read_timeout=0.3))
    assert type(error) is WasslyOutcomeUnknown
    assert "not complete after 0.6 s" not in str(error)


def test_what_is_left_of_the_limit_does_not_shorten_the_next_call(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket's timeout at the end of an answer does not affect the next request."""
    seen: list[float | None] = []
    real_send = socket.socket.send

    def watched(sock: socket.socket, data: memoryview, flags: int = 0) -> int:
        seen.append(sock.gettimeout())
        return real_send(sock, data, flags)

    with RawServer() as server:
        client = connect(server.url, connect_timeout=10, read_timeout=20)
        send(client)
        monkeypatch.setattr(socket.socket, "send", watched)
        assert send(client) == ACCEPTED
        assert set(seen) == {20}
        assert server.connections == 1
