from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_wassly.client.transport.auth import Tokens
from airflow_provider_wassly.sandbox import Sandbox
from tests.integration.sandbox.wire import eventually


@pytest.fixture(scope="session")
def shared() -> Iterator[Sandbox]:
    """
    One sandbox for all tests that do not stop it; starting one for each test would take most of the time.

    It is in the state that the previous test left it in. A test that uses it instead of ``box`` has to reset it.
    """
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def box(shared: Sandbox) -> Iterator[Sandbox]:
    """The sandbox in its initial state; tokens of earlier tests are forgotten."""
    Tokens.forget_all()
    shared.reset()
    yield shared
    # A call that is still running would affect the next test; one that hangs would not.
    assert eventually(
        lambda: all(call.finished_at or (call.fault or "").startswith("hang") for call in shared.calls), seconds=20
    ), "calls go on"


@pytest.fixture
def own_box() -> Iterator[Sandbox]:
    """A sandbox for one test, which stops it or leaves calls running that would affect other tests."""
    Tokens.forget_all()
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def wassly_default(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """The sandbox as connection ``wassly_default``."""
    monkeypatch.setenv("AIRFLOW_CONN_WASSLY_DEFAULT", box.connection)
    return box
