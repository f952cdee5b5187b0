from __future__ import annotations

import contextlib
import json
import logging
import pickle
import signal
import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_wassly import _compat
from airflow_provider_wassly.client import SendReceipt, WasslyError
from airflow_provider_wassly.state import (
    SendRecord,
    WasslyRecordError,
    WasslyRecordUnreadable,
    forget_after_success,
)
from tests.support.kept import Kept
from tests.support.task import task_instance
from tests.support.variables import Variables

KEY = "record"
RECEIPT = SendReceipt(message_type="document", conversation_id=7, remaining_conversations=40969)


@pytest.fixture
def store() -> Kept:
    return Kept()


def on_try(store: Kept, number: int, chain: int = 3) -> SendRecord:
    return SendRecord(store.store(KEY), chain, number)


def test_a_retry_learns_that_the_message_was_about_to_leave(store: Kept) -> None:
    on_try(store, 1).announce()
    assert on_try(store, 2).read() == "announced"


def test_a_retry_gets_the_receipt(store: Kept) -> None:
    record = on_try(store, 1)
    record.announce()
    record.accept(RECEIPT)
    assert on_try(store, 2).read() == RECEIPT


def test_what_was_not_accepted_leaves_nothing(store: Kept) -> None:
    record = on_try(store, 1)
    record.announce()
    record.withdraw()
    assert on_try(store, 2).read() is None


def test_a_try_that_announced_nothing_withdraws_nothing(store: Kept) -> None:
    on_try(store, 1).announce()
    on_try(store, 2).withdraw()
    assert on_try(store, 3).read() == "announced"


def test_a_task_that_was_cleared_begins_anew(store: Kept) -> None:
    record = on_try(store, 1, chain=3)
    record.announce()
    record.accept(RECEIPT)
    assert on_try(store, 2, chain=4).read() is None


@pytest.mark.parametrize("number", [0, 1])
def test_a_first_try_never_reads(store: Kept, number: int) -> None:
    record = on_try(store, 1)
    record.announce()
    record.accept(RECEIPT)
    assert on_try(store, number).read() is None


def test_an_attempt_that_is_repeated_is_announced_once(store: Kept) -> None:
    record = on_try(store, 1)
    record.announce()
    store.failure = RuntimeError("would be a second call")
    record.announce()


def test_a_record_that_cannot_be_read_is_an_error_that_may_pass(store: Kept) -> None:
    store.failure = ConnectionError("Airflow's API does not answer")
    with pytest.raises(
        WasslyRecordUnreadable, match=r"could not be read \(ConnectionError: .*does not answer"
    ) as caught:
        on_try(store, 2).read()
    assert caught.value.may_pass
    # This try sent nothing, but the earlier one may have.
    assert caught.value.accepted is None
    assert caught.value.summary.startswith("UNKNOWN whether an earlier try's message was accepted")


def test_a_record_that_cannot_be_written_is_an_error_that_may_pass(store: Kept) -> None:
    store.failure = ConnectionError("Airflow's API does not answer")
    record = on_try(store, 1)
    with pytest.raises(
        WasslyRecordError, match=r"could not be written \(ConnectionError: .*so nothing was sent"
    ) as caught:
        record.announce()
    assert caught.value.may_pass
    assert record.announced is False


def test_what_was_accepted_is_never_withdrawn(store: Kept) -> None:
    record = on_try(store, 1)
    record.announce()
    record.accept(RECEIPT)
    record.withdraw()
    assert record.announced is False
    assert on_try(store, 2).read() == RECEIPT


@pytest.mark.parametrize(("retries", "found"), [(3, RECEIPT), (2, "ambiguous"), (1, RECEIPT), (5, RECEIPT)])
def test_a_clear_that_cannot_be_told_from_a_retry_is_ambiguous(store: Kept, retries: int, found: object) -> None:
    # max_tries 3 after the first try: cleared with retries lowered to 2, it is 1 + 2 = 3 again.
    record = SendRecord(store.store(KEY), 3, 1, retries=3)
    record.announce()
    record.accept(RECEIPT)
    assert SendRecord(store.store(KEY), 3, 2, retries=retries).read() == found


def test_an_answer_that_cannot_be_written_down_is_a_warning(store: Kept, caplog: pytest.LogCaptureFixture) -> None:
    record = on_try(store, 1)
    record.announce()
    store.failure = ConnectionError("409: the task was cleared")
    with caplog.at_level(logging.WARNING):
        record.withdraw()
        record.accept(RECEIPT)
    assert "It could not be written down that Wassly accepted the message" in caplog.text
    assert "It could not be written down that Wassly did not accept the message" in caplog.text
    store.failure = None
    assert on_try(store, 2).read() == "announced"


