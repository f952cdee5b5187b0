"""
Broadcasts with a Wassly, a record and deaths in memory.

What is asked here again and again: whatever happens, nobody gets a second message and nobody is forgotten.
"""

from __future__ import annotations

import gc
import itertools
import json
import logging
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_wassly import _compat
from airflow_provider_wassly.broadcast import recipients as recipients_module
from airflow_provider_wassly.broadcast import record as record_module
from airflow_provider_wassly.broadcast import run as run_module
from airflow_provider_wassly.broadcast import senders as senders_module
from airflow_provider_wassly.broadcast.pace import Pace
from airflow_provider_wassly.broadcast.recipients import NUMBER, RecipientList, Row, survey
from airflow_provider_wassly.broadcast.record import BroadcastRecord, Try
from airflow_provider_wassly.broadcast.report import Line, Report
from airflow_provider_wassly.broadcast.run import BroadcastRun, Limits, WasslyBroadcastIncomplete
from airflow_provider_wassly.client import (
    Device,
    OutgoingMessage,
    SendReceipt,
    WasslyAuthError,
    WasslyConfigError,
    WasslyDeviceDisconnected,
    WasslyError,
    WasslyInvalidMessage,
    WasslyOutcomeUnknown,
    WasslyRateLimited,
    WasslyRejected,
    WasslyUnavailable,
)
from airflow_provider_wassly.client.messages import prepare as prepare_message
from airflow_provider_wassly.state import WasslyRecordError

CHUNK = 3


@pytest.fixture(autouse=True)
def small_and_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipients_module, "CHUNK", CHUNK)
    monkeypatch.setattr(record_module, "CHUNK", CHUNK)
    monkeypatch.setattr(senders_module, "_BACKOFF", (0.0, 0.0))
    monkeypatch.setattr(_compat, "OUTLIVES_ITS_SUPERVISOR", False)


def number(place: int) -> str:
    return f"+447700900{place:03}"


def people(total: int) -> list[dict[str, Any]]:
    return [{NUMBER: number(place)} for place in range(total)]


#: What Wassly can do with a message, and whether it is accepted.
FATES = {
    "accept": True,
    "accept after a new token": True,
    "accept, answer lost": True,
    "lose it, answer lost": False,
    "accept, then a bug": True,
    "a bug": False,
    "no connection": False,
    "too many requests": False,
    "refuse for now": False,
    "refuse": False,
    "file changed": False,
    "wrong key": False,
    "device disconnected": False,
}
#: After these there is an answer that tells the quota.
TOLD = {"accept", "accept after a new token"}


@dataclass
class Snapshot:
    """What is left of the world if the process is killed at this moment."""

    texts: dict[str, str]
    delivered: list[str]
    #: Those whose messages are on the way and will be accepted, if they arrive.
    on_the_way: list[str]


class World:
    """Wassly, and what Airflow keeps of a task."""

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self.lock = threading.RLock()
        self.texts = dict(snapshot.texts) if snapshot else {}
        self.delivered = list(snapshot.delivered) if snapshot else []
        self.on_the_way: list[str] = []
        #: What Wassly will do with the messages to a number, one after the other.
        self.fates: dict[str, list[str]] = {}
        self.calls: list[str] = []
        #: The fates of these calls.
        self.met: list[str] = []
        self.reads = 0
        self.writes = 0
        #: By the place of a write: whether it has an effect although it fails.
        self.failing_writes: dict[int, bool] = {}
        self.remaining: int | None = None
        self.conversations = itertools.count(1)
        self.keeps_snapshots = False
        self.snapshots: list[Snapshot] = []
        self.events = 0
        self.on_event: Callable[[str], None] = lambda what: None

    def event(self, what: str) -> None:
        with self.lock:
            self.events += 1
            if self.keeps_snapshots:
                self.snapshots.append(Snapshot(dict(self.texts), list(self.delivered), list(self.on_the_way)))
        self.on_event(what)

    # The record

    def store(self, name: str) -> Any:
        world = self

        class Store:
            def get(self) -> Any:
                world.reads += 1
                world.event("read")
                return json.loads(world.texts[name]) if name in world.texts else None

            def set(self, value: Any) -> None:
                world.event("write")
                with world.lock:
                    place, world.writes = world.writes, world.writes + 1
                    if world.failing_writes.get(place, True):
                        world.texts[name] = json.dumps(value)
                world.event("written")
                if place in world.failing_writes:
                    raise ConnectionError("Airflow's API does not answer")

        return Store()

    def outcomes(self) -> str:
        """Return what the record says, one character for each row that is in it."""
        return "".join(
            json.loads(text)["outcomes"] for name, text in sorted(self.texts.items()) if not name.endswith("head")
        )

    # The client

    default_region = None

    def list_devices(self) -> list[Device]:
        raise WasslyAuthError("wrong key", status=401)  # asked only after a message was answered so

    def send(self, message: OutgoingMessage, *, on_departure: Callable[[], None]) -> SendReceipt:
        to = message.contact_mobile_number
        with self.lock:
            self.calls.append(to)
            fate = self.fates[to].pop(0) if self.fates.get(to) else "accept"
            self.met.append(fate)
        self.event("call")
        if fate == "no connection":
            raise WasslyUnavailable("no connection")
        on_departure()
        with self.lock:
            if FATES[fate]:
                self.on_the_way.append(to)
        self.event("departed")
        if fate == "accept after a new token":
            on_departure()
        remaining = None
        if FATES[fate]:
            with self.lock:
                self.on_the_way.remove(to)
                self.delivered.append(to)
                if self.remaining is not None:
                    self.remaining -= 1
                remaining = self.remaining
            self.event("delivered")
        if "bug" in fate:
            raise RuntimeError("a bug")
        if "answer lost" in fate:
            raise WasslyOutcomeUnknown("no answer came")
        if fate == "too many requests":
            raise WasslyRateLimited("slower", retry_after=0.0)
        if fate == "refuse for now":
            raise WasslyRejected("not now", status=200)
        if fate == "refuse":
            raise WasslyRejected("never", status=422)
        if fate == "file changed":
            raise WasslyUnavailable("the request did not leave whole")
        if fate == "wrong key":
            raise WasslyAuthError("wrong key", status=401)
        if fate == "device disconnected":
            raise WasslyDeviceDisconnected("disconnected", status=200)
        return SendReceipt("text", next(self.conversations), remaining)


