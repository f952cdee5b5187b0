"""What one try of a broadcast leaves to the next."""

from __future__ import annotations

import contextlib
import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_wassly import _compat
from airflow_provider_wassly.broadcast import recipients as recipients_module
from airflow_provider_wassly.broadcast import record as module
from airflow_provider_wassly.broadcast.recipients import CHUNK, NUMBER, RecipientList, survey
from airflow_provider_wassly.broadcast.record import (
    ACCEPTED,
    ANNOUNCED,
    FAILED,
    FAILED_FOR_NOW,
    OPEN,
    UNKNOWN,
    BroadcastRecord,
    Chunk,
    Try,
    WasslyListChanged,
)
from airflow_provider_wassly.state import WasslyRecordError, WasslyRecordUnreadable
from airflow_provider_wassly.stores import Store
from tests.support.kept import Kept

SUMMARY = {"recipients": 5, "accepted": 5, "duration": 1.5}


class Stores(Kept):
    """All values of a task."""

    def __call__(self, name: str) -> Store:
        return self.store(name)

    def change(self, name: str, **values: Any) -> None:
        self.values[name] = json.dumps({**json.loads(self.values[name]), **values})


HEAD = "wassly_broadcast__head"
FIRST = "wassly_broadcast__0"


@pytest.fixture
def stores() -> Stores:
    return Stores()


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipients_module, "CHUNK", 2)
    monkeypatch.setattr(module, "CHUNK", 2)
    monkeypatch.setattr(_compat, "OUTLIVES_ITS_SUPERVISOR", False)


def people(number: int = 5) -> list[dict[str, Any]]:
    return [{NUMBER: f"+4477009000{place:02}"} for place in range(number)]


def on_try(
    stores: Any, number: int, *, chain: int = 3, retries: int | None = 3, source: list[dict[str, Any]] | None = None
) -> BroadcastRecord:
    return BroadcastRecord(stores, Try(chain, number, retries), survey(RecipientList(source or people())))


def begun(stores: Any, number: int, **options: Any) -> BroadcastRecord:
    record = on_try(stores, number, **options)
    assert record.look_back() is None
    record.begin()
    return record


def outcomes(record: BroadcastRecord, sizes: tuple[int, ...] = (2, 2, 1)) -> str:
    chunks = [record.chunk(number, size) for number, size in enumerate(sizes)]
    return "".join(chunk[index] for chunk, size in zip(chunks, sizes, strict=True) for index in range(size))


def note(record: BroadcastRecord, text: str, sizes: tuple[int, ...] = (2, 2, 1)) -> None:
    place = 0
    for number, size in enumerate(sizes):
        chunk = record.chunk(number, size)
        for index in range(size):
            if text[place] != chunk[index]:
                chunk[index] = text[place]
            place += 1
    record.write()


def test_a_retry_goes_on_with_what_is_known(stores: Stores) -> None:
    first = begun(stores, 1)
    assert not first.is_resumed
    first.chunk(0, 2).conversation_ids[1] = 77
    note(first, f"{FAILED}{ACCEPTED}{ANNOUNCED}{FAILED_FOR_NOW}{UNKNOWN}")
    second = begun(stores, 2)
    assert second.is_resumed
    assert outcomes(second) == f"{FAILED}{ACCEPTED}{ANNOUNCED}{FAILED_FOR_NOW}{UNKNOWN}"
    assert second.chunk(0, 2).conversation_ids == {1: 77}


def test_all_tries_of_a_chain_add_to_one_record(stores: Stores) -> None:
    note(begun(stores, 1), f"{ACCEPTED}{OPEN}{OPEN}{OPEN}{OPEN}")
    note(begun(stores, 2), f"{ACCEPTED}{ACCEPTED}{UNKNOWN}{OPEN}{OPEN}")
    assert outcomes(begun(stores, 3)) == f"{ACCEPTED}{ACCEPTED}{UNKNOWN}{OPEN}{OPEN}"


