"""A list split into shards for two workers, one of which is killed on the way."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_wassly.sandbox import Sandbox
from tests.celery.cluster import CeleryCluster, Try, tries_in_vain

RECIPIENTS = 2000
SHARDS = 8
MAX_WORKERS = 4
FIRST_QUOTA = 10 * RECIPIENTS


def number(row: int) -> str:
    return f"+4477009{row:05}"


def shard_of(contact_mobile_number: str) -> int:
    return int(contact_mobile_number[-5:]) % SHARDS


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(conversations=FIRST_QUOTA) as box:
        box.latency = 0.1
        yield box


@pytest.fixture(scope="module")
def killed(cluster: CeleryCluster, box: Sandbox) -> list[Try]:
    """Run the broadcast to its end; return the tries that were sending when their worker was killed."""
    people = [{"contact_mobile_number": number(row), "name": f"Ann {row}"} for row in range(RECIPIENTS)]
    (cluster.home / "campaign.json").write_text(json.dumps([people[shard::SHARDS] for shard in range(SHARDS)]))
    cluster.add_connection("wassly_default", box)
    cluster.call("POST", "/api/v2/pools", {"name": "senders", "slots": 4})
    cluster.trigger("campaign")
    killed: list[Try] = []

    def on_worker_one_in_the_midst_of_sending() -> list[Try]:
        sent = Counter(shard_of(message.contact_mobile_number) for message in box.messages)
        return [
            one
            for one in cluster.tries("campaign")
            if 20 <= sent[one.map_index] <= RECIPIENTS // SHARDS - 100 and cluster.worker_of(one) == "one"
        ]

    def is_time_to_kill() -> bool:
        killed[:] = on_worker_one_in_the_midst_of_sending()
        return len(box.messages) >= RECIPIENTS // 5 and bool(killed)

    cluster.wait_for(is_time_to_kill, "a worker in the midst of sending", seconds=120)
    cluster.replace_worker("one")
    cluster.wait_for_end("campaign", seconds=240)
    return killed


@pytest.fixture(scope="module")
def reports(killed: list[Try], cluster: CeleryCluster) -> list[list[dict[str, str]]]:
    return [read(cluster.home / f"report-{shard}.csv") for shard in range(SHARDS)]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def test_every_shard_ends_well_and_those_of_the_killed_worker_by_a_retry(
    killed: list[Try], cluster: CeleryCluster
) -> None:
    outcomes = cluster.outcomes("campaign")
    states = {(task_id, map_index): state for task_id, map_index, state, _ in outcomes}
    wanted = [("add_up", -1), ("shards", -1), *(("send", shard) for shard in range(SHARDS))]
    assert states == dict.fromkeys(wanted, "success"), cluster.task_logs("campaign")
    tries = {map_index: tries for task_id, map_index, _, tries in outcomes if task_id == "send"}
    assert killed
    assert all(tries[one.map_index] > one.try_number for one in killed)


def test_both_workers_took_part(killed: list[Try], cluster: CeleryCluster) -> None:
    workers = {one.worker for one in cluster.tries("campaign")}
    assert {killed[0].worker} < workers


def test_nobody_got_two_messages(killed: list[Try], box: Sandbox) -> None:
    assert Counter(message.contact_mobile_number for message in box.messages).most_common(1)[0][1] == 1


def test_everybody_is_reported_once_and_as_it_was(reports: list[list[dict[str, str]]], box: Sandbox) -> None:
    delivered = {message.contact_mobile_number: message for message in box.messages}
    for shard, report in enumerate(reports):
        numbers = [number(row) for row in range(shard, RECIPIENTS, SHARDS)]
        assert [line["contact_mobile_number"] for line in report] == numbers
        for line in report:
            if line["outcome"] == "accepted":
                message = delivered[line["contact_mobile_number"]]
                assert message.message == f"Hello Ann {int(message.contact_mobile_number[-5:])}"
                assert line["conversation_id"] == str(message.conversation_id)
            else:
                assert line["outcome"] == "unknown", line


def test_no_more_are_unknown_than_need_be(reports: list[list[dict[str, str]]], cluster: CeleryCluster) -> None:
    kills = tries_in_vain(cluster.tries("campaign"))
    unknown = {shard: sum(line["outcome"] == "unknown" for line in report) for shard, report in enumerate(reports)}
    assert all(unknown[shard] <= 2 * MAX_WORKERS * kills[shard] for shard in range(SHARDS)), (unknown, kills)


def test_the_sum_of_the_summaries_agrees_with_the_reports(
    reports: list[list[dict[str, str]]], cluster: CeleryCluster
) -> None:
    counts = Counter(line["outcome"] for report in reports for line in report)
    total = cluster.returned("campaign", "add_up")
    assert total["recipients"] == RECIPIENTS
    outcomes = ("accepted", "failed", "invalid", "unknown", "duplicate", "excluded", "not_sent")
    assert {outcome: total[outcome] for outcome in outcomes} == {outcome: counts[outcome] for outcome in outcomes}


def test_no_record_is_left_of_what_has_succeeded(killed: list[Try], cluster: CeleryCluster) -> None:
    assert cluster.query("select map_index, key from task_state_store where dag_id = 'campaign'") == []


def test_each_process_of_a_task_logs_in_once(killed: list[Try], cluster: CeleryCluster, box: Sandbox) -> None:
    processes = len(cluster.tries("campaign"))
    # A killed one may not have got that far.
    assert processes - tries_in_vain(cluster.tries("campaign")).total() <= box.logins <= processes


def test_the_quota_that_the_workers_have_recorded_is_the_last(
    killed: list[Try], cluster: CeleryCluster, box: Sandbox
) -> None:
    def recorded() -> dict[str, Any]:
        value = cluster.call("GET", "/api/v2/variables/wassly_quota__wassly_default")["value"]
        reading: dict[str, Any] = json.loads(value)
        return reading

    # If two tasks end at the same moment, the older reading may stay: here, from at most a second before.
    late = recorded()["remaining_conversations"] - box.conversations
    assert 0 <= late <= MAX_WORKERS / box.latency
    cluster.trigger("one_more")
    cluster.wait_for_end("one_more", seconds=60)
    assert recorded()["remaining_conversations"] == box.conversations == FIRST_QUOTA - len(box.messages)
