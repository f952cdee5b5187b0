"""What Python code that runs in the middle of a call raises: signal handlers and observers."""

from __future__ import annotations

import errno
import functools
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from airflow_provider_wassly.client import (
    MessageParameters,
    SendObserver,
    WasslyOutcomeUnknown,
    WasslyRejected,
)

from ..sandbox.wire import eventually
from .conftest import Connect
from .servers import INSTANCE, NUMBER, SUCCESS, Peer, Request, answer
from .test_classification import PATIENCE, Serve, failure

ALARM = signal.SIGUSR2


@pytest.fixture(params=[TimeoutError, BrokenPipeError, OSError, ValueError])
def alarm(request: pytest.FixtureRequest) -> Iterator[type[Exception]]:
    """Install a signal handler that raises, as many do to limit the time of their own code."""
    kind: type[Exception] = request.param

    def ring(number: int, frame: FrameType | None) -> None:
        raise kind("the alarm")

    before = signal.signal(ALARM, ring)
    yield kind
    signal.signal(ALARM, before)


def ring_after_last_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the signal arrive between the moment at which the socket has the last part and the one at which we know."""

    def interrupted(real: Any) -> Any:
        @functools.wraps(real)
        def write(sock: Any, data: Any, *flags: int) -> int:
            sent: int = real(sock, data, *flags)
            if INSTANCE.encode() in bytes(data):
                signal.raise_signal(ALARM)
            return sent

        return write

    for kind in (socket.socket, ssl.SSLSocket):
        monkeypatch.setattr(kind, "send", interrupted(kind.send))


def test_a_signal_after_the_last_write_leaves_the_outcome_open(
    alarm: type[Exception], serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def behave(peer: Peer, request: Request) -> None:
        peer.read_body(request)
        peer.drain()

    server = serve(behave)
    client = connect(server.url, read_timeout=2)
    ring_after_last_write(monkeypatch)
    assert type(failure(client)) is WasslyOutcomeUnknown
    assert eventually(lambda: any(request.is_valid for request in server.sends))


@pytest.mark.parametrize("kind", [BrokenPipeError, ConnectionResetError, TimeoutError, OSError, ValueError])
@pytest.mark.parametrize("answered", [True, False])
def test_what_an_observer_raises_is_passed_on_at_once(
    answered: bool, kind: type[Exception], serve: Serve, connect: Connect
) -> None:
    class Failing(SendObserver):
        def departing(self) -> None:
            raise error

    def behave(peer: Peer, request: Request) -> None:
        peer.read_body(request, request.length - 200)
        if answered:
            time.sleep(0.3)
            peer.send(answer(400, "{}"))
        peer.drain()

    error = kind(errno.ECONNRESET, "the record") if issubclass(kind, OSError) else kind("the record")
    server = serve(behave)
    client = connect(server.url, read_timeout=PATIENCE)
    started = time.monotonic()
    with pytest.raises(kind) as caught:
        client.send(client.prepare(MessageParameters(NUMBER, "hello", instance_id=INSTANCE)), observer=Failing())
    assert caught.value is error
    assert time.monotonic() - started < PATIENCE / 2
    assert not any(request.is_valid for request in server.sends)


@pytest.mark.parametrize("interim", [b"HTTP/1.1\t103 Early Hints\r\n\r\n", b"HTTP/1.1 +103 Early Hints\r\n\r\n"])
def test_after_an_answer_that_is_no_final_one_the_connection_is_not_used_again(
    interim: bytes, serve: Serve, connect: Connect
) -> None:
    """http.client reads a status line less strictly than the standard has it."""

    def behave(peer: Peer, request: Request) -> None:
        peer.read_body(request)
        if len(server.sends) == 1:
            peer.send(interim)
            time.sleep(0.3)
            peer.send(SUCCESS)
        else:
            peer.send(answer(422, '{"message": "second"}'))

    server = serve(behave)
    client = connect(server.url)
    assert type(failure(client)) is WasslyOutcomeUnknown
    error = failure(client)
    assert isinstance(error, WasslyRejected)
    assert error.reason == "second"
    assert server.connections == 2