@pytest.mark.parametrize("number", [0, 1])
def test_a_first_try_reads_nothing_and_what_was_there_no_longer_counts(stores: Stores, number: int) -> None:
    note(begun(stores, 1), ACCEPTED * 5)
    stores.reads.clear()
    again = begun(stores, number)
    assert outcomes(again) == OPEN * 5
    assert stores.reads == []
    # Nor does it for the retry of that try, although its chunks are still there.
    assert outcomes(begun(stores, 2)) == OPEN * 5


def test_a_try_that_failed_before_it_began_leaves_nothing(stores: Stores) -> None:
    assert on_try(stores, 1).look_back() is None
    second = begun(stores, 2)
    assert not second.is_resumed
    assert outcomes(second) == OPEN * 5


def test_a_retry_after_everybody_was_sent_to_gets_the_summary(stores: Stores) -> None:
    first = begun(stores, 1)
    note(first, ACCEPTED * 5)
    first.finish(SUMMARY)
    assert on_try(stores, 2).look_back() == SUMMARY


def test_what_is_not_written_yet_is_written_with_the_summary(stores: Stores) -> None:
    first = begun(stores, 1)
    first.chunk(2, 1)[0] = ACCEPTED
    first.finish(SUMMARY)
    assert ACCEPTED in stores.values["wassly_broadcast__2"]


def test_a_task_that_had_succeeded_and_was_cleared_begins_anew(stores: Stores) -> None:
    first = begun(stores, 1)
    note(first, ACCEPTED * 5)
    first.finish(SUMMARY)
    cleared = begun(stores, 2, chain=4, source=people(7))
    assert outcomes(cleared, (2, 2, 2, 1)) == OPEN * 7
    note(cleared, f"{ACCEPTED}{OPEN}{OPEN}{OPEN}{OPEN}{OPEN}{OPEN}", (2, 2, 2, 1))
    assert outcomes(begun(stores, 3, chain=4, source=people(7)), (2, 2, 2, 1)) == ACCEPTED + OPEN * 6


def test_a_task_that_had_failed_and_was_cleared_goes_on_and_tries_the_failed_ones_again(stores: Stores) -> None:
    note(begun(stores, 1), f"{ACCEPTED}{FAILED}{UNKNOWN}{ANNOUNCED}{FAILED}")
    cleared = begun(stores, 2, chain=4)
    assert cleared.is_resumed
    assert outcomes(cleared) == f"{ACCEPTED}{OPEN}{UNKNOWN}{ANNOUNCED}{OPEN}"


def test_the_failed_ones_are_tried_again_also_if_the_cleared_task_died_before_it_came_to_them(stores: Stores) -> None:
    note(begun(stores, 1), f"{ACCEPTED}{FAILED}{UNKNOWN}{ANNOUNCED}{FAILED}")
    begun(stores, 2, chain=4)
    third = begun(stores, 3, chain=4)
    assert outcomes(third) == f"{ACCEPTED}{OPEN}{UNKNOWN}{ANNOUNCED}{OPEN}"
    # Those that fail again are not tried a third time by a retry.
    note(third, f"{ACCEPTED}{FAILED}{UNKNOWN}{ANNOUNCED}{OPEN}")
    assert outcomes(begun(stores, 4, chain=4)) == f"{ACCEPTED}{FAILED}{UNKNOWN}{ANNOUNCED}{OPEN}"


@pytest.mark.parametrize(
    ("chain", "number", "retries", "is_ambiguous"),
    [
        (3, 2, 3, False),  # a retry
        (3, 2, 2, True),  # cleared with retries lowered to 2, max_tries is 1 + 2 = 3 again; or a retry
        (3, 2, 1, False),
        (3, 2, 5, False),
        (3, 2, None, False),
    ],
)
def test_a_clear_that_cannot_be_told_from_a_retry_sends_nothing(
    stores: Stores, chain: int, number: int, retries: int | None, is_ambiguous: bool
) -> None:
    begun(stores, 1).finish(SUMMARY)
    record = on_try(stores, number, chain=chain, retries=retries)
    if not is_ambiguous:
        assert record.look_back() == SUMMARY
        return
    with pytest.raises(WasslyRecordUnreadable, match="a retry and a task that was cleared look the same") as raised:
        record.look_back()
    assert not raised.value.may_pass


