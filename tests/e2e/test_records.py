"""
Tasks that run again, in every way that Airflow has: how many messages each recipient gets.

Every scenario has its own DAG and sandbox. All of them run at the same time.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_wassly.sandbox import Sandbox
from tests.e2e.play import SECONDS, Play
from tests.support.airflow_server import VERSION, AirflowServer

ENDED = ("success", "failed")
AGAIN = "Wassly accepted the message of an earlier attempt"
UNKNOWN = "UNKNOWN whether Wassly accepted it"
CHANGED = "NOT sent to this recipient"


def number(row: int) -> str:
    return f"+4477009{row:05}"


DAG_FILE = """
import json, os
from datetime import datetime, timedelta, timezone

from airflow_provider_wassly.client import WasslyDeviceDisconnected, WasslyError
from airflow_provider_wassly.operators.broadcast import WasslyBroadcastOperator
from airflow_provider_wassly.operators.send_message import WasslySendMessageOperator
try:
    from airflow.sdk import DAG
except ImportError:
    from airflow.models.dag import DAG

NAMES = json.loads((HOME / "names.json").read_text())
DAY = timedelta(days=1)


def is_first(context, what):
    marker = HOME / f"{context['ti'].dag_id}.{context['ti'].map_index}.{what}"
    if marker.exists():
        return False
    marker.touch()
    return True


def fail_once(context, result):
    if is_first(context, "failed"):
        raise RuntimeError("something else goes wrong")


def die_once(context, result):
    if is_first(context, "died"):
        os.kill(os.getpid(), 9)


def fail_early_when_made_again(context):
    if (HOME / f"{context['ti'].dag_id}.again").exists() and is_first(context, "failed"):
        raise RuntimeError("something else goes wrong")


def number(row):
    return f"+4477009{row:05}"


def people(count):
    return [{"contact_mobile_number": number(row)} for row in range(1, count + 1)]


def dag_of(name, schedule="@once"):
    return DAG(
        name,
        schedule=schedule,
        start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
        user_defined_macros={"numbers": lambda: json.loads((HOME / f"{name}.json").read_text())},
    )


def send(name, **arguments):
    if name in NAMES:
        with dag_of(name):
            WasslySendMessageOperator(
                **{"task_id": "send", "contact_mobile_number": number(1), "message": "Hello", "wassly_conn_id": name}
                | arguments
            )


def broadcast(name, shards=None, **arguments):
    if name in NAMES:
        arguments |= {"task_id": "send", "message": "Hello", "wassly_conn_id": name, "messages_per_minute": None}
        with dag_of(name):
            if shards:
                WasslyBroadcastOperator.partial(**arguments).expand(recipients=shards)
            else:
                WasslyBroadcastOperator(**arguments)


if "rescheduled" in NAMES:
    from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule
    from airflow.sdk.exceptions import AirflowTaskTimeout

    def reschedule(exception):
        # Airflow fails a task that is due before it has learned that the process has ended.
        delay, limit = timedelta(seconds=15), timedelta(hours=1)
        rule = RetryRule(exception, action=RetryAction.RESCHEDULE, retry_delay=delay, reschedule_timeout=limit)
        return ExceptionRetryPolicy(rules=[rule])

    always = reschedule([Exception, AirflowTaskTimeout])
    send("rescheduled", post_execute=fail_once, retry_policy=always)
    send("rescheduled_unknown", retry_policy=always)
    send("rescheduled_timeout", retry_policy=always, execution_timeout=timedelta(seconds=15))
    send("rescheduled_unknown_retry", retry_policy=always, on_outcome_unknown="retry")
    broadcast("rescheduled_rate", retry_policy=always, recipients=people(20))
    broadcast("rescheduled_device", retry_policy=reschedule(WasslyError), recipients=people(20))
    broadcast("rescheduled_broadcast", retry_policy=always, recipients=people(20), post_execute=fail_once)
    send("patient", retry_policy=reschedule(WasslyDeviceDisconnected))

broadcast("cleared", recipients=people(10))
broadcast("cleared_shards", shards=[people(10)[:5], people(10)[5:]])
broadcast("resumed", recipients=people(5), post_execute=fail_once)
broadcast("restarted", recipients=people(5), post_execute=fail_once, on_clear="restart")

