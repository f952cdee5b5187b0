"""Deferred sensors in a real Airflow: they wait without a worker, and survive the death of the triggerer."""

from __future__ import annotations

import re

import pytest

from tests.e2e.play import SECONDS, TRIGGERER, Play
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

WAITING = dict(wassly_conn_id="waiting", deferrable=True, poke_interval=1, timeout=1000)
MESSAGE = dict(wassly_conn_id="waiting", contact_mobile_number="+447700900123")

with DAG("waiting", schedule="@once", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)):
    (
        WasslySendMessageOperator(task_id="before", message="before", **MESSAGE)
        >> WasslyDeviceSensor(task_id="device", instance_id="phone", **WAITING)
        >> WasslyQuotaSensor(
            task_id="quota",
            min_remaining_conversations=10,
            probe_to="+447700900199",
            probe_message="probe",
            probe_interval=timedelta(seconds=20),
            **WAITING,
        )
        >> WasslySendMessageOperator(task_id="after", message="after", **MESSAGE)
    )
"""


class Waiting(Play):
    """The sensors wait, and the triggerer is killed twice meanwhile."""

    def __init__(self, server: AirflowServer) -> None:
        super().__init__(server)
        self.add_dags(DAG_FILE)
        self.box = self.start_sandbox("waiting", conversations=3, devices=["sandbox-instance", "phone"])
        self.box.disconnect_device("phone")

    def state(self, task: str) -> str | None:
        rows = self.server.query("select state from task_instance where dag_id = 'waiting' and task_id = ?", task)
        return rows[0][0] if rows else None

    def texts(self) -> list[str | None]:
        return [message.message for message in self.box.messages]

    def wait_for_task(self, task: str, state: str) -> None:
        self.server.wait_for(lambda: self.state(task) == state, f"the task {task}, {state}", seconds=SECONDS)

    def wait_for_the_executor(self, task: str) -> None:
        """Wait until the scheduler knows that the process has ended; it fails a task that is queued before that."""
        # Airflow 3.4 inserts the id of the task instance.
        key = re.escape(f"TaskInstanceKey(dag_id='waiting', task_id='{task}'")
        event = re.compile(f"Received executor event with state success for task instance .*{key}")
        log = self.server.home / "scheduler.log"
        self.server.wait_for(
            lambda: event.search(log.read_text(errors="replace")), f"the event of {task}", seconds=SECONDS
        )

    def check_that_no_worker_is_busy(self) -> None:
        statement = "select task_id from task_instance where dag_id = 'waiting' and state in ('queued', 'running')"
        assert self.server.query(statement) == []

    def perform(self) -> None:
        self.server.wait_for(lambda: self.texts() == ["before"], "the first message", seconds=SECONDS)
        self.wait_for_task("device", "deferred")
        self.check_that_no_worker_is_busy()
        self.wait_for_the_executor("device")
        with TRIGGERER:
            self.server.kill_component("triggerer")
            self.box.connect_device("phone")
            assert self.state("device") == "deferred"
            self.server.start_component("triggerer")
            self.wait_for_task("device", "success")

            # The readings from the first message and from the probe are too low.
            self.server.wait_for(lambda: self.texts() == ["before", "probe"], "the first probe", seconds=SECONDS)
            self.wait_for_task("quota", "deferred")
            self.check_that_no_worker_is_busy()
            self.server.kill_component("triggerer")
            self.box.conversations = 1000
            self.server.start_component("triggerer")
            self.wait_for_task("after", "success")


if not IS_AIRFLOW_2:
    PLAY = Waiting


def test_they_wait_in_the_triggerer_and_go_on(play: Waiting) -> None:
    assert play.texts() == ["before", "probe", "probe", "after"]
    first, second = (message.received_at for message in play.box.messages if message.message == "probe")
    assert (second - first).total_seconds() >= 20
    query = play.server.query
    ((reading,),) = query("select value from xcom where task_id = 'quota' and key = 'return_value'")
    assert '"remaining_conversations": 999' in reading
    assert query("select distinct try_number from task_instance where dag_id = 'waiting'") == [(1,)]
