"""How a failed call is classified, for everything that can happen on a connection, over plain HTTP and TLS."""

from __future__ import annotations

import datetime
import email.utils
import gzip
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_wassly.client import (
    SendReceipt,
    WasslyAuthError,
    WasslyClient,
    WasslyError,
    WasslyOutcomeUnknown,
    WasslyRateLimited,
    WasslyRejected,
    WasslyUnavailable,
)

from ..sandbox.wire import eventually
from .conftest import Connect
from .servers import (
    INSTANCE,
    NUMBER,
    SUCCESS,
    SUCCESS_BODY,
    Behaviour,
    Peer,
    RawServer,
    Request,
    answer,
    certificate,
    replying,
)

Serve = Callable[[Behaviour], RawServer]

ACCEPTED = SendReceipt(message_type="text", conversation_id=2, remaining_conversations=40969)
#: Seconds. By then a wait of 0.3 has ended on any machine, and one for the other timeouts has not.
PATIENCE = 15
HTML = "<html><body><h1>Gateway</h1></body></html>"


def send(client: WasslyClient, document: Path | None = None) -> SendReceipt:
    return client.send_message(contact_mobile_number=NUMBER, instance_id=INSTANCE, message="hello", document=document)


def failure(client: WasslyClient, document: Path | None = None) -> WasslyError:
    with pytest.raises(WasslyError) as caught:
        send(client, document)
    return caught.value


# The meaning of a complete answer.