class Hook:
    """The shape of the hook."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self.counted: list[Any] = []
        self.quotas: list[int | None] = []

    def get_conn(self) -> Any:
        return self._world

    def count(self, outcome: Any) -> None:
        self.counted.append(outcome)

    def keep_quota(self, receipt: SendReceipt, instance_id: str, age: timedelta) -> None:
        self.quotas.append(receipt.remaining_conversations)

    def mask_tokens(self) -> None:
        pass


class Lines:
    """The shape of a report."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def add(self, line: Line) -> None:
        self.lines.append(line)

    def outcomes(self) -> list[str]:
        """Return the outcome of each row, in the list's order."""
        assert [line.row for line in sorted(self.lines, key=lambda line: line.row)] == list(
            range(1, len(self.lines) + 1)
        )
        return [line.outcome for line in sorted(self.lines, key=lambda line: line.row)]


def prepare(row: Row) -> OutgoingMessage:
    return prepare_message(contact_mobile_number=row.number, instance_id="one", message="Hello")


class Broadcast:
    """One try, as the operator makes it."""

    def __init__(
        self,
        world: Any,
        source: Any,
        try_number: int = 1,
        *,
        chain: int = 3,
        max_workers: int = 1,
        reserve: int | None = None,
        repeats_unknown: bool = False,
        pace: Pace | None = None,
        report: Any = None,
        report_numbers: Any = "full",
        prepare: Callable[[Row], OutgoingMessage] = prepare,
    ) -> None:
        self.hook = cast(Any, Hook(world))
        self.report = cast(Any, report or Lines())
        recipients = RecipientList(source)
        surveyed = survey(recipients)
        self.total = surveyed.total
        self.record = BroadcastRecord(world.store, Try(chain, try_number, 3), surveyed)
        self.earlier = self.record.look_back()
        if self.earlier is not None:
            return
        self.record.begin()
        self.run = BroadcastRun(
            hook=self.hook,
            recipients=recipients,
            survey=surveyed,
            record=self.record,
            prepare=prepare,
            pace=pace or Pace(None),
            limits=Limits(max_workers, reserve, repeats_unknown),
            report=self.report,
            report_numbers=report_numbers,
        )

    def go(self, seconds_after_kill: float = 10.0) -> Broadcast:
        self.run.run(seconds_after_kill)
        # Everybody is told of exactly once.
        assert len(self.report.outcomes()) == self.total
        assert Counter(self.report.outcomes()) == +self.run.tally.outcomes
        return self

    def outcomes(self) -> list[str]:
        found: list[str] = self.report.outcomes()
        return found

    def reasons(self) -> list[str]:
        return [line.reason for line in sorted(self.report.lines, key=lambda line: line.row)]


# Whatever happens


@dataclass
class Plan:
    """One try of a simulation."""

    clears: bool
    max_workers: int
    #: Where in it the process is killed, from 0 to 1; ``None``: it lives.
    dies_at: float | None
    #: Which of the messages that are on the way then arrive all the same.
    arrive: list[bool]
    #: Where in it the task is stopped in a regular way.
    stops_at: int | None
    failing_writes: dict[int, bool]
    finishes: bool


