"""The notifier's texts in a real Airflow, as a task callback, a DAG callback and a deadline alert."""

from __future__ import annotations

import json
import re

import pytest

from airflow_provider_wassly.sandbox import Message, Sandbox
from tests.e2e.play import SECONDS, TRIGGERER, Play
from tests.support.airflow_server import IS_AIRFLOW_2, VERSION, AirflowServer

HAS_DEADLINES = VERSION >= (3, 1)
LOGICAL_DATE = "Logical date: 2026-01-01 00:00 UTC"
ENDED = ("success", "failed")

#: One number for each callback, to identify its message.
NUMBERS = {
    name: f"+4477009001{number:02}"
    for number, name in enumerate(
        ("retry", "failure", "success", "skipped", "killed", "dag_failure", "dag_success", "many", "deadline")
    )
}

DAG_FILE = """
import json, os, signal, time
from datetime import datetime, timedelta, timezone

from airflow_provider_wassly.notifications.wassly import WasslyNotifier, send_wassly_notification
try:
    from airflow.sdk import DAG, task
    from airflow.sdk.exceptions import AirflowSkipException
except ImportError:
    from airflow.exceptions import AirflowSkipException
    try:
        from airflow.sdk import DAG, task
    except ImportError:
        from airflow.decorators import task
        from airflow.models.dag import DAG

NUMBERS = json.loads((HOME / "numbers.json").read_text())
ONCE = dict(schedule="@once", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc))


def tell(name, **more):
    return send_wassly_notification(contact_mobile_number=NUMBERS[name], **more)


with DAG("of_tasks", on_failure_callback=tell("dag_failure"), **ONCE) as of_tasks:

    @task(retries=1, retry_delay=timedelta(seconds=1), on_retry_callback=tell("retry"),
          on_failure_callback=[tell("failure"), tell("failure", message="{{ ti.task_id }} of *{{ dag.dag_id }}*")])
    def load_orders():
        raise ValueError("no such table: orders\\nand a second line")

    @task(on_success_callback=tell("success"))
    def fine(): ...

    @task(on_skipped_callback=tell("skipped"))
    def skip():
        raise AirflowSkipException("nothing to do")

    @task(retries=1, retry_delay=timedelta(seconds=1), on_retry_callback=tell("killed"))
    def killed():
        os.kill(os.getpid(), signal.SIGKILL)

    load_orders(), fine(), skip()
    if "killed" in NUMBERS:
        killed()

with DAG("fine_dag", on_success_callback=tell("dag_success"), **ONCE) as fine_dag:
    fine.override(on_success_callback=None)()

with DAG("many", on_failure_callback=tell("many"), **ONCE) as many:

    @task
    def part_of_it(number):
        if number:
            raise RuntimeError(number)

    part_of_it.expand(number=[0, 1, 2, 3])

with DAG("broken", on_failure_callback=tell("dag_failure", wassly_conn_id="broken"), **ONCE) as broken:

    @task(on_success_callback=tell("success", wassly_conn_id="broken"))
    def good(): ...

    @task(on_failure_callback=tell("failure", wassly_conn_id="broken"))
    def bad():
        raise ValueError("bad")

    good() >> bad()
"""

DEADLINE = """

try:
    from airflow.sdk import AsyncCallback, DeadlineAlert, DeadlineReference
except ImportError:
    from airflow.sdk.definitions.deadline import AsyncCallback, DeadlineAlert, DeadlineReference

alert = DeadlineAlert(
    reference=DeadlineReference.DAGRUN_QUEUED_AT,
    interval=timedelta(seconds=5),
    callback=AsyncCallback(WasslyNotifier, kwargs={"contact_mobile_number": [NUMBERS["deadline"]]}),
)
with DAG("late", deadline=alert, **ONCE) as late:

    @task
    def slow():
        while not (HOME / "told").exists():
            time.sleep(0.2)

    slow()
"""