WHOLE_ANSWERS: dict[str, tuple[bytes, type[WasslyError] | None]] = {
    "success": (SUCCESS, None),
    "201": (answer(201, SUCCESS_BODY), None),
    "gzip": (answer(200, gzip.compress(SUCCESS_BODY.encode()), "Content-Encoding: gzip"), None),
    "100 first": (b"HTTP/1.1 100 Continue\r\n\r\n" + SUCCESS, None),
    "102 first": (b"HTTP/1.1 102 Processing\r\n\r\n" + SUCCESS, None),
    "103 first": (b"HTTP/1.1 103 Early Hints\r\nLink: </x.css>\r\n\r\n" + SUCCESS, None),
    "no length": (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + SUCCESS_BODY.encode(), None),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\n" + SUCCESS_BODY.encode(), None),
    "success false": (answer(200, '{"success": false, "message": "No conversations left"}'), WasslyRejected),
    "HTML": (answer(200, HTML, "Content-Type: text/html"), WasslyOutcomeUnknown),
    "empty": (answer(200), WasslyOutcomeUnknown),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", WasslyOutcomeUnknown),
    "a list": (answer(200, "[1]"), WasslyOutcomeUnknown),
    "no success": (answer(200, '{"message": "Message sent successfully"}'), WasslyOutcomeUnknown),
    "success of another type": (answer(200, '{"success": "perhaps"}'), WasslyOutcomeUnknown),
    "broken gzip": (answer(200, gzip.compress(b"x" * 99)[:30], "Content-Encoding: gzip"), WasslyOutcomeUnknown),
    "no gzip": (answer(200, SUCCESS_BODY, "Content-Encoding: gzip"), WasslyOutcomeUnknown),
    "too large": (answer(200, '{"success": true, "x": "' + "y" * 2**21 + '"}'), WasslyOutcomeUnknown),
    "deeply nested": (answer(200, "[" * 50_000), WasslyOutcomeUnknown),
    "not UTF-8": (answer(200, b'{"success": true, "message": "\xff\xfe"}'), WasslyOutcomeUnknown),
    "garbage": (b"\x16\x03\x01\x02\x00 this is no HTTP\r\n\r\n", WasslyOutcomeUnknown),
    "a greeting": (b"220 smtp.example.com ESMTP\r\n", WasslyOutcomeUnknown),
    "a long header": (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 2**17 + b"\r\n\r\n", WasslyOutcomeUnknown),
    "many headers": (answer(200, SUCCESS_BODY, *(f"X-{number}: y" for number in range(300))), WasslyOutcomeUnknown),
    "two lengths": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n" + SUCCESS_BODY.encode(),
        WasslyOutcomeUnknown,
    ),
    "too short a length": (answer(200, SUCCESS_BODY, length=len(SUCCESS_BODY) // 2), WasslyOutcomeUnknown),
    "103 without end": (b"HTTP/1.1 103 Early Hints\r\n" + b"X: y\r\n" * 20_000, WasslyOutcomeUnknown),
    "only 103": (b"HTTP/1.1 103 Early Hints\r\n\r\n", WasslyOutcomeUnknown),
    "400": (answer(400, "{}"), WasslyRejected),
    "401": (answer(401, "{}"), WasslyAuthError),
    "403": (answer(403, HTML), WasslyAuthError),
    "404": (answer(404, HTML), WasslyRejected),
    "407": (answer(407), WasslyRejected),
    "409": (answer(409), WasslyRejected),
    "413": (answer(413, HTML), WasslyRejected),
    "419": (answer(419), WasslyRejected),
    "422": (answer(422, '{"message": "Invalid", "errors": {"instance_id": ["is invalid"]}}'), WasslyRejected),
    "429": (answer(429, "{}"), WasslyRateLimited),
    # A gateway's way of saying that a service or the client took too long: the service may have continued.
    "408": (answer(408, HTML), WasslyOutcomeUnknown),
    "460": (answer(460), WasslyOutcomeUnknown),
    "499": (answer(499), WasslyOutcomeUnknown),
    "301": (answer(301, HTML, "Location: https://elsewhere.example/"), WasslyRejected),
    "307": (answer(307, "", "Location: https://elsewhere.example/"), WasslyRejected),
    "308": (answer(308, "", "Location: https://elsewhere.example/"), WasslyRejected),
    "302 to another scheme": (
        answer(302, "", "Location: https://elsewhere.example/api/whatsapp-web-send-message/"),
        WasslyRejected,
    ),
    "302 to the login page": (answer(302, HTML, "Location: https://elsewhere.example/login?next=x"), WasslyAuthError),
    "302 elsewhere": (answer(302, HTML, "Location: /dashboard"), WasslyOutcomeUnknown),
    "303 elsewhere": (answer(303, "", "Location: /messages/2"), WasslyOutcomeUnknown),
    "302 without Location": (answer(302), WasslyOutcomeUnknown),
    "302 with nonsense": (answer(302, "", "Location: http://[::1"), WasslyOutcomeUnknown),
    "302 with an odd port": (answer(302, "", "Location: http://x:port/"), WasslyOutcomeUnknown),
    "302 with an odd scheme": (answer(302, "", "Location: javascript:alert(1)"), WasslyOutcomeUnknown),
    "300": (answer(300, HTML), WasslyOutcomeUnknown),
    "304": (b"HTTP/1.1 304 Not Modified\r\n\r\n", WasslyOutcomeUnknown),
    "maintenance": (answer(503, HTML, "Retry-After: 120"), WasslyUnavailable),
    **{
        str(status): (answer(status, HTML, "Content-Type: text/html"), WasslyOutcomeUnknown)
        for status in (500, 501, 502, 503, 504, 507, 508, 511, 520, 521, 522, 523, 524, 525, 526, 527, 530, 599)
    },
    "600": (answer(600, HTML), WasslyOutcomeUnknown),
    "999": (answer(999, HTML), WasslyOutcomeUnknown),
}


@pytest.mark.parametrize("name", WHOLE_ANSWERS)
def test_a_whole_answer(name: str, connect: Connect) -> None:
    text, expected = WHOLE_ANSWERS[name]

    def behave(peer: Peer, request: Request) -> None:
        peer.read_body(request)
        peer.send(text)
        peer.end()

    with RawServer(behave) as server:
        client = connect(server.url)
        if expected is None:
            assert send(client) == ACCEPTED
        else:
            assert type(failure(client)) is expected
        assert len(server.sends) == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("Retry-After: 120", 120.0),
        ("Retry-After: 1.5", 1.5),
        ("Retry-After: soon", None),
        ("Retry-After: -3", None),
        ("Retry-After: 99999999999999999999", None),
        ("Retry-After: nan", None),
        ("Retry-After: Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Retry-After: Wed, 99 Oct 2015 99:28:00 GMT", None),
        ("Retry-After:", None),
        ("X-Other: 1", None),
    ],
)
def test_how_long_to_wait(header: str, seconds: float | None, connect: Connect) -> None:
    with RawServer(replying(answer(429, "{}", header))) as server:
        error = failure(connect(server.url))
    assert isinstance(error, WasslyRateLimited)
    assert error.retry_after == seconds


