"""
Send a message to everyone on a list, with several tasks sharing the work.

The list is split into shards. Each shard is a mapped task that Airflow can run on a different machine. The pool limits
how many of them send at once; this example uses Airflow's default pool. The last task adds up the results, even if some
shards failed.

WhatsApp bans numbers that send unwanted or too many messages. Send only to people who have asked for it.
"""

from __future__ import annotations

import logging
from collections import Counter
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow_provider_wassly.operators.broadcast import WasslyBroadcastOperator

try:
    from airflow.sdk import DAG, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
    from airflow.models.dag import DAG

SHARDS = 3

# Airflow's default pool. In your DAG, use a pool of its own with one slot for each sending device.
POOL = "default_pool"


@task
def shards() -> list[list[dict[str, str]]]:
    """Split the recipients into shards; replace the list with your query."""
    # Numbers that the British regulator reserves for drama: they belong to nobody.
    people = [
        {"contact_mobile_number": f"+4477009002{number:02}", "name": f"Customer {number}", "invoice": f"R-{number}"}
        for number in range(30)
    ]
    return [people[shard::SHARDS] for shard in range(SHARDS)]


@task(trigger_rule="all_done")
def add_up(summaries: list[dict[str, Any]]) -> dict[str, int]:
    """Add up the results of all shards; a failed shard returns its summary too."""
    total: Counter[str] = Counter()
    for summary in summaries:
        total.update({name: summary[name] for name in ("recipients", "accepted", "failed", "invalid", "unknown")})
    logging.getLogger(__name__).info("%s", dict(total))
    return dict(total)


with DAG(
    "wassly_broadcast",
    # In your own DAG, for example "0 9 1 * *". With None, it runs only when you trigger it.
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    tags=["wassly", "example"],
    doc_md=__doc__,
) as dag:
    send = WasslyBroadcastOperator.partial(
        task_id="send",
        message="Hello {{ recipient.name }}, your invoice *{{ recipient.invoice }}* is due on the 15th.",
        messages_per_minute=600,  # for the sandbox only; leave it out when you send to real people
        pool=POOL,
        max_active_tis_per_dagrun=SHARDS,
        retries=3,
        retry_delay=timedelta(minutes=2),
    ).expand(recipients=shards())
    add_up(send.output)
