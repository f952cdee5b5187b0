from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import tenacity

from airflow_provider_wassly.client import client
from airflow_provider_wassly.hooks.wassly import WasslyHook
from airflow_provider_wassly.sandbox import Sandbox

Connect = Callable[..., WasslyHook]


@pytest.fixture
def connect(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Return a hook connected to the sandbox; ``extra`` updates the connection's extra, and ``None`` removes a key."""
    monkeypatch.setattr(client, "_BACKOFF", tenacity.wait_none())

    def make(extra: dict[str, Any] | None = None, **fields: Any) -> WasslyHook:
        connection = json.loads(box.connection) | fields
        connection["extra"] = {k: v for k, v in (connection["extra"] | (extra or {})).items() if v is not None}
        monkeypatch.setenv("AIRFLOW_CONN_WASSLY_DEFAULT", json.dumps(connection))
        return WasslyHook()

    return make
