"""A message whose worker is killed, and a task that Redis delivers a second time."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from airflow_provider_wassly.sandbox import Sandbox
from tests.celery.cluster import CeleryCluster
from tests.support.records import check_record

UNANSWERED, ANSWERED = "+447700900101", "+447700900102"
TEXT = "A text that no record may hold"


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox() as box:
        box.fail_next("hang_after_accept", times=1, to=UNANSWERED)
        yield box


@pytest.fixture(scope="module")
def single(cluster: CeleryCluster, box: Sandbox) -> CeleryCluster:
    """The cluster after running both tasks; their workers were killed after the messages had left."""
    cluster.add_connection("single", box, read_timeout=300)
    cluster.trigger("single")

    def both_have_sent() -> bool:
        return len(box.messages) == 2 and (cluster.home / "single.sent").exists()

    cluster.wait_for(both_have_sent, "both messages", seconds=90)
    for worker in {cluster.worker_of(one) for one in cluster.tries("single")}:
        cluster.replace_worker(worker)
    cluster.wait_for_end("single", seconds=120)
    return cluster


def test_a_message_without_an_answer_is_not_sent_again(single: CeleryCluster, box: Sandbox) -> None:
    log = single.task_logs("single")
    assert ("unanswered", -1, "failed", 2) in single.outcomes("single"), log
    assert [message.contact_mobile_number for message in box.messages].count(UNANSWERED) == 1
    assert "UNKNOWN whether Wassly accepted it" in log


def test_a_message_with_an_answer_is_not_sent_again(single: CeleryCluster, box: Sandbox) -> None:
    log = single.task_logs("single")
    assert ("answered", -1, "success", 2) in single.outcomes("single"), log
    assert [message.contact_mobile_number for message in box.messages].count(ANSWERED) == 1
    assert "Wassly accepted the message of an earlier attempt" in log
    assert single.returned("single", "answered")["outcome"] == "accepted"


def test_the_record_in_doubt_lies_in_postgresql_and_holds_nothing_private(single: CeleryCluster) -> None:
    rows = single.query("select task_id, key, value from task_state_store where dag_id = 'single' order by task_id")
    assert [(task_id, key) for task_id, key, _ in rows] == [("unanswered", "wassly_send")]
    for _, _, value in rows:
        check_record(value, [UNANSWERED[1:], ANSWERED[1:], TEXT, "sandbox-apikey", "sandbox-password"])


def test_a_broadcast_that_redis_hands_out_again_goes_on_undisturbed(cluster: CeleryCluster) -> None:
    numbers = [f"+4477009003{row:02}" for row in range(100)]
    (cluster.home / "handed_out_twice.csv").write_text("\n".join(["contact_mobile_number", *numbers]))
    with Sandbox() as box:
        box.latency = 2
        cluster.add_connection("handed_out_twice", box)
        cluster.trigger("handed_out_twice")

        def is_handed_out_again() -> bool:
            log = cluster.worker_logs()
            received = re.search(r"\[(\S+)\] Executing workload in Celery: .*handed_out_twice", log)
            return received is not None and f"[{received[1]}] Task already running elsewhere" in log

        cluster.wait_for(is_handed_out_again, "the task that is handed out again", seconds=120)
        assert len(box.messages) < len(numbers)
        box.latency = 0
        cluster.wait_for_end("handed_out_twice", seconds=120)
        assert cluster.outcomes("handed_out_twice") == [("send", -1, "success", 1)]
        assert sorted(message.contact_mobile_number for message in box.messages) == numbers
