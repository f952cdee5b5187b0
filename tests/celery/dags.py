"""The DAGs of these tests. They are copied into the cluster's DAG folder and find their data next to its home."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_wassly.operators.broadcast import WasslyBroadcastOperator
from airflow_provider_wassly.operators.send_message import WasslySendMessageOperator
from airflow_provider_wassly.sensors.device import WasslyDeviceSensor
from airflow_provider_wassly.sensors.quota import WasslyQuotaSensor

HOME = Path(__file__).parent.parent


def note_try(context: Any) -> None:
    """Record which worker runs this."""
    ti = context["ti"]
    note = {
        "task_id": ti.task_id,
        "map_index": ti.map_index,
        "try_number": ti.try_number,
        "worker": os.getsid(0),  # the session leader, however many processes are in between
    }
    with (HOME / f"{ti.dag_id}.tries").open("a") as notes:
        notes.write(json.dumps(note) + "\n")


def hang_after_the_first_send(context: Any, result: Any) -> None:
    """Keep the first try from ending."""
    marker = HOME / f"{context['ti'].dag_id}.sent"
    if not marker.exists():
        marker.touch()
        time.sleep(300)


RETRIES: dict[str, Any] = {"retries": 3, "retry_delay": timedelta(seconds=1), "pre_execute": note_try}


@task
def shards(dag_run: Any = None) -> list[list[dict[str, str]]]:
    """Return the list of recipients."""
    people: list[list[dict[str, str]]] = json.loads((HOME / f"{dag_run.dag_id}.json").read_text())
    return people


@task(trigger_rule="all_done")
def add_up(summaries: list[dict[str, Any]]) -> dict[str, int]:
    """Add up the results of all shards."""
    total: Counter[str] = Counter()
    for summary in summaries:
        total.update({name: value for name, value in summary.items() if isinstance(value, int)})
    return dict(total)


with DAG("campaign", schedule=None):
    send = WasslyBroadcastOperator.partial(
        task_id="send",
        message="Hello {{ recipient.name }}",
        report=str(HOME / "report.csv"),
        report_numbers="full",
        messages_per_minute=None,
        max_workers=4,
        max_failures=0.2,
        pool="senders",
        **RETRIES,
    ).expand(recipients=shards())
    add_up(send.output)  # type: ignore[arg-type]

with DAG("one_more", schedule=None):
    WasslySendMessageOperator(task_id="send", contact_mobile_number="+447700900999", message="One more")

with DAG("single", schedule=None):
    for name, number, hook in (
        ("unanswered", "+447700900101", None),
        ("answered", "+447700900102", hang_after_the_first_send),
    ):
        WasslySendMessageOperator(
            task_id=name,
            contact_mobile_number=number,
            message="A text that no record may hold",
            wassly_conn_id="single",
            post_execute=hook,
            **RETRIES,
        )

with DAG("handed_out_twice", schedule=None):
    WasslyBroadcastOperator(
        task_id="send",
        recipients=str(HOME / "handed_out_twice.csv"),
        message="Hello",
        wassly_conn_id="handed_out_twice",
        messages_per_minute=None,
        **RETRIES,
    )

with DAG("waiting", schedule=None):
    waiting: dict[str, Any] = {"wassly_conn_id": "waiting", "deferrable": True, "poke_interval": 1, "timeout": 300}
    before, after = (
        WasslySendMessageOperator(
            task_id=name, contact_mobile_number="+447700900123", message=name, wassly_conn_id="waiting"
        )
        for name in ("before", "after")
    )
    (
        before
        >> [
            WasslyDeviceSensor(task_id="device", instance_id="phone", **waiting),
            WasslyQuotaSensor(task_id="quota", min_remaining_conversations=10, **waiting),
        ]
        >> after
    )

with DAG("top_up", schedule=None):
    WasslySendMessageOperator(
        task_id="send", contact_mobile_number="+447700900124", message="top up", wassly_conn_id="waiting"
    )
