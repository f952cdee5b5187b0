from __future__ import annotations

import json

import pytest

from airflow_provider_wassly.airflow_compat import metrics
from airflow_provider_wassly.broadcast import record
from airflow_provider_wassly.hooks.wassly import WasslyHook
from airflow_provider_wassly.records import send_record as state
from tests.support.clock import VirtualClock
from tests.support.log import Log
from tests.support.service import Service
from tests.support.variables import Variables


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Variables:
    return Variables(monkeypatch)


@pytest.fixture
def service(airflow: Variables, monkeypatch: pytest.MonkeyPatch) -> Service:
    """The Wassly behind the connection ``wassly_default``, on a virtual clock."""
    extra = {"apikey": "the-api-key", "token": "the-token", "instance_id": "one"}
    monkeypatch.setenv("AIRFLOW_CONN_WASSLY_DEFAULT", json.dumps({"conn_type": "wassly", "extra": extra}))
    service = Service(VirtualClock())
    monkeypatch.setattr(WasslyHook, "get_conn", lambda hook: service)
    for module in (record, state):
        monkeypatch.setattr(module, "in_one_piece", lambda access: access())
    monkeypatch.setattr(metrics, "count", lambda name, number=1, *, tags: None)
    monkeypatch.setattr(metrics, "gauge", lambda name, value, tags: None)
    return service


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Log:
    return Log(caplog, capsys)
