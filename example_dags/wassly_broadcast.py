"""
One message to everybody on a list, in several tasks that share the work.

The list is cut into shards, each a task of its own that Airflow can run on another machine. The
pool says how many of them send at the same time; here they use Airflow's default one. The last
task adds up what came of it all, whether or not every shard went well.

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

# Airflow's own; in your DAG one that you have made for the sending, with as many slots as devices that send.
POOL = "default_pool"


@task
def shards() -> list[list[dict[str, str]]]:
    """Stand for the query that says who is sent to, and cut the list."""
    # Numbers that the British regulator keeps for films: nobody has them.
    people = [
        {"contact_mobile_number": f"+4477009002{number:02}", "name": f"Customer {number}", "invoice": f"R-{number}"}
        for number in range(30)
    ]
    return [people[shard::SHARDS] for shard in range(SHARDS)]


@task(trigger_rule="all_done")
def add_up(summaries: list[dict[str, Any]]) -> dict[str, int]:
    """Add up what came of all shards; one that failed has left its summary too."""
    total: Counter[str] = Counter()
    for summary in summaries:
        total.update({name: summary[name] for name in ("recipients", "accepted", "failed", "invalid", "unknown")})
    logging.getLogger(__name__).info("%s", dict(total))
    return dict(total)


with DAG(
    "wassly_broadcast",
    # In your own DAG "0 9 1 * *", for instance. Without it, a first try makes one run.
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    tags=["wassly", "example"],
    doc_md=__doc__,
) as dag:
    send = WasslyBroadcastOperator.partial(
        task_id="send",
        message="Hello {{ recipient.name }}, your invoice *{{ recipient.invoice }}* is due on the 15th.",
        messages_per_minute=600,  # for a first try with the sandbox; leave it out where real people are sent to
        pool=POOL,
        max_active_tis_per_dagrun=SHARDS,
        retries=3,
        retry_delay=timedelta(minutes=2),
    ).expand(recipients=shards())
    add_up(send.output)
