"""
Broadcasts with Wassly, the record and killed processes simulated in memory.

The recurring check: whatever happens, nobody gets a second message and nobody is forgotten.
"""

from __future__ import annotations

import itertools
import logging
import math
import tempfile
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_wassly.airflow_compat import versions
from airflow_provider_wassly.broadcast import progress as progress_module
from airflow_provider_wassly.broadcast import recipients as recipients_module
from airflow_provider_wassly.broadcast import record as record_module
from airflow_provider_wassly.broadcast import run as run_module
from airflow_provider_wassly.broadcast.pace import Pace
from airflow_provider_wassly.broadcast.recipients import NUMBER, Row
from airflow_provider_wassly.broadcast.report import Line, Report
from airflow_provider_wassly.broadcast.run import BroadcastRun, WasslyBroadcastIncomplete
from airflow_provider_wassly.client import (
    MessageParameters,
    OutgoingMessage,
    SendReceipt,
    WasslyAuthError,
    WasslyConfigError,
    WasslyDeviceDisconnected,
    WasslyError,
    WasslyInstanceUnknown,
    WasslyInvalidMessage,
    WasslyRateLimited,
    WasslyRejected,
    normalize,
)
from airflow_provider_wassly.client.messages import prepare
from airflow_provider_wassly.records.send_record import WasslyRecordError
from tests.support.broadcast import Broadcast, Snapshot, World, hello_to, number, outcomes_in, people
from tests.support.clock import VirtualClock
from tests.support.memory import in_own_process, traced
from tests.support.service import ERRORS, FATES, TOLD

#: Rows that are stored together.
CHUNK = 3

pytestmark = pytest.mark.usefixtures("small_chunks", "one_thread")


# Whatever happens


@dataclass
class Plan:
    """One try of a simulation."""

    clears: bool
    #: Whether Airflow runs the same try again.
    again: bool
    max_workers: int
    #: At which point the process is killed, from 0 to 1; ``None`` if it is not.
    dies_at: float | None
    #: Which of the messages on the way at that point still arrive.
    arrive: list[bool]
    #: At which point the task is stopped gracefully, from 0 to 1.
    stops_at: int | None
    failing_writes: dict[int, bool]
    finishes: bool


plans = st.builds(
    Plan,
    clears=st.booleans(),
    again=st.booleans(),
    max_workers=st.integers(1, 4),
    dies_at=st.none() | st.floats(0, 1),
    arrive=st.lists(st.booleans(), max_size=4),
    stops_at=st.none() | st.integers(0, 60),
    failing_writes=st.just({}) | st.dictionaries(st.integers(0, 8), st.booleans(), max_size=2),
    finishes=st.booleans(),
)
fates = st.dictionaries(st.integers(0, 9), st.lists(st.sampled_from(list(FATES)), max_size=3))
lists = st.lists(st.integers(-1, 9), min_size=1, max_size=16)


def announced(values: dict[str, str]) -> int:
    return outcomes_in(values).count("?")


def stopper(world: World, run: BroadcastRun, at: int | None) -> Callable[[str], None]:
    def stop(what: str) -> None:
        if at is not None and world.events >= at:
            run.kill()

    return stop


def check_what_is_told(broadcast: Broadcast, places: list[int], world: World) -> None:
    """Check that a completed try reports every recipient truthfully."""
    is_stopped = broadcast.run.stopped_by is not None
    delivered = Counter(world.delivered)
    outcomes = broadcast.outcomes()
    of_number: dict[int, list[str]] = {}
    for place, outcome in zip(places, outcomes, strict=True):
        of_number.setdefault(place, []).append(outcome)
    for place, told in of_number.items():
        if place == -1:
            assert set(told) <= ({"invalid", "not_sent"} if is_stopped else {"invalid"})
            continue
        assert "invalid" not in told
        others = [outcome for outcome in told if outcome != "duplicate"]
        assert others, f"nobody says what became of {place}"
        assert is_stopped or "not_sent" not in others
        assert others.count("accepted") <= 1
        if "accepted" in others:
            assert delivered[number(place)] == 1
        elif "unknown" not in others:
            assert delivered[number(place)] == 0
        if delivered[number(place)] and "accepted" not in others:
            assert "unknown" in others