def test_a_record_of_a_later_version_is_not_guessed_at(store: Kept) -> None:
    on_try(store, 1).announce()
    store.values[KEY] = store.values[KEY].replace('"version": 1', '"version": 2')
    with pytest.raises(WasslyRecordError, match="version 2 was written by a later version of this package") as caught:
        on_try(store, 2).read()
    assert not caught.value.may_pass


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
        assert on_try(store, 2).read() in (None, "announced") or value["receipt"]


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
    record = on_try(store, 1)
    record.announce()
    store.on_event = lambda what: time.sleep(0.3) if what != "written" else None
    interrupt_after(0.1)
    with pytest.raises(Interruption):
        record.accept(RECEIPT)
    assert on_try(store, 2).read() == RECEIPT


@pytest.mark.realtime
def test_a_signal_before_the_message_left_leaves_no_record(store: Kept, interrupt_after: Any) -> None:
    store.on_event = lambda what: time.sleep(0.3) if what != "written" else None
    interrupt_after(0.1)
    record = on_try(store, 1)
    with pytest.raises(Interruption):
        record.announce()
    assert not record.announced
    assert on_try(store, 2).read() is None


def test_without_a_running_task_nothing_is_kept() -> None:
    record = SendRecord.of({})
    assert record.read() is None
    record.announce()
    record.accept(RECEIPT)


def test_the_error_survives_the_way_between_processes() -> None:
    error = WasslyRecordError("why", may_pass=True)
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, WasslyError)
    assert (str(copy), copy.may_pass) == ("why", True)


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    return Variables(monkeypatch).values


@pytest.mark.parametrize(
    "other", [{"map_index": 1}, {"run_id": "r2"}, {"task_id": "t2"}, {"dag_id": "d2"}, {"dag_id": "dr", "run_id": ""}]
)
def test_other_tasks_runs_and_indexes_have_records_of_their_own(
    variables: dict[str, str], other: dict[str, Any]
) -> None:
    SendRecord.of({"ti": task_instance()}).announce()
    assert SendRecord.of({"ti": task_instance(try_number=2)}).read() == "announced"
    assert SendRecord.of({"ti": task_instance(try_number=2, **other)}).read() is None