def test_how_long_to_wait_as_a_date(connect: Connect) -> None:
    then = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=5)
    with RawServer(replying(answer(429, "{}", f"Retry-After: {email.utils.format_datetime(then, True)}"))) as server:
        error = failure(connect(server.url))
    assert isinstance(error, WasslyRateLimited)
    assert error.retry_after == pytest.approx(300, abs=5)


# Incomplete answers.


def cut(text: bytes) -> Behaviour:
    def behave(peer: Peer, request: Request) -> None:
        peer.read_body(request)
        peer.send(text)
        peer.close()

    return behave


CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
CUT_ANSWERS: dict[str, tuple[bytes, type[WasslyError]]] = {
    "nothing": (b"", WasslyOutcomeUnknown),
    "half a status line": (b"HTTP/1.1 2", WasslyOutcomeUnknown),
    "half the headers": (b"HTTP/1.1 200 OK\r\nContent-Ty", WasslyOutcomeUnknown),
    "half the body": (answer(200, SUCCESS_BODY[:40], length=len(SUCCESS_BODY)), WasslyOutcomeUnknown),
    "a body that looks whole": (answer(200, SUCCESS_BODY, length=len(SUCCESS_BODY) + 1), WasslyOutcomeUnknown),
    "half the body, no length": (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + SUCCESS_BODY[:40].encode(),
        WasslyOutcomeUnknown,
    ),
    "half a chunk": (CHUNKED + b"%x\r\n" % len(SUCCESS_BODY) + SUCCESS_BODY[:40].encode(), WasslyOutcomeUnknown),
    "no last chunk": (
        CHUNKED + b"%x\r\n" % len(SUCCESS_BODY) + SUCCESS_BODY.encode() + b"\r\n",
        WasslyOutcomeUnknown,
    ),
    "no chunk": (CHUNKED + b"zz\r\n" + SUCCESS_BODY.encode(), WasslyOutcomeUnknown),
    # The status alone shows that nothing was accepted.
    "half a 401": (answer(401, "{", length=99), WasslyAuthError),
    "half a 413": (answer(413, "<html>", length=99), WasslyRejected),
    "half a 429": (answer(429, "{", length=99), WasslyRateLimited),
    "half a 308": (answer(308, "<html>", "Location: https://elsewhere.example/", length=99), WasslyRejected),
    "half a 302 to the login page": (answer(302, "<html>", "Location: /login", length=99), WasslyAuthError),
    "half a 302 elsewhere": (answer(302, "<html>", "Location: /", length=99), WasslyOutcomeUnknown),
    "half a maintenance page": (answer(503, "<html>", "Retry-After: 5", length=99), WasslyUnavailable),
    "half a 502": (answer(502, "<html>", length=99), WasslyOutcomeUnknown),
    "half a 408": (answer(408, "<html>", length=99), WasslyOutcomeUnknown),
}


