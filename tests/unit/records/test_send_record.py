from __future__ import annotations

import contextlib
import json
import logging
import pickle
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_wassly.airflow_compat import tasks, versions
from airflow_provider_wassly.client import SendReceipt, WasslyError, WasslyUnavailable
from airflow_provider_wassly.records.attempts import Attempt
from airflow_provider_wassly.records.send_record import (
    SendRecord,
    WasslyRecipientChanged,
    WasslyRecordError,
    WasslyRecordUnreadable,
)
from tests.support.kept import HAS_TASK_STATE_STORE, Kept
from tests.support.records import check_record
from tests.support.task import task_instance
from tests.support.variables import Variables

KEY = "record"
RECEIPT = SendReceipt(message_type="document", conversation_id=7, remaining_conversations=40969)
NO = WasslyUnavailable("no connection")
TO, TEXT = "+447700900123", ["Hello"]


@pytest.fixture
def store() -> Kept:
    return Kept()


def attempt(number: int, chain: int = 3, retries: int | None = 3, instance: str | None = "") -> Attempt:
    return Attempt(f"try {number}" if instance == "" else instance, None, chain, number, retries)


def on_try(store: Kept, number: int, chain: int = 3, **more: Any) -> SendRecord:
    return SendRecord(store.store(KEY), attempt(number, chain, **more))


def found(record: SendRecord, to: str = TO, text: Any = TEXT) -> Any:
    return record.read(to, text)


def announced(record: SendRecord, to: str = TO, text: Any = TEXT) -> SendRecord:
    found(record, to, text)
    record.departing()
    return record


def accepted(record: SendRecord, to: str = TO, text: Any = TEXT) -> SendRecord:
    announced(record, to, text).accepted(RECEIPT)
    return record


def test_a_retry_learns_that_the_message_was_about_to_leave(store: Kept) -> None:
    announced(on_try(store, 1))
    assert found(on_try(store, 2)) == "announced"


def test_a_retry_gets_the_receipt(store: Kept) -> None:
    accepted(on_try(store, 1))
    assert found(on_try(store, 2)) == RECEIPT


def test_what_was_not_accepted_leaves_nothing(store: Kept) -> None:
    announced(on_try(store, 1)).refused(NO)
    assert found(on_try(store, 2)) is None
    assert store.values == {}


def test_what_an_earlier_attempt_left_in_doubt_stays_so_when_a_repetition_is_refused(store: Kept) -> None:
    announced(on_try(store, 1))
    announced(on_try(store, 2)).refused(NO)  # on_outcome_unknown="retry"
    assert found(on_try(store, 3)) == "announced"


def test_an_attempt_that_announced_nothing_withdraws_nothing(store: Kept) -> None:
    announced(on_try(store, 1))
    on_try(store, 2).refused(NO)
    assert found(on_try(store, 3)) == "announced"


def test_a_task_that_was_cleared_begins_anew(store: Kept) -> None:
    accepted(on_try(store, 1, chain=3))
    assert found(on_try(store, 2, chain=4)) is None


def test_a_try_that_airflow_runs_again_finds_what_it_has_sent(store: Kept) -> None:
    accepted(on_try(store, 1))
    assert found(on_try(store, 1)) == RECEIPT


def test_an_unanswered_try_that_airflow_runs_again_is_unknown(store: Kept) -> None:
    announced(on_try(store, 1))
    assert found(on_try(store, 1)) == "announced"


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_record_of_a_task_instance_that_was_deleted_goes_first_of_all(store: Kept, number: int) -> None:
    accepted(on_try(store, max(number, 1)))
    on_try(store, number, instance="made again").look()
    assert store.values == {}
    assert found(on_try(store, number + 1)) is None


