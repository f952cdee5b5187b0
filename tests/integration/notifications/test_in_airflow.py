"""The notifier as a callback inside a real Airflow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from airflow import __version__

from airflow_provider_wassly.sandbox import Sandbox
from tests.support.airflow_cli import AirflowCli

VERSION = tuple(map(int, __version__.split(".")[:2]))

HEAD = """
from datetime import datetime, timedelta, timezone

from airflow_provider_wassly.notifications.wassly import WasslyNotifier
try:
    from airflow.sdk import DAG, task
except ImportError:
    from airflow.decorators import task
    from airflow.models.dag import DAG

TO = "+447700900123"
OPTIONS = dict(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc))
RETRY = dict(retries=1, retry_delay=timedelta(0))


def tell(**arguments):
    return WasslyNotifier(**{"contact_mobile_number": TO, **arguments})


@task
def fails():
    raise ValueError("no such table: orders\\nand a second line")


@task
def works():
    return 1

"""


@pytest.fixture
def airflow(box: Sandbox, tmp_path: Path) -> AirflowCli:
    home = tmp_path / "airflow"
    home.mkdir()
    broken = json.loads(box.connection) | {"port": 9}
    return AirflowCli(
        home,
        {
            "AIRFLOW_CONN_WASSLY_DEFAULT": box.connection,
            "AIRFLOW_CONN_BROKEN": json.dumps(broken),
            "AIRFLOW_VAR_ON_CALL": '["+447700900123", "+447700900124"]',
            "TMPDIR": str(tmp_path),
        },
    )


def runs(airflow: AirflowCli) -> dict[str, str]:
    """Return the state of each DAG's run."""
    return dict(airflow.query("select dag_id, state from dag_run"))


def heads(box: Sandbox) -> list[str]:
    """
    Return the first line of each message, oldest first, without the time taken.

    Here Airflow 3 uses the logical date as the start of a run.
    """
    return [str(message.message).splitlines()[0].partition(", after")[0] for message in box.messages]


def test_the_callbacks_of_tasks_and_of_dags(airflow: AirflowCli, box: Sandbox) -> None:
    (airflow.dags / "callbacks.py").write_text(
        HEAD
        + """
with DAG("of_a_task", **OPTIONS):
    works.override(on_success_callback=tell(), on_failure_callback=tell())() >> fails.override(
        on_retry_callback=tell(), on_failure_callback=tell(), on_success_callback=tell(), **RETRY
    )()

with DAG("of_a_dag", on_success_callback=tell(), on_failure_callback=tell(), **OPTIONS):
    works() >> fails()

with DAG("of_a_fine_dag", on_success_callback=tell(), on_failure_callback=tell(), **OPTIONS):
    works()

with DAG("of_mapped_tasks", **OPTIONS):
    @task(on_failure_callback=tell())
    def odd(number):
        assert number % 2 == 0

    odd.expand(number=[0, 1, 2])
"""
    )
    output = airflow.test_dag("of_a_task", "of_a_dag", "of_a_fine_dag", "of_mapped_tasks")
    assert runs(airflow) == {
        "of_a_task": "failed",
        "of_a_dag": "failed",
        "of_a_fine_dag": "success",
        "of_mapped_tasks": "failed",
    }, output
    assert heads(box) == [
        "✅ *Task succeeded*: `works`",
        "🔁 *Task failed, will be retried*: `fails`",
        "❌ *Task failed*: `fails`",
        "❌ *DAG failed*: `of_a_dag`",
        "✅ *DAG succeeded*: `of_a_fine_dag`",
        "❌ *Task failed*: `odd[1]`",
    ]
    retried, failed = (str(message.message).splitlines() for message in box.messages[1:3])
    assert retried[1].startswith("DAG `of_a_task`, try 1 of 2")
    assert failed[1].startswith("DAG `of_a_task`, try 2 of 2")
    # Unlike Airflow itself, "airflow dags test" of 3.0 to 3.2 does not pass the exception to a callback.
    error = [] if (3, 0) <= VERSION < (3, 3) else ["`ValueError: no such table: orders`"]
    for lines in (retried, failed):
        assert lines[2 : 3 + len(error)] == [*error, "Logical date: 2026-11-24 00:00 UTC"]
    for message in box.messages:
        assert "Run: `manual__" in str(message.message)
        assert "None" not in str(message.message)


def test_one_notifier_for_many_tasks_tells_of_each(airflow: AirflowCli, box: Sandbox) -> None:
    (airflow.dags / "shared.py").write_text(
        HEAD
        + """
shared = tell(contact_mobile_number=["{{ params.to }}"], message="{{ ti.task_id }} of {{ dag.dag_id }} on {{ ds }}")
with DAG("shared", default_args={"on_failure_callback": shared}, params={"to": TO}, **OPTIONS):
    fails.override(task_id="first")()
    fails.override(task_id="second")()

with DAG("own_too", default_args={"on_failure_callback": [shared, tell(message="and {{ run_id[:6] }}")]},
         params={"to": "+447700900124"}, **OPTIONS):
    fails()
"""
    )
    output = airflow.test_dag("shared", "own_too")
    assert sorted(str(message.message) for message in box.messages[:2]) == [
        "first of shared on 2026-11-24",
        "second of shared on 2026-11-24",
    ], output
    assert [(message.contact_mobile_number, message.message) for message in box.messages[2:]] == [
        ("+447700900124", "fails of own_too on 2026-11-24"),
        ("+447700900123", "and manual"),
    ]