class Callbacks(Play):
    """All DAGs and their callbacks."""

    def __init__(self, server: AirflowServer) -> None:
        super().__init__(server)
        self.add_dags(DAG_FILE + (DEADLINE if HAS_DEADLINES else ""))
        self.working, self.broken = self.start_sandbox("wassly_default"), self.start_sandbox("broken")
        self.broken.fail_next("hang_after_accept", times=99)
        left_out = set() if HAS_DEADLINES else {"deadline"}
        if VERSION == (3, 0):  # which neither retries nor runs callbacks when a task's process is killed
            left_out.add("killed")
        self.numbers = {name: number for name, number in NUMBERS.items() if name not in left_out}
        (self.home / "numbers.json").write_text(json.dumps(self.numbers))
        if HAS_DEADLINES:
            TRIGGERER.acquire()

    def perform(self) -> None:
        if HAS_DEADLINES:
            try:
                self.server.wait_for(self.deadline_is_told, "the deadline alert", seconds=SECONDS)
            finally:
                (self.home / "told").touch()
                TRIGGERER.release()
        self.server.wait_for(self.all_is_told, "all messages", seconds=SECONDS)

    def deadline_is_told(self) -> bool:
        at_work = self.server.query("select 1 from trigger where classpath like '%Callback%'")
        return any(is_for(message, "deadline") for message in self.working.messages) and not at_work

    def all_is_told(self) -> bool:
        dag_ids = {"of_tasks", "fine_dag", "many", "broken", *(["late"] if HAS_DEADLINES else [])}
        states = dict(self.server.query("select dag_id, state from dag_run"))
        ended = all(states.get(dag_id) in ENDED for dag_id in dag_ids)
        # A failed task sends two. The broken DAG: a task that succeeds, one that fails, and the DAG itself.
        return ended and len(self.working.messages) >= len(self.numbers) + 1 and len(self.broken.messages) >= 3


PLAY = Callbacks


@pytest.fixture(scope="module")
def boxes(play: Callbacks) -> tuple[Sandbox, Sandbox]:
    """One that works, and one that never answers."""
    return play.working, play.broken


@pytest.fixture(scope="module")
def server(play: Callbacks) -> AirflowServer:
    return play.server


def told(boxes: tuple[Sandbox, Sandbox], name: str) -> list[str]:
    """Return the text that a callback sent, without the link."""
    texts = [message.message or "" for message in boxes[0].messages if is_for(message, name)]
    return [re.sub(r"after \d+ s", "after N s", text) for text in texts]


def is_for(message: Message, name: str) -> bool:
    return message.contact_mobile_number == NUMBERS[name]


def split(text: str) -> tuple[list[str], str]:
    *lines, url = text.splitlines()
    return lines, url


def run_of(server: AirflowServer, dag_id: str) -> str:
    ((run_id,),) = server.query("select run_id from dag_run where dag_id = ?", dag_id)
    return str(run_id)


@pytest.mark.parametrize(
    ("name", "head", "facts", "error", "try_number"),
    [
        ("retry", "🔁 *Task failed, will be retried*: `load_orders`", "try 1 of 2, after N s", True, 1),
        ("failure", "❌ *Task failed*: `load_orders`", "try 2 of 2, after N s", True, 2),
        ("success", "✅ *Task succeeded*: `fine`", "try 1 of 1, after N s", False, 1),
        ("skipped", "⏭️ *Task skipped*: `skip`", "try 1 of 1", False, 1),
    ],
)
def test_a_callback_of_a_task_says_what_happened(
    server: AirflowServer,
    boxes: tuple[Sandbox, Sandbox],
    name: str,
    head: str,
    facts: str,
    error: bool,
    try_number: int,
) -> None:
    text = told(boxes, name)[0]
    lines, url = split(text)
    assert lines == [
        head,
        f"DAG `of_tasks`, {facts}",
        *(["`ValueError: no such table: orders`"] if error else []),
        LOGICAL_DATE,
        f"Run: `{run_of(server, 'of_tasks')}`",
    ]
    task_id = re.findall(r"`(.*)`", head)[0]
    if IS_AIRFLOW_2:
        assert url.startswith("http://localhost:8080/dags/of_tasks/grid?dag_run_id=")
        assert f"task_id={task_id}" in url
    else:
        assert url.startswith(f"{server.url}/dags/of_tasks/runs/")
        assert url.endswith(f"/tasks/{task_id}?try_number={try_number}")


