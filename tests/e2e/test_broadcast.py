"""A broadcast in a real Airflow, with failures of every kind and its process killed again and again."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_wassly.records.stores import VariableStore
from airflow_provider_wassly.sandbox import Sandbox
from tests.e2e.play import SECONDS, Play
from tests.support.airflow_server import IS_AIRFLOW_2, AirflowServer

RECIPIENTS = 300 if IS_AIRFLOW_2 else 2000
WORKERS = 8
KILLS = 3
#: One recipient in this many fails, with each fault in turn.
EVERY = 12

DAG_FILE = """
import os
from datetime import datetime, timedelta, timezone

from airflow_provider_wassly.operators.broadcast import WasslyBroadcastOperator
try:
    from airflow.sdk import DAG
except ImportError:
    from airflow.models.dag import DAG


def note_process(context):
    (HOME / "process").write_text(str(os.getpid()))


with DAG("campaign", schedule="@once", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)):
    WasslyBroadcastOperator(
        task_id="send",
        wassly_conn_id="campaign",
        priority_weight=2,
        recipients=str(HOME / "list.csv"),
        message="Hello {{ recipient.name }}, your number is {{ recipient.invoice }} ({{ ds }})",
        report=str(HOME / "report.csv"),
        report_numbers="full",
        messages_per_minute=None,
        max_workers=WORKERS,
        max_failures=0.5,
        retries=10,
        retry_delay=timedelta(seconds=1),
        pre_execute=note_process,
    )