def test_a_variable_is_forgotten_after_the_success_of_its_own_task(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    listeners: list[Any] = []
    monkeypatch.setattr(_compat, "HAS_TASK_STATE_STORE", False)
    monkeypatch.setattr(_compat, "listen_for_success", listeners.append)
    context = {"ti": task_instance()}
    forget_after_success(context)
    record = SendRecord.of(context)
    record.announce()
    record.accept(RECEIPT)
    (tell,) = listeners
    tell(task_instance(task_id="another"))
    assert len(variables) == 1
    tell(task_instance())
    assert variables == {}


def test_a_try_that_airflow_has_given_up_sends_nothing_once_a_later_one_has_begun_to(
    variables: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    orphan = SendRecord.of({"ti": task_instance(try_number=1)})
    SendRecord.of({"ti": task_instance(try_number=2)}).announce()
    with pytest.raises(WasslyRecordError, match=r"^another try of this task has begun to send") as caught:
        orphan.announce()
    assert caught.value.may_pass is False
    # And it leaves the other's record alone, without a word.
    orphan.announced = True
    orphan.withdraw()
    assert caplog.text == ""
    assert SendRecord.of({"ti": task_instance(try_number=3)}).read() == "announced"


def test_a_first_try_that_failed_leaves_no_record_of_an_earlier_run_of_its_name(variables: dict[str, str]) -> None:
    before = SendRecord.of({"ti": task_instance()})
    before.announce()
    before.accept(RECEIPT)
    SendRecord.of({"ti": task_instance()}).withdraw()
    assert SendRecord.of({"ti": task_instance(try_number=2)}).read() is None


def test_a_first_try_that_failed_leaves_the_record_of_a_later_one_alone(variables: dict[str, str]) -> None:
    orphan = SendRecord.of({"ti": task_instance()})
    SendRecord.of({"ti": task_instance(try_number=2)}).announce()
    orphan.withdraw()
    assert SendRecord.of({"ti": task_instance(try_number=3)}).read() == "announced"


def test_a_variable_that_is_no_json_is_an_error_that_cannot_pass(variables: dict[str, str]) -> None:
    SendRecord.of({"ti": task_instance()}).announce()
    (key,) = variables
    variables[key] = "{"
    with pytest.raises(WasslyRecordError) as caught:
        SendRecord.of({"ti": task_instance(try_number=2)}).read()
    assert not caught.value.may_pass


@pytest.mark.skipif(not _compat.HAS_TASK_STATE_STORE, reason="this Airflow has no task_state_store")
def test_chains_do_not_share_a_key_of_the_task_state_store() -> None:
    accessor = Kept().task_state_store()
    late = SendRecord.of({"ti": task_instance(max_tries=3), "task_state_store": accessor})
    late.announce()
    SendRecord.of({"ti": task_instance(max_tries=7, try_number=4), "task_state_store": accessor}).announce()
    # The process of the chain before was still there when the task was cleared.
    late.accept(RECEIPT)
    later = SendRecord.of({"ti": task_instance(max_tries=7, try_number=5), "task_state_store": accessor})
    assert later.read() == "announced"


def test_what_the_first_version_of_this_package_wrote_is_understood(store: Kept) -> None:
    """As it lies in users' databases: a later form must read this one too."""
    store.values[KEY] = (
        '{"version": 1, "chain": 3, "try_number": 1, "retries": 3, "written_at": "2026-11-24T12:00:00+00:00",'
        ' "receipt": {"message_type": "document", "conversation_id": 7, "remaining_conversations": 40969}}'
    )
    assert SendRecord(store.store(KEY), 3, 2, 3).read() == RECEIPT
    store.values[KEY] = store.values[KEY].partition('"receipt"')[0] + '"receipt": null}'
    assert SendRecord(store.store(KEY), 3, 2, 3).read() == "announced"


def test_a_record_knows_chain_and_retries_of_its_task(variables: dict[str, str]) -> None:
    SendRecord.of({"ti": task_instance(max_tries=3, task=SimpleNamespace(retries=3))}).announce()
    assert SendRecord.of({"ti": task_instance(max_tries=4, try_number=2)}).read() is None
    # Cleared with retries lowered to 2, the first try's chain is 1 + 2 = 3 again.
    cleared = task_instance(max_tries=3, try_number=2, task=SimpleNamespace(retries=2))
    assert SendRecord.of({"ti": cleared}).read() == "ambiguous"


def test_a_task_without_retries_of_its_own_is_one_with_none(store: Kept) -> None:
    SendRecord(store.store(KEY), 1, 1, retries=0).announce()
    assert SendRecord(store.store(KEY), 1, 2, retries=None).read() == "ambiguous"


def test_a_retry_that_is_to_send_again_may(variables: dict[str, str]) -> None:
    SendRecord.of({"ti": task_instance(try_number=1)}).announce()
    SendRecord.of({"ti": task_instance(try_number=2)}).announce()
    assert SendRecord.of({"ti": task_instance(try_number=3)}).read() == "announced"


def test_another_process_of_the_same_try_does_not_count_as_a_later_one(variables: dict[str, str]) -> None:
    before = SendRecord.of({"ti": task_instance()})
    SendRecord.of({"ti": task_instance()}).announce()
    before.announce()


def test_a_retry_that_sent_nothing_leaves_what_the_try_before_has_left(variables: dict[str, str]) -> None:
    SendRecord.of({"ti": task_instance(try_number=1)}).announce()
    SendRecord.of({"ti": task_instance(try_number=2)}).withdraw()
    assert SendRecord.of({"ti": task_instance(try_number=3)}).read() == "announced"


def test_what_cannot_be_removed_is_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    record = SendRecord.of({"ti": task_instance()})
    Variables(monkeypatch).failure = ConnectionError("Airflow's API does not answer")
    record.withdraw()
    assert caplog.messages == [
        "It could not be written down that there is no earlier try (ConnectionError: Airflow's API does not answer). "
        "A next try of this task will call the outcome unknown"
    ]


def test_times_are_those_of_no_machine(store: Kept) -> None:
    on_try(store, 1).announce()
    assert json.loads(store.values[KEY])["written_at"].endswith("+00:00")


def test_what_cannot_be_understood_is_said_with_its_reason_and_stays_so(store: Kept) -> None:
    store.values[KEY] = "[]"
    with pytest.raises(WasslyRecordUnreadable, match=r"could not be understood \(TypeError: ") as caught:
        on_try(store, 2).read()
    assert caught.value.may_pass is False