def test_a_run_that_was_made_again_is_told_from_the_old_one_on_airflow_2(store: Kept) -> None:
    accepted(SendRecord(store.store(KEY), Attempt(None, "17", 3, 1, 3)))
    assert found(SendRecord(store.store(KEY), Attempt(None, "17", 3, 2, 3))) == RECEIPT
    # Its first try ended before it could read the record.
    assert found(SendRecord(store.store(KEY), Attempt(None, "18", 3, 2, 3))) is None


def test_a_first_try_on_airflow_2_has_no_earlier_attempt(store: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "RUNS_TRIES_AGAIN", False)
    accepted(SendRecord(store.store(KEY), Attempt(None, "17", 3, 1, 3)))
    assert found(SendRecord(store.store(KEY), Attempt(None, "17", 3, 1, 3))) is None


@pytest.mark.parametrize("leave", [announced, accepted])
def test_a_message_to_somebody_else_never_makes_this_one_accepted(store: Kept, leave: Callable[..., Any]) -> None:
    leave(on_try(store, 1))
    record = on_try(store, 2)
    came_of_it = "was accepted" if leave is accepted else "may have been accepted"
    reason = rf"sent to another recipient, and that message {came_of_it}\. The recipient has changed since, or the list"
    with pytest.raises(WasslyRecipientChanged, match=reason) as caught:
        found(record, to="+447700900124")
    assert caught.value.may_pass is False
    assert caught.value.summary.startswith("NOT sent to this recipient: ")
    assert found(on_try(store, 3)) is not None


def test_another_text_to_the_same_recipient_is_the_same_message(store: Kept, caplog: pytest.LogCaptureFixture) -> None:
    accepted(on_try(store, 1))
    assert found(on_try(store, 2), text=["Hello at 12:01"]) == RECEIPT
    assert caplog.messages == ["Not sending the changed message: Wassly accepted the message of an earlier attempt"]


def test_a_message_costs_a_read_and_two_writes(store: Kept) -> None:
    record = on_try(store, 1)
    record.look()
    accepted(record)
    assert (store.reads, store.writes) == ([KEY], [KEY, KEY])


@pytest.mark.skipif(not HAS_TASK_STATE_STORE, reason="this Airflow has no task_state_store")
def test_in_the_state_of_a_task_too(store: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "RUNS_TRIES_AGAIN", False)
    accepted(with_state(store))
    assert (store.reads, store.writes) == (["wassly_send"], ["wassly_send"] * 2)


def test_a_variable_has_the_name_of_what_it_holds(variables: dict[str, str]) -> None:
    announced(of())
    (key,) = variables
    assert key.startswith("wassly_send__")


def test_a_record_that_cannot_be_read_is_an_error_that_may_pass(store: Kept) -> None:
    store.failure = ConnectionError("Airflow's API does not answer")
    with pytest.raises(
        WasslyRecordUnreadable, match=r"could not read the send record \(ConnectionError: .*does not answer"
    ) as caught:
        found(on_try(store, 2))
    assert caught.value.may_pass
    # This attempt sent nothing, but the earlier one may have.
    assert caught.value.accepted is None
    assert caught.value.summary.startswith("UNKNOWN whether an earlier attempt's message was accepted")


def test_a_record_that_cannot_be_written_is_an_error_that_may_pass(store: Kept) -> None:
    record = on_try(store, 1)
    found(record)
    store.failure = ConnectionError("Airflow's API does not answer")
    with pytest.raises(
        WasslyRecordError, match=r"could not write the send record \(ConnectionError: .*so nothing was sent"
    ) as caught:
        record.departing()
    assert caught.value.may_pass
    assert record.in_doubt is False


def test_an_announcement_whose_answer_was_lost_is_taken_back(store: Kept) -> None:
    store.failing_writes = {0: True}
    record = on_try(store, 1)
    with pytest.raises(WasslyRecordError, match="so nothing was sent"):
        announced(record)
    assert found(on_try(store, 2)) is None


def test_what_was_accepted_is_never_withdrawn(store: Kept) -> None:
    record = accepted(on_try(store, 1))
    record.refused(NO)
    assert record.in_doubt is False
    assert found(on_try(store, 2)) == RECEIPT