def test_a_broadcast_that_did_not_finish_is_never_ambiguous(stores: Stores) -> None:
    note(begun(stores, 1), ACCEPTED + OPEN * 4)
    assert outcomes(begun(stores, 2, retries=2)) == ACCEPTED + OPEN * 4


def changed(place: int) -> list[dict[str, Any]]:
    return [{NUMBER: "+447700900999"} if at == place else person for at, person in enumerate(people())]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (people(4), "it has 4 rows and had 5"),
        (people(6), "it has 6 rows and had 5"),
        (changed(0), "rows 1 to 2 have other numbers"),
        (changed(3), "rows 3 to 4 have other numbers"),
        (changed(4), "rows 5 to 5 have other numbers"),
        (people()[::-1], "rows 1 to 2 have other numbers"),
    ],
)
@pytest.mark.parametrize("chain", [3, 4])
def test_a_list_that_changed_since_is_refused(
    stores: Stores, source: list[dict[str, Any]], reason: str, chain: int
) -> None:
    note(begun(stores, 1), ACCEPTED * 5)
    stores.writes.clear()
    with pytest.raises(WasslyListChanged) as raised:
        on_try(stores, 2, chain=chain, source=source).look_back()
    assert str(raised.value) == f"the list of recipients changed since an earlier try: {reason}"
    assert raised.value.summary.startswith("Nothing was sent: the list")
    assert raised.value.accepted is False
    assert not raised.value.may_pass
    assert stores.writes == []


def test_other_columns_of_the_list_may_change(stores: Stores) -> None:
    note(begun(stores, 1), ACCEPTED + OPEN * 4)
    corrected = [{**person, "name": "corrected"} for person in people()]
    assert outcomes(begun(stores, 2, source=corrected)) == ACCEPTED + OPEN * 4


def test_a_list_may_change_after_everybody_was_sent_to(stores: Stores) -> None:
    begun(stores, 1).finish(SUMMARY)
    assert on_try(stores, 2, source=people(3)).look_back() == SUMMARY


def test_only_chunks_that_have_changed_are_written(stores: Stores) -> None:
    record = begun(stores, 1)
    assert outcomes(record) == OPEN * 5
    stores.writes.clear()
    record.write()
    assert stores.writes == []
    record.chunk(1, 2)[0] = ANNOUNCED
    record.write()
    record.write()
    assert stores.writes == ["wassly_broadcast__1"]


def test_a_chunk_that_is_forgotten_is_read_again_and_one_that_is_not_written_is_not_forgotten(stores: Stores) -> None:
    begun(stores, 1)
    record = begun(stores, 2)
    note(record, f"{ACCEPTED}{OPEN}{OPEN}{OPEN}{OPEN}")
    record.chunk(1, 2)[1] = UNKNOWN
    in_use = record.chunk(2, 1)
    record.forget({in_use})
    stores.reads.clear()
    assert outcomes(record) == f"{ACCEPTED}{OPEN}{OPEN}{UNKNOWN}{OPEN}"
    assert record.chunk(2, 1) is in_use
    assert stores.reads == [FIRST]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([OPEN, ANNOUNCED, ACCEPTED, UNKNOWN, FAILED, FAILED_FOR_NOW]), st.integers()))
)
def test_a_chunk_comes_back_as_it_was(rows: list[tuple[str, int]]) -> None:
    stores = Stores()
    first = begun(stores, 1)
    chunk = first.chunk(0, len(rows))
    for index, (outcome, conversation_id) in enumerate(rows):
        chunk[index] = outcome
        if conversation_id % 3:
            chunk.conversation_ids[index] = conversation_id
    first.write()
    found = begun(stores, 2).chunk(0, len(rows))
    assert "".join(found[index] for index in range(len(rows))) == "".join(outcome for outcome, _ in rows)
    assert found.conversation_ids == {
        index: number for index, (outcome, number) in enumerate(rows) if outcome == ACCEPTED and number % 3
    }