@pytest.mark.parametrize("name", CUT_ANSWERS)
def test_an_answer_that_is_cut(name: str, serve: Serve, connect: Connect) -> None:
    text, expected = CUT_ANSWERS[name]
    server = serve(cut(text))
    error = failure(connect(server.url))
    assert type(error) is expected
    if name in {"half the body", "a body that looks whole", "half a chunk", "no last chunk", "no chunk", "half a 502"}:
        assert str(error).startswith("the complete request was sent, but the answer is unreadable: ")


@pytest.mark.parametrize("name", ["half a 429", "half a maintenance page"])
def test_the_wait_that_a_cut_answer_asks_for_is_kept(name: str, connect: Connect) -> None:
    text = answer(429 if "429" in name else 503, "{", "Retry-After: 7", length=99)
    with RawServer(cut(text)) as server:
        error = failure(connect(server.url))
    assert isinstance(error, (WasslyRateLimited, WasslyUnavailable))
    assert error.retry_after == 7


@pytest.mark.realtime
@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 OK\r\nContent-", answer(200, SUCCESS_BODY[:9], length=99)])
def test_an_answer_that_does_not_come_in_time(part: bytes, serve: Serve, connect: Connect) -> None:
    def behave(peer: Peer, request: Request) -> None:
        peer.read_body(request)
        peer.send(part)
        peer.drain()

    server = serve(behave)
    started = time.monotonic()
    error = failure(connect(server.url, read_timeout=0.3))
    assert type(error) is WasslyOutcomeUnknown
    assert time.monotonic() - started < PATIENCE
    assert len(server.sends) == 1


# No connection.


def nothing_left(error: WasslyError) -> None:
    assert type(error) is WasslyUnavailable
    assert error.accepted is False


