"""Sensors that wait in the triggerer and resume when something changes."""

from __future__ import annotations

from airflow_provider_wassly.sandbox import Sandbox
from tests.celery.cluster import CeleryCluster


def test_they_wait_without_a_worker_and_go_on_after_a_change(cluster: CeleryCluster) -> None:
    def states() -> dict[str, str]:
        return {task_id: state for task_id, _, state, _ in cluster.outcomes("waiting")}

    with Sandbox(conversations=3, devices=["sandbox-instance", "phone"]) as box:
        box.disconnect_device("phone")
        cluster.add_connection("waiting", box)
        cluster.trigger("waiting")
        deferred = {"before": "success", "device": "deferred", "quota": "deferred", "after": None}
        cluster.wait_for(lambda: states() == deferred, "the sensors to wait", seconds=90)

        box.connect_device("phone")
        cluster.wait_for(lambda: states()["device"] == "success", "the device sensor", seconds=60)
        assert states() == deferred | {"device": "success"}

        # The account is topped up, which shows only in the reply to another DAG's message.
        box.conversations = 1000
        cluster.trigger("top_up")
        cluster.wait_for_end("waiting", seconds=90)
        log = cluster.task_logs("waiting")
        assert states() == dict.fromkeys(deferred, "success"), log
        assert [message.message for message in box.messages] == ["before", "top up", "after"]
        assert cluster.returned("waiting", "quota")["remaining_conversations"] == 999