plans = st.builds(
    Plan,
    clears=st.booleans(),
    max_workers=st.integers(1, 4),
    dies_at=st.none() | st.floats(0, 1),
    arrive=st.lists(st.booleans(), max_size=4),
    stops_at=st.none() | st.integers(0, 60),
    failing_writes=st.just({}) | st.dictionaries(st.integers(0, 8), st.booleans(), max_size=2),
    finishes=st.booleans(),
)
fates = st.dictionaries(st.integers(0, 9), st.lists(st.sampled_from(list(FATES)), max_size=3))
lists = st.lists(st.integers(-1, 9), min_size=1, max_size=16)


def announced(texts: dict[str, str]) -> int:
    world = World(Snapshot(texts, [], []))
    return world.outcomes().count("?")


def stopper(world: World, run: BroadcastRun, at: int | None) -> Callable[[str], None]:
    def stop(what: str) -> None:
        if at is not None and world.events >= at:
            run.kill()

    return stop


def check_what_is_told(broadcast: Broadcast, places: list[int], world: World) -> None:
    """Check that what a try that came to its end says of everybody is true."""
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
@given(lists, fates, st.lists(plans, min_size=1, max_size=5))
def test_nobody_gets_a_second_message_and_nobody_is_forgotten(
    places: list[int], fates: dict[int, list[str]], plans: list[Plan]
) -> None:
    source = [{NUMBER: number(place) if place >= 0 else "no number"} for place in places]
    chunks = -(-len(source) // CHUNK)
    left = {number(place): list(all_fates) for place, all_fates in fates.items()}
    world = World()
    chain = 0
    last = Plan(clears=False, max_workers=2, dies_at=None, arrive=[], stops_at=None, failing_writes={}, finishes=False)
    for try_number, plan in enumerate([*plans, last], start=1):
        chain += plan.clears
        head = json.loads(world.texts.get("wassly_broadcast__head", '{"summary": null}'))
        is_finished = head["summary"] is not None
        if is_finished and plan.clears:
            world.delivered.clear()
        before = announced(world.texts)
        world.fates, world.failing_writes = left, plan.failing_writes
        world.calls, world.reads, world.writes, world.events = [], 0, 0, 0
        world.keeps_snapshots = plan.dies_at is not None
        world.snapshots = []
        world.on_event = lambda what: None
        try:
            broadcast = Broadcast(world, source, try_number, chain=chain, max_workers=plan.max_workers)
            if broadcast.earlier is not None:
                assert is_finished
                assert not plan.clears
                assert world.calls == []
                continue
            stop_after = None if plan.stops_at is None else world.events + plan.stops_at

            world.on_event = stopper(world, broadcast.run, stop_after)
            broadcast.go()
            check_what_is_told(broadcast, places, world)
            jobs = len(set(world.calls))
            if not plan.failing_writes:
                # So small chunks that those on the way belong to several, each written by itself; and the head.
                assert world.writes <= jobs / plan.max_workers + 4 * chunks + 3
                assert world.reads <= 2 * chunks + 1
            if plan.finishes and broadcast.run.stopped_by is None:
                broadcast.record.finish(broadcast.run.tally.summary())
        except WasslyRecordError:
            assert plan.failing_writes
        except RuntimeError as error:
            if str(error) != "this task is being stopped":
                raise
        assert max(Counter(world.delivered).values(), default=0) <= 1
        if plan.dies_at is None:
            if not plan.failing_writes:
                # A stop in a regular way leaves nobody unknown whose answer came.
                assert announced(world.texts) <= before
            continue
        # The process was killed on its way. What it had in memory is gone.
        snapshot = world.snapshots[int(plan.dies_at * (len(world.snapshots) - 1))]
        assert announced(snapshot.texts) <= before + 2 * plan.max_workers
        arrived = [to for to, arrives in zip(snapshot.on_the_way, plan.arrive, strict=False) if arrives]
        world = World(Snapshot(snapshot.texts, [*snapshot.delivered, *arrived], []))
        assert max(Counter(world.delivered).values(), default=0) <= 1
    assert max(Counter(world.delivered).values(), default=0) <= 1


# The same, with the process killed or interrupted at every place


class Interruption(BaseException):
    """What a signal handler of Airflow raises: execution_timeout, SIGTERM on Airflow 2."""


def interrupt_at(line: int, watched: tuple[Any, ...]) -> Callable[..., Any]:
    """Return a trace function that raises at the n-th line that is run in some modules, and later no more."""
    files = {module.__file__ for module in watched}
    count = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            count += 1
            if count == line:
                raise Interruption
        return trace

    return trace


def interrupted_everywhere(step: int, **options: Any) -> Iterator[tuple[World, bool]]:
    """Yield what is left, for each place at which a broadcast was interrupted, and whether it was winding up then."""
    for line in range(1, 100_000, step):
        world = World()
        world.fates = {number(1): ["no connection"], number(2): ["refuse"], number(3): ["lose it, answer lost"]}
        broadcast = Broadcast(world, people(7), **options)
        sys.settrace(interrupt_at(line, (run_module, senders_module, record_module)))
        try:
            broadcast.go()
            return
        except Interruption as interruption:
            sys.settrace(None)
            frames = []
            traceback = interruption.__traceback__
            while traceback is not None:
                frames.append(traceback.tb_frame.f_code.co_name)
                traceback = traceback.tb_next
            # The last frame is that of the trace function.
            yield world, "_wind_up" in frames or frames[-2] == "run"
        finally:
            sys.settrace(None)


@pytest.mark.parametrize("max_workers", [1, 3])
def test_an_interruption_at_any_place_leaves_nobody_unknown_whose_outcome_is_known(max_workers: int) -> None:
    places = 0
    for world, was_winding_up in interrupted_everywhere(29, max_workers=max_workers):
        places += 1
        sent = Counter(world.delivered)
        assert max(sent.values(), default=0) <= 1
        recorded = world.outcomes()
        if was_winding_up:
            assert recorded.count("?") <= 2 * max_workers
        else:
            assert "?" not in recorded
            for place in range(7):
                known = recorded[place : place + 1] or "."
                assert (known == "a") == (sent[number(place)] == 1), f"row {place + 1} is called {known}"
                assert known != "u" or place == 3
        retry = Broadcast(world, people(7), 2, max_workers=max_workers).go()
        assert max(Counter(world.delivered).values()) == 1
        assert set(retry.outcomes()) <= {"accepted", "failed", "unknown"}
    assert places > 30


# How it goes on


def test_everybody_is_sent_to_once_and_told_of() -> None:
    world = World()
    broadcast = Broadcast(world, people(8), max_workers=3).go()
    assert sorted(world.delivered) == [number(place) for place in range(8)]
    assert broadcast.outcomes() == ["accepted"] * 8
    summary = broadcast.run.tally.summary()
    assert (summary["recipients"], summary["accepted"], summary["not_sent"]) == (8, 8, 0)
    assert [line.contact_mobile_number for line in sorted(broadcast.report.lines, key=lambda line: line.row)] == [
        number(place) for place in range(8)
    ]


def test_a_retry_tells_the_conversation_ids_of_the_try_before() -> None:
    world = World()
    first = Broadcast(world, people(5)).go()
    second = Broadcast(world, people(5), 2).go()
    assert [line.conversation_id for line in second.report.lines] == [1, 2, 3, 4, 5]
    assert second.report.lines == first.report.lines
    assert len(world.calls) == 5


def test_one_number_is_sent_to_once_however_it_is_written() -> None:
    spellings = ["+447700900001", "00447700900001", " +44 7700 900-001 ", "+44 (7700) 900001"]
    world = World()
    broadcast = Broadcast(world, [{NUMBER: spelling} for spelling in spellings], max_workers=4).go()
    assert world.delivered == [number(1)]
    assert broadcast.outcomes() == ["accepted", "duplicate", "duplicate", "duplicate"]
    assert broadcast.reasons()[1] == "the number stands in another row too"


def test_the_second_of_two_rows_is_sent_to_when_the_first_is_wrong_and_not_again_when_that_is_mended() -> None:
    def prepare_unless(wrong: int) -> Callable[[Row], OutgoingMessage]:
        def prepare_it(row: Row) -> OutgoingMessage:
            if row.position == wrong:
                raise WasslyInvalidMessage("no such file", field="document")
            return prepare(row)

        return prepare_it

    world = World()
    source = [*people(1), *people(1), *people(2)]
    first = Broadcast(world, source, prepare=prepare_unless(1)).go()
    assert first.outcomes() == ["invalid", "accepted", "duplicate", "accepted"]
    assert Broadcast(world, source, 2).go().outcomes() == ["duplicate", "accepted", "duplicate", "accepted"]
    assert sorted(world.delivered) == [number(0), number(1)]


def test_a_row_that_is_wrong_stops_nobody() -> None:
    world = World()
    source = [{}, {NUMBER: "2.01E+11"}, "text", *people(2), {NUMBER: None}]
    broadcast = Broadcast(world, source).go()
    assert broadcast.outcomes() == ["invalid"] * 3 + ["accepted"] * 2 + ["invalid"]
    assert broadcast.reasons()[0] == f"the row: has no {NUMBER}"
    assert [line.contact_mobile_number for line in broadcast.report.lines[:3]] == ["", "2.01E+11", ""]


def test_odd_characters_in_a_list_stop_nobody_and_break_no_line(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for report_numbers in ("short", "full"):
        world = World()
        source = [{NUMBER: "\ud800\n'=12345678"}, {NUMBER: "x" * 100}, *people(1)]
        report = Report(tmp_path / "report.csv")
        Broadcast(world, source, report=report, report_numbers=report_numbers).run.run(1)
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
    # Twice they have got it, because that is what was wanted.
    assert Counter(world.delivered) == {number(0): 1, number(1): 2, number(2): 2, number(3): 1}


def killed_while_on_the_way(max_workers: int, total: int) -> World:
    """Return the world after the death of a process whose messages had all left and were not answered."""
    world = World()
    world.keeps_snapshots = True
    Broadcast(world, people(total), max_workers=max_workers).go()
    most = max(world.snapshots, key=lambda snapshot: len(snapshot.on_the_way))
    return World(Snapshot(most.texts, most.delivered + most.on_the_way, []))


@pytest.mark.parametrize("max_workers", [1, 2, 4])
def test_no_more_are_announced_than_twice_as_many_as_there_are_threads(max_workers: int) -> None:
    world = World()
    broadcast = Broadcast(world, people(30), max_workers=max_workers)
    announced: list[int] = []

    def wait(what: str) -> None:
        if what == "written":
            announced.append(world.outcomes().count("?"))
        elif what == "departed":
            time.sleep(0.01)  # longer than it takes to announce more

    world.on_event = wait
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
    assert {line.reason for line in unknown} == {"an earlier try was killed before the answer was noted"}
    # From then on that is no news.
    third = Broadcast(world, people(20), 3).go()
    assert third.outcomes() == retry.outcomes()
    assert {line.reason for line in third.report.lines if line.outcome == "unknown"} == {
        "in an earlier try; its log says why"
    }


def test_who_was_unknown_stays_so_when_a_repetition_comes_to_nothing() -> None:
    for fate in ("wrong key", "refuse for now", "refuse", "no connection"):
        world = World()
        world.fates = {number(0): ["accept, answer lost", *[fate] * 3]}
        Broadcast(world, people(1)).go()
        second = Broadcast(world, people(1), 2, repeats_unknown=True).go()
        assert second.outcomes() == ["unknown"]
        assert second.reasons()[0].startswith("in an earlier try; and now ")
        # And now the DAG's author has second thoughts about repeating.
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
    assert broadcast.outcomes() == ["accepted"] * 4 + ["not_sent"] * 16
    assert len(world.calls) <= 4 + 2 * max_workers
    assert set(world.outcomes()) <= {"a", "."}
    world.fates = {}
    assert Broadcast(world, people(20), 2, max_workers=max_workers).go().outcomes() == ["accepted"] * 20
    assert max(Counter(world.delivered).values()) == 1


def test_a_call_that_cannot_be_made_stops_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise WasslyConfigError("the call cannot be made")

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
    assert "10 recipients in a row failed; the last: " in str(stopped_by)
    told = Counter(broadcast.outcomes())
    assert told["accepted"] == 2
    assert 10 <= told["failed"] + told["unknown"] <= 12
    # The next try goes on behind them.
    world.fates = {}
    told = Counter(Broadcast(world, people(40), 2).go().outcomes())
    assert told["accepted"] + told["unknown"] == 40


def test_failures_with_successes_in_between_stop_nothing() -> None:
    world = World()
    world.fates = {number(place): ["refuse for now"] for place in range(40) if place % 5}
    told = Counter(Broadcast(world, people(40)).go().outcomes())
    assert told == {"accepted": 8, "failed": 32}


def test_recipients_that_are_refused_for_good_stop_nothing() -> None:
    world = World()
    world.fates = {number(place): ["refuse"] for place in range(30)}
    assert set(Broadcast(world, people(30)).go().outcomes()) == {"failed"}


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
    world.failing_writes = dict.fromkeys(range(1, 99), False)
    broadcast = Broadcast(world, people(5))
    with pytest.raises(WasslyRecordError):
        broadcast.go()
    assert world.calls == []
    world.failing_writes = {}
    assert Broadcast(world, people(5), 2).go().outcomes() == ["accepted"] * 5


def test_a_try_that_airflow_has_given_up_stops_when_another_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compat, "OUTLIVES_ITS_SUPERVISOR", True)
    world = World()
    orphan = Broadcast(world, people(9))
    later: list[Broadcast] = []

    def begin_another(what: str) -> None:
        if what == "delivered" and len(world.delivered) == 3:
            later.append(Broadcast(world, people(9), 2))

    world.on_event = begin_another
    with pytest.raises(WasslyRecordError, match="another try of this task has begun meanwhile"):
        orphan.go()
    texts = dict(world.texts)
    assert len(world.delivered) <= 5
    later[0].go()
    assert texts != world.texts
    assert max(Counter(world.delivered).values()) == 1
    assert set(later[0].outcomes()) == {"accepted", "unknown"}


def test_a_bug_in_between_leaves_the_record_right() -> None:
    def prepare_until(row: Row) -> OutgoingMessage:
        if row.position == 6:
            raise ZeroDivisionError("a bug")
        return prepare(row)

    world = World()
    with pytest.raises(ZeroDivisionError):
        Broadcast(world, people(9), max_workers=2, prepare=prepare_until).go()
    assert set(world.outcomes()) <= {"a", "."}
    assert world.outcomes().count("a") == len(world.delivered)
    assert Broadcast(world, people(9), 2).go().outcomes() == ["accepted"] * 9
    assert max(Counter(world.delivered).values()) == 1


def test_no_thread_is_left_behind() -> None:
    def threads() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name.startswith("wassly-")}

    before = threads()
    deadline = time.monotonic() + 5
    world = World()
    Broadcast(world, people(3), max_workers=3).go()
    broken = Broadcast(world, people(3), 2, max_workers=3)
    world.texts["wassly_broadcast__0"] = "{"
    with pytest.raises(WasslyError):
        broken.go()
    while threads() - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not threads() - before


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
    with pytest.raises(WasslyInvalidMessage, match="recipients: the list changed while it was being sent to"):
        broadcast.go()