for name in ("deleted_run", "deleted_task"):
    if name in NAMES:
        try:
            from airflow.providers.standard.operators.empty import EmptyOperator
        except ImportError:
            from airflow.operators.empty import EmptyOperator

        with dag_of(name, schedule=None):
            EmptyOperator(task_id="other")
            WasslySendMessageOperator(
                task_id="send",
                contact_mobile_number=number(1),
                message="Hello",
                wassly_conn_id=name,
                pre_execute=fail_early_when_made_again,
                post_execute=die_once,
                retries=1,
                retry_delay=DAY,
            )

send(
    "changed_number",
    contact_mobile_number="{{ numbers()[0] }}",
    post_execute=fail_once,
    retries=1,
    retry_delay=DAY,
)
with dag_of("changed_list"):
    WasslySendMessageOperator.partial(
        task_id="send",
        message="Hello",
        wassly_conn_id="changed_list",
        post_execute=fail_once,
        retries=1,
        retry_delay=DAY,
    ).expand(contact_mobile_number=json.loads((HOME / "changed_list.json").read_text()))
"""


@dataclasses.dataclass
class Case:
    """
    A running scenario.

    :param name: the DAG's id; its sending task is called ``send``.
    :param home: the folder with the play's files.
    """

    name: str
    server: AirflowServer
    box: Sandbox
    home: Path
    #: The messages that the service had recorded when the run first ended.
    before: list[str] = dataclasses.field(default_factory=list)

    @property
    def has_ended(self) -> bool:
        return self.server.query("select state from dag_run where dag_id = ?", self.name) in [
            [(state,)] for state in ENDED
        ]

    @property
    def tasks(self) -> list[tuple[int, str, int]]:
        """Return the map index, state and number of tries of each task instance."""
        statement = "select map_index, state, try_number from task_instance where dag_id = ? and task_id = 'send'"
        return sorted(self.server.query(statement, self.name))

    @property
    def reached(self) -> list[str]:
        return [message.contact_mobile_number for message in self.box.messages]

    def all_are(self, *states: str) -> bool:
        return bool(self.tasks) and all(state in states for _, state, _ in self.tasks)

    def write_numbers(self, *numbers: str) -> None:
        (self.home / f"{self.name}.json").write_text(json.dumps(numbers))

    def call(self, method: str, path: str, body: Any = None) -> None:
        """Call the REST API about the DAG."""
        self.server.call(method, f"/api/v2/dags/{self.name}/{path}", body)


#: Does something to a scenario, and yields where it has to wait.
Story = Callable[[Case], Iterator[None]]


def until(condition: Callable[[], object]) -> Iterator[None]:
    while not condition():
        yield


def runs(case: Case) -> Iterator[None]:
    yield from until(lambda: case.has_ended)


def is_cleared(case: Case) -> Iterator[None]:
    yield from runs(case)
    case.before = case.reached
    case.server.clear(case.name, "send")
    yield from runs(case)


def gets_its_device_back(case: Case) -> Iterator[None]:
    yield from until(lambda: not case.box.devices[0].connected and case.all_are("up_for_reschedule"))
    case.before = case.reached
    case.box.connect_device(case.box.devices[0].instance_id)
    yield from runs(case)


def waits_for_its_device(case: Case) -> Iterator[None]:
    case.box.disconnect_device(case.box.devices[0].instance_id)
    # More than one failed try.
    yield from until(lambda: sum(call.endpoint == "send" for call in case.box.calls) >= 3)
    yield from gets_its_device_back(case)


def gets_other_numbers(case: Case) -> Iterator[None]:
    yield from until(lambda: case.all_are("up_for_retry"))
    case.before = case.reached
    case.write_numbers(number(3), number(2))
    case.server.retry_now(case.name)
    yield from runs(case)


def is_made_again(case: Case) -> Iterator[None]:
    server = case.server
    yield from until(lambda: server.query("select 1 from serialized_dag where dag_id = ?", case.name))
    server.start_run(case.name, "once")
    # Airflow 3.0 does not retry a task whose process was killed.
    yield from until(lambda: case.all_are("up_for_retry", "failed"))
    case.before = case.reached
    server.set_run_state(case.name, "once", "failed")
    # With SQLite the scheduler locks nothing, and it dies if a run that it is processing disappears.
    over = time.monotonic() + 10
    yield from until(lambda: time.monotonic() > over)
    (case.home / f"{case.name}.again").touch()
    if case.name == "deleted_task":
        case.call("DELETE", "dagRuns/once/taskInstances/send")
        assert case.tasks == []
        # For the run's latest version, Airflow creates what is missing.
        clear = {"dag_run_id": "once", "task_ids": ["other"], "dry_run": False, "only_failed": False}
        case.call("POST", "clearTaskInstances", clear | {"run_on_latest_version": True})
    else:
        server.delete_run(case.name, "once")
        server.start_run(case.name, "once")
    while not case.all_are("up_for_retry"):
        if case.has_ended:  # 3.4.0b2 sometimes ends the run before it has seen the task
            server.set_run_state(case.name, "once", "queued")
        yield
    server.retry_now(case.name)
    yield from runs(case)


RESCHEDULING: dict[str, Story] = {
    "rescheduled": runs,
    "rescheduled_unknown": runs,
    "rescheduled_timeout": runs,
    "rescheduled_unknown_retry": runs,
    "rescheduled_rate": runs,
    "rescheduled_broadcast": runs,
    "rescheduled_device": gets_its_device_back,
    "patient": waits_for_its_device,
}
STORIES: dict[str, Story] = {
    **(RESCHEDULING if VERSION >= (3, 4) else {}),
    "cleared": is_cleared,
    "cleared_shards": is_cleared,
    "resumed": is_cleared,
    "restarted": is_cleared,
    "deleted_run": is_made_again,
    **({"deleted_task": is_made_again} if VERSION >= (3, 3) else {}),
    "changed_number": gets_other_numbers,
    "changed_list": gets_other_numbers,
}
#: What the service does in each scenario.
FAULTS: dict[str, list[dict[str, Any]]] = {
    "rescheduled_unknown": [{"name": "hang_after_accept"}],
    "rescheduled_timeout": [{"name": "hang_after_accept"}],
    "rescheduled_unknown_retry": [{"name": "hang_after_accept"}],
    "rescheduled_rate": [{"name": "http_429", "retry_after": "700", "to": number(7)}],
    "rescheduled_device": [{"name": "device_disconnected", "to": number(7)}],
    "cleared_shards": [{"name": "http_413", "to": number(4)}, {"name": "http_413", "to": number(10)}],
    "cleared": [{"name": "http_413", "to": number(10)}],
}
needs_reschedule = pytest.mark.skipif(VERSION < (3, 4), reason="RetryAction.RESCHEDULE is new in Airflow 3.4")


class Records(Play):
    """All scenarios."""

    def __init__(self, server: AirflowServer) -> None:
        super().__init__(server)
        self.cases: dict[str, Case] = {}
        for name in STORIES:
            extra = {"read_timeout": 60 if name == "rescheduled_timeout" else 5}
            case = self.cases[name] = Case(name, server, self.start_sandbox(name, extra=extra), self.home)
            case.write_numbers(number(1), number(2))
            for fault in FAULTS.get(name, []):
                case.box.fail_next(**fault)
        (self.home / "names.json").write_text(json.dumps(list(STORIES)))
        self.add_dags(DAG_FILE)

    def perform(self) -> None:
        stories = {name: STORIES[name](case) for name, case in self.cases.items()}

        def all_are_told() -> bool:
            for name, story in list(stories.items()):
                try:
                    next(story)
                except StopIteration:
                    del stories[name]
            return not stories

        self.server.wait_for(all_are_told, "the end of all scenarios", seconds=SECONDS)


PLAY = Records


@pytest.fixture(scope="module")
def cases(play: Records) -> dict[str, Case]:
    return play.cases


def check(case: Case, *, state: str, tries: int, reached: dict[str, int], says: str = "") -> str:
    """Check the task's final state and how many messages each recipient got; return the task's log."""
    log = case.server.task_logs(case.name)
    assert (case.tasks, Counter(case.reached)) == ([(-1, state, tries)], reached), log
    assert says in log
    return log


def once(*rows: int) -> dict[str, int]:
    return {number(row): 1 for row in rows}


@needs_reschedule
def test_a_rescheduled_send_does_not_send_again(cases: dict[str, Case]) -> None:
    check(cases["rescheduled"], state="success", tries=1, reached=once(1), says=AGAIN)


@needs_reschedule
@pytest.mark.parametrize("name", ["rescheduled_unknown", "rescheduled_timeout"])
def test_an_answer_that_was_lost_is_unknown_whatever_is_rescheduled(cases: dict[str, Case], name: str) -> None:
    check(cases[name], state="failed", tries=1, reached=once(1), says=UNKNOWN)


@needs_reschedule
def test_a_reschedule_sends_again_what_is_unknown_if_that_is_allowed(cases: dict[str, Case]) -> None:
    check(cases["rescheduled_unknown_retry"], state="success", tries=1, reached={number(1): 2}, says=UNKNOWN)


@needs_reschedule
@pytest.mark.parametrize("name", ["rescheduled_rate", "rescheduled_device", "rescheduled_broadcast"])
def test_a_rescheduled_broadcast_reaches_everybody_once(cases: dict[str, Case], name: str) -> None:
    check(cases[name], state="success", tries=1, reached=once(*range(1, 21)), says="UP_FOR_RESCHEDULE")


@needs_reschedule
def test_a_send_waits_for_its_device_without_using_retries(cases: dict[str, Case]) -> None:
    case = cases["patient"]
    check(case, state="success", tries=1, reached=once(1), says="UP_FOR_RESCHEDULE")
    assert case.before == []


def test_a_cleared_broadcast_sends_to_those_that_are_left(cases: dict[str, Case]) -> None:
    case = cases["cleared"]
    check(
        case,
        state="success",
        tries=2,
        reached=once(*range(1, 11)),
        says="Resuming without sending to anyone twice: this task was cleared",
    )
    assert len(case.before) == 9


def test_shards_of_a_broadcast_that_are_cleared_together_send_to_those_that_are_left(cases: dict[str, Case]) -> None:
    case = cases["cleared_shards"]
    log = case.server.task_logs(case.name)
    assert len(case.before) == 8, log
    assert Counter(case.reached) == once(*range(1, 11)), log
    assert case.all_are("success"), log


def test_a_broadcast_that_had_sent_to_all_resumes_when_it_is_cleared(cases: dict[str, Case]) -> None:
    case = cases["resumed"]
    log = check(case, state="success", tries=2, reached=once(*range(1, 6)))
    assert len(case.before) == 5
    assert (
        "Resuming without sending to anyone twice: this task was cleared after it failed. To send to everyone "
        "again, start a new DAG run, or set on_clear='restart'"
    ) in log


def test_a_cleared_broadcast_starts_over_if_it_is_to(cases: dict[str, Case]) -> None:
    case = cases["restarted"]
    log = check(case, state="success", tries=2, reached={number(row): 2 for row in range(1, 6)})
    assert len(case.before) == 5
    assert "Resuming" not in log


@pytest.mark.parametrize(
    "name",
    [
        "deleted_run",
        pytest.param(
            "deleted_task", marks=pytest.mark.skipif(VERSION < (3, 3), reason="how it is made again is tested on 3.3+")
        ),
    ],
)
def test_a_task_that_was_deleted_and_made_again_sends(cases: dict[str, Case], name: str) -> None:
    case = cases[name]
    log = check(case, state="success", tries=2, reached={number(1): 2})
    assert len(case.before) == 1
    assert AGAIN not in log


def test_a_number_that_changes_between_two_tries_is_not_taken_for_the_other(cases: dict[str, Case]) -> None:
    case = cases["changed_number"]
    check(case, state="failed", tries=2, reached=once(1), says=CHANGED)


def test_a_list_that_changes_between_two_tries_is_not_taken_for_the_other(cases: dict[str, Case]) -> None:
    case = cases["changed_list"]
    log = case.server.task_logs("changed_list")
    assert case.tasks == [(0, "failed", 2), (1, "success", 2)], log
    assert Counter(case.reached) == once(1, 2), log
    assert CHANGED in log
    assert AGAIN in log
