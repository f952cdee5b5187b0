"""A campaign of a week on a virtual clock: hours, limits, devices, waits and restarts."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest

from airflow_provider_wassly.broadcast import recipients as recipients_module
from airflow_provider_wassly.broadcast import record as record_module
from airflow_provider_wassly.broadcast.devices import Wait
from airflow_provider_wassly.broadcast.hours import Hours
from airflow_provider_wassly.broadcast.pace import Pace
from airflow_provider_wassly.broadcast.recipients import NUMBER, Row
from airflow_provider_wassly.client import (
    Device,
    MessageParameters,
    OutgoingMessage,
    SendObserver,
    SendReceipt,
    WasslyDeviceDisconnected,
    WasslyRateLimited,
)
from airflow_provider_wassly.client.messages import prepare
from tests.support.broadcast import Broadcast, Snapshot, World
from tests.support.clock import VirtualClock

pytestmark = pytest.mark.usefixtures("one_thread")

BERLIN = ZoneInfo("Europe/Berlin")
HOURS = Hours(("09:00", "20:00"), ["mon", "tue", "wed", "thu", "fri", "sat"], BERLIN)
DEVICES = ("a", "b")
PER_MINUTE = 2.0
#: Both send for a week.
FULL, SMALL = (10_000, 800), (2_500, 200)


class Sent(NamedTuple):
    """An accepted message, and when it left."""

    number: str
    text: str
    device: str
    at: datetime


class Killed(BaseException):
    """The process ends at this moment."""


class Campaign(World):
    """
    Wassly with devices that can be disconnected, and a process that can be killed.

    :param sent: the messages that were accepted before.
    :param offline: when each device is disconnected.
    :param holds: when Wassly asks for a pause of an hour.
    :param killed_at: when the process is killed.
    """

    def __init__(
        self,
        snapshot: Snapshot | None,
        clock: VirtualClock,
        sent: list[Sent],
        offline: dict[str, list[tuple[datetime, datetime]]],
        holds: list[datetime],
        killed_at: datetime | None,
    ) -> None:
        super().__init__(snapshot, clock)
        self.sent = sent
        self.offline = offline
        self.holds = holds
        self.killed_at = killed_at
        self.remains: Snapshot | None = None
        self.holds_met: list[datetime] = []
        self.latency = 1.5

    def is_connected(self, device: str) -> bool:
        now = self.clock.now()
        return not any(begin <= now < end for begin, end in self.offline.get(device, ()))

    def list_devices(self) -> list[Device]:
        self.clock.sleep(0.5)
        return [
            Device(None, None, "connected" if self.is_connected(name) else "disconnected", None, name)
            for name in DEVICES
        ]

    def event(self, what: str) -> None:
        super().event(what)
        if self.killed_at is not None and self.clock.now() >= self.killed_at and self.remains is None:
            self.remains = Snapshot(dict(self.kept.values), list(self.delivered), list(self.on_the_way))
        if self.remains is not None and what == "write":
            raise Killed

    def send(self, message: OutgoingMessage, *, observer: SendObserver | None = None) -> SendReceipt:
        if self.holds and self.clock.now() >= self.holds[0]:
            self.holds_met.append(self.clock.now())
            del self.holds[0]
            raise WasslyRateLimited("slower", retry_after=3600.0)
        if not self.is_connected(message.instance_id):
            self.clock.sleep(0.5)
            raise WasslyDeviceDisconnected("disconnected", status=200)
        return super().send(message, observer=observer)

    def _accept(self, message: OutgoingMessage) -> int | None:
        remaining = super()._accept(message)
        if self.remains is None:
            at = self.clock.now() - timedelta(seconds=self.latency)
            self.sent.append(Sent(message.contact_mobile_number, message.texts["message"], message.instance_id, at))
        return remaining


class Week:
    """
    A broadcast over several days, until it ends.

    :param begin: when it begins.
    :param rows: the list.
    :param leaves_slot: whether it is deferred during waits.
    :param most: how many messages may leave from each device on a day.
    """

    def __init__(
        self, begin: datetime, rows: list[dict[str, Any]], *, leaves_slot: bool, most: int | None = None
    ) -> None:
        self.clock = VirtualClock(begin=begin)
        self.rows = rows
        self.leaves_slot = leaves_slot
        self.sent: list[Sent] = []
        self.offline: dict[str, list[tuple[datetime, datetime]]] = {}
        self.holds: list[datetime] = []
        self.holds_met: list[datetime] = []
        self.kills: list[datetime] = []
        self.waits: list[Wait] = []
        self.lost_sight_of = 0
        self.limits: dict[str, Any] = {
            "hours": HOURS,
            "max_per_day": most,
            "waits_for_devices": True,
            "wait_timeout": timedelta(days=30),
            "leaves_slot": leaves_slot,
        }

    def run(self) -> Broadcast:
        """Run it to its end, through kills and waits."""
        snapshot: Snapshot | None = None
        try_number, waited = 1, timedelta(0)
        while True:
            killed_at = self.kills[0] if self.kills else None
            world = Campaign(snapshot, self.clock, self.sent, self.offline, self.holds, killed_at)
            world.holds_met = self.holds_met
            try:
                broadcast = Broadcast(
                    world,
                    self.rows,
                    try_number,
                    max_workers=2,
                    pace=Pace(PER_MINUTE, 0.5, clock=self.clock),
                    limits=self.limits,
                    instance_ids=DEVICES,
                    message_to=hello,
                    waited=waited,
                ).go()
            except Killed:
                assert world.remains is not None
                del self.kills[0]
                remains = world.remains
                self.lost_sight_of += len(remains.on_the_way)
                snapshot = Snapshot(remains.values, [*remains.delivered, *remains.on_the_way], [])
                try_number, waited = try_number + 1, timedelta(0)
                self.clock.sleep(300)  # Airflow's retry_delay
                continue
            wait = broadcast.run.waits_for
            if wait is None:
                return broadcast
            assert self.leaves_slot
            assert "?" not in world.outcomes()  # nothing is in flight
            self.waits.append(wait)
            began = self.clock.now()
            while (wait.until is None or self.clock.now() < wait.until) and not any(
                map(world.is_connected, wait.instance_ids)
            ):
                self.clock.sleep(60)
            waited = broadcast.run.waited + (self.clock.now() - began)
            snapshot = Snapshot(dict(world.kept.values), list(world.delivered), [])


def hello(row: Row, instance_id: str | None) -> OutgoingMessage:
    return prepare(MessageParameters(row.number, f"Hello {row.position}", instance_id=instance_id))


def at(day: int, hour: int, minute: int = 0, month: int = 10) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=BERLIN)


@pytest.mark.parametrize(("leaves_slot", "size"), [(False, SMALL), (True, FULL)], ids=["in place", "deferred"])
def test_a_campaign_of_a_week_keeps_all_its_rules(
    leaves_slot: bool, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (recipients_module, record_module):
        monkeypatch.setattr(module, "CHUNK", 200)
    total, most = size
    # The clocks change on the 25th.
    rows = [{NUMBER: f"+4477{place:08}"} for place in range(total)]
    week = Week(at(20, 7), rows, leaves_slot=leaves_slot, most=most)
    week.offline = {"b": [(at(21, 10), at(21, 16, 30)), (at(26, 18), at(27, 11))]}
    week.holds = [at(22, 12)]
    week.kills = [at(20, 15), at(23, 9, 30), at(26, 18, 30)]
    broadcast = week.run()

    outcomes = Counter(broadcast.outcomes())
    assert outcomes["unknown"] <= 2 * 2 * 3
    assert outcomes["accepted"] + outcomes["unknown"] == total
    assert broadcast.run.stopped_by is None
    assert outcomes["accepted"] <= len(week.sent) + week.lost_sight_of <= total
    assert week.sent[-1].at - week.sent[0].at > timedelta(days=6)
    assert week.kills == week.holds == []
    assert_kept(week, most)


def assert_kept(week: Week, most: int) -> None:
    """Check each message against the rules."""
    places = {row[NUMBER]: place for place, row in enumerate(week.rows)}
    numbers = [sent.number for sent in week.sent]
    assert len(numbers) == len(set(numbers))
    by_day: Counter[tuple[str, date]] = Counter()
    last: dict[str, datetime] = {}
    for number, text, device, moment in week.sent:
        left = moment.astimezone(BERLIN)
        assert text == f"Hello {places[number] + 1}"
        assert device == DEVICES[places[number] % 2]
        assert left.weekday() < 6
        assert 9 <= left.hour < 20
        by_day[device, left.date()] += 1
        assert not any(begin <= left < end for begin, end in week.offline.get(device, ()))
        assert not any(hold < left < hold + timedelta(hours=1) for hold in week.holds_met)
        if device in last:
            assert moment - last[device] > timedelta(seconds=60 / PER_MINUTE * 0.5 - 2)
        last[device] = moment
    assert max(by_day.values()) == most


@pytest.mark.parametrize("leaves_slot", [False, True], ids=["in place", "deferred"])
def test_a_window_over_midnight_in_the_night_in_which_the_clocks_change(leaves_slot: bool) -> None:
    rows = [{NUMBER: f"+4477{place:08}"} for place in range(2500)]
    week = Week(at(24, 12), rows, leaves_slot=leaves_slot)
    week.limits.update(hours=Hours(("22:00", "06:00"), None, BERLIN), max_per_day=None)
    broadcast = week.run()
    assert broadcast.outcomes() == ["accepted"] * 2500
    first = [sent.at for sent in week.sent if sent.at < at(25, 12)]
    # The night has nine hours.
    assert len(first) == pytest.approx(9 * 60 * PER_MINUTE * 2, rel=0.01)
    assert all(not 6 <= sent.at.astimezone(BERLIN).hour < 22 for sent in week.sent)