# Stopping a task


def test_a_task_that_is_stopped_sends_nothing_any_more_and_notes_the_answers_that_come() -> None:
    world = World()
    broadcast = Broadcast(world, people(20), max_workers=3)

    def stop(what: str) -> None:
        if what == "delivered" and len(world.delivered) == 4:
            broadcast.run.kill()

    world.on_event = stop
    with pytest.raises(RuntimeError, match="this task is being stopped"):
        broadcast.go()
    sent = len(world.delivered)
    assert 4 <= sent <= 7
    assert world.outcomes().count("a") == sent
    assert set(world.outcomes()) <= {"a", "."}
    assert Broadcast(world, people(20), 2).go().outcomes() == ["accepted"] * 20
    assert max(Counter(world.delivered).values()) == 1


def test_only_those_without_an_answer_are_unknown_after_a_stop_even_if_the_process_dies_at_once() -> None:
    """One message has left and is not answered; the others wait for their turn."""
    killed, answer = threading.Event(), threading.Event()
    world = World()
    broadcast = Broadcast(world, people(9), max_workers=3, pace=Pace(20))
    written_after_kill: list[str] = []

    def act(what: str) -> None:
        if what == "departed":
            killed.set()
            broadcast.run.kill()
            answer.wait(10)
        if what == "written" and killed.is_set():
            written_after_kill.append(world.outcomes())
            answer.set()

    world.on_event = act
    with pytest.raises(RuntimeError, match="this task is being stopped"):
        broadcast.go()
    # What is written first counts: Airflow gives it five seconds. Which of the first three has left is left open.
    assert written_after_kill[0].lstrip(".") == "?"
    assert world.outcomes().lstrip(".") == "a"
    assert len(world.delivered) == 1