@pytest.mark.parametrize(("first", "kept"), [(10**12, CHUNK), (2**63 - 1, CHUNK * 0.95), (10**40, CHUNK * 0.4)])
def test_the_largest_chunk_fits_into_any_store(stores: Stores, first: int, kept: float) -> None:
    record = begun(stores, 1)
    chunk = record.chunk(0, CHUNK)
    for index in range(CHUNK):
        chunk[index] = ACCEPTED
        chunk.conversation_ids[index] = first - index
    record.write()
    assert len(stores.values[FIRST].encode()) < 48 * 1024
    found = begun(stores, 2).chunk(0, CHUNK)
    assert bytes(found.outcomes) == ACCEPTED.encode() * CHUNK
    # Those that are kept are right.
    assert len(found.conversation_ids) >= kept
    assert found.conversation_ids.items() <= chunk.conversation_ids.items()


def test_the_head_of_a_million_recipients_fits_into_any_store(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", CHUNK)
    chunks = 1_000_000 // CHUNK
    digests = survey(RecipientList(people(2))).digests * chunks
    record = BroadcastRecord(stores, Try(3, 1, 3), recipients_module.Survey(1_000_000, digests))
    record.begin()
    assert len(record.names) == chunks + 1
    assert len(stores.values[HEAD].encode()) < 48 * 1024


def test_nothing_that_is_stored_tells_a_number(stores: Stores) -> None:
    record = begun(stores, 1)
    note(record, f"{FAILED}{ACCEPTED}{ANNOUNCED}{FAILED_FOR_NOW}{UNKNOWN}")
    record.finish(SUMMARY)
    everything = json.dumps(stores.values)
    # 4477009000xx: no five digits of it in a row, but for those that a token may have by chance.
    without_tokens = re.sub(r'\\"token\\": \\"[0-9a-f]{16}\\"', "", everything)
    for person in people():
        digits = person[NUMBER][1:]
        assert not [digits[at : at + 5] for at in range(8) if digits[at : at + 5] in without_tokens]


def test_all_values_have_a_name_that_is_told(stores: Stores) -> None:
    record = begun(stores, 1)
    note(record, ACCEPTED * 5)
    record.finish(SUMMARY)
    assert set(stores.values) == set(record.names)


# When it goes wrong


def test_a_record_that_cannot_be_read_is_an_error_that_may_pass(stores: Stores) -> None:
    begun(stores, 1)
    record = begun(stores, 2)
    stores.failure = ConnectionError("Airflow's API does not answer")
    for read in (lambda: on_try(stores, 3).look_back(), lambda: record.chunk(0, 2)):
        with pytest.raises(WasslyRecordUnreadable, match=r"could not be read \(ConnectionError: Airflow's") as raised:
            read()
        assert raised.value.may_pass
        assert raised.value.accepted is None


def test_a_record_that_is_no_json_is_an_error_that_cannot_pass(stores: Stores) -> None:
    begun(stores, 1)
    stores.values[HEAD] = "{"
    with pytest.raises(WasslyRecordUnreadable) as raised:
        on_try(stores, 2).look_back()
    assert not raised.value.may_pass


def test_what_could_not_be_written_is_an_error_that_may_pass_and_is_written_the_next_time(stores: Stores) -> None:
    record = begun(stores, 1)
    chunk = record.chunk(0, 2)
    chunk[0] = ACCEPTED
    stores.failure = ConnectionError("Airflow's API does not answer")
    for write in (record.begin, record.write, lambda: record.finish(SUMMARY)):
        with pytest.raises(WasslyRecordError, match=r"could not be written \(ConnectionError: Airflow's") as raised:
            write()
        assert raised.value.may_pass
    stores.failure = None
    record.write()
    assert outcomes(begun(stores, 2)) == ACCEPTED + OPEN * 4


def test_a_record_of_a_later_version_is_not_guessed_at(stores: Stores) -> None:
    begun(stores, 1)
    stores.change(HEAD, version=2)
    with pytest.raises(WasslyRecordUnreadable, match="version 2 was written by a later version of this pack") as raised:
        on_try(stores, 2).look_back()
    assert not raised.value.may_pass


def test_chunks_of_another_run_of_the_same_name_do_not_count(stores: Stores) -> None:
    note(begun(stores, 1), ACCEPTED * 5)
    chunk = stores.values[FIRST]
    stores.values.clear()
    begun(stores, 1)
    stores.values[FIRST] = chunk
    assert outcomes(begun(stores, 2)) == OPEN * 5


values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 5) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
heads = st.dictionaries(
    st.sampled_from(["version", "token", "chain", "try_number", "retries", "total", "digests", "summary"]), values
)


