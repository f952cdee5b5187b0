"""Waits and several devices: what is recorded before them, and what a killed or resumed broadcast does."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_wassly.broadcast import recipients as recipients_module
from airflow_provider_wassly.broadcast import record as record_module
from airflow_provider_wassly.broadcast.hours import Hours
from airflow_provider_wassly.broadcast.pace import Pace
from airflow_provider_wassly.client import Device
from tests.support.broadcast import Broadcast, Snapshot, World, number, people
from tests.support.clock import VirtualClock

pytestmark = pytest.mark.usefixtures("one_thread")

BEGIN = datetime(2026, 11, 24, 8, 40, tzinfo=timezone.utc)
DEVICES = ("a", "b", "c")


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (record_module, recipients_module):
        monkeypatch.setattr(module, "CHUNK", 3)
    monkeypatch.setattr(record_module, "_JOURNAL_SIZE", 3)


def at(seconds: int) -> dict[str, Any]:
    """Return limits with hours that begin at 9:00 and last that long; the clock begins before."""
    return {"hours": Hours(("09:00", f"09:{seconds // 60:02}"), None, timezone.utc)}


@settings(deadline=None, max_examples=8)
@given(
    st.integers(0, 2**16),
    st.integers(1, 2),
    st.sampled_from([0, 4, 5]),
    st.sampled_from([0.5, 5, 20]),
    st.sampled_from([2, 6, 30]),
    st.sampled_from([None, 4, 5]),
)
@pytest.mark.usefixtures("small_chunks")
def test_a_kill_at_any_event_leaves_no_more_in_doubt_than_with_one_device(
    seed: int, workers: int, block: int, latency: float, per_minute: float, per_day: int | None
) -> None:
    rows = people(10)
    for place, row in enumerate(rows if block else []):
        row["instance_id"] = DEVICES[place // block]
    world = World(clock=VirtualClock(seed, BEGIN))
    world.latency, world.keeps_snapshots = latency, True
    options: dict[str, Any] = {"max_workers": workers, "instance_ids": DEVICES}
    limits = {**at(180), "max_per_day": per_day}
    Broadcast(world, rows, pace=Pace(per_minute, 0.5, clock=world.clock), limits=limits, **options).go()
    assert sorted(world.delivered) == [number(place) for place in range(10)]
    # Between two writes, all are alike.
    for snapshot in {str(snapshot.values): snapshot for snapshot in world.snapshots}.values():
        resumed = World(Snapshot(snapshot.values, list(snapshot.delivered), []), VirtualClock(seed, BEGIN))
        outcomes = Counter(Broadcast(resumed, rows, 2, **options).go().outcomes())
        assert outcomes["unknown"] <= 2 * workers
        assert outcomes["accepted"] == 10 - outcomes["unknown"]
        assert max(Counter(resumed.delivered).values()) == 1


def test_what_is_known_is_written_before_a_long_wait_in_place() -> None:
    world = World(clock=VirtualClock(begin=BEGIN))
    seen: list[str] = []

    def look() -> None:
        world.clock.sleep(3 * 3600)
        seen.append(world.outcomes())

    world.clock.start(look, "look")
    Broadcast(world, people(5), pace=Pace(1, clock=world.clock), limits=at(180)).go()
    assert seen == ["aaaa"]


@pytest.mark.parametrize("what", ["a closed window", "a limit for the day"])
def test_a_message_that_is_not_ready_in_time_does_not_leave(what: str) -> None:
    limits: dict[str, Any] = at(120)
    begin = BEGIN
    if what == "a limit for the day":
        limits, begin = {"max_per_day": 1}, datetime(2026, 11, 24, 23, 59, 30, tzinfo=timezone.utc)
    world = World(clock=VirtualClock(begin=begin))
    left: list[datetime] = []

    def upload(event: str) -> None:
        if event == "call" and len(world.calls) == 1:
            world.clock.sleep(150)
        if event == "departed":
            left.append(world.clock.now())

    world.on_event = upload
    broadcast = Broadcast(world, people(2), limits=limits).go()
    assert broadcast.outcomes() == ["accepted", "accepted"]
    days = [moment.day for moment in left]
    assert days == ([25, 25] if what == "a closed window" else [25, 26])
    assert world.calls.count(number(0)) == 2
    assert what == "a limit for the day" or {moment.hour for moment in left} == {9}


def test_an_attempt_that_waited_sends_to_nobody_again_whom_it_left_unknown_itself() -> None:
    def run(try_number: int, left_unknown: set[int]) -> Broadcast:
        limits = {**at(60), "leaves_slot": True}
        return Broadcast(
            world,
            people(5),
            try_number,
            limits=limits,
            pace=Pace(2, clock=world.clock),
            repeats_unknown=True,
            left_unknown=left_unknown,
        ).go()

    world = World(clock=VirtualClock(begin=BEGIN))
    world.fates = {number(0): ["accept, answer lost"], number(1): ["lose it, answer lost"]}
    left_unknown: set[int] = set()
    for _ in range(4):
        broadcast = run(1, left_unknown)
        left_unknown = broadcast.run.left_unknown
        if broadcast.run.waits_for is None:
            break
        assert broadcast.run.waits_for.until is not None
        world.clock.sleep((broadcast.run.waits_for.until - world.clock.now()).total_seconds())
    assert broadcast.outcomes() == ["unknown", "unknown", "accepted", "accepted", "accepted"]
    assert Counter(world.calls) == Counter(number(place) for place in range(5))
    # The next attempt does.
    world.clock.sleep((BEGIN.replace(day=30, hour=9, minute=0) - world.clock.now()).total_seconds())
    assert run(2, set()).outcomes() == ["accepted"] * 5
    assert world.calls.count(number(0)) == world.calls.count(number(1)) == 2


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("workers", [1, 2])
def test_the_messages_of_the_day_outlive_a_kill_at_any_event(workers: int) -> None:
    # Announced and counted in one value each time, so that no kill lets more leave than the limit.
    world = World(clock=VirtualClock(1, BEGIN))
    world.keeps_snapshots = True
    limits = {"max_per_day": 3, "leaves_slot": True}
    options: dict[str, Any] = {"max_workers": workers, "instance_ids": ("a", "b"), "limits": limits}
    assert Broadcast(world, people(12), **options).go().run.waits_for is not None
    assert len(world.delivered) == 6
    for snapshot in world.snapshots:
        # What was on the way arrives.
        delivered = [*snapshot.delivered, *snapshot.on_the_way]
        resumed = World(Snapshot(snapshot.values, delivered, []), VirtualClock(1, BEGIN))
        Broadcast(resumed, people(12), 2, **options).go()
        of_device = Counter(int(to[-3:]) % 2 for to in resumed.delivered)
        assert max(of_device.values(), default=0) <= 3
        assert max(Counter(resumed.delivered).values(), default=0) <= 1


@pytest.mark.usefixtures("small_chunks")
def test_a_device_that_falls_behind_keeps_what_is_known_about_the_chunks_it_comes_to() -> None:
    world = World(clock=VirtualClock(1, BEGIN))
    world.keeps_snapshots = True
    # It waits for a minute, and the other one goes through the whole list.
    world.fates = {number(1): ["device disconnected"]}
    world.devices = [Device(None, None, "connected", None, name) for name in ("a", "b")]
    options: dict[str, Any] = {"instance_ids": ("a", "b"), "limits": {"waits_for_devices": True}}
    assert Broadcast(world, people(18), **options).go().outcomes() == ["accepted"] * 18
    assert [int(to[-3:]) % 2 for to in world.delivered] == [0] * 9 + [1] * 9
    for snapshot in {str(snapshot.values): snapshot for snapshot in world.snapshots}.values():
        resumed = World(Snapshot(snapshot.values, [*snapshot.delivered, *snapshot.on_the_way], []), VirtualClock(1))
        outcomes = Counter(Broadcast(resumed, people(18), 2, **options).go().outcomes())
        assert outcomes["unknown"] <= 2
        assert max(Counter(resumed.delivered).values()) == 1


def test_a_pause_that_wassly_asks_for_shortly_before_the_end_of_the_hours_lasts_until_they_begin_again() -> None:
    world = World(clock=VirtualClock(begin=BEGIN))
    world.asks_to_wait = [120]
    called: list[datetime] = []
    world.on_event = lambda what: called.append(world.clock.now()) if what == "call" else None
    assert Broadcast(world, people(2), limits=at(60)).go().outcomes() == ["accepted"] * 2
    assert [(moment.day, moment.hour, moment.minute) for moment in called] == [(24, 9, 0), (25, 9, 0), (25, 9, 0)]