def test_a_message_that_is_being_uploaded_when_the_task_is_stopped_does_not_leave() -> None:
    world = World()
    broadcast = Broadcast(world, people(5), max_workers=2)

    def stop(what: str) -> None:
        if what == "call" and len(world.calls) == 2:
            broadcast.run.kill()
            time.sleep(0.1)

    world.on_event = stop
    with pytest.raises(RuntimeError, match="this task is being stopped"):
        broadcast.go()
    time.sleep(0.2)
    assert len(world.delivered) <= 1
    assert world.outcomes().count("a") == len(world.delivered)
    assert set(world.outcomes()) <= {"a", "."}


def test_a_message_that_waits_because_wassly_asked_for_it_is_not_unknown_after_a_stop() -> None:
    world = World()
    broadcast = Broadcast(world, people(5))
    slow_down(world, 30)
    killed = threading.Event()
    written_after_kill: list[str] = []

    def note(what: str) -> None:
        if what == "written" and killed.is_set():
            written_after_kill.append(world.outcomes())

    def stop() -> None:
        while not world.calls:
            time.sleep(0.01)
        time.sleep(0.1)
        killed.set()
        broadcast.run.kill()

    world.on_event = note
    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(RuntimeError, match="this task is being stopped"):
        broadcast.go()
    thread.join()
    assert set(written_after_kill) == {""}
    assert world.delivered == []