@settings(deadline=None, max_examples=100)
@given(lists, fates, st.lists(plans, min_size=1, max_size=5), st.integers(0, 2**16))
def test_nobody_gets_a_second_message_and_nobody_is_forgotten(
    places: list[int], fates: dict[int, list[str]], plans: list[Plan], seed: int
) -> None:
    source = [{NUMBER: number(place) if place >= 0 else "no number"} for place in places]
    chunks = -(-len(source) // CHUNK)
    left = {number(place): list(all_fates) for place, all_fates in fates.items()}
    world = World(clock=VirtualClock(seed))
    chain = try_number = 0
    last = Plan(
        clears=False, again=False, max_workers=2, dies_at=None, arrive=[], stops_at=None, failing_writes={},
        finishes=False,
    )  # fmt: skip
    for plan in [*plans, last]:
        chain += plan.clears
        try_number += not plan.again or plan.clears or not try_number
        before = announced(world.kept.values)
        world.fates, world.kept.failing_writes = left, plan.failing_writes
        world.calls, world.kept.reads, world.kept.writes, world.events = [], [], [], 0
        world.keeps_snapshots = plan.dies_at is not None
        world.snapshots = []
        world.on_event = lambda what: None
        has_succeeded = False
        try:
            broadcast = Broadcast(world, source, try_number, chain=chain, max_workers=plan.max_workers)
            stop_after = None if plan.stops_at is None else world.events + plan.stops_at

            world.on_event = stopper(world, broadcast.run, stop_after)
            broadcast.go()
            check_what_is_told(broadcast, places, world)
            jobs = len(set(world.calls))
            if not plan.failing_writes:
                # The chunks are small: messages on the way belong to several, each written separately, like the head.
                assert len(world.kept.writes) <= jobs / plan.max_workers + 6 * chunks + 4
                assert len(world.kept.reads) <= 4 * chunks + 4
            if plan.finishes and broadcast.run.stopped_by is None:
                has_succeeded = True
                broadcast.record.remove()
        except WasslyRecordError:
            assert plan.failing_writes
        assert max(Counter(world.delivered).values(), default=0) <= 1
        if plan.dies_at is not None:
            # The process was killed, and its memory is gone.
            snapshot = world.snapshots[int(plan.dies_at * (len(world.snapshots) - 1))]
            assert announced(snapshot.values) <= before + 2 * plan.max_workers
            arrived = [to for to, arrives in zip(snapshot.on_the_way, plan.arrive, strict=False) if arrives]
            world = World(Snapshot(snapshot.values, [*snapshot.delivered, *arrived], []), VirtualClock(seed))
            assert max(Counter(world.delivered).values(), default=0) <= 1
            has_succeeded = has_succeeded and "wassly_broadcast__head" not in snapshot.values
        elif not plan.failing_writes:
            # After a graceful stop, nobody whose answer came is unknown.
            assert announced(world.kept.values) <= before
        if has_succeeded and "wassly_broadcast__head" not in world.kept.values:
            # It runs again only if it is cleared.
            world.delivered.clear()
    assert max(Counter(world.delivered).values(), default=0) <= 1


def in_any_spelling(place: int) -> st.SearchStrategy[str]:
    """Return a strategy for the ways to write a number, in a country or from abroad."""
    digits = f"17012345{place:02}"
    prefixes = ["+49", "0049", "+49 0", "+49 (0)", "＋49 ", "tel:+49-", "'+49-", "0", "\u200e+49\u00a0"]
    return st.builds(
        lambda prefix, separators: prefix + "".join(map("".join, zip(digits, [*separators, ""], strict=True))),
        st.sampled_from(prefixes),
        st.lists(st.sampled_from(["", "", "", " ", "-", "/"]), min_size=9, max_size=9),
    )


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(0, 5).flatmap(lambda place: st.tuples(st.just(place), in_any_spelling(place))), min_size=1),
    st.lists(st.lists(st.integers(0, 5).flatmap(in_any_spelling), max_size=3), min_size=1, max_size=4),
    st.integers(1, 3),
    st.booleans(),
)
def test_no_spelling_of_an_excluded_number_gets_a_message(
    rows: list[tuple[int, str]], opt_outs: list[list[str]], max_workers: int, repeats_numbers: bool
) -> None:
    def hello_to_row(row: Row, instance_id: str | None) -> OutgoingMessage:
        return prepare(MessageParameters(row.number, "Hello", instance_id="one"), default_region="DE")

    def read_all(spellings: Iterable[str]) -> set[str]:
        return {normalize(spelling, "DE") for spelling in spellings}

    world = World()
    world.default_region = "DE"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "opt-outs.txt"
        listed: list[str] = []

        def opt_out() -> None:
            if opt_outs:
                listed.extend(opt_outs.pop(0))
                file.write_text("\n".join(listed))

        opt_out()
        broadcast = Broadcast(
            world,
            [spelling for _, spelling in rows],
            max_workers=max_workers,
            repeats_numbers=repeats_numbers,
            exclude=file,
            message_to=hello_to_row,
        )

        def refresh() -> None:
            # In the run's own thread, as after a wait. What was announced by then may still be sent.
            opt_out()
            broadcast.run.refresh_exclusions()
            out = {job.message.contact_mobile_number for job in broadcast.run._out}
            opted_out[len(world.calls)] = read_all(listed) - out

        opted_out = {0: read_all(listed)}
        broadcast.hook.mask_tokens = refresh
        broadcast.go()
    for calls, numbers in opted_out.items():
        assert not numbers & set(world.calls[calls:])
    told: dict[str, set[str]] = {}
    for (place, _), outcome in zip(rows, broadcast.outcomes(), strict=True):
        told.setdefault(f"+4917012345{place:02}", set()).add(outcome)
    for to, outcomes in told.items():
        assert outcomes <= {"accepted", "duplicate", "excluded"}
        assert ("accepted" in outcomes) is (to in world.delivered)
        # A row can be the duplicate of one that is excluded before it is sent to.
        assert outcomes & {"accepted", "excluded"}
        assert to in {*world.delivered, *read_all(listed)}


# How it goes on


def test_everybody_is_sent_to_once_and_told_of() -> None:
    world = World()
    broadcast = Broadcast(world, people(8), max_workers=3).go()
    assert sorted(world.delivered) == [number(place) for place in range(8)]
    assert broadcast.outcomes() == ["accepted"] * 8
    summary = broadcast.run.tally.summary()
    assert (summary["recipients"], summary["accepted"], summary["not_sent"]) == (8, 8, 0)
    assert [line.row.number for line in broadcast.report.in_order()] == [number(place) for place in range(8)]


def test_a_retry_tells_the_conversation_ids_of_the_try_before() -> None:
    world = World()
    first = Broadcast(world, people(5)).go()
    second = Broadcast(world, people(5), 2).go()
    assert [line.conversation_id for line in second.report.lines] == [1, 2, 3, 4, 5]
    assert second.report.lines == first.report.lines
    assert len(world.calls) == 5


def test_one_number_is_sent_to_once_however_it_is_written() -> None:
    spellings = ["+44 07700 900001", "00447700900001", " +44 7700 900-001 ", "+44 (7700) 900001", "+44 (0)7700 900001"]
    world = World()
    broadcast = Broadcast(world, [{NUMBER: spelling} for spelling in spellings], max_workers=4).go()
    assert world.delivered == [number(1)]
    assert broadcast.outcomes() == ["accepted", "duplicate", "duplicate", "duplicate", "duplicate"]
    assert broadcast.reasons()[1] == "the number also appears in another row"


def test_a_number_that_an_earlier_try_sent_to_is_known_however_it_was_written() -> None:
    world = World()
    source = [{NUMBER: "+44 07700 900001"}, {NUMBER: "nonsense"}]
    assert Broadcast(world, source).go().outcomes() == ["accepted", "invalid"]
    source[1] = {NUMBER: number(1)}
    assert Broadcast(world, source, 2).go().outcomes() == ["accepted", "duplicate"]
    assert world.delivered == [number(1)]


def test_the_second_of_two_rows_is_sent_to_when_the_first_is_wrong_and_not_again_when_that_is_mended() -> None:
    def hello_unless(wrong: int) -> Callable[[Row, str | None], OutgoingMessage]:
        def message_to(row: Row, instance_id: str | None) -> OutgoingMessage:
            if row.position == wrong:
                raise WasslyInvalidMessage("no such file", field="document")
            return hello_to(row)

        return message_to

    world = World()
    source = [*people(1), *people(1), *people(2)]
    first = Broadcast(world, source, message_to=hello_unless(1)).go()
    assert first.outcomes() == ["invalid", "accepted", "duplicate", "accepted"]
    assert Broadcast(world, source, 2).go().outcomes() == ["duplicate", "accepted", "duplicate", "accepted"]
    assert sorted(world.delivered) == [number(0), number(1)]


def test_who_is_excluded_is_not_sent_to_and_has_not_failed() -> None:
    world = World()
    source = [*people(3), {}, {NUMBER: "+44 (0)7700 900001"}]
    broadcast = Broadcast(world, source, exclude=["+44 7700 900-001", number(7)]).go()
    assert world.delivered == [number(0), number(2)]
    assert broadcast.outcomes() == ["accepted", "excluded", "accepted", "invalid", "excluded"]
    assert broadcast.reasons()[1] == "the number is in exclude"
    tally = broadcast.run.tally
    assert tally.failures(with_unknown=True) == 1
    assert (tally.summary()["excluded"], tally.summary()["not_sent"], tally.done) == (2, 0, 5)
    assert tally.counts_in_words() == "2 of 5 accepted, 1 invalid, 2 excluded"


def test_a_row_that_is_wrong_and_excluded_is_only_excluded() -> None:
    def wrong(row: Row, instance_id: str | None) -> OutgoingMessage:
        raise WasslyInvalidMessage("no such file", field="document")

    world = World()
    assert Broadcast(world, people(2), exclude=people(1), message_to=wrong).go().outcomes() == ["excluded", "invalid"]