@pytest.mark.parametrize(("retries", "expected"), [(3, RECEIPT), (2, "ambiguous"), (1, RECEIPT), (5, RECEIPT)])
def test_a_clear_that_cannot_be_told_from_a_retry_is_ambiguous(store: Kept, retries: int, expected: object) -> None:
    # max_tries 3 after the first try: cleared with retries lowered to 2, it is 1 + 2 = 3 again.
    accepted(on_try(store, 1, retries=3))
    assert found(on_try(store, 2, retries=retries)) == expected


@pytest.mark.parametrize(("try_number", "retries", "expected"), [(3, 1, "ambiguous"), (3, 3, RECEIPT), (2, 1, RECEIPT)])
def test_it_is_ambiguous_whenever_a_clear_can_have_come_in_between(
    store: Kept, try_number: int, retries: int, expected: object
) -> None:
    # With one retry now, a task that has had two tries gets 2 + 1 = 3 by a clear too, and begins its third one then.
    # Unchanged retries since the first attempt prove nothing: it can have run after they were lowered.
    accepted(on_try(store, 1, retries=retries))
    assert found(on_try(store, try_number, retries=retries)) == expected


def test_an_answer_that_cannot_be_written_down_is_a_warning(store: Kept, caplog: pytest.LogCaptureFixture) -> None:
    record = announced(on_try(store, 1))
    store.failure = ConnectionError("409: the task was cleared")
    with caplog.at_level(logging.WARNING):
        record.refused(NO)
        record.accepted(RECEIPT)
    assert "Could not save the send record: ConnectionError: 409" in caplog.text
    assert "Wassly accepted the message, but the next attempt will treat it as unknown" in caplog.text
    assert "Wassly did not accept the message, but the next attempt will treat it as unknown" in caplog.text
    store.failure = None
    assert found(on_try(store, 2)) == "announced"


def test_a_record_of_a_later_version_is_not_guessed_at(store: Kept) -> None:
    announced(on_try(store, 1))
    store.values[KEY] = store.values[KEY].replace('"version": 2', '"version": 3')
    with pytest.raises(WasslyRecordError, match="version 3 was written by a later version of this package") as caught:
        found(on_try(store, 2))
    assert not caught.value.may_pass


@pytest.mark.parametrize(
    "change",
    [
        {"chain": "3"},
        {"chain": None},
        {"try_number": True},
        {"receipt": []},
        {"receipt": {}},
        {"receipt": {"conversation_id": 7, "remaining_conversations": 1}},
        {"receipt": {"message_type": "text", "remaining_conversations": 1}},
        {"receipt": {"message_type": "text", "conversation_id": 7}},
    ],
)
def test_a_field_of_another_type_is_not_guessed_at(store: Kept, change: dict[str, Any]) -> None:
    accepted(on_try(store, 1))
    store.values[KEY] = json.dumps({**json.loads(store.values[KEY]), **change})
    with pytest.raises(WasslyRecordUnreadable, match="could not interpret the send record"):
        found(on_try(store, 2))


def test_a_record_holds_nothing_private_and_no_time(store: Kept) -> None:
    accepted(on_try(store, 1))
    value = json.loads(store.values[KEY])
    check_record(store.values[KEY], [TO[1:], *TEXT, "2026"])
    # So short that 10,000,000,000 numbers share 65,536 fingerprints.
    assert len(value["to"]) == len(value["about"]) == 4


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["version", "chain", "receipt", "message_type", "x"]), inner, max_size=5)
    ),
    max_leaves=8,
)


@given(json_values)
def test_whatever_a_record_holds_it_is_understood_or_an_error(value: Any) -> None:
    store = Kept({KEY: json.dumps(value)})
    with contextlib.suppress(WasslyRecordError):
        assert found(on_try(store, 2)) in (None, "announced") or value["receipt"]