def not_connected(client: WasslyClient) -> str:
    """Return why no connection was made, as the error says it."""
    error = failure(client)
    nothing_left(error)
    start, end = f"could not connect to {client.base_url} (", "); nothing was sent"
    assert str(error).startswith(start)
    assert str(error).endswith(end)
    return str(error)[len(start) : -len(end)]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_no_such_host(scheme: str, connect: Connect) -> None:
    try:
        socket.getaddrinfo("no-such-host.invalid", 443)
    except socket.gaierror as error:
        reason = str(error.strerror)
    assert not_connected(connect(f"{scheme}://no-such-host.invalid", allow_http=True)).lower() == reason.lower()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_connection_refused(scheme: str, connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert not_connected(connect(f"{scheme}://127.0.0.1:{port}")) == "connection refused"


@contextmanager
def full_backlog() -> Iterator[int]:
    """Return a port on which the kernel answers no further connection attempts."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        for _ in range(3):
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for sock in waiting:
            sock.close()


@pytest.mark.realtime
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_connect_timeout(scheme: str, connect: Connect) -> None:
    with full_backlog() as port:
        started = time.monotonic()
        reason = not_connected(connect(f"{scheme}://127.0.0.1:{port}", connect_timeout=0.3, read_timeout=30))
    assert reason == "timed out after 0.3 s"
    assert time.monotonic() - started < PATIENCE


def test_a_certificate_that_nobody_vouches_for(connect: Connect, trusted: tuple[ssl.SSLContext, str]) -> None:
    with RawServer(tls=trusted[0]) as server:
        assert "certificate" in not_connected(connect(server.url, verify=True)).lower()
        assert server.requests == []


def test_a_certificate_of_another_host(connect: Connect, tmp_path: Path) -> None:
    context, bundle = certificate(tmp_path, "elsewhere.example")
    with RawServer(tls=context) as server:
        assert "certificate" in not_connected(connect(server.url, verify=bundle)).lower()
        assert server.requests == []


@pytest.mark.realtime
def test_plain_http_where_tls_was_expected(connect: Connect) -> None:
    with RawServer() as server:
        assert not_connected(connect(server.url.replace("http:", "https:"), connect_timeout=1))
        assert server.requests == []


@pytest.mark.realtime
def test_a_tls_handshake_that_does_not_end(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        started = time.monotonic()
        client = connect(f"https://127.0.0.1:{listener.getsockname()[1]}", connect_timeout=0.3, read_timeout=30)
        assert not_connected(client) == "timed out after 0.3 s"
        assert time.monotonic() - started < PATIENCE


# Connections that end while the request is being sent.

ENDINGS: dict[str, Callable[[Peer], None]] = {"close": Peer.close, "reset": Peer.reset}


def ending(how: str, when: str) -> Behaviour:
    def behave(peer: Peer, request: Request) -> None:
        if when == "after the body":
            peer.read_body(request)
        elif when == "in the body":
            peer.read_body(request, min(request.length // 2, 2**20))
        if how == "stall":
            time.sleep(1.5)
            peer.close()
        else:
            ENDINGS[how](peer)

    return behave


@pytest.mark.realtime
@pytest.mark.parametrize("how", ["close", "reset", "stall"])
@pytest.mark.parametrize("when", ["before the body", "in the body"])
def test_a_large_upload_that_is_cut_was_not_accepted(
    how: str, when: str, serve: Serve, connect: Connect, large: Path
) -> None:
    server = serve(ending(how, when))
    error = failure(connect(server.url, read_timeout=0.5), large)
    nothing_left(error)
    assert "failed before the request was complete: " in str(error)
    assert str(error).endswith(": timed out after 0.5 s") is (how == "stall")


@pytest.mark.realtime
@pytest.mark.parametrize("how", ["close", "reset", "stall"])
def test_a_connection_that_ends_after_the_body_leaves_it_open(how: str, serve: Serve, connect: Connect) -> None:
    server = serve(ending(how, "after the body"))
    error = failure(connect(server.url, read_timeout=0.5))
    assert type(error) is WasslyOutcomeUnknown
    reasons = {
        "close": {"the connection was closed"},
        "reset": {"connection reset by peer", "the connection was closed"},
        "stall": {"timed out after 0.5 s"},
    }
    assert str(error).removeprefix("the complete request was sent, but no answer came back: ") in reasons[how]
    assert len(server.sends) == 1


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("when", ["before the body", "in the body"])
def test_a_small_request_that_is_cut_is_never_called_accepted(
    how: str, when: str, serve: Serve, connect: Connect
) -> None:
    server = serve(ending(how, when))
    assert type(failure(connect(server.url))) in {WasslyOutcomeUnknown, WasslyUnavailable}


# Answers that come during the upload.


def early(text: bytes, *, linger: bool) -> Behaviour:
    def behave(peer: Peer, request: Request) -> None:
        peer.send(text)
        if linger:
            peer.end()
            peer.drain()
        peer.close()

    return behave


EARLY: dict[str, tuple[bytes, type[WasslyError]]] = {
    "401": (answer(401, "{}", "Connection: close"), WasslyAuthError),
    "413": (answer(413, HTML, "Connection: close"), WasslyRejected),
    "429": (answer(429, "{}", "Retry-After: 9", "Connection: close"), WasslyRateLimited),
    "503": (answer(503, HTML, "Retry-After: 9", "Connection: close"), WasslyUnavailable),
}


@pytest.mark.parametrize("name", EARLY)
def test_an_early_answer_from_a_server_that_reads_the_rest(
    name: str, serve: Serve, connect: Connect, large: Path
) -> None:
    text, expected = EARLY[name]
    server = serve(early(text, linger=True))
    assert type(failure(connect(server.url), large)) is expected


@pytest.mark.parametrize("name", [*EARLY, "500", "408", "302", "success"])
def test_an_early_answer_from_a_server_that_closes_is_a_no(
    name: str, serve: Serve, connect: Connect, large: Path
) -> None:
    others = {
        "500": answer(500, HTML),
        "408": answer(408, HTML),
        "302": answer(302, HTML, "Location: /"),
        "success": SUCCESS,
    }
    text = others[name] if name in others else EARLY[name][0]
    server = serve(early(text, linger=False))
    error = failure(connect(server.url), large)
    # The reset may have discarded the answer. Either way, the request was definitely incomplete.
    if name == "success":
        assert type(error) in {WasslyOutcomeUnknown, WasslyUnavailable}
    else:
        assert error.accepted is False
    assert not server.sends[0].is_valid


# Reused connections.


def test_one_connection_serves_many_calls(serve: Serve, connect: Connect) -> None:
    server = serve(replying(SUCCESS))
    client = connect(server.url)
    for _ in range(5):
        assert send(client) == ACCEPTED
    client.list_devices()
    assert server.connections == 1


def test_a_connection_closed_between_two_calls_costs_nothing(serve: Serve, connect: Connect) -> None:
    closed = threading.Semaphore(0)

    def behave(peer: Peer, request: Request) -> None:
        peer.read_body(request)
        peer.send(SUCCESS)
        peer.close()
        closed.release()

    server = serve(behave)
    client = connect(server.url)
    for _ in range(5):
        assert send(client) == ACCEPTED
        assert closed.acquire(timeout=PATIENCE)
    assert len(server.sends) == 5


@pytest.mark.realtime
def test_a_connection_that_rested_is_not_used_again(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_wassly.client.transport.wire.MAX_IDLE", 0.1)
    with RawServer() as server:
        client = connect(server.url)
        send(client)
        time.sleep(0.2)
        send(client)
        assert server.connections == 2


@pytest.mark.parametrize("interim", [b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 102 Processing\r\n\r\n"])
def test_a_late_answer_is_not_taken_for_that_of_the_next_call(interim: bytes, serve: Serve, connect: Connect) -> None:
    """The first call's answer arrives while the second is on its way; the second is rejected."""
    rejected = answer(422, '{"success": false, "message": "second"}')

    def behave(peer: Peer, request: Request) -> None:
        peer.read_body(request)
        if len(server.sends) == 1:
            peer.send(interim)
            time.sleep(0.3)
            peer.send(SUCCESS)
        else:
            peer.send(rejected)

    server = serve(behave)
    client = connect(server.url)
    assert send(client) == ACCEPTED
    error = failure(client)
    assert isinstance(error, WasslyRejected)
    assert error.reason == "second"


@pytest.mark.parametrize("linger", [True, False])
def test_after_an_early_answer_the_connection_is_not_used_again(
    linger: bool, serve: Serve, connect: Connect, large: Path
) -> None:
    refuse = early(answer(429, "{}"), linger=linger)

    def behave(peer: Peer, request: Request) -> None:
        (refuse if request.length > 2**20 else replying(SUCCESS))(peer, request)

    server = serve(behave)
    client = connect(server.url)
    assert failure(client, large).accepted is False
    assert send(client) == ACCEPTED
    assert server.connections == 2


@pytest.mark.realtime
def test_after_a_timeout_the_late_answer_is_not_taken_for_that_of_the_next_call(serve: Serve, connect: Connect) -> None:
    given_up, answered = threading.Event(), threading.Event()

    def behave(peer: Peer, request: Request) -> None:
        peer.read_body(request)
        if len(server.sends) == 1:
            given_up.wait(PATIENCE)
            peer.send(SUCCESS)
            answered.set()
        else:
            peer.send(answer(422, '{"message": "second"}'))

    server = serve(behave)
    client = connect(server.url, read_timeout=1)
    assert type(failure(client)) is WasslyOutcomeUnknown
    given_up.set()
    assert answered.wait(PATIENCE)
    error = failure(client)
    assert isinstance(error, WasslyRejected)
    assert error.reason == "second"


# Repetition.


def test_what_was_not_accepted_and_may_pass_is_repeated(serve: Serve, connect: Connect) -> None:
    server = serve(replying(answer(429, "{}", "Retry-After: 0"), answer(503, "", "Retry-After: 0"), SUCCESS))
    assert send(connect(server.url, max_attempts=3)) == ACCEPTED
    assert len(server.sends) == 3


def test_a_wait_that_is_too_long_is_an_error_at_once(serve: Serve, connect: Connect) -> None:
    server = serve(replying(answer(429, "{}", "Retry-After: 61")))
    error = failure(connect(server.url, max_attempts=3, max_retry_after=60))
    assert isinstance(error, WasslyRateLimited)
    assert len(server.sends) == 1


@pytest.mark.parametrize("text", [answer(500), answer(200, HTML), answer(408), b"", answer(422, "{}")])
def test_what_may_have_been_accepted_or_cannot_pass_is_sent_once(text: bytes, connect: Connect) -> None:
    with RawServer(cut(text)) as server:
        failure(connect(server.url, max_attempts=3))
        assert len(server.sends) == 1


# Proxies.


def proxy_answering(text: bytes) -> Behaviour:
    def behave(peer: Peer, request: Request) -> None:
        assert request.method == "CONNECT"
        peer.send(text)
        peer.close()

    return behave


@pytest.mark.parametrize("status", [403, 407, 502, 503, 504])
def test_a_proxy_that_makes_no_connection(status: int, connect: Connect) -> None:
    with RawServer(proxy_answering(answer(status, HTML))) as proxy:
        client = connect(
            "https://www.wassly.example",
            proxies={"https": f"http://user:pr%C3%B6xy-secret@127.0.0.1:{proxy.port}"},
        )
        reason = not_connected(client)
        assert reason.startswith(f"proxy: Tunnel connection failed: {status} ")
        assert "secret" not in reason
        assert [request.method for request in proxy.requests] == ["CONNECT"]


def test_a_proxy_that_is_not_there(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    client = connect("https://www.wassly.example", proxies={"https": f"http://127.0.0.1:{port}"})
    assert not_connected(client) == "proxy: connection refused"


@pytest.mark.realtime
def test_a_proxy_that_says_nothing(connect: Connect) -> None:
    with RawServer(lambda peer, request: peer.drain()) as proxy:
        client = connect(
            "https://www.wassly.example",
            proxies={"https": f"http://127.0.0.1:{proxy.port}"},
            connect_timeout=0.3,
            read_timeout=30,
        )
        started = time.monotonic()
        assert not_connected(client) == "timed out after 0.3 s"
        assert time.monotonic() - started < PATIENCE


def test_through_a_proxy_the_same_is_known(connect: Connect, trusted: tuple[ssl.SSLContext, str], large: Path) -> None:
    """A tunnel to a server that stops reading: not accepted for the large file, unknown after a whole body."""

    def tunnel(peer: Peer, request: Request) -> None:
        peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        inner = Peer(trusted[0].wrap_socket(peer.sock, server_side=True))
        sent = inner.read_head()
        if sent.length < 2**20:
            inner.read_body(sent)
        inner.sock.close()

    with RawServer(tunnel) as proxy:
        client = connect("https://localhost", proxies={"https": f"http://127.0.0.1:{proxy.port}"})
        nothing_left(failure(client, large))
        assert type(failure(client)) is WasslyOutcomeUnknown


# Answers to the calls that send no message.


@pytest.mark.parametrize(
    "text",
    [
        answer(500, HTML),
        answer(502, HTML),
        answer(408, HTML),
        answer(200, HTML),
        answer(200, "{}"),
        answer(200, '{"success": true, "devices": 3}'),
        answer(302, "", "Location: http://[::1"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n123456",
        b"garbage",
        b"",
    ],
)
def test_nonsense_from_login_means_that_nothing_was_accepted(text: bytes, connect: Connect) -> None:
    with RawServer(cut(text)) as server:
        client = connect(server.url, token=None, email="a@example.com", password="the-password")
        nothing_left(failure(client))
        assert [request.target for request in server.requests] == ["/api/login"]


def test_a_wrong_password_is_an_auth_error(connect: Connect) -> None:
    with RawServer(replying(answer(401, json.dumps({"message": "Invalid credentials: the-password"})))) as server:
        client = connect(server.url, token=None, email="a@example.com", password="the-password")
        error = failure(client)
    assert type(error) is WasslyAuthError
    assert "Invalid credentials: ***" in str(error)


# Failed writes in TLS.


def test_a_tls_write_that_fails_at_its_last_record(
    connect: Connect, trusted: tuple[ssl.SSLContext, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    OpenSSL splits data into records and fails when one of them cannot be written, even if others have left.

    If a service could read a valid request without that record, the outcome must not be "not accepted".
    """
    real_send = ssl.SSLSocket.send

    def failing_send(sock: ssl.SSLSocket, data: memoryview, flags: int = 0) -> int:
        if INSTANCE.encode() not in bytes(data):
            return real_send(sock, data, flags)
        whole_records = (len(data) - 1) // 2**14 * 2**14
        sent = 0
        while sent < whole_records:
            sent += real_send(sock, data[sent:whole_records], flags)
        raise TimeoutError("The write operation timed out")

    with RawServer(tls=trusted[0]) as server:
        client = connect(server.url)
        path = tmp_path / "report.bin"
        # Measure everything except the file, then make a body a few bytes longer than a multiple of the record size.
        path.write_bytes(b"x")
        send(client, path)
        rest = server.sends[0].length - 1
        path.write_bytes(b"x" * (4 * 2**14 - rest + 20))
        monkeypatch.setattr(ssl.SSLSocket, "send", failing_send)
        # In the main thread, an error that another module raises could be a signal handler's.
        with ThreadPoolExecutor(1) as thread:
            error = thread.submit(failure, client, path).result()
        assert eventually(lambda: len(server.sends) > 1 and len(server.sends[-1].body) > 2**14), "nothing to decide"
        arrived = server.sends[-1]
        time.sleep(0.2)  # whatever else may arrive
        assert error.accepted is None or not arrived.is_valid


# Any other answer.

ANSWERS = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda status, headers, body: (
            b"HTTP/1.1 %d X\r\n" % status
            + b"".join(name + b": " + value + b"\r\n" for name, value in headers)
            + b"\r\n"
            + body
        ),
        st.integers(100, 999),
        st.lists(
            st.tuples(
                st.sampled_from(
                    b"Content-Length Location Retry-After Content-Type Content-Encoding Transfer-Encoding Set-Cookie "
                    b"Connection X-Other".split()
                ),
                st.one_of(
                    st.binary(max_size=30).map(lambda value: value.translate(None, b"\r\n")),
                    st.sampled_from([b"0", b"5", b"-1", b"chunked", b"gzip", b"deflate", b"close", b"/login", b"//["]),
                ),
            ),
            max_size=4,
        ),
        st.one_of(
            st.binary(max_size=200),
            st.sampled_from([SUCCESS_BODY.encode(), b'{"success": false}', b"5\r\n12345\r\n0\r\n\r\n", b"[" * 2000]),
        ),
    ),
)


def test_whatever_is_answered_the_outcome_is_a_receipt_or_one_of_the_errors(connect: Connect) -> None:
    said = [b""]

    def behave(peer: Peer, request: Request) -> None:
        peer.read_body(request)
        peer.send(said[0])
        peer.end()
        peer.drain()

    with RawServer(behave) as server:
        client = connect(server.url)

        @settings(max_examples=400, deadline=None)
        @given(text=ANSWERS)
        def check(text: bytes) -> None:
            said[0] = text
            failed: WasslyError | None = None
            try:
                send(client)
            except WasslyError as error:
                failed = error
            if failed is None:
                assert b'"success": true' in text
                return
            assert "\n" not in failed.summary
            if b'"success": true' in text and failed.accepted is False:
                status = int(text.split(b" ", 2)[1])
                assert 300 <= status < 500 or status == 503

        check()