def test_who_was_sent_to_or_perhaps_and_is_excluded_later_keeps_the_outcome() -> None:
    world = World()
    world.fates = {
        number(1): ["accept, answer lost"],
        number(2): ["refuse"],
        number(3): ["refuse for now"],
        number(4): ["device disconnected"],
    }
    first = Broadcast(world, people(5)).go()
    assert first.outcomes() == ["accepted", "unknown", "failed", "failed", "not_sent"]
    for repeats_unknown in (False, True):
        later = Broadcast(world, people(5), 2, repeats_unknown=repeats_unknown, exclude=people(5)).go()
        assert later.outcomes() == ["accepted", "unknown", "excluded", "excluded", "excluded"]
    assert later.reasons()[1] == "an earlier attempt left it unknown; this attempt: the number is in exclude"
    assert len(world.calls) == 5
    # The record still knows: they can be sent to once they are no longer excluded.
    assert Broadcast(world, people(5), 3, repeats_unknown=True, chain=4).go().outcomes() == ["accepted"] * 5


def test_after_a_stop_too_nobody_who_is_excluded_is_left_for_later() -> None:
    world = World()
    world.fates = {number(0): ["wrong key"]}
    broadcast = Broadcast(world, people(9), exclude=[number(6)]).go()
    outcomes = broadcast.outcomes()
    assert outcomes[4:] == ["not_sent", "not_sent", "excluded", "not_sent", "not_sent"]


def test_who_opts_out_while_others_are_sent_to_gets_no_message(tmp_path: Path) -> None:
    file = tmp_path / "opt-outs.txt"
    file.write_text("")
    world = World()
    broadcast = Broadcast(world, people(9), max_workers=2, exclude=file)

    def refresh() -> None:
        jobs = [job for device in broadcast.run._devices.values() for job in device.ready]
        if len(world.delivered) >= 2 and jobs and not file.read_text():
            # Those who are ready to be sent to, and one whose turn comes later.
            ready.extend(job.message.contact_mobile_number for job in jobs)
            file.write_text("\n".join([number(8), *ready]))
            broadcast.run.refresh_exclusions()

    ready: list[str] = []
    broadcast.hook.mask_tokens = refresh
    broadcast.go()
    assert ready
    assert number(8) not in ready
    outcomes = dict(zip([number(place) for place in range(9)], broadcast.outcomes(), strict=True))
    assert {to for to, outcome in outcomes.items() if outcome == "excluded"} == {number(8), *ready}
    assert sorted(world.delivered) == sorted(to for to, outcome in outcomes.items() if outcome == "accepted")