@settings(deadline=None)
@given(heads | values, st.booleans())
def test_whatever_a_head_holds_it_is_understood_or_an_error(changes: Any, is_new: bool) -> None:
    stores = Stores()
    begun(stores, 1)
    if isinstance(changes, dict) and not is_new:
        stores.change(HEAD, **changes)
    else:
        stores.values[HEAD] = json.dumps(changes)
    with contextlib.suppress(WasslyRecordError):
        found = on_try(stores, 2).look_back()
        assert found is None or found == changes["summary"]


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["token", "outcomes", "conversation_ids"]), values) | values, st.booleans())
def test_whatever_a_chunk_holds_it_is_understood_or_an_error(changes: Any, is_new: bool) -> None:
    stores = Stores()
    note(begun(stores, 1), ACCEPTED * 5)
    if isinstance(changes, dict) and not is_new:
        stores.change(FIRST, **changes)
    else:
        stores.values[FIRST] = json.dumps(changes)
    record = begun(stores, 2)
    with contextlib.suppress(WasslyRecordError):
        chunk = record.chunk(0, 2)
        assert len(chunk.outcomes) == 2
        assert {chunk[0], chunk[1]} <= {OPEN, ANNOUNCED, ACCEPTED, UNKNOWN, FAILED, FAILED_FOR_NOW}


def test_a_list_that_an_earlier_version_cut_in_other_pieces_is_another_list(stores: Stores) -> None:
    begun(stores, 1)
    stores.change(HEAD, digests="")
    with pytest.raises(WasslyListChanged, match="rows 1 to 2 have other numbers") as raised:
        on_try(stores, 2).look_back()
    assert raised.value.may_pass is False


def test_a_head_with_a_value_of_another_type_names_it_and_keeps_the_reason(stores: Stores) -> None:
    begun(stores, 1)
    stores.change(HEAD, total="5")
    with pytest.raises(WasslyRecordUnreadable, match=r"\(TypeError: total is of type str\)") as raised:
        on_try(stores, 2).look_back()
    assert isinstance(raised.value.__cause__, TypeError)


@pytest.mark.parametrize("outcomes", [ACCEPTED * 3, "ax"], ids=["too many", "an unknown one"])
def test_a_chunk_that_does_not_fit_is_an_error_that_stays(stores: Stores, outcomes: str) -> None:
    begun(stores, 1)
    record = begun(stores, 2)
    note(record, ACCEPTED * 5)
    stores.change(FIRST, outcomes=outcomes)
    with pytest.raises(WasslyRecordUnreadable, match=r"\(ValueError: chunk 0 does not fit to the list\)") as raised:
        begun(stores, 3).chunk(0, 2)
    assert raised.value.may_pass is False


# Without a running task, and with a process that Airflow has given up


