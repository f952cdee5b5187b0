from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tenacity

from airflow_provider_wassly.client import WasslyClient, client
from airflow_provider_wassly.client.transport.auth import Tokens

from .servers import Behaviour, RawServer, certificate

Connect = Callable[..., WasslyClient]


@pytest.fixture(autouse=True)
def no_token_of_another_test() -> Iterator[None]:
    Tokens.forget_all()
    yield
    Tokens.forget_all()


@pytest.fixture(scope="session")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, str]:
    """A TLS server's context, and the CA bundle with which a client trusts it."""
    return certificate(tmp_path_factory.mktemp("tls"), "127.0.0.1", "localhost")


@pytest.fixture(params=["http", "https"])
def serve(
    request: pytest.FixtureRequest, trusted: tuple[ssl.SSLContext, str]
) -> Iterator[Callable[[Behaviour], RawServer]]:
    """Return a function that starts a raw server; the test runs over plain HTTP and over TLS."""
    servers: list[RawServer] = []

    def start(behaviour: Behaviour) -> RawServer:
        servers.append(RawServer(behaviour, tls=trusted[0] if request.param == "https" else None))
        return servers[-1]

    yield start
    for server in servers:
        server.__exit__()


@pytest.fixture
def connect(trusted: tuple[ssl.SSLContext, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Return a function that creates a server's client, which trusts its certificate and retries without waiting."""
    monkeypatch.setattr(client, "_BACKOFF", tenacity.wait_none())
    clients: list[WasslyClient] = []

    def make(url: str, **options: Any) -> WasslyClient:
        defaults: dict[str, Any] = {
            "apikey": "the-apikey",
            "token": "the-token",
            "verify": trusted[1],
            # Long, for a busy machine; a test that needs a timeout sets its own.
            "connect_timeout": 20,
            "read_timeout": 20,
            "max_attempts": 1,
        }
        clients.append(WasslyClient(base_url=url, **{**defaults, **options}))
        return clients[-1]

    yield make
    for made in clients:
        made.close()


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file larger than any socket buffer."""
    path = tmp_path / "large.bin"
    with path.open("wb") as file:
        file.truncate(64 * 2**20)
    return path
