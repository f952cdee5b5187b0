from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_wassly.client.transport.auth import Tokens
from airflow_provider_wassly.sandbox import Sandbox
from tests.integration.sandbox.wire import eventually


@pytest.fixture(scope="session")
def shared() -> Iterator[Sandbox]:
    """
    One sandbox for all tests that do not stop it; starting one for each would take most of the time.

    It is as the test before has left it. A test that uses it, and not ``box``, resets it.
    """
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def box(shared: Sandbox) -> Iterator[Sandbox]:
    """The sandbox as at the start; no token of an earlier test is known."""
    Tokens.forget_all()
    shared.reset()
    yield shared
    # What comes of a call that goes on would be found by the next test; nothing comes of one that hangs.
    assert eventually(
        lambda: all(call.finished_at or (call.fault or "").startswith("hang") for call in shared.calls), seconds=20
    ), "calls go on"


@pytest.fixture
def own_box() -> Iterator[Sandbox]:
    """A sandbox for one test: to stop it, or to leave calls behind that would reach another test's."""
    Tokens.forget_all()
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def wassly_default(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """The sandbox as connection ``wassly_default``."""
    monkeypatch.setenv("AIRFLOW_CONN_WASSLY_DEFAULT", box.connection)
    return box
