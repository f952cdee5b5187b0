"""What one attempt of a broadcast leaves for the next."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_wassly.airflow_compat import versions
from airflow_provider_wassly.broadcast import recipients as recipients_module
from airflow_provider_wassly.broadcast import record as module
from airflow_provider_wassly.broadcast.recipients import CHUNK, NUMBER, RecipientList, Row, survey
from airflow_provider_wassly.broadcast.record import (
    ACCEPTED,
    ANNOUNCED,
    FAILED,
    FAILED_FOR_NOW,
    OPEN,
    UNKNOWN,
    BroadcastRecord,
    Chunk,
    WasslyListChanged,
)
from airflow_provider_wassly.client.clock import SYSTEM, Clock
from airflow_provider_wassly.records.attempts import Attempt
from airflow_provider_wassly.records.send_record import WasslyRecordError, WasslyRecordUnreadable
from airflow_provider_wassly.records.stores import Store
from tests.support.clock import VirtualClock
from tests.support.kept import Kept

List = list[dict[str, Any]]
ALL = (OPEN, ANNOUNCED, ACCEPTED, UNKNOWN, FAILED, FAILED_FOR_NOW)


class Stores(Kept):
    """All stored values of a task."""

    def __call__(self, name: str) -> Store:
        return self.store(name)

    def change(self, name: str, **values: Any) -> None:
        self.values[name] = json.dumps({**json.loads(self.values[name]), **values})


HEAD = "wassly_broadcast__head"
JOURNAL = "wassly_broadcast__journal"
FIRST = "wassly_broadcast__0"


@pytest.fixture
def stores() -> Stores:
    return Stores()


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipients_module, "CHUNK", 2)
    monkeypatch.setattr(module, "CHUNK", 2)
    monkeypatch.setattr(versions, "OUTLIVES_ITS_SUPERVISOR", False)


def people(number: int = 5) -> List:
    return [{NUMBER: f"+4477009000{place:02}"} for place in range(number)]


def rows_of(source: List | None = None) -> list[list[Row]]:
    return list(RecipientList(source or people()).chunks())


def on_try(stores: Any, number: int, *, chain: int = 3, instance: str | None = None, **options: Any) -> BroadcastRecord:
    return BroadcastRecord(stores, Attempt(instance or f"try {number}", None, chain, number, 3), **options)


def begun(
    stores: Any, number: int, *, source: List | None = None, clock: Clock = SYSTEM, **options: Any
) -> BroadcastRecord:
    record = on_try(stores, number, **options)
    record.resume(survey(RecipientList(source or people())))
    record.begin(clock)
    return record


def outcomes(record: BroadcastRecord, source: List | None = None) -> str:
    """Return the facts about a list, as a run reads them before sending."""
    found = ""
    for number, rows in enumerate(rows_of(source)):
        chunk = record.chunk(number, rows)
        found += "".join(chunk[index] for index in range(len(rows)))
    record.check_end(number + 1)
    return found


def note(record: BroadcastRecord, text: str, source: List | None = None, ids: dict[int, int] | None = None) -> None:
    for number, rows in enumerate(rows_of(source)):
        chunk = record.chunk(number, rows)
        for index, row in enumerate(rows):
            place = number * recipients_module.CHUNK + index
            if ids and place in ids:
                chunk.conversation_ids[index] = ids[place]
            chunk.note(index, text[place], row)
    record.write()


KNOWN = f"{FAILED}{ACCEPTED}{ANNOUNCED}{FAILED_FOR_NOW}{UNKNOWN}"


def test_a_retry_resumes_with_what_is_known(stores: Stores) -> None:
    first = begun(stores, 1)
    assert not first.is_resumed
    note(first, KNOWN, ids={1: 77})
    second = begun(stores, 2)
    assert second.is_resumed
    assert not second.is_cleared
    assert outcomes(second) == KNOWN
    assert second.chunk(0, rows_of()[0]).conversation_ids == {1: 77}


@pytest.mark.parametrize("size", [0, 2, 100])
def test_what_the_journal_knows_is_known_whenever_the_chunks_are_written(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(module, "_JOURNAL_SIZE", size)
    text = OPEN * 5
    for number in range(1, 4):
        record = begun(stores, number)
        assert outcomes(record) == text
        for place in range(5):
            text = f"{text[:place]}{ALL[(place + number) % len(ALL)]}{text[place + 1 :]}"
            note(record, text, ids={4: 100 + number})
            # As if the process were killed here.
            assert outcomes(begun(Stores(stores.values), 9)) == text


def test_a_try_that_airflow_runs_again_resumes(stores: Stores) -> None:
    note(begun(stores, 1), KNOWN)
    assert outcomes(begun(stores, 1)) == KNOWN


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_record_of_a_task_instance_that_was_deleted_goes_first_of_all(stores: Stores, number: int) -> None:
    note(begun(stores, max(number, 1)), ACCEPTED * 5)
    on_try(stores, number, instance="made again").look()
    again = begun(stores, number + 1)
    assert not again.is_resumed
    assert outcomes(again) == OPEN * 5
    # Its chunks are still there, but belong to no record.
    assert outcomes(begun(stores, number + 2)) == OPEN * 5


def test_an_attempt_that_failed_before_it_began_leaves_nothing(stores: Stores) -> None:
    on_try(stores, 1).look()
    second = begun(stores, 2)
    assert not second.is_resumed
    assert stores.values.keys() == {HEAD, JOURNAL}


def test_after_everybody_was_sent_to_there_is_nobody_left_also_after_a_clear(stores: Stores) -> None:
    note(begun(stores, 1), ACCEPTED * 5)
    assert outcomes(begun(stores, 2)) == ACCEPTED * 5
    cleared = begun(stores, 3, chain=4)
    assert cleared.is_cleared
    assert outcomes(cleared) == ACCEPTED * 5


def test_what_has_succeeded_leaves_nothing_behind(stores: Stores) -> None:
    first = begun(stores, 1)
    note(first, ACCEPTED * 5)
    first.remove()
    assert stores.values == {}
    assert outcomes(begun(stores, 2, chain=4, source=people(7)), people(7)) == OPEN * 7


def test_only_a_record_that_says_so_knows_that_nobody_was_sent_to(stores: Stores) -> None:
    first = begun(stores, 1)
    assert first.knows_nothing
    note(first, ACCEPTED + OPEN * 4)
    assert not first.knows_nothing
    assert not begun(stores, 2).knows_nothing
    unreadable = on_try(stores, 3)
    assert not unreadable.knows_nothing
    stores.failure = ConnectionError("Airflow's API does not answer")
    unreadable.look()
    assert not unreadable.knows_nothing


def test_an_attempt_that_was_given_up_does_not_remove_the_record_of_the_next(stores: Stores) -> None:
    stores.is_shared = True
    orphan = begun(stores, 1)
    note(begun(stores, 2), ACCEPTED * 5)
    with pytest.raises(WasslyRecordError, match=r"^another attempt of this task has started"):
        orphan.remove()
    assert outcomes(begun(stores, 3)) == ACCEPTED * 5


def test_a_task_that_failed_and_was_cleared_tries_the_failed_ones_again(stores: Stores) -> None:
    note(begun(stores, 1), KNOWN)
    assert outcomes(begun(stores, 2, chain=4)) == KNOWN.replace(FAILED, OPEN)


def test_the_failed_ones_are_tried_again_also_if_the_cleared_task_died_before_it_came_to_them(stores: Stores) -> None:
    note(begun(stores, 1), f"{ACCEPTED}{FAILED}{UNKNOWN}{ANNOUNCED}{FAILED}")
    begun(stores, 2, chain=4)
    third = begun(stores, 3, chain=4)
    assert outcomes(third) == f"{ACCEPTED}{OPEN}{UNKNOWN}{ANNOUNCED}{OPEN}"
    # A retry does not try a third time those that fail again.
    note(third, f"{ACCEPTED}{FAILED}{UNKNOWN}{ANNOUNCED}{OPEN}")
    assert outcomes(begun(stores, 4, chain=4)) == f"{ACCEPTED}{FAILED}{UNKNOWN}{ANNOUNCED}{OPEN}"


def test_clearing_starts_over_if_that_is_wanted_and_its_retries_do_not(stores: Stores) -> None:
    note(begun(stores, 1), ACCEPTED * 5)
    cleared = begun(stores, 2, chain=4, starts_over=True)
    assert not cleared.is_resumed
    note(cleared, ACCEPTED + OPEN * 4)
    assert outcomes(begun(stores, 3, chain=4, starts_over=True)) == ACCEPTED + OPEN * 4


# The list


def changed(place: int) -> List:
    return [{NUMBER: "+447700900999"} if at == place else person for at, person in enumerate(people())]


@pytest.mark.parametrize("chain", [3, 4])
@pytest.mark.parametrize(
    ("known", "source", "reason"),
    [
        (ACCEPTED * 5, people(4), "row 5 was sent to, but is gone"),
        (ACCEPTED * 5, people(1), "row 2 was sent to, but is gone"),
        (ACCEPTED * 5, changed(0), "in rows 1 to 2, numbers that were already sent to have changed"),
        (ACCEPTED * 5, changed(3), "in rows 3 to 4, numbers that were already sent to have changed"),
        (UNKNOWN * 5, changed(4), "in rows 5 to 5, numbers that were already sent to have changed"),
        (ANNOUNCED + OPEN * 4, people()[::-1], "in rows 1 to 2, numbers that were already sent to have changed"),
        (OPEN + ACCEPTED + OPEN * 3, [{NUMBER: "1"}, *people()], "in rows 1 to 2, numbers that were"),
    ],
)
def test_who_was_sent_to_must_not_change(stores: Stores, known: str, source: List, reason: str, chain: int) -> None:
    note(begun(stores, 1), known)
    with pytest.raises(WasslyListChanged) as raised:
        outcomes(begun(stores, 2, chain=chain, source=source), source)
    assert str(raised.value).startswith(f"recipients: {reason}")
    assert raised.value.summary.startswith("This attempt sent nothing: recipients: ")
    assert not raised.value.may_pass


@pytest.mark.parametrize(
    ("known", "source"),
    [
        (ACCEPTED + OPEN * 4, [{**person, "name": "corrected"} for person in people()]),
        (f"{ACCEPTED}{OPEN}{FAILED}{UNKNOWN}{OPEN}", changed(1)),
        (f"{ACCEPTED}{OPEN}{FAILED}{UNKNOWN}{OPEN}", changed(2)),
        (f"{ACCEPTED}{OPEN}{FAILED_FOR_NOW}{OPEN}{OPEN}", changed(2)),
        (ACCEPTED * 5, people(8)),
        (ACCEPTED * 3 + OPEN * 2, people(3)),
    ],
)
def test_rows_that_were_not_sent_to_may_be_corrected_and_rows_added(stores: Stores, known: str, source: List) -> None:
    note(begun(stores, 1), known)
    record = begun(stores, 2, source=source)
    found = outcomes(record, source)
    assert found == known.ljust(len(source), OPEN)[: len(source)]
    everybody = "".join(ACCEPTED if outcome in (OPEN, FAILED) else outcome for outcome in found)
    note(record, everybody, source)
    assert outcomes(begun(stores, 3, source=source), source) == everybody


def test_counts_say_what_earlier_attempts_did(stores: Stores) -> None:
    note(begun(stores, 1), KNOWN)
    record = on_try(stores, 2)
    record.resume(survey(RecipientList(people(1))))
    assert record.counts() == {"accepted": 1, "unknown": 2}


# What is written


def test_nothing_is_written_when_nothing_has_changed(stores: Stores) -> None:
    record = begun(stores, 1)
    assert outcomes(record) == OPEN * 5
    stores.writes.clear()
    record.write()
    assert stores.writes == []


def test_a_chunk_is_there_before_the_head_counts_it_and_then_the_journal_takes_the_changes(stores: Stores) -> None:
    record = begun(stores, 1)
    stores.writes.clear()
    note(record, f"{OPEN}{OPEN}{ANNOUNCED}{OPEN}{OPEN}")
    # The previous chunk counts too, although nothing in it was sent.
    assert stores.writes == [FIRST, "wassly_broadcast__1", HEAD]
    record.write()
    note(record, f"{OPEN}{OPEN}{ACCEPTED}{ANNOUNCED}{OPEN}")
    assert stores.writes == [FIRST, "wassly_broadcast__1", HEAD, JOURNAL]


@pytest.mark.parametrize("total", [1000])
def test_a_message_costs_one_write_and_less_than_a_kilobyte(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, total: int
) -> None:
    for place in (recipients_module, module):
        monkeypatch.setattr(place, "CHUNK", CHUNK)
    written: list[int] = []
    keep = stores.set

    def count(key: str, value: str) -> None:
        written.append(len(value))
        keep(key, value)

    monkeypatch.setattr(stores, "set", count)
    record = begun(stores, 1, source=people(total))
    (rows,) = rows_of(people(total))
    chunk = record.chunk(0, rows)
    written.clear()
    for index, row in enumerate(rows):
        chunk.note(index, ANNOUNCED, row)
        if index:
            chunk.conversation_ids[index - 1] = 10_000_000 + index
            chunk.note(index - 1, ACCEPTED, rows[index - 1])
        record.write()
    assert len(written) <= total + 1
    assert sum(written) / total < 1000


def test_a_chunk_that_is_forgotten_is_read_again_and_one_that_is_not_written_is_not_forgotten(stores: Stores) -> None:
    begun(stores, 1)
    record = begun(stores, 2)
    note(record, f"{ACCEPTED}{OPEN}{OPEN}{OPEN}{OPEN}")
    rows = rows_of()
    record.chunk(1, rows[1]).note(1, UNKNOWN, rows[1][1])
    in_use = record.chunk(2, rows[2])
    record.forget({in_use})
    stores.reads.clear()
    assert outcomes(record) == f"{ACCEPTED}{OPEN}{OPEN}{UNKNOWN}{OPEN}"
    assert record.chunk(2, rows[2]) is in_use
    assert stores.reads[0] == FIRST


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(ALL), st.integers()), max_size=CHUNK),
    st.lists(st.integers(0, 30), max_size=3),
)
def test_a_list_comes_back_as_it_was(known: list[tuple[str, int]], writes: list[int]) -> None:
    stores = Stores()
    if not known:
        return
    source = people(len(known))
    first = begun(stores, 1, source=source)
    ids = {place: number for place, (_, number) in enumerate(known) if number % 3}
    text = "".join(outcome for outcome, _ in known)
    for place in writes:  # more than one write, so that the journal is used
        note(first, text[:place].ljust(len(text), OPEN), source, ids)
    note(first, text, source, ids)
    second = begun(stores, 2, source=source)
    assert outcomes(second, source) == text
    found = {
        number * recipients_module.CHUNK + index: conversation_id
        for number, rows in enumerate(rows_of(source))
        for index, conversation_id in second.chunk(number, rows).conversation_ids.items()
    }
    assert found == {place: ids[place] for place in ids if text[place] == ACCEPTED}


@pytest.mark.parametrize(("first", "kept"), [(10**12, CHUNK), (2**63 - 1, CHUNK * 0.95), (10**40, CHUNK * 0.4)])
def test_the_largest_chunk_fits_into_any_store(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, first: int, kept: float
) -> None:
    for place in (recipients_module, module):
        monkeypatch.setattr(place, "CHUNK", CHUNK)
    source = people(CHUNK)
    record = begun(stores, 1, source=source)
    ids = {index: first - index for index in range(CHUNK)}
    note(record, ACCEPTED * CHUNK, source, ids)
    assert max(len(text.encode()) for text in stores.values.values()) < 48 * 1024
    second = begun(stores, 2, source=source)
    found = second.chunk(0, rows_of(source)[0])
    assert found.text == ACCEPTED * CHUNK
    # The stored ones are correct.
    assert len(found.conversation_ids) >= kept
    assert found.conversation_ids.items() <= ids.items()


def test_nothing_that_is_stored_tells_a_number(stores: Stores) -> None:
    note(begun(stores, 1), KNOWN)
    everything = json.dumps(stores.values)
    # 4477009000xx: no five consecutive digits of it, except where a token contains them by chance.
    without_tokens = re.sub(r'\\"token\\": \\"[0-9a-f]{16}\\"', "", everything)
    for person in people():
        digits = person[NUMBER][1:]
        assert not [digits[at : at + 5] for at in range(8) if digits[at : at + 5] in without_tokens]
    # So short that thousands of numbers share it.
    assert [len(digest) for digest in re.findall(r'digest\\": \\"([0-9a-f]*)\\"', everything)] == [4, 4, 4]


# When it goes wrong


def test_a_record_that_cannot_be_read_is_an_error_that_may_pass(stores: Stores) -> None:
    begun(stores, 1)
    record = begun(stores, 2)
    stores.failure = ConnectionError("Airflow's API does not answer")
    for read in (lambda: begun(stores, 3), lambda: record.chunk(0, rows_of()[0])):
        with pytest.raises(
            WasslyRecordUnreadable, match=r"could not read the send record \(ConnectionError: Airflow's"
        ) as raised:
            read()
        assert raised.value.may_pass
        assert raised.value.accepted is None


@pytest.mark.parametrize("text", ["{", "null", "[]", "7"])
@pytest.mark.parametrize("name", [HEAD, JOURNAL, FIRST])
def test_what_is_no_value_is_an_error_that_cannot_pass(stores: Stores, name: str, text: str) -> None:
    note(begun(stores, 1), ACCEPTED * 5)
    stores.values[name] = text
    with pytest.raises(WasslyRecordUnreadable) as raised:
        outcomes(begun(stores, 2))
    assert not raised.value.may_pass


@pytest.mark.parametrize("name", [JOURNAL, FIRST, "wassly_broadcast__2"])
def test_a_value_that_is_missing_is_an_error_and_nobody_is_sent_to_again(stores: Stores, name: str) -> None:
    note(begun(stores, 1), ACCEPTED * 5)
    del stores.values[name]
    with pytest.raises(WasslyRecordUnreadable, match="missing") as raised:
        outcomes(begun(stores, 2))
    assert not raised.value.may_pass


@pytest.mark.parametrize("name", [JOURNAL, FIRST])
def test_a_value_of_another_record_is_an_error(stores: Stores, name: str) -> None:
    note(begun(stores, 1), ACCEPTED * 5)
    stores.change(name, token="another")
    with pytest.raises(WasslyRecordUnreadable):
        outcomes(begun(stores, 2))


def test_what_could_not_be_written_is_an_error_that_may_pass_and_is_written_the_next_time(stores: Stores) -> None:
    record = begun(stores, 1)
    rows = rows_of()[0]
    record.chunk(0, rows).note(0, ACCEPTED, rows[0])
    stores.failure = ConnectionError("Airflow's API does not answer")
    for write in (record.begin, record.write):
        with pytest.raises(
            WasslyRecordError, match=r"could not write the send record \(ConnectionError: Airflow's"
        ) as raised:
            write()
        assert raised.value.may_pass
    with pytest.raises(WasslyRecordError, match=r"could not remove the send record \(ConnectionError: Airflow's"):
        record.remove()
    stores.failure = None
    record.write()
    assert outcomes(begun(stores, 2)) == ACCEPTED + OPEN * 4


def test_a_record_of_a_later_version_is_not_guessed_at(stores: Stores) -> None:
    begun(stores, 1)
    stores.change(HEAD, version=3)
    with pytest.raises(WasslyRecordUnreadable, match="version 3 was written by a later version of this pack") as raised:
        begun(stores, 2)
    assert not raised.value.may_pass


values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 5) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
fields = {
    HEAD: ["version", "token", "instance", "run", "chain", "try_number", "epoch", "begun", "total"],
    JOURNAL: ["token", "chain", "written", "changes", "digests"],
    FIRST: ["token", "chain", "written", "outcomes", "conversation_ids", "digest"],
}
changes = st.sampled_from(sorted(fields)).flatmap(
    lambda name: st.tuples(
        st.just(name), st.dictionaries(st.sampled_from(fields[name]), values) | values, st.booleans()
    )
)


@settings(deadline=None, max_examples=300)
@given(changes)
def test_whatever_a_value_holds_it_is_understood_or_an_error(change: tuple[str, Any, bool]) -> None:
    name, found, is_new = change
    stores = Stores()
    first = begun(stores, 1)
    note(first, ACCEPTED * 4 + OPEN)
    note(first, ACCEPTED * 5)
    if isinstance(found, dict) and not is_new:
        stores.change(name, **found)
    else:
        stores.values[name] = json.dumps(found)
    with contextlib.suppress(WasslyRecordError):
        assert set(outcomes(begun(stores, 2))) <= set(ALL)


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        (HEAD, {"begun": "5"}, "TypeError: begun is of type str"),
        (HEAD, {"chain": "3"}, "TypeError: chain is of type str"),
        (HEAD, {"try_number": None}, "TypeError: try_number is of type NoneType"),
        (FIRST, {"outcomes": ACCEPTED * 3}, "ValueError: chunk 0 has 3 rows"),
        (FIRST, {"outcomes": "ax"}, "ValueError: chunk 0 has unknown outcomes"),
        (JOURNAL, {"changes": {"0": "7a,"}}, "ValueError: '7a' in the journal is not a change"),
        (JOURNAL, {"changes": {"0": "2a,"}}, "ValueError: '2a' in the journal is not a change"),
        (JOURNAL, {"changes": {"0": "0x,"}}, "ValueError: '0x' in the journal is not a change"),
        (JOURNAL, {"changes": {"0": 7}}, "TypeError: the journal has changes of the wrong type"),
        (JOURNAL, {"changes": {"x": "0a,"}}, "TypeError: the journal has changes of the wrong type"),
        (JOURNAL, {"written": "7"}, "TypeError: the journal has values of the wrong type"),
        (JOURNAL, {"digests": []}, "TypeError: the journal has values of the wrong type"),
        (JOURNAL, {"token": "t"}, "ValueError: the journal belongs to another record"),
    ],
)
def test_what_makes_no_sense_is_named_and_stays_an_error(
    stores: Stores, name: str, change: dict[str, Any], reason: str
) -> None:
    record = begun(stores, 1)
    note(record, ACCEPTED + OPEN * 4)
    note(record, ACCEPTED * 2 + OPEN * 3)
    stores.change(name, **change)
    with pytest.raises(WasslyRecordUnreadable, match=re.escape(f"({reason})")) as raised:
        outcomes(begun(stores, 2))
    assert raised.value.may_pass is False
    assert raised.value.__cause__ is not None


@pytest.mark.parametrize("token", ["", "another"])
def test_who_was_sent_to_is_not_counted_without_the_journal(stores: Stores, token: str) -> None:
    note(begun(stores, 1), ACCEPTED + OPEN * 4)
    if token:
        stores.change(JOURNAL, token=token)
    else:
        del stores.values[JOURNAL]
    record = on_try(stores, 2)
    with pytest.raises(WasslyRecordUnreadable, match="the journal"):
        record.resume(survey(RecipientList(people())))
    with pytest.raises(WasslyRecordUnreadable, match=r"\(ValueError: the journal was not read\)"):
        record.counts()


def test_where_there_was_no_record_nobody_is_counted(stores: Stores) -> None:
    assert on_try(stores, 1).counts() == {"accepted": 0, "unknown": 0}


def test_of_rows_that_are_gone_the_first_is_named(stores: Stores) -> None:
    note(begun(stores, 1), OPEN * 3 + ACCEPTED + OPEN)
    with pytest.raises(WasslyListChanged, match="row 4 was sent to, but is gone"):
        outcomes(begun(stores, 2, source=people(2)), people(2))


@pytest.mark.parametrize("effect", [False, True])
@pytest.mark.parametrize("place", range(4))
def test_what_the_journal_knew_is_known_wherever_the_next_attempt_dies(
    stores: Stores, place: int, effect: bool
) -> None:
    first = begun(stores, 1)
    note(first, ANNOUNCED + ANNOUNCED + ANNOUNCED + OPEN * 2)
    known = FAILED_FOR_NOW + ACCEPTED + ANNOUNCED + OPEN * 2
    note(first, known)
    assert stores.writes[-1] == JOURNAL
    stores.failing_writes = {len(stores.writes) + place: effect}
    with contextlib.suppress(WasslyRecordError):
        begun(stores, 2)
    stores.failing_writes = {}
    assert outcomes(begun(stores, 3)) == known


def test_a_chunk_that_was_forgotten_stays_as_it_was_when_a_later_one_begins(stores: Stores) -> None:
    record = begun(stores, 1)
    note(record, ACCEPTED * 2 + OPEN * 3)
    note(record, ACCEPTED * 2 + ACCEPTED + OPEN * 2)
    record.forget(set())
    rows = rows_of()[2]
    record.chunk(2, rows).note(0, ACCEPTED, rows[0])
    record.write()
    assert outcomes(begun(stores, 2)) == ACCEPTED * 3 + OPEN + ACCEPTED


def test_a_chunk_that_nobody_has_looked_at_counts_when_a_later_one_begins(stores: Stores) -> None:
    record = begun(stores, 1)
    rows = rows_of()[1]
    record.chunk(1, rows).note(0, ACCEPTED, rows[0])
    record.write()
    assert outcomes(begun(stores, 2)) == OPEN * 2 + ACCEPTED + OPEN * 2


# Without a running task, and in a process that Airflow has given up


def test_without_a_running_task_nothing_is_kept() -> None:
    record = BroadcastRecord(lambda name: None, Attempt.of({}))
    record.resume(survey(RecipientList(people())))
    record.begin()
    note(record, ACCEPTED * 5)
    assert outcomes(record) == ACCEPTED * 5
    record.remove()


def test_an_attempt_that_airflow_has_given_up_writes_nothing_once_a_later_one_has_begun(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "OUTLIVES_ITS_SUPERVISOR", True)
    stores.is_shared = True
    orphan = begun(stores, 1)
    note(orphan, f"{ACCEPTED}{OPEN}{OPEN}{OPEN}{OPEN}")
    later = begun(stores, 2)
    note(later, f"{ACCEPTED}{ACCEPTED}{ACCEPTED}{OPEN}{OPEN}")
    before = dict(stores.values)
    rows = rows_of()[0]
    orphan.chunk(0, rows).note(1, ANNOUNCED, rows[1])
    for _ in range(2):
        with pytest.raises(WasslyRecordError, match=r"^another attempt of this task has started") as raised:
            orphan.write()
        assert raised.value.may_pass is False
    assert stores.values == before
    note(later, f"{ACCEPTED}{ACCEPTED}{ACCEPTED}{ACCEPTED}{OPEN}")


def test_an_attempt_whose_machine_has_slept_looks_whether_it_is_still_the_one(stores: Stores) -> None:
    stores.is_shared = True
    clock = VirtualClock()
    sleeper = begun(stores, 1, clock=clock)
    note(sleeper, ACCEPTED + OPEN * 4)
    stores.reads.clear()
    note(sleeper, ACCEPTED + ANNOUNCED + OPEN * 3)
    assert HEAD not in stores.reads
    begun(stores, 2)
    clock.advance(60)
    with pytest.raises(WasslyRecordError, match=r"^another attempt of this task has started"):
        note(sleeper, ACCEPTED + ACCEPTED + ANNOUNCED + OPEN * 2)


@pytest.mark.parametrize("head", ["{", "7", "{}", '{"token": 1}'])
def test_a_head_that_makes_no_sense_lets_nothing_be_written(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    monkeypatch.setattr(versions, "OUTLIVES_ITS_SUPERVISOR", True)
    stores.is_shared = True
    record = begun(stores, 1)
    stores.values[HEAD] = head
    with pytest.raises(WasslyRecordError):
        note(record, ANNOUNCED + OPEN * 4)
    assert FIRST not in stores.values


def test_of_two_processes_of_one_try_the_later_one_goes_on(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "OUTLIVES_ITS_SUPERVISOR", True)
    stores.is_shared = True
    first = begun(stores, 1)
    second = begun(stores, 1)
    with pytest.raises(WasslyRecordError, match=r"^another attempt of this task has started"):
        note(first, ANNOUNCED + OPEN * 4)
    note(second, ANNOUNCED + OPEN * 4)


def test_of_two_processes_that_have_both_looked_the_later_one_goes_on(stores: Stores) -> None:
    stores.is_shared = True
    note(begun(stores, 1), ACCEPTED + OPEN * 4)
    first, second = on_try(stores, 2), on_try(stores, 2)
    for record in (first, second):
        record.resume(survey(RecipientList(people())))
    with pytest.raises(WasslyRecordError, match=r"^another attempt of this task has started"):
        first.begin()
    second.begin()


@pytest.mark.parametrize("effect", [False, True])
def test_a_head_that_could_not_be_written_is_still_known_as_its_own(stores: Stores, effect: bool) -> None:
    stores.is_shared = True
    record = begun(stores, 1)
    # The chunk's value, and then the head that counts it.
    stores.failing_writes = {len(stores.writes) + 1: effect}
    with pytest.raises(WasslyRecordError, match="could not write the send record") as caught:
        note(record, ANNOUNCED + OPEN * 4)
    assert caught.value.may_pass is True
    record.remove()
    assert stores.values == {}


def test_a_record_that_cannot_be_removed_is_an_error_that_may_pass(stores: Stores) -> None:
    record = begun(stores, 1)
    stores.failure = ConnectionError("Airflow's API does not answer")
    with pytest.raises(WasslyRecordError, match="could not remove the send record") as caught:
        record.remove()
    assert caught.value.may_pass is True


def test_a_new_chunk_knows_nothing() -> None:
    chunk = Chunk()
    assert [chunk[index] for index in range(3)] == [OPEN] * 3
    assert not chunk.is_changed


OF_VERSION_1 = {
    HEAD: {
        "version": 1, "token": "t", "chain": 3, "try_number": 1, "retries": 3, "total": 5, "digests": "f0bbb8ff9132",
        "summary": None,
    },
    FIRST: {"token": "t", "chain": 3, "outcomes": "a?", "conversation_ids": "77"},
    "wassly_broadcast__1": {"token": "t", "chain": 3, "outcomes": "uf", "conversation_ids": ""},
}  # fmt: skip


def test_what_the_first_version_of_this_package_wrote_is_understood(stores: Stores) -> None:
    """The format in users' databases, which later versions must also read."""
    stores.values = {name: json.dumps(value) for name, value in OF_VERSION_1.items()}
    second = begun(stores, 2)
    assert second.is_resumed
    assert outcomes(second) == f"{ACCEPTED}{ANNOUNCED}{UNKNOWN}{FAILED}{OPEN}"
    assert second.chunk(0, rows_of()[0]).conversation_ids == {0: 77}
    note(second, f"{ACCEPTED}{UNKNOWN}{UNKNOWN}{FAILED}{ACCEPTED}")
    assert outcomes(begun(stores, 3)) == f"{ACCEPTED}{UNKNOWN}{UNKNOWN}{FAILED}{ACCEPTED}"


