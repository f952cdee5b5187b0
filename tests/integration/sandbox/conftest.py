from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_wassly.client._auth import Tokens
from airflow_provider_wassly.sandbox import Sandbox


@pytest.fixture(scope="session")
def shared() -> Iterator[Sandbox]:
    """One sandbox for all tests that do not stop it; starting one for each would take most of the time."""
    with Sandbox(conversations=1000) as sandbox:
        yield sandbox


@pytest.fixture
def box(shared: Sandbox) -> Iterator[Sandbox]:
    """The sandbox as at the start."""
    Tokens.forget_all()
    shared.reset()
    yield shared
    shared.reset()
