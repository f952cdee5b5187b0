"""Broadcasts with Airflow and Wassly in memory, on a virtual clock."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from airflow_provider_wassly.broadcast import recipients as recipients_module
from airflow_provider_wassly.broadcast.exclusions import Exclusions
from airflow_provider_wassly.broadcast.pace import Pace
from airflow_provider_wassly.broadcast.recipients import NUMBER, RecipientList, Row, survey
from airflow_provider_wassly.broadcast.record import BroadcastRecord
from airflow_provider_wassly.broadcast.report import Line
from airflow_provider_wassly.broadcast.run import BroadcastRun, Limits, read_exclusions
from airflow_provider_wassly.client import MessageParameters, OutgoingMessage, SendReceipt
from airflow_provider_wassly.client.clock import Clock
from airflow_provider_wassly.client.messages import prepare
from airflow_provider_wassly.records.attempts import Attempt
from tests.support.clock import VirtualClock
from tests.support.kept import Kept
from tests.support.service import Service


def number(place: int) -> str:
    return f"+447700900{place:03}"


def people(total: int) -> list[dict[str, Any]]:
    return [{NUMBER: number(place)} for place in range(total)]


@dataclass
class Snapshot:
    """What remains if the process is killed at this moment."""

    values: dict[str, str]
    delivered: list[str]
    #: Recipients whose messages are on the way and will be accepted if they arrive.
    on_the_way: list[str]


class World(Service):
    """
    Wassly, and what Airflow stores for a task.

    At every event in it, other threads can run.

    :param snapshot: the remains of an earlier world.
    :param clock: the clock. Default: a virtual one.
    """

    def __init__(self, snapshot: Snapshot | None = None, clock: Clock | None = None) -> None:
        super().__init__(clock or VirtualClock(), snapshot.delivered if snapshot else None)
        self.kept = Kept(snapshot.values if snapshot else None)
        self.kept.on_event = self.event
        self.keeps_snapshots = False
        self.snapshots: list[Snapshot] = []
        self.events = 0

    def event(self, what: str) -> None:
        self.events += 1
        if self.keeps_snapshots:
            self.snapshots.append(Snapshot(dict(self.kept.values), list(self.delivered), list(self.on_the_way)))
        self.on_event(what)
        if isinstance(self.clock, VirtualClock):
            self.clock.let_others_go_on()

    def outcomes(self) -> str:
        """Return the record's contents, one character for each row in it."""
        return outcomes_in(self.kept.values)


def outcomes_in(values: dict[str, str]) -> str:
    journal = json.loads(values.get("wassly_broadcast__journal", "null"))
    head = json.loads(values.get("wassly_broadcast__head", '{"token": null}'))
    outcomes = []
    for number in range(len(values)):
        chunk = json.loads(values.get(f"wassly_broadcast__{number}", "null"))
        if chunk is None or chunk["token"] != head["token"]:
            break
        known = list(chunk["outcomes"])
        if journal is not None and journal["written"] > chunk["written"]:
            for index, outcome in re.findall(r"(\d+)(\D)\d*,", journal["changes"].get(str(number), "")):
                known.extend("." * (int(index) + 1 - len(known)))
                known[int(index)] = outcome
        outcomes.append("".join(known).ljust(recipients_module.CHUNK, "."))
    return "".join(outcomes).rstrip(".")


class Hook:
    """Has the interface of the hook."""

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
    """Has the interface of a report."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def add(self, line: Line) -> None:
        self.lines.append(line)

    def outcomes(self) -> list[str]:
        """Return the outcome of each row, in the list's order."""
        lines = self.in_order()
        assert [line.row.position for line in lines] == list(range(1, len(lines) + 1))
        return [line.outcome for line in lines]

    def in_order(self) -> list[Line]:
        return sorted(self.lines, key=lambda line: line.row.position)


def hello_to(row: Row, instance_id: str | None = None) -> OutgoingMessage:
    named = row.values.get("instance_id")
    return prepare(MessageParameters(row.number, "Hello", instance_id=named or instance_id or "one"))


class Broadcast:
    """One try, run as the operator runs it."""

    def __init__(
        self,
        world: World,
        source: Any,
        try_number: int = 1,
        *,
        chain: int = 3,
        instance: str | None = None,
        starts_over: bool = False,
        max_workers: int = 1,
        reserve: int | None = None,
        repeats_unknown: bool = False,
        pace: Pace | None = None,
        report: Any = None,
        limits: Mapping[str, Any] | None = None,
        instance_ids: Sequence[str] = ("",),
        waited: timedelta = timedelta(0),
        left_unknown: Iterable[int] = (),
        message_to: Callable[[Row, str | None], OutgoingMessage] = hello_to,
        repeats_numbers: bool = False,
        exclude: Any = None,
    ) -> None:
        self.hook = cast(Any, Hook(world))
        self.report = cast(Any, report or Lines())
        recipients = RecipientList(source)
        surveyed = survey(recipients)
        self.total = surveyed.total
        attempt = Attempt(instance or f"try {try_number}", None, chain, try_number, 3)
        self.record = BroadcastRecord(world.kept.store, attempt, starts_over=starts_over)
        self.record.resume(surveyed)
        exclusions = Exclusions(exclude, world.default_region)
        read_exclusions(exclusions, is_under_way=self.record.is_resumed)
        self.record.begin(world.clock)
        self.run = BroadcastRun(
            hook=self.hook,
            recipients=recipients,
            survey=surveyed,
            record=self.record,
            message_to=message_to,
            pace=pace or Pace(None, clock=world.clock),
            limits=Limits(max_workers, reserve, repeats_unknown, repeats_numbers, **(limits or {})),
            outputs=[self.report],
            instance_ids=instance_ids,
            waited=waited,
            exclusions=exclusions,
            left_unknown=left_unknown,
        )

    def go(self, seconds_after_kill: float = 10.0) -> Broadcast:
        self.run.run(seconds_after_kill)
        # Every recipient is reported exactly once.
        told = Counter(line.outcome for line in self.report.in_order())
        if self.run.waits_for is None:
            assert told == Counter(self.report.outcomes())
        assert told == +self.run.tally.outcomes
        told["not_sent"] += self.total - told.total()  # during a stop, there may be no time to report the rest
        assert +told == +Counter(self.run.tally.counts)
        return self

    def outcomes(self) -> list[str]:
        found: list[str] = self.report.outcomes()
        return found

    def reasons(self) -> list[str]:
        return [line.reason for line in self.report.in_order()]