def test_templates_as_people_write_them(airflow: AirflowCli, box: Sandbox) -> None:
    (airflow.dags / "texts").mkdir()
    (airflow.dags / "texts" / "failed.j2").write_text("*{{ dag.dag_id }}* {{ run_id[:6] }}\n{% include 'foot.j2' %}\n")
    (airflow.dags / "foot.j2").write_text("from a file")
    (airflow.dags / "report.txt").write_text("the report")
    (airflow.dags / "templates.py").write_text(
        HEAD
        + """
from pathlib import Path

HERE = Path(__file__).parent

with DAG("native", render_template_as_native_obj=True, params={"to": TO, "both": TO + ", +447700900124"}, **OPTIONS):
    works.override(on_success_callback=tell(contact_mobile_number="{{ params.to }}", message="{{ 1 + 1 }}"))() \\
    >> works.override(on_success_callback=tell(contact_mobile_number="{{ params.both }}", message="[1]"))()

with DAG("file_of_a_task", **OPTIONS):
    works.override(on_success_callback=tell(message="texts/failed.j2"))()

with DAG("file_of_a_dag", on_success_callback=tell(message="texts/failed.j2"), **OPTIONS):
    works()

with DAG("attached", on_success_callback=tell(message="{{ reason }}", document=HERE / "{{ 'report' }}.txt"), **OPTIONS):
    works()

@task
def on_duty():
    return [TO]

with DAG("on_call", **OPTIONS):
    works.override(on_success_callback=[
        tell(contact_mobile_number="{{ var.json.on_call }}", message="on call"),
        tell(message=lambda context, jinja_env: "called in " + context["dag"].dag_id),
    ])()

with DAG("output", **OPTIONS):
    people = on_duty()
    people >> works.override(on_success_callback=tell(contact_mobile_number=people, message="on duty"))()

with DAG("undefined", **OPTIONS):
    works.override(on_success_callback=[
        tell(message="{{ no_such_thing }}"), tell(message="{{ '' }}"), tell(message="no-such.j2"), tell(message="last")
    ])()
"""
    )
    output = airflow.test_dag("native", "file_of_a_task", "file_of_a_dag", "attached", "on_call", "output", "undefined")
    assert set(runs(airflow).values()) == {"success"}, output
    native, *both = box.messages[:3]
    assert (native.contact_mobile_number, native.message) == ("+447700900123", "2")
    assert {(message.contact_mobile_number, message.message) for message in both} == {
        ("+447700900123", "[1]"),
        ("+447700900124", "[1]"),
    }
    assert [message.message for message in box.messages[3:]] == [
        "*file_of_a_task* manual\nfrom a file",
        "*file_of_a_dag* manual\nfrom a file",
        "success",
        "on call",
        "on call",
        "called in on_call",
        "on duty",
        "last",
    ]
    attached = box.messages[5].document
    assert attached is not None
    assert (attached.name, attached.bytes) == ("report.txt", b"the report")


def test_a_wassly_that_cannot_be_reached_changes_no_outcome(airflow: AirflowCli, box: Sandbox) -> None:
    (airflow.dags / "broken.py").write_text(
        HEAD
        + """
from airflow_provider_wassly.notifications import delivery

delivery._BUDGET = 1.0  # too short for a second attempt


def broken_first():
    # A list: what comes after the one that fails is called all the same.
    return [tell(wassly_conn_id="broken"), tell(wassly_conn_id="no_such_connection"), tell()]


with DAG("task_works", **OPTIONS):
    works.override(on_success_callback=broken_first())() >> works.override(task_id="next")()

with DAG("task_fails", **OPTIONS):
    fails.override(on_retry_callback=broken_first(), on_failure_callback=broken_first(), **RETRY)()

with DAG("dag_works", on_success_callback=broken_first(), **OPTIONS):
    works()

with DAG("dag_fails", on_failure_callback=broken_first(), **OPTIONS):
    fails()
"""
    )
    output = airflow.test_dag("task_works", "task_fails", "dag_works", "dag_fails")
    assert runs(airflow) == {
        "task_works": "success",
        "task_fails": "failed",
        "dag_works": "success",
        "dag_fails": "failed",
    }, output
    assert airflow.states("task_works") == {"works": "success", "next": "success"}
    assert airflow.states("task_fails") == {"fails": "failed"}
    assert airflow.states("dag_works") == {"works": "success"}
    assert airflow.states("dag_fails") == {"fails": "failed"}
    assert [head.partition(":")[0] for head in heads(box)] == [
        "✅ *Task succeeded*",
        "🔁 *Task failed, will be retried*",
        "❌ *Task failed*",
        "✅ *DAG succeeded*",
        "❌ *DAG failed*",
    ]
    # The log contains the errors, but no numbers.
    # Airflow logs the exception.
    error = "WasslyUnavailable: NOT notified: recipient 1 (+44…0123): could not connect to http://127.0.0.1:9 ("
    assert output.count(error) == 5
    assert "There is no connection 'no_such_connection'; create it (type Wassly) or set wassly_conn_id" in output
    assert "7700900123" not in output