@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_nothing_more_is_sent_once_the_exclusions_cannot_be_read(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "opt-outs.txt"
    file.write_text(f"{number(1)}\n")
    world = World()
    broadcast = Broadcast(world, people(9), exclude=file)

    def refresh() -> None:
        if len(world.calls) >= 3 and not left:
            left.update(world.calls, (job.message.contact_mobile_number for job in broadcast.run._out))
            if damage == "gone":
                file.unlink(missing_ok=True)
            else:
                file.write_text(f"{number(1)}\n{number(5)}\nsomebody\n")
            broadcast.run.refresh_exclusions()

    left: set[str] = set()
    broadcast.hook.mask_tokens = refresh
    broadcast.go()
    assert set(world.calls) <= left < {number(place) for place in range(5)}
    # The exclusions from before are kept.
    assert broadcast.outcomes()[1] == "excluded"
    assert broadcast.outcomes()[5:] == ["not_sent"] * 4
    stopped_by = broadcast.run.stopped_by
    assert isinstance(stopped_by, WasslyBroadcastIncomplete)
    assert stopped_by.may_pass
    reasons = {
        "gone": f"exclude: no such file: {file}",
        "damaged": "exclude: 1 row cannot be read; correct it: row 3, line 3 (so…dy): contains letters; "
        "remove any name or extension",
    }
    assert str(stopped_by) == reasons[damage]
    # A retry waits for the file to be right again, then resumes.
    file.unlink(missing_ok=True)
    with pytest.raises(WasslyBroadcastIncomplete) as raised:
        Broadcast(world, people(9), 2, exclude=file)
    assert (raised.value.may_pass, str(raised.value)) == (True, reasons["gone"])
    file.write_text(f"{number(1)}\n{number(5)}\n")
    outcomes = Broadcast(world, people(9), 3, exclude=file).go().outcomes()
    assert outcomes == ["accepted", "excluded", *["accepted"] * 3, "excluded", *["accepted"] * 3]


def test_a_row_that_is_wrong_stops_nobody() -> None:
    world = World()
    source = [{}, {NUMBER: "2.01E+11"}, "text", *people(2), {NUMBER: None}]
    broadcast = Broadcast(world, source).go()
    assert broadcast.outcomes() == ["invalid"] * 3 + ["accepted"] * 2 + ["invalid"]
    assert broadcast.reasons()[0] == f"the row: {NUMBER} is missing"
    assert [line.row.number for line in broadcast.report.lines[:3]] == [None, "2.01E+11", "text"]


def test_odd_characters_in_a_list_stop_nobody_and_break_no_line(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for shows_numbers in (False, True):
        world = World()
        source = [{NUMBER: "\ud800\n'=12345678"}, {NUMBER: "x" * 100}, *people(1)]
        report = Report(tmp_path / "report.csv", shows_numbers=shows_numbers)
        Broadcast(world, source, report=report).run.run(1)
        report.save()
        report.close()
        assert world.delivered == [number(0)]
        assert len((tmp_path / "report.csv").read_text().split("invalid")) == 3
    assert "Row 1 (" in caplog.text
    assert not [record for record in caplog.records if not record.getMessage().isprintable()]


def test_what_failed_for_good_is_not_tried_again_before_somebody_clears_the_task() -> None:
    world = World()
    world.fates = {number(1): ["refuse"] * 2, number(2): ["refuse for now"]}
    assert Broadcast(world, people(4)).go().outcomes() == ["accepted", "failed", "failed", "accepted"]
    assert Broadcast(world, people(4), 2).go().outcomes() == ["accepted", "failed", "accepted", "accepted"]
    assert world.calls.count(number(1)) == 1
    assert Broadcast(world, people(4), 3, chain=4).go().outcomes() == ["accepted", "failed", "accepted", "accepted"]
    assert Broadcast(world, people(4), 4, chain=5).go().outcomes() == ["accepted"] * 4
    assert sorted(world.delivered) == [number(place) for place in range(4)]


def test_who_is_unknown_is_left_alone_unless_that_is_wanted() -> None:
    world = World()
    world.fates = {number(1): ["accept, answer lost", "lose it, answer lost"], number(2): ["accept, then a bug"]}
    first = Broadcast(world, people(4)).go()
    assert first.outcomes() == ["accepted", "unknown", "unknown", "accepted"]
    assert first.reasons()[1:3] == ["no answer came", "RuntimeError: a bug"]
    again = Broadcast(world, people(4), 2).go()
    assert again.outcomes() == ["accepted", "unknown", "unknown", "accepted"]
    assert len(world.calls) == 4
    assert Broadcast(world, people(4), 3, repeats_unknown=True).go().outcomes() == [
        *["accepted", "unknown", "accepted", "accepted"]
    ]
    assert Broadcast(world, people(4), 4, repeats_unknown=True).go().outcomes() == ["accepted"] * 4
    # They got it twice, as requested.
    assert Counter(world.delivered) == {number(0): 1, number(1): 2, number(2): 2, number(3): 1}


def killed_while_on_the_way(max_workers: int, total: int) -> World:
    """Return the world after a process was killed whose messages had all left but not been answered."""
    world = World()
    world.keeps_snapshots = True
    Broadcast(world, people(total), max_workers=max_workers).go()
    most = max(world.snapshots, key=lambda snapshot: len(snapshot.on_the_way))
    return World(Snapshot(most.values, most.delivered + most.on_the_way, []))


@pytest.mark.parametrize("max_workers", [1, 2, 4])
def test_no_more_are_announced_than_twice_as_many_as_there_are_threads(max_workers: int) -> None:
    world = World()
    broadcast = Broadcast(world, people(30), max_workers=max_workers)
    announced: list[int] = []

    def note(what: str) -> None:
        if what == "written":
            announced.append(world.outcomes().count("?"))

    world.latency = 1.0  # longer than announcing more takes
    world.on_event = note
    broadcast.go()
    assert max(announced) == 2 * max_workers


@pytest.mark.parametrize("max_workers", [1, 2, 4])
def test_a_kill_leaves_few_unknown_and_says_who(max_workers: int) -> None:
    world = killed_while_on_the_way(max_workers, 20)
    retry = Broadcast(world, people(20), 2).go()
    assert 1 <= retry.outcomes().count("unknown") <= 2 * max_workers
    assert retry.outcomes().count("accepted") == 20 - retry.outcomes().count("unknown")
    assert max(Counter(world.delivered).values()) == 1
    unknown = [line for line in retry.report.lines if line.outcome == "unknown"]
    assert {line.reason for line in unknown} == {"an earlier attempt was killed before the answer was recorded"}
    # After that, it is no longer reported as new.
    third = Broadcast(world, people(20), 3).go()
    assert third.outcomes() == retry.outcomes()
    assert {line.reason for line in third.report.lines if line.outcome == "unknown"} == {
        "an earlier attempt left it unknown; see its log"
    }


def test_who_was_unknown_stays_so_when_a_repetition_comes_to_nothing() -> None:
    for fate in ("wrong key", "refuse for now", "refuse", "no connection"):
        world = World()
        world.fates = {number(0): ["accept, answer lost", *[fate] * 3]}
        Broadcast(world, people(1)).go()
        second = Broadcast(world, people(1), 2, repeats_unknown=True).go()
        assert second.outcomes() == ["unknown"]
        assert second.reasons()[0].startswith("an earlier attempt left it unknown; this attempt: ")
        # Now the DAG's author decides against repeating.
        assert Broadcast(world, people(1), 3).go().outcomes() == ["unknown"]
        assert world.delivered == [number(0)]


# What stops it


@pytest.mark.parametrize("fate", ["wrong key", "device disconnected"])
@pytest.mark.parametrize("max_workers", [1, 3])
def test_what_concerns_everybody_stops_all_and_blames_nobody(fate: str, max_workers: int) -> None:
    world = World()
    world.fates = {number(place): [fate] for place in range(4, 20)}
    broadcast = Broadcast(world, people(20), max_workers=max_workers).go()
    assert isinstance(broadcast.run.stopped_by, (WasslyAuthError, WasslyDeviceDisconnected))
    # With several threads, a later one can be the first to hit it.
    before, after = broadcast.outcomes()[:4], broadcast.outcomes()[4:]
    assert before.count("accepted") == len(world.delivered) >= 5 - max_workers
    assert set(after) == {"not_sent"} >= set(before) - {"accepted"}
    assert len(world.calls) <= 4 + 2 * max_workers
    assert set(world.outcomes()) <= {"a", "."}
    world.fates = {}
    assert Broadcast(world, people(20), 2, max_workers=max_workers).go().outcomes() == ["accepted"] * 20
    assert max(Counter(world.delivered).values()) == 1


def test_a_call_that_cannot_be_made_stops_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise WasslyConfigError("cannot make the call")

    world = World()
    monkeypatch.setattr(world, "send", fail)
    broadcast = Broadcast(world, people(3)).go()
    assert isinstance(broadcast.run.stopped_by, WasslyConfigError)
    assert broadcast.outcomes() == ["not_sent"] * 3


@pytest.mark.parametrize("fate", ["refuse for now", "no connection", "too many requests", "lose it, answer lost"])
def test_ten_in_a_row_that_fail_stop_all(fate: str) -> None:
    world = World()
    world.fates = {number(place): [fate] * 3 for place in range(2, 40)}
    broadcast = Broadcast(world, people(40)).go()
    stopped_by = broadcast.run.stopped_by
    assert isinstance(stopped_by, WasslyBroadcastIncomplete)
    assert stopped_by.may_pass
    assert "10 recipients in a row failed, the last one with: " in str(stopped_by)
    told = Counter(broadcast.outcomes())
    assert told["accepted"] == 2
    assert 10 <= told["failed"] + told["unknown"] <= 12
    # The next try resumes after them.
    world.fates = {}
    told = Counter(Broadcast(world, people(40), 2).go().outcomes())
    assert told["accepted"] + told["unknown"] == 40


def test_failures_with_successes_in_between_stop_nothing() -> None:
    world = World()
    world.fates = {number(place): ["refuse for now"] for place in range(40) if place % 5}
    told = Counter(Broadcast(world, people(40)).go().outcomes())
    assert told == {"accepted": 8, "failed": 32}


@pytest.mark.parametrize("max_workers", [1, 4])
def test_the_first_twenty_that_are_refused_for_one_reason_stop_all(max_workers: int) -> None:
    world = World()
    world.fates = {number(place): ["refuse"] for place in range(300)}
    broadcast = Broadcast(world, people(300), max_workers=max_workers).go()
    stopped_by = broadcast.run.stopped_by
    assert isinstance(stopped_by, WasslyBroadcastIncomplete)
    assert not stopped_by.may_pass
    assert str(stopped_by) == (
        "the first 20 recipients were all refused for the same reason, so the recipients are not the cause: never"
    )
    assert 20 <= len(world.calls) <= 20 + 2 * max_workers
    # Once the message is correct, they get it too.
    world.fates = {}
    told = Counter(Broadcast(world, people(300), 2).go().outcomes())
    assert told["accepted"] >= 300 - 2 * max_workers
    assert told["accepted"] + told["failed"] == 300


@pytest.mark.parametrize("exception", ["accept", "refuse for now", "file changed", "lose it, answer lost"])
@pytest.mark.parametrize("place", [0, 10, 18])
def test_twenty_that_are_refused_stop_nothing_if_one_before_was_not(exception: str, place: int) -> None:
    world = World()
    world.fates = {number(each): ["refuse"] for each in range(40)} | {number(place): [exception] * 3}
    broadcast = Broadcast(world, people(40)).go()
    assert broadcast.run.stopped_by is None
    assert len(set(world.calls)) == 40


def test_what_differs_from_answer_to_answer_is_no_other_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = itertools.count(1000)
    reason = "HTTP 413 (request 7f{}, 12:00:{:02}): too large for +44…{}"
    monkeypatch.setitem(
        ERRORS, "refuse", lambda: WasslyRejected(reason.format(next(ids), next(ids) % 60, next(ids)), status=413)
    )
    world = World()
    world.fates = {number(place): ["refuse"] for place in range(40)}
    Broadcast(world, people(40)).go()
    assert len(world.calls) <= 22


def test_another_status_is_another_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    statuses = itertools.cycle([413, 422])
    monkeypatch.setitem(
        ERRORS, "refuse", lambda: WasslyRejected(f"HTTP {(status := next(statuses))}: no", status=status)
    )
    world = World()
    world.fates = {number(place): ["refuse"] for place in range(40)}
    broadcast = Broadcast(world, people(40)).go()
    assert broadcast.run.stopped_by is None


def test_a_device_that_can_come_back_lets_a_retry_help_beside_one_that_the_account_does_not_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(ERRORS, "refuse", lambda: WasslyInstanceUnknown("the account has no instance", status=422))
    world = World()
    world.fates = {number(0): ["refuse"], number(1): ["device disconnected"]}
    rows = [{**row, "instance_id": instance} for row, instance in zip(people(3), ("gone", "off", "on"), strict=True)]
    broadcast = Broadcast(world, rows).go()
    assert broadcast.outcomes() == ["not_sent", "not_sent", "accepted"]
    assert isinstance(broadcast.run.stopped_by, WasslyDeviceDisconnected)


def test_refusals_for_different_reasons_stop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = itertools.cycle(["too large", "no such number"])
    monkeypatch.setitem(ERRORS, "refuse", lambda: WasslyRejected(next(reasons), status=422))
    world = World()
    world.fates = {number(place): ["refuse"] for place in range(40)}
    assert set(Broadcast(world, people(40)).go().outcomes()) == {"failed"}


def test_refusals_in_between_do_not_hide_that_nobody_is_reached() -> None:
    world = World()
    world.fates = {number(place): ["refuse" if place % 3 else "lose it, answer lost"] for place in range(100)}
    broadcast = Broadcast(world, people(100)).go()
    assert "10 recipients in a row failed" in str(broadcast.run.stopped_by)
    assert len(world.calls) <= 30


# Several sending sessions


def of_two_sessions(total: int) -> list[dict[str, Any]]:
    return [{NUMBER: number(place), "instance_id": "off" if place % 2 == 0 else "on"} for place in range(total)]


@pytest.mark.parametrize("max_workers", [1, 3])
def test_a_session_that_is_not_connected_keeps_nobody_but_its_own_rows_waiting(max_workers: int) -> None:
    world = World()
    world.fates = {number(place): ["device disconnected"] for place in range(0, 40, 2)}
    broadcast = Broadcast(world, of_two_sessions(40), max_workers=max_workers).go()
    assert isinstance(broadcast.run.stopped_by, WasslyDeviceDisconnected)
    assert broadcast.outcomes() == ["not_sent", "accepted"] * 20
    assert len(world.calls) <= 20 + 2 * max_workers
    # The phone is connected again.
    world.fates = {}
    broadcast = Broadcast(world, of_two_sessions(40), 2, max_workers=max_workers).go()
    assert broadcast.outcomes() == ["accepted"] * 40
    assert broadcast.run.stopped_by is None
    assert max(Counter(world.delivered).values()) == 1


@pytest.mark.parametrize(
    ("off", "on"),
    [(["off", " off "], ["on", None, ""]), ([None, "", "  ", "absent"], ["on"])],
    ids=["named", "default"],
)
def test_a_session_is_the_same_however_a_row_writes_it(off: list[str | None], on: list[str | None]) -> None:
    world = World()
    # Two are on the way together; after those, every recipient would be reached.
    names = [off[0], *on * 3, *off * 3]
    world.fates = {number(place): ["device disconnected"] for place in (0, 1 + len(on) * 3)}
    rows = [{NUMBER: number(place), "instance_id": name} for place, name in enumerate(names)]
    for row in rows:
        if row["instance_id"] == "absent":
            del row["instance_id"]
    outcomes = Broadcast(world, rows).go().outcomes()
    assert outcomes == ["not_sent"] + ["accepted"] * 3 * len(on) + ["not_sent"] * 3 * len(off)


def test_recipients_that_fail_in_every_try_do_not_keep_the_others_from_being_sent_to() -> None:
    world = World()
    world.fates = {number(place): ["refuse for now"] * 9 for place in range(15)}
    outcomes: list[str] = []
    for try_number in range(1, 4):
        broadcast = Broadcast(world, people(20), try_number).go()
        outcomes = broadcast.outcomes()
    assert outcomes == ["failed"] * 15 + ["accepted"] * 5
    assert broadcast.run.stopped_by is None


def test_a_record_that_cannot_be_written_stops_all_before_anything_leaves() -> None:
    world = World()
    world.kept.failing_writes = dict.fromkeys(range(2, 99), False)
    broadcast = Broadcast(world, people(5))
    assert broadcast.go().outcomes() == ["not_sent"] * 5
    assert "could not write the send record" in str(broadcast.run.stopped_by)
    assert world.calls == []
    world.kept.failing_writes = {}
    assert Broadcast(world, people(5), 2).go().outcomes() == ["accepted"] * 5


def test_a_try_that_airflow_has_given_up_stops_when_another_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "OUTLIVES_ITS_SUPERVISOR", True)
    world = World()
    world.kept.is_shared = True
    orphan = Broadcast(world, people(30))
    later: list[Broadcast] = []

    writes, write = False, orphan.record.write

    def write_in_one_piece() -> None:
        nonlocal writes
        writes = True
        try:
            write()
        finally:
            writes = False

    orphan.record.write = write_in_one_piece  # type: ignore[method-assign]

    def begin_another(what: str) -> None:
        # In one step, and not during the other one's write: Airflow could not keep those apart.
        if len(world.delivered) >= 3 and not writes and not later:
            world.kept.on_event = lambda what: None
            later.append(Broadcast(world, people(30), 2))
            world.kept.on_event = world.event

    world.on_event = begin_another
    orphan.go()
    assert str(orphan.run.stopped_by) == "another attempt of this task has started, so this one stops"
    values = dict(world.kept.values)
    assert len(world.delivered) < 15
    later[0].go()
    assert values != world.kept.values
    assert max(Counter(world.delivered).values()) == 1
    assert set(later[0].outcomes()) == {"accepted", "unknown"}


def test_a_bug_in_between_leaves_the_record_right() -> None:
    def hello_until(row: Row, instance_id: str | None) -> OutgoingMessage:
        if row.position == 6:
            raise ZeroDivisionError("a bug")
        return hello_to(row)

    world = World()
    with pytest.raises(ZeroDivisionError):
        Broadcast(world, people(9), max_workers=2, message_to=hello_until).go()
    assert set(world.outcomes()) <= {"a", "."}
    assert world.outcomes().count("a") == len(world.delivered)
    assert Broadcast(world, people(9), 2).go().outcomes() == ["accepted"] * 9
    assert max(Counter(world.delivered).values()) == 1


# A list that changes while it is being sent to


@pytest.mark.parametrize(
    "after",
    [people(3), people(5), people(7), people(9), people(6)[::-1], []],
    ids=["its last chunk is gone", "shorter", "longer", "a chunk longer", "in another order", "empty"],
)
def test_a_list_that_changes_meanwhile_is_an_error(tmp_path: Any, after: list[dict[str, str]]) -> None:
    path = tmp_path / "list.csv"

    def write(rows: list[dict[str, str]]) -> None:
        path.write_text("".join(f"{line}\n" for line in [NUMBER, *(row[NUMBER] for row in rows)]))

    write(people(6))
    world = World()
    broadcast = Broadcast(world, str(path))
    write(after)
    broadcast.run.run(1)
    error = broadcast.run.as_end_of_broadcast(broadcast.run.stopped_by or WasslyError("it was not stopped"))
    counts = broadcast.run.tally.counts
    assert error.summary == (
        f"Broadcast incomplete: {counts['accepted']} of 6 accepted, {counts['not_sent']} not sent: "
        "recipients: the list changed during the broadcast. A retry, or clearing the task, resumes without "
        "sending to anyone twice."
    )
    assert counts["accepted"] == len(world.delivered)
    assert error.accepted is None


# Stopping a task


def test_a_task_that_is_stopped_sends_nothing_any_more_and_notes_the_answers_that_come() -> None:
    world = World()
    broadcast = Broadcast(world, people(20), max_workers=3)

    def stop(what: str) -> None:
        if what == "delivered" and len(world.delivered) == 4:
            broadcast.run.kill()

    world.on_event = stop
    broadcast.go()
    assert str(broadcast.run.stopped_by) == "the task is being stopped"
    sent = len(world.delivered)
    assert 4 <= sent <= 7
    assert world.outcomes().count("a") == sent
    assert set(world.outcomes()) <= {"a", "."}
    assert Broadcast(world, people(20), 2).go().outcomes() == ["accepted"] * 20
    assert max(Counter(world.delivered).values()) == 1


def test_only_those_without_an_answer_are_unknown_after_a_stop_even_if_the_process_dies_at_once() -> None:
    """One message has left and is not answered; the others wait for their turn."""
    world = World()
    killed, answer = world.clock.event(), world.clock.event()
    broadcast = Broadcast(world, people(9), max_workers=3, pace=Pace(20, clock=world.clock))
    written_after_kill: list[str] = []

    def act(what: str) -> None:
        if what == "departed":
            killed.set()
            broadcast.run.kill()
            answer.wait()
        if what == "written" and killed.is_set():
            written_after_kill.append(world.outcomes())
            answer.set()

    world.on_event = act
    broadcast.go()
    assert str(broadcast.run.stopped_by) == "the task is being stopped"
    # Airflow allows five seconds, so what is written first matters. Which of the first three has left is not checked.
    assert written_after_kill[0].lstrip(".") == "?"
    assert world.outcomes().lstrip(".") == "a"
    assert len(world.delivered) == 1


def test_a_message_that_is_being_uploaded_when_the_task_is_stopped_does_not_leave() -> None:
    world = World()
    broadcast = Broadcast(world, people(5), max_workers=2)

    def stop(what: str) -> None:
        if what == "call" and len(world.calls) == 2:
            broadcast.run.kill()
            world.clock.sleep(0.1)

    world.on_event = stop
    broadcast.go()
    assert str(broadcast.run.stopped_by) == "the task is being stopped"
    world.clock.sleep(0.2)
    assert len(world.delivered) <= 1
    assert world.outcomes().count("a") == len(world.delivered)
    assert set(world.outcomes()) <= {"a", "."}


def test_a_message_that_waits_because_wassly_asked_for_it_is_not_unknown_after_a_stop() -> None:
    world = World()
    broadcast = Broadcast(world, people(5))
    world.asks_to_wait = [30]
    killed = world.clock.event()
    written_after_kill: list[str] = []

    def note(what: str) -> None:
        if what == "written" and killed.is_set():
            written_after_kill.append(world.outcomes())

    def stop() -> None:
        world.clock.sleep(10)
        killed.set()
        broadcast.run.kill()

    world.on_event = note
    world.clock.start(stop, "stops it")
    broadcast.go()
    assert str(broadcast.run.stopped_by) == "the task is being stopped"
    assert world.clock.monotonic() < 1011
    assert set(written_after_kill) == {""}
    assert world.delivered == []


def test_an_answer_that_does_not_come_in_time_leaves_one_unknown() -> None:
    world = World()
    broadcast = Broadcast(world, people(9), max_workers=2)

    def act(what: str) -> None:
        if what == "departed" and number(3) in world.on_the_way:
            broadcast.run.kill()
            world.clock.sleep(10)

    world.on_event = act
    began = world.clock.monotonic()
    broadcast.go(seconds_after_kill=0.3)
    assert str(broadcast.run.stopped_by) == "the task is being stopped"
    assert world.clock.monotonic() - began == pytest.approx(0.3, abs=0.01)
    assert world.outcomes().count("u") <= 2
    assert "?" not in world.outcomes()
    world.clock.sleep(10)
    told = Broadcast(world, people(9), 2).go().outcomes()
    assert told.count("accepted") + told.count("unknown") == 9
    assert max(Counter(world.delivered).values()) == 1


def test_a_task_that_is_stopped_before_it_began_sends_nothing() -> None:
    world = World()
    broadcast = Broadcast(world, people(3))
    broadcast.run.kill()
    broadcast.go()
    assert str(broadcast.run.stopped_by) == "the task is being stopped"
    assert world.calls == []


# The pace


def test_all_wait_as_long_as_wassly_asks_also_when_a_message_is_given_up() -> None:
    world = World()
    world.asks_to_wait = [20, 30, 40]
    assert Broadcast(world, people(3)).go().outcomes() == ["failed", "accepted", "accepted"]
    assert [round(at - 1000) for at in world.called_at] == [0, 20, 50, 90, 90]


def test_a_wait_that_is_too_long_is_left_to_the_retries_of_the_task() -> None:
    world = World()
    world.asks_to_wait = [3600] * 20
    broadcast = Broadcast(world, people(20), limits={"wait_timeout": timedelta(minutes=59)}).go()
    assert len(world.calls) == 1
    assert isinstance(broadcast.run.stopped_by, WasslyRateLimited)
    assert broadcast.run.stopped_by.may_pass
    assert str(broadcast.run.stopped_by).endswith("wait_timeout (0:59:00) allows no longer wait")
    assert broadcast.outcomes() == ["not_sent"] * 20


def test_a_long_wait_that_wassly_asks_for_is_waited_for() -> None:
    world = World()
    world.asks_to_wait = [3600]
    broadcast = Broadcast(world, people(3)).go()
    assert broadcast.outcomes() == ["accepted"] * 3
    assert [round(at - 1000) for at in world.called_at] == [0, 3600, 3600, 3600]


@pytest.mark.parametrize("seed", range(10))
def test_the_longest_of_several_long_waits_counts(seed: int) -> None:
    world = World(clock=VirtualClock(seed))
    world.asks_to_wait = [3600, 700]
    began = world.clock.now()
    broadcast = Broadcast(world, people(6), max_workers=2, limits={"leaves_slot": True}).go()
    wait = broadcast.run.waits_for
    assert wait is not None
    assert wait.until is not None
    assert timedelta(seconds=3599) < wait.until - began < timedelta(seconds=3601)


def test_the_other_threads_wait_too() -> None:
    world = World()
    world.asks_to_wait = [30]
    assert Broadcast(world, people(12), max_workers=3).go().outcomes() == ["accepted"] * 12
    # Two others may have been on their way already.
    assert sum(at < 1030 for at in world.called_at) <= 3
    assert len(world.calls) == 13


def test_a_message_is_announced_only_when_its_turn_is_near() -> None:
    world = World()
    broadcast = Broadcast(world, people(9), max_workers=1, pace=Pace(20, clock=world.clock))
    seen: list[str] = []

    def watch() -> None:
        for moment in (0.7, 2.2, 2.8):
            world.clock.sleep(moment - (world.clock.monotonic() - 1000))
            seen.append(world.outcomes())
        broadcast.run.kill()

    world.clock.start(watch, "watches")
    broadcast.go()
    assert str(broadcast.run.stopped_by) == "the task is being stopped"
    # The second one's turn comes after about three seconds. The first one's result is written with it.
    assert seen == ["?", "?", "a?"]


@pytest.mark.parametrize("max_workers", [1, 2, 5, 10])
def test_airflow_is_called_about_once_for_as_many_recipients_as_there_are_threads(
    monkeypatch: pytest.MonkeyPatch, max_workers: int
) -> None:
    for module in (recipients_module, record_module):
        monkeypatch.setattr(module, "CHUNK", 100)
    world = World()
    Broadcast(world, people(250), max_workers=max_workers).go()
    assert world.kept.reads == ["wassly_broadcast__head"]
    assert len(world.kept.writes) <= 250 / max_workers + 3 * 3 + 3


# The reserve


def test_the_reserve_is_used_up_to_its_border_and_no_further() -> None:
    for max_workers in (1, 2, 3, 8):
        world = World()
        world.remaining = 30
        broadcast = Broadcast(world, people(40), max_workers=max_workers, reserve=10).go()
        assert world.remaining == 10
        assert Counter(broadcast.outcomes()) == {"accepted": 20, "not_sent": 20}
        assert str(broadcast.run.stopped_by) == "10 conversations remain and 10 are reserved (reserve_conversations)"
        assert isinstance(broadcast.run.stopped_by, WasslyError)
        assert broadcast.run.stopped_by.may_pass


@settings(deadline=None, max_examples=40)
@given(fates, st.integers(1, 4), st.integers(0, 12), st.integers(0, 6), st.none() | st.integers(0, 40))
def test_the_reserve_is_never_undercut(
    fates: dict[int, list[str]], max_workers: int, remaining: int, reserve: int, recorded: int | None
) -> None:
    world = World()
    world.remaining = remaining
    world.fates = {number(place): list(all_fates) for place, all_fates in fates.items()}
    broadcast = Broadcast(world, people(10), max_workers=max_workers, reserve=reserve)
    broadcast.run.tally.remaining_conversations = recorded
    broadcast.go()
    # Only an answer shows the current quota. Until then, each message may be one too many.
    before_the_first = list(itertools.takewhile(lambda fate: fate not in TOLD, world.met))
    blind = sum(FATES[fate] for fate in before_the_first) + (len(world.met) > len(before_the_first))
    assert world.remaining >= min(reserve, remaining - blind)


def test_answers_that_come_in_another_order_do_not_undercut_the_reserve() -> None:
    world = World()
    world.remaining = 13
    send = world.send

    def overtaking(message: OutgoingMessage, **observers: Any) -> SendReceipt:
        receipt = send(message, **observers)
        if receipt.remaining_conversations == 11:
            world.clock.sleep(5)  # its answer is the older one, and comes after the newer one
        return receipt

    world.send = overtaking  # type: ignore[method-assign]
    Broadcast(world, people(10), max_workers=2, reserve=10).go()
    assert world.remaining == 10


def test_the_last_number_is_told_although_its_answer_is_not_the_last_to_come() -> None:
    world = World()
    world.remaining = 30
    send = world.send

    def overtaking(message: OutgoingMessage, **observers: Any) -> SendReceipt:
        receipt = send(message, **observers)
        if receipt.remaining_conversations == 21:
            world.clock.sleep(5)
        return receipt

    world.send = overtaking  # type: ignore[method-assign]
    broadcast = Broadcast(world, people(10), max_workers=2).go()
    assert broadcast.run.tally.summary()["remaining_conversations"] == 20
    assert broadcast.hook.quotas == [20]


def test_a_top_up_while_it_sends_is_seen() -> None:
    world = World()
    world.remaining = 12

    def top_up(what: str) -> None:
        if what == "delivered" and world.remaining == 11:
            world.remaining = 1000

    world.on_event = top_up
    broadcast = Broadcast(world, people(30), max_workers=3, reserve=10).go()
    assert broadcast.outcomes() == ["accepted"] * 30
    assert broadcast.run.tally.remaining_conversations == world.remaining


def test_messages_of_which_nobody_knows_count_against_the_reserve() -> None:
    world = World()
    world.remaining = 14
    world.fates = {number(place): ["accept, answer lost"] for place in (2, 3)}
    broadcast = Broadcast(world, people(10), reserve=10).go()
    assert world.remaining == 10
    assert str(broadcast.run.stopped_by) == (
        "12 conversations remain (up to 2 of them may be used already) and 10 are reserved (reserve_conversations)"
    )


def test_a_reserve_that_cannot_be_kept_because_the_answers_do_not_tell() -> None:
    for recorded in (None, 100):
        world = World()
        broadcast = Broadcast(world, people(5), reserve=10)
        broadcast.run.tally.remaining_conversations = recorded
        broadcast.go()
        assert len(world.delivered) == 1
        assert "Wassly's replies do not say how many conversations remain" in str(broadcast.run.stopped_by)
        assert broadcast.run.stopped_by is not None
        assert not broadcast.run.stopped_by.may_pass


def test_a_recorded_quota_below_the_reserve_sends_nothing_and_says_what_to_do() -> None:
    world = World()
    broadcast = Broadcast(world, people(5), reserve=10)
    broadcast.run.tally.remaining_conversations = 10
    broadcast.go()
    assert world.calls == []
    assert "after a top-up, call hook.forget_quota()" in str(broadcast.run.stopped_by)
    assert broadcast.outcomes() == ["not_sent"] * 5


def test_the_last_reading_of_the_quota_is_kept() -> None:
    world = World()
    world.remaining = 30
    broadcast = Broadcast(world, people(5)).go()
    assert broadcast.hook.quotas == [25]
    assert broadcast.run.tally.summary()["remaining_conversations"] == 25


# Costs and log output


def test_memory_grows_by_some_bytes_for_each_recipient(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for module in (recipients_module, record_module):
        monkeypatch.setattr(module, "CHUNK", 50)
    hello_to(Row(1, people(1)[0]))  # loads what is known of phone numbers
    few, many = 100, 600
    peaks_of_few, peaks_of_many = in_own_process(
        lambda: (peaks_of_tries(few, tmp_path), peaks_of_tries(many, tmp_path))
    )
    for peak_of_few, peak_of_many in zip(peaks_of_few, peaks_of_many, strict=True):
        assert peak_of_many - peak_of_few < (many - few) * 340  # of about 2 kB


def peaks_of_tries(total: int, tmp_path: Any) -> list[int]:
    """Return the peak memory, in bytes, of a broadcast and of its retry, which finds everything sent."""
    path = tmp_path / f"{total}.csv"
    path.write_text(f"{NUMBER}\n" + "".join(f"+4477{place:08}\n" for place in range(total)))
    values: dict[str, str] = {}
    peaks = []
    for try_number in (1, 2):
        world = World()
        world.kept.values = values
        world.kept.on_event = world.event = lambda what: None  # type: ignore[method-assign]
        world.conversations = itertools.count(10**9)
        broadcast = Broadcast(world, str(path), try_number, max_workers=8, report=Nowhere())
        for name in ("calls", "called_at", "met", "delivered", "messages"):
            setattr(world, name, Forgetful())
        broadcast.hook.count = lambda outcome: None
        with traced():
            broadcast.run.run(1)
            peaks.append(tracemalloc.get_traced_memory()[1])
        assert broadcast.run.tally.outcomes == {"accepted": total}
    return peaks


class Nowhere:
    def add(self, line: Line) -> None:
        pass


class Forgetful(list[Any]):
    def append(self, value: Any) -> None:
        pass


def test_the_log_shows_no_whole_number_and_says_how_it_goes(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.fates = {number(1): ["refuse"], number(2): ["accept, answer lost"]}
    source = [*people(4), {NUMBER: "+44 7700 900 999 99 99"}]
    with caplog.at_level(logging.INFO):
        Broadcast(world, source).go()
    assert "Sending to up to 5 recipients without a pace limit, one at a time" in caplog.text
    assert "Row 2 (+44…0001) failed: never" in caplog.text
    assert "Row 3 (+44…0002) has an UNKNOWN outcome: no answer came" in caplog.text
    assert "Row 5 (+44…9 99) is invalid: " in caplog.text
    for place in range(4):
        assert number(place)[1:] not in caplog.text


def test_the_log_says_how_many_are_left_and_how_many_are_sent_to_at_once(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.fates = {number(3): ["refuse for now"]}
    with caplog.at_level(logging.INFO):
        Broadcast(world, people(4), max_workers=3).go()
        Broadcast(world, people(4), 2, pace=Pace(2, clock=world.clock)).go()
    assert "Sending to up to 4 recipients without a pace limit, up to 3 at a time" in caplog.messages
    assert (
        "Sending to up to 1 recipients (3 were already handled by earlier attempts) at 2 messages per minute: done "
        "today at 00:17, in about 0:00:30"
    ) in caplog.messages


def test_the_log_names_the_line_of_a_file(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "list.csv"
    path.write_text(f"{NUMBER}\n{number(0)}\n\n{number(1)}\n")
    world = World()
    world.fates = {number(1): ["refuse"]}
    Broadcast(world, path).go()
    assert "Row 2, line 4 (+44…0001) failed: never" in caplog.text


def test_failures_beyond_a_thousand_are_in_the_report_only(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "_MAX_LOGGED", 5)
    world = World()
    with caplog.at_level(logging.WARNING):
        broadcast = Broadcast(world, [{NUMBER: "x"}] * 9).go()
    assert broadcast.outcomes() == ["invalid"] * 9
    assert caplog.text.count("Row ") == 5
    assert caplog.text.count("Logged 5 failures; further ones are only in the report") == 1


def test_a_day_of_broadcasting_with_pauses_that_wassly_asks_for_passes_in_no_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Nothing stops it, and its progress is not read.
    monkeypatch.setattr(run_module, "_LOOK", 60.0)
    monkeypatch.setattr(progress_module, "_LINES", ((math.inf, 3600.0),))
    world = World()
    world.latency = 2
    people_of_a_day = [{NUMBER: f"+4477009{place:05}"} for place in range(1440)]

    def ask_now_and_then(what: str) -> None:
        if what == "call" and len(world.calls) % 500 == 0:
            world.asks_to_wait.append(600)

    world.on_event = ask_now_and_then
    broadcast = Broadcast(world, people_of_a_day, max_workers=2, pace=Pace(1, 0.5, clock=world.clock)).go()
    assert broadcast.run.tally.outcomes == {"accepted": 1440}
    # Two pauses of ten minutes. No message leaves during them, and none leaves earlier afterwards to catch up.
    gaps = [later - earlier for earlier, later in itertools.pairwise(world.called_at)]
    assert sum(gap > 599 for gap in gaps) == 2
    assert min(gaps) > 60 * 0.5 - 3.1
    assert world.called_at[-1] - world.called_at[0] == pytest.approx(24 * 3600 + 2 * 540, rel=0.02)


def test_a_broadcast_of_days_leaves_some_hundreds_of_lines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(run_module, "_LOOK", 10.0)
    world = World()
    with caplog.at_level(logging.INFO):
        Broadcast(world, people(400), pace=Pace(0.1, clock=world.clock)).go()
    assert world.clock.monotonic() > 66 * 3600
    lines = [record for record in caplog.records if " of 400 recipients done: " in record.getMessage()]
    assert 200 < len(lines) < 500
    assert len(caplog.records) < 500


def test_a_short_broadcast_is_told_of_every_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    with caplog.at_level(logging.INFO):
        Broadcast(world, people(31), pace=Pace(60, clock=world.clock)).go()
    assert 2 <= sum(" of 31 recipients done: " in record.getMessage() for record in caplog.records) <= 3


def test_progress_is_told_even_if_the_clock_has_not_moved(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "_LINES", ((math.inf, 0.0),))

    class Still(VirtualClock):
        """As coarse as the clocks of some systems are."""

        def monotonic(self) -> float:
            return 1000.0

    world = World(clock=Still())
    world.fates = {number(1): ["wrong key"]}
    with caplog.at_level(logging.INFO):
        assert Broadcast(world, people(2)).go().outcomes() == ["accepted", "not_sent"]
    assert "1 of 2 recipients done: 1 accepted" in caplog.text
