"""The operator inside a real Airflow, in every way that a DAG can use it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from airflow_provider_wassly.sandbox import Sandbox
from tests.support.airflow_cli import VERSION, AirflowCli

EXAMPLES = Path(__file__).parents[3] / "example_dags"
HEAD = """
from datetime import datetime, timezone
from pathlib import Path

from airflow_provider_wassly.operators.send_message import WasslySendMessageOperator
try:
    from airflow.sdk import DAG, ObjectStoragePath, task, task_group
except ImportError:
    from airflow.decorators import task, task_group
    from airflow.io.path import ObjectStoragePath
    from airflow.models.dag import DAG

TO = "+447700900123"
OPTIONS = dict(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc))
"""


@pytest.fixture
def airflow(box: Sandbox, tmp_path: Path) -> AirflowCli:
    home = tmp_path / "airflow"
    home.mkdir()
    return AirflowCli(home, {"AIRFLOW_CONN_WASSLY_DEFAULT": box.connection, "TMPDIR": str(tmp_path)})


def test_the_example_dags_run_as_they_stand(airflow: AirflowCli, box: Sandbox) -> None:
    shutil.copytree(EXAMPLES, airflow.dags, dirs_exist_ok=True)
    dag_ids = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "wassly_failure_alert")
    airflow.test_dag(*dag_ids)
    for dag_id in dag_ids:
        states = airflow.states(dag_id)
        assert set(states.values()) == {"success"}, (dag_id, states)

    broadcast = [message for message in box.messages if message.contact_mobile_number.startswith("+4477009002")]
    assert len({message.contact_mobile_number for message in broadcast}) == len(broadcast) == 30
    assert "Hello Customer 0, your invoice *R-0* is due on the 15th." in [message.message for message in broadcast]
    assert airflow.returned("wassly_broadcast")["add_up"]["accepted"] == 30
    report, notification, *mapped, waited_for = (message for message in box.messages if message not in broadcast)
    assert report.message is not None
    assert report.message.startswith("*Orders of 2026-11-22*\n\n24 orders, ")
    assert report.document is not None
    assert (report.document.name, report.document.content_type) == ("orders-2026-11-22.csv", "text/csv")
    assert report.document.bytes.startswith(b"order,amount\r\n2026-11-22-001,")
    assert notification.message is not None
    assert notification.message.startswith("✅ *wassly_pipeline_notification* has loaded 1234 rows (`manual__")
    assert waited_for.message is not None
    assert waited_for.message.startswith("✅ *wassly_wait_for_quota* has finished (`manual__")
    assert {(message.contact_mobile_number, message.contact_name, message.message) for message in mapped} == {
        ("+447700900101", "Amira", "Hello Amira, you are on call this week."),
        ("+447700900102", "Björn", "Hello Björn, you are on call this week."),
        ("+447700900103", "Chloé", "Hello Chloé, you are on call this week."),
    }


@pytest.mark.skipif(VERSION < (3, 0), reason="before Airflow 3 every run has a logical date")
def test_the_example_dags_run_without_a_logical_date_too(airflow: AirflowCli, box: Sandbox) -> None:
    shutil.copytree(EXAMPLES, airflow.dags, dirs_exist_ok=True)
    dag_ids = sorted(path.stem for path in EXAMPLES.glob("*.py"))
    output = airflow.test_dag(*dag_ids, is_dated=False)
    assert airflow.query("select distinct logical_date from dag_run") == [(None,)]
    failed = {name for dag_id in dag_ids for name, state in airflow.states(dag_id).items() if state != "success"}
    assert failed == {"publish", "load[0]", "load[2]"}, output  # which an example fails on purpose
    texts = [message.message or "" for message in box.messages]
    # 30 of the broadcast, the report, the notification, three on call, the import, and three of the failure.
    assert len(texts) == 30 + 1 + 1 + 3 + 1 + 3
    assert not [text for text in texts if "None" in text or "{{" in text]


def test_the_example_of_a_failure_tells_of_it(airflow: AirflowCli, box: Sandbox) -> None:
    shutil.copy(EXAMPLES / "wassly_failure_alert.py", airflow.dags)
    output = airflow.test_dag("wassly_failure_alert")
    states = airflow.states("wassly_failure_alert")
    assert {name for name, state in states.items() if state == "failed"} == {"load[0]", "load[2]", "publish"}, output
    told = {message.contact_mobile_number: message.message or "" for message in box.messages}
    assert len(box.messages) == 3
    # These versions pass it only to the callbacks of a real run.
    reason = "see the log" if (3, 0) <= VERSION < (3, 3) else "the web server refuses the password"
    assert told["+447700900123"].endswith(f"is not published: _{reason}_")
    assert told["+447700900101"] == told["+447700900102"]
    assert told["+447700900101"].startswith("❌ *DAG failed*: `wassly_failure_alert`")


def test_every_way_to_use_it(airflow: AirflowCli, box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "report.pdf").write_bytes(b"%PDF-1.7 report")
    (airflow.dags / "text.j2").write_text("{{ params.greeting }} from a file")
    (airflow.dags / "ways.py").write_text(
        HEAD
        + f"FOLDER = {str(tmp_path)!r}"
        + """