@pytest.mark.parametrize("summary", [None, {"recipients": 5, "accepted": 3}])
def test_nobody_is_sent_to_again_after_an_upgrade_and_a_clear(stores: Stores, summary: Any) -> None:
    stores.values = {name: json.dumps(value) for name, value in OF_VERSION_1.items()}
    stores.change(HEAD, summary=summary)
    assert outcomes(begun(stores, 2, chain=4)) == f"{ACCEPTED}{ANNOUNCED}{UNKNOWN}{OPEN}{OPEN}"


def test_of_the_first_version_no_row_may_change(stores: Stores) -> None:
    stores.values = {name: json.dumps(value) for name, value in OF_VERSION_1.items()}
    with pytest.raises(WasslyListChanged, match="record allows no row to change") as caught:
        begun(stores, 2, source=people(6))
    assert caught.value.may_pass is False


def test_the_first_version_can_have_ended_before_it_wrote_a_chunk(stores: Stores) -> None:
    stores.values = {HEAD: json.dumps(OF_VERSION_1[HEAD])}
    assert outcomes(begun(stores, 2)) == OPEN * 5


@pytest.mark.parametrize("effect", [False, True])
@pytest.mark.parametrize("place", range(-1, 4))
def test_what_the_first_version_kept_elsewhere_is_moved(stores: Stores, place: int, effect: bool) -> None:
    """On Airflow 3.4 the record used to be in the task's state, which clearing the task discards."""
    elsewhere = Stores({name: json.dumps(value) for name, value in OF_VERSION_1.items()})
    stores.is_shared = True
    if place >= 0:
        stores.failing_writes = {place: effect}
        with contextlib.suppress(WasslyRecordError):
            begun(stores, 2, earlier_store=elsewhere)
        stores.failing_writes = {}
    begun(stores, 3, earlier_store=elsewhere)
    assert (HEAD in elsewhere.values) <= (place >= 0)
    elsewhere.values.clear()
    record = begun(stores, 4, chain=4, earlier_store=elsewhere)
    assert record.is_cleared
    assert outcomes(record) == f"{ACCEPTED}{ANNOUNCED}{UNKNOWN}{OPEN}{OPEN}"
    record.remove()
    assert HEAD not in stores.values


def test_what_an_earlier_airflow_kept_elsewhere_is_moved(stores: Stores) -> None:
    elsewhere = Stores()
    first = begun(elsewhere, 1)
    note(first, ANNOUNCED * 3 + OPEN * 2)
    note(first, ACCEPTED + FAILED_FOR_NOW + ACCEPTED + OPEN * 2)
    assert elsewhere.writes[-1] == JOURNAL
    stores.is_shared = True
    record = begun(stores, 2, earlier_store=elsewhere)
    assert outcomes(record) == ACCEPTED + FAILED_FOR_NOW + ACCEPTED + OPEN * 2


def test_what_the_first_version_knew_is_counted(stores: Stores) -> None:
    stores.values = {name: json.dumps(value) for name, value in OF_VERSION_1.items()}
    stores.change(HEAD, total=2)
    record = on_try(stores, 2)
    record.look()
    assert record.counts() == {"accepted": 1, "unknown": 1}
