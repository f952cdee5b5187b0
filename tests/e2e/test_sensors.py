"""Deferred sensors in a real Airflow: they wait without a worker, and over the death of the triggerer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_wassly.sandbox import Sandbox
from tests.support.airflow_server import IS_AIRFLOW_2, AirflowServer

pytestmark = pytest.mark.skipif(
    IS_AIRFLOW_2, reason="tried on Airflow 3 only; 2.11 runs the sensors in tests/integration"
)

DAG_FILE = """
from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG

from airflow_provider_wassly.operators.send_message import WasslySendMessageOperator
from airflow_provider_wassly.sensors.device import WasslyDeviceSensor
from airflow_provider_wassly.sensors.quota import WasslyQuotaSensor

WAITING = dict(deferrable=True, poke_interval=1, timeout=300)

with DAG("waiting", schedule="@once", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)):
    (
        WasslySendMessageOperator(task_id="before", contact_mobile_number="+447700900123", message="before")
        >> WasslyDeviceSensor(task_id="device", instance_id="phone", **WAITING)
        >> WasslyQuotaSensor(
            task_id="quota",
            min_remaining_conversations=10,
            probe_to="+447700900199",
            probe_message="probe",
            probe_interval=timedelta(seconds=20),
            **WAITING,
        )
        >> WasslySendMessageOperator(task_id="after", contact_mobile_number="+447700900123", message="after")
    )
"""


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(conversations=3, devices=["sandbox-instance", "phone"]) as box:
        box.disconnect_device("phone")
        yield box


@pytest.fixture
def server(tmp_path: Path, box: Sandbox) -> Iterator[AirflowServer]:
    home = tmp_path / "airflow"
    home.mkdir()
    server = AirflowServer(home, {"AIRFLOW_CONN_WASSLY_DEFAULT": box.connection})
    (server.dags / "waiting.py").write_text(DAG_FILE)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def test_they_wait_in_the_triggerer_and_go_on(server: AirflowServer, box: Sandbox) -> None:
    def state(task: str) -> str | None:
        rows = server.query("select state from task_instance where dag_id = 'waiting' and task_id = ?", task)
        return rows[0][0] if rows else None

    def busy() -> list[tuple[str]]:
        return server.query("select task_id from task_instance where state in ('queued', 'running')")

    def texts() -> list[str | None]:
        return [message.message for message in box.messages]

    server.wait_for(lambda: texts() == ["before"], "the first message", seconds=90)
    server.wait_for(lambda: state("device") == "deferred", "the device sensor", seconds=60)
    assert busy() == []

    server.kill_component("triggerer")
    box.connect_device("phone")
    assert state("device") == "deferred"
    server.start_component("triggerer")
    server.wait_for(lambda: state("device") == "success", "the device sensor after a restart", seconds=120)

    # The reading of the first message is too low, and so is that of the probe.
    server.wait_for(lambda: texts() == ["before", "probe"], "the first probe", seconds=60)
    server.wait_for(lambda: state("quota") == "deferred", "the quota sensor", seconds=60)
    assert busy() == []
    server.kill_component("triggerer")
    box.conversations = 1000
    server.start_component("triggerer")
    server.wait_for(lambda: state("after") == "success", "the end of the DAG", seconds=180)

    assert texts() == ["before", "probe", "probe", "after"]
    first, second = (message.received_at for message in box.messages if message.message == "probe")
    assert (second - first).total_seconds() >= 20
    ((reading,),) = server.query("select value from xcom where task_id = 'quota' and key = 'return_value'")
    assert '"remaining_conversations": 999' in reading
    assert server.query("select distinct try_number from task_instance") == [(1,)]
