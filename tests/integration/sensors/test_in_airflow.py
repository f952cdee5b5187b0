"""The sensors inside a real Airflow."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

from airflow_provider_wassly.sandbox import Sandbox
from tests.integration.sandbox.wire import eventually
from tests.support.airflow_cli import AirflowCli

DAG_FILE = """
from datetime import datetime, timezone

from airflow_provider_wassly.operators.send_message import WasslySendMessageOperator
from airflow_provider_wassly.sensors.device import WasslyDeviceSensor
from airflow_provider_wassly.sensors.quota import WasslyQuotaSensor
try:
    from airflow.sdk import DAG
except ImportError:
    from airflow.models.dag import DAG

OPTIONS = dict(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc))

with DAG("sensors", **OPTIONS):
    (
        WasslyDeviceSensor(task_id="device", deferrable=True, poke_interval=0.2, timeout=120)
        >> WasslyQuotaSensor(task_id="probed", min_remaining_conversations=10, probe_to="+447700900199")
        >> WasslySendMessageOperator(task_id="send", contact_mobile_number="+447700900123", message="hello")
        >> WasslySendMessageOperator(task_id="again", contact_mobile_number="+447700900123", message="hello")
        >> WasslyQuotaSensor(task_id="known", min_remaining_conversations=10, deferrable=True)
        >> WasslyQuotaSensor(
            task_id="low",
            min_remaining_conversations=5000,
            deferrable=True,
            poke_interval=0.1,
            timeout=0.3,
            soft_fail=True,
        )
    )

with DAG("bad", **OPTIONS):
    WasslyDeviceSensor(task_id="nobody", instance_id="nobody", deferrable=True, soft_fail=True)
    WasslyDeviceSensor(task_id="failed", instance_id="nobody", deferrable=True, retries=3)
"""


def test_the_sensors_in_a_dag(box: Sandbox, tmp_path: Path) -> None:
    home = tmp_path / "airflow"
    home.mkdir()
    statsd = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    statsd.bind(("127.0.0.1", 0))
    statsd.setblocking(False)
    airflow = AirflowCli(
        home,
        {
            "AIRFLOW_CONN_WASSLY_DEFAULT": box.connection,
            "TMPDIR": str(tmp_path),
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
            "AIRFLOW__METRICS__STATSD_PORT": str(statsd.getsockname()[1]),
            "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": "True",
        },
    )
    (airflow.dags / "sensors.py").write_text(DAG_FILE)
    box.disconnect_device("sandbox-instance")

    def come_back() -> None:
        # The sensor has checked, and its trigger has checked more than once.
        if eventually(lambda: sum(call.endpoint == "devices" for call in box.calls) >= 3, seconds=120):
            box.connect_device("sandbox-instance")

    threading.Thread(target=come_back, daemon=True).start()
    output = airflow.test_dag("sensors", "bad")
    assert airflow.states("sensors") == {
        "device": "success",
        "probed": "success",
        "send": "success",
        "again": "success",
        "known": "success",
        "low": "skipped",
    }, output
    assert airflow.states("bad") == {"nobody": "skipped", "failed": "failed"}, output
    returned = airflow.returned("sensors")
    assert returned["device"]["status"] == "connected"
    assert returned["probed"]["remaining_conversations"] == 999
    assert returned["known"]["remaining_conversations"] == 997
    assert len(box.messages) == 3

    kept = {key for (key,) in airflow.query("select key from variable")}
    assert {"wassly_quota__wassly_default", "wassly_quota_probe__wassly_default"} <= kept
    printed = airflow.run("variables get wassly_quota__wassly_default")
    (line,) = [line for line in printed.splitlines() if line.startswith("{")]
    assert json.loads(line) == {"version": 1, **returned["known"]}

    received = []
    while True:
        try:
            received.append(statsd.recv(65536).decode())
        except BlockingIOError:
            break
    statsd.close()
    assert [metric for metric in received if "wassly.messages.accepted" in metric] == [
        "airflow.wassly.messages.accepted,conn_id=wassly_default:1|c"
    ] * 3
    assert [metric for metric in received if "wassly.remaining" in metric] == [
        f"airflow.wassly.remaining_conversations,conn_id=wassly_default:{value}|g" for value in (999, 998, 997)
    ]
    assert "DeprecatedImportWarning" not in output