@task
def numbers():
    return [TO, "+447700900124"]

@task
def text():
    return "Hello {{ not rendered again }}"

with DAG("ways", params={"greeting": "Hello"}, render_template_as_native_obj=True, **OPTIONS) as dag:
    classic = WasslySendMessageOperator(
        task_id="classic", contact_mobile_number=TO, message="{{ params.greeting }} {{ ds }}", contact_name="Amira"
    )
    from_xcom = WasslySendMessageOperator(task_id="from_xcom", contact_mobile_number=TO, message=text())
    from_file = WasslySendMessageOperator(task_id="from_file", contact_mobile_number=TO, message="text.j2")
    path = WasslySendMessageOperator(task_id="path", contact_mobile_number=TO, document=Path(FOLDER) / "report.pdf")
    uri = WasslySendMessageOperator(
        task_id="uri", contact_mobile_number=TO, document=f"file://{FOLDER}/report.pdf", document_name="{{ ds }}.pdf"
    )
    object_path = WasslySendMessageOperator(
        task_id="object_path", contact_mobile_number=TO, media=ObjectStoragePath(f"file://{FOLDER}/report.pdf")
    )
    mapped = WasslySendMessageOperator.partial(task_id="mapped", message="text.j2").expand(
        contact_mobile_number=numbers()
    )

    @task_group
    def group():
        WasslySendMessageOperator(task_id="inner", contact_mobile_number=TO, message="in a group")

    classic >> from_xcom >> from_file >> path >> uri >> object_path >> mapped >> group()
"""
    )
    output = airflow.test_dag("ways")
    states = airflow.states("ways")
    assert set(states.values()) == {"success"}, output
    assert {name for name in states if name not in ("numbers", "text")} == {
        "classic", "from_xcom", "from_file", "path", "uri", "object_path", "mapped[0]", "mapped[1]", "group.inner"
    }  # fmt: skip
    assert airflow.returned("ways")["uri"] == {
        "outcome": "accepted",
        "message_type": "document",
        "conversation_id": 1,
        "remaining_conversations": 995,
    }
    classic, from_xcom, from_file, path, uri, object_path, *mapped, inner = box.messages
    assert (classic.message, classic.contact_name) == ("Hello 2026-11-24", "Amira")
    assert from_xcom.message == "Hello {{ not rendered again }}"
    assert from_file.message == "Hello from a file"
    assert path.document is not None
    assert uri.document is not None
    assert object_path.media is not None
    assert [file.name for file in (path.document, uri.document, object_path.media)] == [
        "report.pdf",
        "2026-11-24.pdf",
        "report.pdf",
    ]
    assert {file.bytes for file in (path.document, uri.document, object_path.media)} == {b"%PDF-1.7 report"}
    assert {(message.contact_mobile_number, message.message) for message in mapped} == {
        ("+447700900123", "Hello from a file"),
        ("+447700900124", "Hello from a file"),
    }
    assert inner.message == "in a group"


def test_tasks_test_works_too(airflow: AirflowCli, box: Sandbox) -> None:
    (airflow.dags / "one.py").write_text(
        HEAD
        + """
with DAG("one", **OPTIONS) as dag:
    WasslySendMessageOperator(task_id="send", contact_mobile_number=TO, message="tested {{ ds }}")
"""
    )
    command = "tasks test one send 2026-11-24"
    airflow.run("dags reserialize", command, command)
    # Each is a separate test and must not count another's message.
    assert [message.message for message in box.messages] == ["tested 2026-11-24", "tested 2026-11-24"]