""".replace("=WORKERS", f"={WORKERS}")

#: With these, the sandbox records no message.
NOT_ACCEPTED = [
    {"name": "http_429", "times": 1, "retry_after": "0"},
    {"name": "maintenance", "times": 2, "retry_after": "0"},
    {"name": "rejected", "times": 1},
    {"name": "http_413", "times": 99},
    {"name": "unauthorized", "times": 1},
    {"name": "token_expired", "times": 1},
]
#: After these the outcome is unknown.
UNKNOWN = [
    {"name": "http_500", "times": 1},
    {"name": "http_500", "times": 1, "record": True},
    {"name": "hang_after_accept", "times": 1},
    {"name": "reset_after_body", "times": 1},
    {"name": "not_json", "times": 1},
    {"name": "short_body", "times": 1},
]


def number(row: int) -> str:
    return f"+4477009{row:05}"


class Campaign(Play):
    """Run the broadcast to its end, despite the kills."""

    def __init__(self, server: AirflowServer) -> None:
        super().__init__(server)
        self.add_dags(DAG_FILE)
        self.box = self.start_sandbox("campaign", extra={"read_timeout": 5}, conversations=10 * RECIPIENTS)
        # Slow enough for every kill to happen while it is sending.
        self.box.latency = 0.1 if IS_AIRFLOW_2 else 0.02
        faults = [*NOT_ACCEPTED, *UNKNOWN]
        for turn, row in enumerate(range(5, RECIPIENTS, EVERY)):
            fault: dict[str, Any] = dict(faults[turn % len(faults)])
            self.box.fail_next(**fault, to=number(row))
        with (self.home / "list.csv").open("w", newline="") as file:
            writer = csv.writer(file, delimiter=";")
            writer.writerow(["contact_mobile_number", "name", "invoice"])
            for row in range(1, RECIPIENTS + 1):
                writer.writerow([number(row), f"Ann {row}", row])
            # An invalid number and a duplicate.
            writer.writerow(["2.01E+11", "Nobody", 0])
            writer.writerow([f"00{number(7)[1:]}", "Ann again", 7])

    def perform(self) -> None:
        moments = sorted(random.sample(range(RECIPIENTS // 20, RECIPIENTS * 6 // 10), KILLS))
        killed: list[int] = []

        def is_over() -> bool:
            process = self.home / "process"
            if moments and len(self.box.messages) >= moments[0] and process.exists():
                pid = int(process.read_text() or 0)
                if pid and pid not in killed:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                    del moments[0]
            states = dict(self.server.query("select dag_id, state from dag_run"))
            return states.get("campaign") in ("success", "failed")

        self.server.wait_for(is_over, "the end of the broadcast", seconds=SECONDS)
        assert len(killed) == KILLS


PLAY = Campaign


@pytest.fixture(scope="module")
def box(play: Campaign) -> Sandbox:
    return play.box


@pytest.fixture(scope="module")
def home(play: Campaign) -> Path:
    return play.home


@pytest.fixture(scope="module")
def server(play: Campaign) -> AirflowServer:
    return play.server


@pytest.fixture(scope="module")
def report(home: Path) -> list[dict[str, str]]:
    with (home / "report.csv").open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def summary(server: AirflowServer) -> dict[str, Any]:
    ((value,),) = server.query("select value from xcom where dag_id = 'campaign' and key = 'return_value'")
    found: dict[str, Any] = json.loads(value)
    return found


def test_it_ends_well_after_having_been_killed(server: AirflowServer) -> None:
    ((state, tries),) = server.query("select state, try_number from task_instance where dag_id = 'campaign'")
    assert state == "success", server.task_logs("campaign")
    assert tries >= KILLS + 1


def test_nobody_got_two_messages(server: AirflowServer, box: Sandbox) -> None:
    assert Counter(message.contact_mobile_number for message in box.messages).most_common(1)[0][1] == 1


def test_the_report_agrees_with_what_was_delivered_row_by_row(report: list[dict[str, str]], box: Sandbox) -> None:
    delivered = {message.contact_mobile_number: message for message in box.messages}
    assert [int(line["row"]) for line in report] == list(range(1, RECIPIENTS + 3))
    for line in report[:RECIPIENTS]:
        row = int(line["row"])
        message = delivered.get(number(row))
        assert line["contact_mobile_number"] == number(row)
        if line["outcome"] == "accepted":
            assert message is not None, line
            assert message.message == f"Hello Ann {row}, your number is {row} (2026-01-01)"
            assert line["conversation_id"] == str(message.conversation_id)
        elif line["outcome"] == "failed":
            assert message is None, line
        else:
            assert line["outcome"] == "unknown", line
    assert [line["outcome"] for line in report[RECIPIENTS:]] == ["invalid", "duplicate"]


def test_no_more_are_unknown_than_need_be(report: list[dict[str, str]]) -> None:
    unknown = {int(line["row"]) for line in report if line["outcome"] == "unknown"}
    faults = [*NOT_ACCEPTED, *UNKNOWN]
    by_fault = {row for turn, row in enumerate(range(5, RECIPIENTS, EVERY)) if turn % len(faults) >= len(NOT_ACCEPTED)}
    assert by_fault <= unknown
    assert len(unknown - by_fault) <= KILLS * 2 * WORKERS


def test_only_those_failed_that_wassly_refuses_for_good(report: list[dict[str, str]]) -> None:
    faults = [*NOT_ACCEPTED, *UNKNOWN]
    refused = {
        row
        for turn, row in enumerate(range(5, RECIPIENTS, EVERY))
        if faults[turn % len(faults)]["name"] in ("http_413", "rejected")
    }
    failed = {int(line["row"]) for line in report if line["outcome"] == "failed"}
    assert failed <= refused


def test_the_summary_agrees_with_the_report(
    report: list[dict[str, str]], summary: dict[str, Any], home: Path, box: Sandbox
) -> None:
    counts = Counter(line["outcome"] for line in report)
    outcomes = ("accepted", "failed", "invalid", "unknown", "duplicate", "excluded", "not_sent")
    assert {outcome: summary[outcome] for outcome in outcomes} == {outcome: counts[outcome] for outcome in outcomes}
    assert summary["recipients"] == RECIPIENTS + 2
    assert summary["report"] == str(home / "report.csv")
    # The last replies may never have arrived.
    assert box.conversations <= summary["remaining_conversations"] <= box.conversations + counts["unknown"]


def test_nothing_is_left_behind_and_nothing_was_told(server: AirflowServer) -> None:
    # Other modules' broadcasts add and remove records too.
    names = ("dag_id", "run_id", "task_id", "map_index")
    instances = server.query(f"select {', '.join(names)} from task_instance where dag_id = 'campaign'")
    ours = [VariableStore(SimpleNamespace(**dict(zip(names, values, strict=True))), "%")._key for values in instances]
    assert ours
    assert [server.query("select key from variable where key like ?", key) for key in ours] == [[] for _ in ours]
    if not IS_AIRFLOW_2:
        kept = server.query("select value from task_state_store") if has_task_state_store(server) else []
        assert not any("7700900" in str(value) for (value,) in kept)


def has_task_state_store(server: AirflowServer) -> bool:
    return bool(server.query("select 1 from sqlite_master where name = 'task_state_store'"))