def test_without_a_running_task_nothing_is_kept() -> None:
    record = BroadcastRecord(lambda name: None, Try.of({}), survey(RecipientList(people())))
    assert record.look_back() is None
    record.begin()
    note(record, ACCEPTED * 5)
    record.finish(SUMMARY)
    assert outcomes(record) == ACCEPTED * 5


def test_which_try_it_is() -> None:
    ti = SimpleNamespace(max_tries=5, try_number=3, task=SimpleNamespace(retries=2))
    assert Try.of({"ti": ti}) == Try(chain=5, number=3, retries=2)
    assert Try.of({"ti": SimpleNamespace(max_tries=5, try_number=3)}) == Try(chain=5, number=3, retries=None)
    assert Try.of({}) == Try(chain=0, number=0, retries=None)


def test_a_try_that_airflow_has_given_up_writes_nothing_once_a_later_one_has_begun(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_compat, "OUTLIVES_ITS_SUPERVISOR", True)
    orphan = begun(stores, 1)
    note(orphan, f"{ACCEPTED}{OPEN}{OPEN}{OPEN}{OPEN}")
    later = begun(stores, 2)
    note(later, f"{ACCEPTED}{ACCEPTED}{ACCEPTED}{OPEN}{OPEN}")
    before = dict(stores.values)
    orphan.chunk(0, 2)[1] = ANNOUNCED
    for write in (orphan.write, orphan.write, lambda: orphan.finish(SUMMARY)):
        with pytest.raises(WasslyRecordError, match=r"^another try of this task has begun meanwhile") as raised:
            write()
        assert raised.value.may_pass is False
    assert stores.values == before
    note(later, f"{ACCEPTED}{ACCEPTED}{ACCEPTED}{ACCEPTED}{OPEN}")
    later.finish(SUMMARY)


def test_a_try_that_airflow_has_given_up_does_not_say_that_everybody_was_sent_to(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_compat, "OUTLIVES_ITS_SUPERVISOR", True)
    orphan = begun(stores, 1)
    note(orphan, ACCEPTED * 5)
    begun(stores, 2)
    with pytest.raises(WasslyRecordError, match=r"^another try of this task has begun meanwhile"):
        orphan.finish(SUMMARY)
    assert on_try(stores, 3).look_back() is None


@pytest.mark.parametrize("head", ["{", "7", "{}", '{"token": 1}'])
def test_a_head_that_makes_no_sense_lets_nothing_be_written(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    monkeypatch.setattr(_compat, "OUTLIVES_ITS_SUPERVISOR", True)
    record = begun(stores, 1)
    record.chunk(0, 2)[0] = ANNOUNCED
    stores.values[HEAD] = head
    with pytest.raises(WasslyRecordError):
        record.write()
    assert FIRST not in stores.values


def test_a_new_chunk_knows_nothing() -> None:
    chunk = Chunk(3)
    assert [chunk[index] for index in range(3)] == [OPEN] * 3
    assert not chunk.is_changed


def test_what_the_first_version_of_this_package_wrote_is_understood(stores: Stores) -> None:
    """As it lies in users' databases: a later form must read this one too."""
    stores.values[HEAD] = json.dumps(
        {"version": 1, "token": "t", "chain": 3, "try_number": 1, "retries": 3, "total": 5, "digests": "f0bbb8ff9132",
         "summary": None}
    )  # fmt: skip
    stores.values[FIRST] = json.dumps({"token": "t", "chain": 3, "outcomes": "a?", "conversation_ids": "77"})
    stores.values["wassly_broadcast__1"] = json.dumps(
        {"token": "t", "chain": 3, "outcomes": "uf", "conversation_ids": ""}
    )
    second = begun(stores, 2)
    assert second.is_resumed
    assert outcomes(second) == f"{ACCEPTED}{ANNOUNCED}{UNKNOWN}{FAILED}{OPEN}"
    assert second.chunk(0, 2).conversation_ids == {0: 77}