class Interruption(BaseException):
    """What a signal handler raises."""


@pytest.fixture
def interrupt_after(monkeypatch: pytest.MonkeyPatch) -> Any:
    def handler(number: int, frame: Any) -> None:
        raise Interruption

    before = signal.signal(signal.SIGALRM, handler)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.realtime
def test_a_signal_does_not_interrupt_the_writing_of_an_answer(store: Kept, interrupt_after: Any) -> None:
    record = announced(on_try(store, 1))
    store.on_event = lambda what: time.sleep(0.1) if what != "written" else None
    interrupt_after(0.03)
    with pytest.raises(Interruption):
        record.accepted(RECEIPT)
    assert found(on_try(store, 2)) == RECEIPT


@pytest.mark.realtime
def test_a_signal_before_the_message_left_leaves_no_record(store: Kept, interrupt_after: Any) -> None:
    record = on_try(store, 1)
    found(record)
    store.on_event = lambda what: time.sleep(0.1) if what != "written" else None
    interrupt_after(0.03)
    with pytest.raises(Interruption):
        record.departing()
    assert not record.in_doubt
    assert found(on_try(store, 2)) is None


def test_without_a_running_task_nothing_is_kept() -> None:
    record = SendRecord.of({})
    assert found(record) is None
    record.departing()
    record.accepted(RECEIPT)


def test_the_error_survives_the_way_between_processes() -> None:
    error = WasslyRecordError("why", may_pass=True)
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, WasslyError)
    assert (str(copy), copy.may_pass) == ("why", True)


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    return Variables(monkeypatch).values


def of(dag_run: str = "17", **ti: Any) -> SendRecord:
    return SendRecord.of({"ti": task_instance(**ti), "dag_run": SimpleNamespace(id=dag_run)})


@pytest.mark.parametrize(
    "other", [{"map_index": 1}, {"run_id": "r2"}, {"task_id": "t2"}, {"dag_id": "d2"}, {"dag_id": "dr", "run_id": ""}]
)
def test_other_tasks_runs_and_indexes_have_records_of_their_own(
    variables: dict[str, str], other: dict[str, Any]
) -> None:
    announced(of())
    assert found(of(try_number=2)) == "announced"
    assert found(of(try_number=2, **other)) is None


def test_iterations_of_a_loop_have_records_of_their_own(variables: dict[str, str]) -> None:
    announced(of(region_id="first"))
    assert found(of(region_id="second", try_number=2)) is None
    assert found(of(region_id="first", try_number=2)) == "announced"


def test_what_cannot_be_json_is_part_of_a_message_too(store: Kept) -> None:
    accepted(on_try(store, 1), text=[Path("a.pdf")])
    assert found(on_try(store, 2), text=[Path("a.pdf")]) == RECEIPT


