"""The operators in a DAG written in YAML, and in a loop of tasks: both are new in Airflow 3.4."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_wassly.sandbox import Sandbox
from tests.support.airflow_cli import VERSION, AirflowCli

pytestmark = pytest.mark.skipif(VERSION < (3, 4), reason="new in Airflow 3.4")

IMPORTERS = [{"classpath": "airflow.sdk.importers.yaml_importer.YamlDagImporter"}]
YAML = """
$schema: https://airflow.apache.org/schemas/dag/2026-10-30.json
dag_id: from_yaml
schedule: null
tasks:
  - id: literal
    uses: airflow_provider_wassly.operators.send_message.WasslySendMessageOperator
    with:
      contact_mobile_number: "+447700900101"
      message: "{{ ds }}"
  - id: template
    uses: airflow_provider_wassly.operators.send_message.WasslySendMessageOperator
    needs: [literal]
    retries: 2
    with:
      contact_mobile_number: "+447700900102"
      message: {$t: "It is {{ ds }}"}
      contact_name: "{{ ds }}"
  - id: text
    uses: airflow.providers.standard.operators.bash.BashOperator
    needs: [template]
    with:
      bash_command: echo "a text of bash"
  - id: output
    uses: airflow_provider_wassly.operators.send_message.WasslySendMessageOperator
    with:
      contact_mobile_number: "+447700900103"
      message: {$x: text}
  - id: file
    uses: airflow_provider_wassly.operators.send_message.WasslySendMessageOperator
    needs: [output]
    with:
      contact_mobile_number: "+447700900104"
      message: {$t: {$f: text.j2}}
  - id: campaign
    uses: airflow_provider_wassly.operators.broadcast.WasslyBroadcastOperator
    needs: [file]
    with:
      recipients:
        - {contact_mobile_number: "+447700900105", name: Amira}
        - {contact_mobile_number: "+447700900106", name: Chloé}
      message: "Hello {{ recipient.name }}"
      messages_per_minute: 600
"""
LOOPS = """
from airflow.sdk import DAG, task_group

from airflow_provider_wassly.operators.broadcast import WasslyBroadcastOperator
from airflow_provider_wassly.operators.send_message import WasslySendMessageOperator

with DAG("loops", schedule=None):

    @task_group
    def remind():
        WasslySendMessageOperator(
            task_id="send", contact_mobile_number="+447700900101", message="Reminder {{ loop.index + 1 }}"
        )

    @task_group
    def campaign():
        WasslyBroadcastOperator(
            task_id="send",
            recipients=[{"contact_mobile_number": "+447700900102"}, {"contact_mobile_number": "+447700900103"}],
            message="Round {{ loop.index + 1 }}",
            messages_per_minute=None,
        )

    def are_sent_twice(*, loop):
        return loop.index == 1 and loop.result["accepted"] == 2

    remind.loop(max_iterations=3) >> campaign.loop(max_iterations=5, until=are_sent_twice)
"""


@pytest.fixture
def airflow(box: Sandbox, tmp_path: Path) -> AirflowCli:
    home = tmp_path / "airflow"
    home.mkdir()
    settings = {"AIRFLOW__DAG_PROCESSOR__DAG_IMPORTER_CONFIGS": json.dumps(IMPORTERS)}
    return AirflowCli(home, settings | {"AIRFLOW_CONN_WASSLY_DEFAULT": box.connection, "TMPDIR": str(tmp_path)})


def sent(box: Sandbox) -> list[tuple[str, str | None]]:
    return [(message.contact_mobile_number, message.message) for message in box.messages]


def test_a_dag_in_yaml_sends(airflow: AirflowCli, box: Sandbox) -> None:
    (airflow.dags / "from_yaml.yaml").write_text(YAML)
    (airflow.dags / "text.j2").write_text("{{ ds }} from a file")
    output = airflow.test_dag("from_yaml")
    assert set(airflow.states("from_yaml").values()) == {"success"}, output
    assert sent(box) == [
        ("+447700900101", "{{ ds }}"),
        ("+447700900102", "It is 2026-11-24"),
        ("+447700900103", "a text of bash"),
        ("+447700900104", "2026-11-24 from a file"),
        ("+447700900105", "Hello Amira"),
        ("+447700900106", "Hello Chloé"),
    ]
    assert [message.contact_name for message in box.messages[:2]] == [None, "{{ ds }}"]


def test_each_iteration_of_a_loop_sends(airflow: AirflowCli, box: Sandbox) -> None:
    (airflow.dags / "loops.py").write_text(LOOPS)
    output = airflow.test_dag("loops")
    assert set(airflow.states("loops").values()) == {"success"}, output
    assert sent(box) == [
        ("+447700900101", "Reminder 1"),
        ("+447700900101", "Reminder 2"),
        ("+447700900101", "Reminder 3"),
        ("+447700900102", "Round 1"),
        ("+447700900103", "Round 1"),
        ("+447700900102", "Round 2"),
        ("+447700900103", "Round 2"),
    ]
