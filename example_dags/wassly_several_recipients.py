"""
One message to each of several people, as mapped tasks.

Each recipient is a task of its own: it has its own retries, and one that fails stops no other.
``max_active_tis_per_dagrun`` keeps the sending slow, as WhatsApp wants it.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow_provider_wassly.operators.send_message import WasslySendMessageOperator

try:
    from airflow.sdk import DAG, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
    from airflow.models.dag import DAG


@task
def on_call() -> list[dict[str, str]]:
    """Stand for the query that says who is on duty this week."""
    # Numbers that the British regulator keeps for films: nobody has them.
    people = {"Amira": "+447700900101", "Björn": "+447700900102", "Chloé": "+447700900103"}
    return [
        {"contact_mobile_number": number, "contact_name": name, "message": f"Hello {name}, you are on call this week."}
        for name, number in people.items()
    ]


with DAG(
    "wassly_several_recipients",
    # In your own DAG "0 8 * * 1", for instance. Without it, a first try makes one run and one message.
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    tags=["wassly", "example"],
    doc_md=__doc__,
) as dag:
    WasslySendMessageOperator.partial(
        task_id="tell",
        map_index_template="{{ task.contact_name }}",
        max_active_tis_per_dagrun=1,
        retries=3,
        retry_delay=timedelta(minutes=2),
    ).expand_kwargs(on_call())