@pytest.fixture
def listeners(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    told: list[Any] = []
    monkeypatch.setattr(tasks, "listen_for_end", told.append)
    return told


@pytest.mark.parametrize(
    ("leave", "succeeded", "is_removed"),
    [
        (accepted, True, True),
        (accepted, False, True),
        (announced, True, True),
        # The person who clears the task has to know about it.
        (announced, False, False),
    ],
)
def test_a_record_whose_end_is_known_goes_with_the_end_of_its_own_task(
    variables: dict[str, str], listeners: list[Any], leave: Callable[..., Any], succeeded: bool, is_removed: bool
) -> None:
    record = of()
    record.remove_at_the_end({"ti": task_instance()})
    leave(record)
    (tell,) = listeners
    tell(task_instance(task_id="another"), True)
    assert len(variables) == 1
    tell(task_instance(), succeeded)
    assert (variables == {}) is is_removed


def test_a_record_that_could_not_be_read_stays_when_the_task_fails(
    monkeypatch: pytest.MonkeyPatch, listeners: list[Any]
) -> None:
    variables = Variables(monkeypatch)
    announced(of())
    record = of(try_number=2)
    record.remove_at_the_end({"ti": task_instance(try_number=2)})
    variables.failure = ConnectionError("Airflow's API does not answer")
    with pytest.raises(WasslyRecordUnreadable):
        found(record)
    variables.failure = None
    listeners[0](task_instance(try_number=2), False)
    assert found(of(try_number=3)) == "announced"


def test_an_attempt_that_was_given_up_does_not_remove_the_record_of_the_next(
    variables: dict[str, str], listeners: list[Any]
) -> None:
    orphan = of()
    orphan.remove_at_the_end({"ti": task_instance()})
    found(orphan)
    announced(of(try_number=2))
    for succeeded in (False, True):
        listeners[0](task_instance(), succeeded)
    assert found(of(try_number=3)) == "announced"


def test_what_an_earlier_attempt_has_sent_is_known_too_when_the_task_ends(
    variables: dict[str, str], listeners: list[Any]
) -> None:
    accepted(of())
    record = of(try_number=2)
    record.remove_at_the_end({"ti": task_instance(try_number=2)})
    assert found(record) == RECEIPT
    listeners[0](task_instance(try_number=2), False)
    assert variables == {}


def test_what_an_earlier_attempt_has_left_in_doubt_is_known_once_it_was_sent_again(
    variables: dict[str, str], listeners: list[Any]
) -> None:
    announced(of())
    record = of(try_number=2)
    record.remove_at_the_end({"ti": task_instance(try_number=2)})
    accepted(record)
    listeners[0](task_instance(try_number=2), False)
    assert variables == {}


@pytest.mark.parametrize("of_version_1", [False, True])
def test_a_record_that_says_nothing_of_doubt_goes_and_one_of_the_first_version_stays(
    variables: dict[str, str], listeners: list[Any], of_version_1: bool
) -> None:
    chain: dict[str, Any] = {"max_tries": 3, "task": SimpleNamespace(retries=3)}
    found(of(**chain))  # takes the record over, and is killed
    if of_version_1:
        (key,) = variables
        variables[key] = OF_VERSION_1.partition('"receipt"')[0] + '"receipt": null}'
    chain["try_number"] = 2
    record = of(**chain)
    record.remove_at_the_end({"ti": task_instance(**chain)})
    found(record)
    listeners[0](task_instance(**chain), False)
    assert (variables != {}) is of_version_1


def test_what_cannot_be_removed_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, listeners: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    record = of()
    record.remove_at_the_end({"ti": task_instance()})
    Variables(monkeypatch).failure = ConnectionError("Airflow's API does not answer")
    listeners[0](task_instance(), True)
    assert caplog.messages == ["Could not remove the send record: ConnectionError: Airflow's API does not answer"]


def test_an_attempt_that_airflow_has_given_up_sends_nothing_once_a_later_one_has_begun(
    variables: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    orphan = of(try_number=1)
    found(orphan)
    later = of(try_number=2)
    assert found(later) is None
    with pytest.raises(WasslyRecordError, match=r"^another attempt of this task has started") as caught:
        orphan.departing()
    assert caught.value.may_pass is False
    # And it silently leaves the other's record alone.
    orphan.refused(NO)
    assert caplog.text == ""
    later.departing()
    assert found(of(try_number=3)) == "announced"


def test_an_attempt_that_airflow_has_given_up_sends_nothing_once_a_later_one_has_succeeded(
    variables: dict[str, str], listeners: list[Any]
) -> None:
    orphan = of(try_number=1)
    found(orphan)
    later = of(try_number=2)
    later.remove_at_the_end({"ti": task_instance()})
    accepted(later)
    listeners[0](task_instance(), True)
    assert variables == {}
    with pytest.raises(WasslyRecordError, match=r"^another attempt of this task has started"):
        orphan.departing()


def test_of_two_processes_of_one_try_one_sends(variables: dict[str, str]) -> None:
    first, second = of(), of()
    found(first)
    found(second)
    with pytest.raises(WasslyRecordError, match=r"^another attempt of this task has started"):
        first.departing()
    second.departing()


def test_a_record_that_cannot_be_taken_over_lets_nothing_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = Variables(monkeypatch)
    variables.failing_writes = {0: False}
    with pytest.raises(WasslyRecordError, match=r"could not write the send record .* so nothing was sent") as caught:
        found(of())
    assert caught.value.may_pass


def test_a_record_without_doubt_that_cannot_be_taken_over_is_no(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = Variables(monkeypatch)
    announced(of()).refused(NO)
    variables.failing_writes = {len(variables.writes): False}
    with pytest.raises(WasslyRecordError, match="ConnectionError: Airflow's API does not answer") as caught:
        found(of(try_number=2))
    assert caught.value.accepted is False
    assert isinstance(caught.value.__cause__, ConnectionError)


@pytest.mark.parametrize("of_version_1", [False, True])
def test_a_record_in_doubt_that_cannot_be_taken_over_is_unknown(
    monkeypatch: pytest.MonkeyPatch, of_version_1: bool
) -> None:
    variables = Variables(monkeypatch)
    announced(of())
    if of_version_1:
        (key,) = variables.values
        value = json.loads(variables.values[key])
        del value["announced"]
        variables.values[key] = json.dumps({**value, "version": 1})
    variables.failing_writes = {len(variables.writes): False}
    with pytest.raises(WasslyRecordUnreadable, match="could not take over the send record") as caught:
        found(of(try_number=2))
    assert caught.value.accepted is None
    assert caught.value.may_pass
    assert found(of(try_number=3)) == "announced"


def test_what_is_taken_over_stays_that_of_the_attempt_before(variables: dict[str, str]) -> None:
    announced(of(max_tries=3, task=SimpleNamespace(retries=3)))
    lowered: dict[str, Any] = {"max_tries": 3, "task": SimpleNamespace(retries=2)}
    assert found(of(try_number=2, **lowered)) == "ambiguous"
    # It was killed at that point.
    assert found(of(try_number=3, **lowered)) == "ambiguous"


def test_an_answer_does_not_replace_the_record_of_a_later_attempt(variables: dict[str, str]) -> None:
    orphan = announced(of(try_number=1))
    later = of(try_number=2)
    assert found(later) == "announced"
    later.departing()  # on_outcome_unknown="retry"
    orphan.refused(NO)
    assert found(of(try_number=3)) == "announced"
    orphan.accepted(RECEIPT)
    assert found(of(try_number=3)) == "announced"


def test_an_answer_of_before_the_clear_does_not_replace_the_record_of_after_it(variables: dict[str, str]) -> None:
    before = announced(of(max_tries=3, try_number=3))
    cleared = announced(of(max_tries=7, try_number=4))
    before.accepted(RECEIPT)
    assert found(of(max_tries=7, try_number=5)) == "announced"
    cleared.accepted(RECEIPT)


def test_an_attempt_that_ended_before_it_sent_leaves_nothing(variables: dict[str, str], listeners: list[Any]) -> None:
    record = of()
    record.remove_at_the_end({"ti": task_instance()})
    announced(record).refused(NO)
    listeners[0](task_instance(), False)
    assert variables == {}
    assert found(of(try_number=2)) is None


def test_a_variable_that_is_no_json_is_an_error_that_cannot_pass(variables: dict[str, str]) -> None:
    announced(of())
    (key,) = variables
    for text in ("{", "null", "[]", '"text"'):
        variables[key] = text
        with pytest.raises(WasslyRecordError) as caught:
            found(of(try_number=2))
        assert not caught.value.may_pass


def with_state(kept: Kept, **ti: Any) -> SendRecord:
    return SendRecord.of({"ti": task_instance(**ti), "task_state_store": kept.task_state_store()})


@pytest.mark.skipif(not HAS_TASK_STATE_STORE, reason="this Airflow has no task_state_store")
def test_nothing_of_a_task_instance_that_was_deleted_is_believed_after_many_tries(store: Kept) -> None:
    accepted(with_state(store, id="a", max_tries=7, try_number=4))
    # Created again. Its first try fails early.
    with_state(store, id="b", max_tries=2, try_number=1).look()
    assert store.values == {}


OF_VERSION_1 = (
    '{"version": 1, "chain": 3, "try_number": 1, "retries": 3, "written_at": "2026-11-24T12:00:00+00:00",'
    ' "receipt": {"message_type": "document", "conversation_id": 7, "remaining_conversations": 40969}}'
)


def test_what_the_first_version_of_this_package_wrote_is_understood(
    store: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    """The format in users' databases, which later versions must also read."""
    store.values[KEY] = OF_VERSION_1
    assert found(on_try(store, 2)) == RECEIPT
    assert caplog.messages == []  # it does not record whether the text has changed
    store.values[KEY] = OF_VERSION_1.partition('"receipt"')[0] + '"receipt": null}'
    assert found(on_try(store, 2)) == "announced"
    assert found(on_try(store, 2, chain=4)) is None


@pytest.mark.skipif(not HAS_TASK_STATE_STORE, reason="this Airflow has no task_state_store")
def test_what_the_first_version_wrote_is_found_where_it_was_kept(store: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each chain of tries used to have its own key in the task's state."""
    store.values["wassly_send__3"] = OF_VERSION_1
    task = SimpleNamespace(retries=3)
    assert found(with_state(store, max_tries=3, try_number=2, task=task)) == RECEIPT
    assert found(with_state(store, max_tries=4, try_number=2)) is None
    monkeypatch.setattr(versions, "RUNS_TRIES_AGAIN", True)
    assert found(with_state(store, max_tries=3, try_number=1)) == "ambiguous"


@pytest.mark.parametrize(("runs_again", "expected"), [(False, None), (True, "ambiguous")])
def test_what_the_first_version_wrote_does_not_say_whose_first_try_it_was(
    store: Kept, monkeypatch: pytest.MonkeyPatch, runs_again: bool, expected: object
) -> None:
    monkeypatch.setattr(versions, "RUNS_TRIES_AGAIN", runs_again)
    store.values[KEY] = OF_VERSION_1
    assert found(on_try(store, 1)) == expected


def test_a_record_knows_chain_and_retries_of_its_task(variables: dict[str, str]) -> None:
    announced(of(max_tries=3, task=SimpleNamespace(retries=3)))
    # Cleared with retries lowered to 2, the first try's chain is 1 + 2 = 3 again.
    assert found(of(max_tries=3, try_number=2, task=SimpleNamespace(retries=2))) == "ambiguous"
    assert found(of(max_tries=4, try_number=2)) is None


def test_a_task_without_retries_of_its_own_is_one_with_none(store: Kept) -> None:
    announced(on_try(store, 1, chain=1, retries=0))
    assert found(on_try(store, 2, chain=1, retries=None)) == "ambiguous"


def test_a_retry_that_is_to_send_again_may(variables: dict[str, str]) -> None:
    announced(of(try_number=1))
    announced(of(try_number=2))
    assert found(of(try_number=3)) == "announced"


def test_a_retry_that_sent_nothing_leaves_what_the_attempt_before_has_left(variables: dict[str, str]) -> None:
    announced(of(try_number=1))
    of(try_number=2).refused(NO)
    assert found(of(try_number=3)) == "announced"


def test_what_cannot_be_understood_is_said_with_its_reason_and_stays_so(store: Kept) -> None:
    store.values[KEY] = '{"version": 2}'
    with pytest.raises(WasslyRecordUnreadable, match=r"could not interpret the send record \(KeyError: ") as caught:
        found(on_try(store, 2))
    assert caught.value.may_pass is False