def test_an_answer_that_does_not_come_in_time_leaves_one_unknown() -> None:
    answer = threading.Event()
    world = World()
    broadcast = Broadcast(world, people(9), max_workers=2)

    def act(what: str) -> None:
        if what == "departed" and world.on_the_way == [number(3)]:
            broadcast.run.kill()
            answer.wait(10)

    world.on_event = act
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="this task is being stopped"):
        broadcast.go(seconds_after_kill=0.3)
    assert time.monotonic() - began < 2
    assert world.outcomes().count("u") <= 2
    assert "?" not in world.outcomes()
    answer.set()
    told = Broadcast(world, people(9), 2).go().outcomes()
    assert told.count("accepted") + told.count("unknown") == 9
    assert max(Counter(world.delivered).values()) == 1


def test_a_task_that_is_stopped_before_it_began_sends_nothing() -> None:
    world = World()
    broadcast = Broadcast(world, people(3))
    broadcast.run.kill()
    with pytest.raises(RuntimeError, match="this task is being stopped"):
        broadcast.go()
    assert world.calls == []


# The pace


class NotedPace(Pace):
    """Notes what is held instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__(None)
        self.held: list[float] = []

    def hold(self, seconds: float) -> None:
        self.held.append(seconds)


def slow_down(world: World, *waits: float) -> None:
    """Let Wassly ask for waits, one for each message."""
    left = list(waits)
    send = world.send

    def asks(message: OutgoingMessage, *, on_departure: Callable[[], None]) -> SendReceipt:
        if left:
            with world.lock:
                world.calls.append(message.contact_mobile_number)
            on_departure()
            raise WasslyRateLimited("slower", retry_after=left.pop(0))
        return send(message, on_departure=on_departure)

    world.send = asks  # type: ignore[method-assign]


def test_all_wait_as_long_as_wassly_asks_also_when_a_message_is_given_up() -> None:
    world, pace = World(), NotedPace()
    slow_down(world, 20, 30, 40)
    told = Broadcast(world, people(3), pace=pace).go().outcomes()
    assert told == ["failed", "accepted", "accepted"]
    assert pace.held == [20, 30, 40]


def test_a_wait_that_is_too_long_is_left_to_the_retries_of_the_task() -> None:
    world = World()
    slow_down(world, *[3600] * 20)
    broadcast = Broadcast(world, people(20)).go()
    assert len(world.calls) == 1
    assert isinstance(broadcast.run.stopped_by, WasslyRateLimited)
    assert broadcast.run.stopped_by.may_pass
    assert broadcast.outcomes() == ["not_sent"] * 20


def test_the_other_threads_wait_too() -> None:
    class Timed(Pace):
        held_at = 0.0

        def hold(self, seconds: float) -> None:
            super().hold(seconds)
            self.held_at = time.monotonic()

    world, pace = World(), Timed(None)
    slow_down(world, 0.3)
    times: list[float] = []
    world.on_event = lambda what: times.append(time.monotonic()) if what == "call" else None
    assert Broadcast(world, people(12), max_workers=3, pace=pace).go().outcomes() == ["accepted"] * 12
    # Two others may have been on their way already.
    assert sum(pace.held_at < at < pace.held_at + 0.29 for at in times) <= 2


def test_a_message_is_announced_only_when_its_turn_is_near() -> None:
    world = World()
    broadcast = Broadcast(world, people(9), max_workers=1, pace=Pace(20))
    seen: list[str] = []

    def watch() -> None:
        while len(world.delivered) < 1:
            time.sleep(0.01)
        time.sleep(0.7)
        seen.append(world.outcomes())
        broadcast.run.kill()

    thread = threading.Thread(target=watch)
    thread.start()
    with pytest.raises(RuntimeError):
        broadcast.go()
    thread.join()
    # The second one's turn is after three seconds.
    assert seen == ["?"]


@pytest.mark.parametrize("max_workers", [1, 2, 5, 10])
def test_airflow_is_called_about_once_for_as_many_recipients_as_there_are_threads(
    monkeypatch: pytest.MonkeyPatch, max_workers: int
) -> None:
    for module in (recipients_module, record_module):
        monkeypatch.setattr(module, "CHUNK", 100)
    world = World()
    Broadcast(world, people(250), max_workers=max_workers).go()
    assert world.reads == 0
    assert world.writes <= 250 / max_workers + 3 * 2 + 2


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
    # Only an answer tells what is right now. Until then, one message after the other may be one too many.
    before_the_first = list(itertools.takewhile(lambda fate: fate not in TOLD, world.met))
    blind = sum(FATES[fate] for fate in before_the_first) + (len(world.met) > len(before_the_first))
    assert world.remaining >= min(reserve, remaining - blind)


def test_answers_that_come_in_another_order_do_not_undercut_the_reserve() -> None:
    world = World()
    world.remaining = 13
    send, later = world.send, threading.Event()

    def overtaking(message: OutgoingMessage, *, on_departure: Callable[[], None]) -> SendReceipt:
        receipt = send(message, on_departure=on_departure)
        if receipt.remaining_conversations == 11:
            later.wait(0.2)  # its answer is the older one, and comes after the newer one
        return receipt

    world.send = overtaking  # type: ignore[method-assign]
    Broadcast(world, people(10), max_workers=2, reserve=10).go()
    assert world.remaining == 10


def test_the_last_number_is_told_although_its_answer_is_not_the_last_to_come() -> None:
    world = World()
    world.remaining = 30
    send, newer_is_back = world.send, threading.Event()

    def overtaking(message: OutgoingMessage, *, on_departure: Callable[[], None]) -> SendReceipt:
        receipt = send(message, on_departure=on_departure)
        if receipt.remaining_conversations == 21:
            newer_is_back.wait(5)
        elif receipt.remaining_conversations == 20:
            threading.Timer(0.1, newer_is_back.set).start()
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
        "12 conversations remain, 2 perhaps taken meanwhile, and 10 are reserved (reserve_conversations)"
    )


def test_a_reserve_that_cannot_be_kept_because_the_answers_do_not_tell() -> None:
    for recorded in (None, 100):
        world = World()
        broadcast = Broadcast(world, people(5), reserve=10)
        broadcast.run.tally.remaining_conversations = recorded
        broadcast.go()
        assert len(world.delivered) == 1
        assert "Wassly's answers do not say how many conversations remain" in str(broadcast.run.stopped_by)
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


# What it costs and tells


def test_memory_grows_by_some_bytes_for_each_recipient(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for module in (recipients_module, record_module):
        monkeypatch.setattr(module, "CHUNK", 50)
    prepare(Row(1, people(1)[0]))  # loads what is known of phone numbers
    few, many = 1000, 12_000
    peaks_of_few, peaks_of_many = peaks_of_tries(few, tmp_path), peaks_of_tries(many, tmp_path)
    for peak_of_few, peak_of_many in zip(peaks_of_few, peaks_of_many, strict=True):
        assert peak_of_many - peak_of_few < (many - few) * 150


def peaks_of_tries(total: int, tmp_path: Any) -> list[int]:
    """Return how many bytes a broadcast held at most, and how many its retry, which finds everybody sent to."""
    path = tmp_path / f"{total}.csv"
    path.write_text(f"{NUMBER}\n" + "".join(f"+4477{place:08}\n" for place in range(total)))
    texts: dict[str, str] = {}
    peaks = []
    for try_number in (1, 2):
        world = World()
        world.texts = texts
        world.conversations = itertools.count(10**9)
        broadcast = Broadcast(world, str(path), try_number, max_workers=8, report=Nowhere())
        world.calls, world.met, world.delivered = Forgetful(), Forgetful(), Forgetful()
        broadcast.hook.count = lambda outcome: None
        # The more objects a process has, the longer Python leaves garbage lying; those of other tests do not count.
        gc.collect()
        gc.freeze()
        gc.collect()
        tracemalloc.start()
        try:
            broadcast.run.run(1)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
            gc.unfreeze()
        assert broadcast.run.tally.outcomes == {"accepted": total}
    return peaks


class Nowhere:
    def add(self, line: Line) -> None:
        pass


class Forgetful(list[str]):
    def append(self, value: str) -> None:
        pass


def test_the_log_shows_no_whole_number_and_says_how_it_goes(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.fates = {number(1): ["refuse"], number(2): ["accept, answer lost"]}
    source = [*people(4), {NUMBER: "+44 7700 900 999 99 99"}]
    with caplog.at_level(logging.INFO):
        Broadcast(world, source).go()
    assert "Sending to up to 5 recipients, as fast as 1 threads go" in caplog.text
    assert "Row 2 (+44…0001): failed: never" in caplog.text
    assert "Row 3 (+44…0002): UNKNOWN whether accepted: no answer came" in caplog.text
    assert "Row 5 (+44…9 99): invalid: " in caplog.text
    assert "5 of 5 recipients: " in caplog.text
    for place in range(4):
        assert number(place)[1:] not in caplog.text


def test_failures_beyond_a_thousand_are_in_the_report_only(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "_MAX_LOGGED", 5)
    world = World()
    with caplog.at_level(logging.WARNING):
        broadcast = Broadcast(world, [{NUMBER: "x"}] * 9).go()
    assert broadcast.outcomes() == ["invalid"] * 9
    assert caplog.text.count("Row ") == 5
    assert caplog.text.count("Further recipients that fail are in the report only") == 1
