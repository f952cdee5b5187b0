"""What a task that sends one message does from its first attempt to its end, and what it logs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_wassly.airflow_compat import exceptions, tasks, versions
from airflow_provider_wassly.client import WasslyError, WasslyOutcomeUnknown
from airflow_provider_wassly.operators.send_message import WasslySendMessageOperator
from tests.support.kept import HAS_TASK_STATE_STORE, Kept
from tests.support.log import Log
from tests.support.service import Service
from tests.support.task import Stopped, Task

FAIL = type(exceptions.fail_exception(""))
TO, OTHER = "+447700900301", "+447700900309"


@pytest.fixture(params=["state", "variables"] if HAS_TASK_STATE_STORE else ["variables"])
def task(request: pytest.FixtureRequest, service: Service, monkeypatch: pytest.MonkeyPatch) -> Task:
    """A task, for each kind of store that this Airflow can have."""
    listeners: list[Callable[[Any, bool], None]] = []
    monkeypatch.setattr(tasks, "listen_for_end", listeners.append)
    monkeypatch.setattr(tasks, "runs_here", lambda ti: True)
    state = Kept() if request.param == "state" else None
    return Task(WasslySendMessageOperator, state, listeners, contact_mobile_number=TO, message="Hello")


def lost(*fates: str) -> dict[str, list[str]]:
    return {TO: [*fates, *["accept"] * 9]}


def test_a_message_that_is_accepted_ends_the_task_and_leaves_nothing(task: Task, service: Service) -> None:
    assert task.run().returned == {
        "outcome": "accepted",
        "message_type": "text",
        "conversation_id": 1,
        "remaining_conversations": None,
    }
    assert service.delivered == [TO]
    assert "wassly_send" not in task.kept()


@pytest.mark.parametrize(
    ("fate", "kind", "verdict"),
    [
        ("no connection", WasslyError, "NOT accepted by Wassly"),
        ("refuse for now", WasslyError, "NOT accepted by Wassly"),
        ("refuse", FAIL, "NOT accepted by Wassly"),
        ("wrong key", FAIL, "NOT accepted by Wassly"),
    ],
)
def test_what_was_refused_is_sent_by_the_next_attempt(
    task: Task, service: Service, log: Log, fate: str, kind: type, verdict: str
) -> None:
    service.fates = lost(fate)
    assert isinstance(task.run().error, kind)
    assert log.count(verdict) == 1
    assert task.run().returned
    assert service.delivered == [TO]


@pytest.mark.parametrize("fate", ["accept, answer lost", "lose it, answer lost"])
@pytest.mark.parametrize(
    ("choice", "outcome", "copies"), [("fail", None, 1), ("ignore", "unknown", 1), ("retry", None, 2)]
)
def test_an_unknown_outcome_is_what_the_author_says(
    task: Task, service: Service, log: Log, fate: str, choice: str, outcome: str | None, copies: int
) -> None:
    service.fates = lost(fate)
    ended = task.run(on_outcome_unknown=choice)
    assert log.count("UNKNOWN whether Wassly accepted it") == 1
    if outcome:
        assert ended.returned is not None
        assert ended.returned["outcome"] == outcome
        return
    assert isinstance(ended.error, FAIL if choice == "fail" else WasslyOutcomeUnknown)
    # Whatever state Airflow gives the task, the record decides.
    task.run(on_outcome_unknown=choice)
    assert service.calls == [TO] * copies


def test_a_process_that_dies_on_the_way_leaves_it_unknown(task: Task, service: Service, log: Log) -> None:
    def die(what: str) -> None:
        if what == "departed":
            raise Stopped

    service.on_event = die
    assert isinstance(task.run().error, Stopped)
    assert "Stopped ended this attempt after the message left" in log.text
    service.on_event = lambda what: None
    ended = task.run()
    assert isinstance(ended.error, FAIL)
    assert "If the message is in the chat with +44…0301, mark this task as success" in str(ended.error)
    task.clear()
    assert task.run().returned
    assert service.delivered == [TO]


def test_a_process_that_dies_before_the_message_leaves_has_not_sent_it(task: Task, service: Service) -> None:
    def die(what: str) -> None:
        if what == "call":
            raise Stopped

    service.on_event = die
    assert isinstance(task.run().error, Stopped)
    service.on_event = lambda what: None
    assert task.run().returned
    assert service.delivered == [TO]


def test_a_task_that_is_stopped_does_not_send_any_more(task: Task, service: Service) -> None:
    service.on_event = lambda what: task.kill() if what == "call" else None
    assert "Nothing was sent: this task is being stopped" in str(task.run().error)
    service.on_event = lambda what: None
    assert task.run().returned
    assert service.delivered == [TO]


def test_what_was_accepted_is_not_sent_again_when_the_task_fails_all_the_same(
    task: Task, service: Service, log: Log
) -> None:
    """``post_execute`` raises, or the process dies before Airflow has written down the success."""
    task.airflow_answers = False
    first = task.run()
    assert task.run().returned == first.returned
    if not versions.IS_AIRFLOW_2:
        assert task.again().returned == first.returned
    assert service.delivered == [TO]
    assert "Not sending again: Wassly accepted the message of an earlier attempt" in log.text
    task.airflow_answers = True
    task.run()
    task.clear()
    assert task.run().returned
    assert service.delivered == [TO, TO]


@pytest.mark.skipif(versions.IS_AIRFLOW_2, reason="Airflow 2 runs no try again")
@pytest.mark.parametrize("fate", ["accept, answer lost", "device disconnected", "refuse for now"])
def test_a_try_that_airflow_runs_again_sends_what_was_not_accepted_and_nothing_else(
    task: Task, service: Service, fate: str
) -> None:
    service.fates = lost(fate)
    task.run()
    ended = task.again()
    assert service.delivered == [TO]
    assert (ended.returned is None) is (fate == "accept, answer lost")


def fails(context: Any, jinja_env: Any) -> str:
    raise LookupError("no such name")


@pytest.mark.parametrize("message", ["{{ no_such_name.x }}", fails])
def test_a_task_instance_that_was_made_again_sends_although_its_first_try_fails_early(
    task: Task, service: Service, message: Any
) -> None:
    task.airflow_answers = False
    task.run()
    task.make_again()
    # It fails in its templates, before it could check anything.
    assert not isinstance(task.run(message=message).error, WasslyError)
    task.airflow_answers = True
    assert task.run().returned
    assert service.delivered == [TO, TO]


def test_a_recipient_that_changed_between_two_attempts_is_not_called_accepted(
    task: Task, service: Service, log: Log
) -> None:
    task.airflow_answers = False
    task.run()
    ended = task.run(contact_mobile_number=OTHER)
    assert isinstance(ended.error, FAIL)
    assert "NOT sent to this recipient: an earlier attempt of this task sent to another recipient" in str(ended.error)
    assert service.delivered == [TO]
    assert TO[1:] not in str(ended.error) + log.text
    task.clear()
    assert task.run(contact_mobile_number=OTHER).returned
    assert service.delivered == [TO, OTHER]


@pytest.mark.parametrize("number", ["00 44 7700 900-301", "+44 07700 900301", "tel:+44 (0)7700 900301"])
def test_the_same_recipient_in_other_words_is_the_same(task: Task, service: Service, number: str) -> None:
    task.airflow_answers = False
    task.run()
    assert task.run(contact_mobile_number=number, message="Hello at 12:01").returned
    assert service.delivered == [TO]


def test_templates_that_are_only_shown_touch_no_record(
    task: Task, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "runs_here", lambda ti: False)
    read: list[object] = []
    monkeypatch.setattr(WasslySendMessageOperator, "begin", lambda operator, context: read.append(context))
    task.run(message="{{ no_such_name.x }}")
    assert read == []


def test_where_an_error_came_from_is_logged_at_debug_level_only(task: Task, service: Service, log: Log) -> None:
    ended = task.run(document="/" + "a" * 300)
    assert isinstance(ended.error, FAIL)
    assert "OSError: [Errno 36] File name too long" in log.text
    assert "found = os.stat(location)" in log.text
    assert log.count("found = os.stat(location)") == 0