def test_a_text_of_ones_own_is_sent_beside_the_default_one(
    server: AirflowServer, boxes: tuple[Sandbox, Sandbox]
) -> None:
    default, own = told(boxes, "failure")
    assert default.startswith("❌ *Task failed*")
    assert own == "load_orders of *of_tasks*"


@pytest.mark.skipif(VERSION == (3, 0), reason="Airflow 3.0 does not call back when a process was killed")
def test_a_task_whose_process_was_killed_is_told_too(server: AirflowServer, boxes: tuple[Sandbox, Sandbox]) -> None:
    (text,) = told(boxes, "killed")
    lines, url = split(text)
    assert lines[0] == "🔁 *Task failed, will be retried*: `killed`"
    assert lines[1].startswith("DAG `of_tasks`, try 1 of 2")
    assert lines[-2:] == [LOGICAL_DATE, f"Run: `{run_of(server, 'of_tasks')}`"]
    assert url.startswith("http")


def test_a_failed_dag_names_the_tasks_that_failed(server: AirflowServer, boxes: tuple[Sandbox, Sandbox]) -> None:
    (text,) = told(boxes, "dag_failure")
    lines, url = split(text)
    assert re.fullmatch(r"❌ \*DAG failed\*: `of_tasks`(, after .*)?", lines[0])
    if VERSION == (3, 0):
        assert lines[1:] in (
            [f"Run: `{run_of(server, 'of_tasks')}`"],
            [LOGICAL_DATE, f"Run: `{run_of(server, 'of_tasks')}`"],
        )
    else:
        assert set(lines[1].partition(": ")[2].split(", ")) == {"`load_orders`", "`killed`"}
        assert lines[1].startswith("2 of 4 tasks failed: ")
        assert lines[2:] == [LOGICAL_DATE, f"Run: `{run_of(server, 'of_tasks')}`"]
    assert "/dags/of_tasks/" in url


def test_a_dag_that_succeeded_says_so(server: AirflowServer, boxes: tuple[Sandbox, Sandbox]) -> None:
    (text,) = told(boxes, "dag_success")
    assert re.match(r"✅ \*DAG succeeded\*: `fine_dag`(, after .*)?\n", text)
    assert "failed" not in text


def test_many_failed_tasks_are_one_message_with_their_number(
    server: AirflowServer, boxes: tuple[Sandbox, Sandbox]
) -> None:
    (text,) = told(boxes, "many")
    if VERSION != (3, 0):
        assert text.splitlines()[1] == "3 of 4 tasks failed: `part_of_it` (3 of 4)"


@pytest.mark.skipif(not HAS_DEADLINES, reason="this Airflow has no deadline alerts")
def test_a_missed_deadline_is_told_once(server: AirflowServer, boxes: tuple[Sandbox, Sandbox]) -> None:
    (text,) = told(boxes, "deadline")
    lines, url = split(text)
    assert lines[0] == "⏰ *Deadline missed*: `late`"
    assert re.fullmatch(r"Due 20\d\d-\d\d-\d\d \d\d:\d\d UTC, run state: running", lines[1])
    assert lines[2:] == [LOGICAL_DATE, f"Run: `{run_of(server, 'late')}`"]
    assert url.startswith(f"{server.url}/dags/late/runs/")


def test_a_wassly_that_never_answers_changes_no_outcome(server: AirflowServer, boxes: tuple[Sandbox, Sandbox]) -> None:
    states = dict(server.query("select task_id, state from task_instance where dag_id = 'broken'"))
    assert states == {"good": "success", "bad": "failed"}
    tries = dict(server.query("select task_id, try_number from task_instance where dag_id = 'broken'"))
    assert tries == {"good": 1, "bad": 1}
    assert len(boxes[1].messages) == 3
    assert "UNKNOWN whether notified" in server.task_logs("broken")
