"""Hooks with a connection that the test defines."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from airflow_provider_wassly.hooks.wassly import WasslyHook

MakeHook = Callable[..., "WasslyHook"]


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> MakeHook:
    """Return the hook of the connection ``wassly_test``; ``extra`` updates a valid one, and ``None`` removes a key."""

    def make(extra: dict[str, Any] | str | None = None, **fields: Any) -> WasslyHook:
        connection: dict[str, Any] = {"conn_type": "wassly", "login": "me@example.com", "password": "pass-word"}
        if isinstance(extra, str):
            connection["extra"] = extra
        else:
            values = {"apikey": "the-api-key", "instance_id": "one"} | (extra or {})
            connection["extra"] = {name: value for name, value in values.items() if value is not None}
        monkeypatch.setenv("AIRFLOW_CONN_WASSLY_TEST", json.dumps(connection | fields))
        # Imported here, because the process that only distributes the tests needs no Airflow.
        from airflow_provider_wassly.hooks.wassly import WasslyHook

        return WasslyHook("wassly_test")

    return make
