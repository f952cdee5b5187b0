from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_wassly.client._auth import Tokens
from airflow_provider_wassly.sandbox import Sandbox


@pytest.fixture
def box() -> Iterator[Sandbox]:
    """A sandbox for one test; no token of an earlier one is known."""
    Tokens.forget_all()
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def wassly_default(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """The sandbox as connection ``wassly_default``."""
    monkeypatch.setenv("AIRFLOW_CONN_WASSLY_DEFAULT", box.connection)
    return box
