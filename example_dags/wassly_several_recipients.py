"""
Send a message to each of several people, with mapped tasks.

Each recipient is a separate task with its own retries, so one failure does not stop the others.
``max_active_tis_per_dagrun=1`` sends one message at a time, because WhatsApp bans numbers that send too fast.
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
    """Return who is on duty this week; replace the list with your query."""
    # Numbers that the British regulator reserves for drama: they belong to nobody.
    people = {"Amira": "+447700900101", "Björn": "+447700900102", "Chloé": "+447700900103"}
    return [
        {"contact_mobile_number": number, "contact_name": name, "message": f"Hello {name}, you are on call this week."}
        for name, number in people.items()
    ]


with DAG(
    "wassly_several_recipients",
    # In your own DAG, for example "0 8 * * 1". With None, it runs, and sends, only when you trigger it.
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
