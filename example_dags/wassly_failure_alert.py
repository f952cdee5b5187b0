"""
Tell people over WhatsApp when a pipeline fails: one message for the run, however many of its tasks have failed.

A notifier without a ``message`` says what has happened. As callback of the DAG it counts the tasks that
failed; as callback of a task, as ``publish`` has one here, it tells of that task alone. This DAG fails on purpose.
"""

from __future__ import annotations

from datetime import datetime, timezone

from airflow_provider_wassly.notifications.wassly import WasslyNotifier

try:
    from airflow.sdk import DAG, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
    from airflow.models.dag import DAG

# Numbers that the British regulator keeps for films: nobody has them.
ON_CALL = ["+447700900101", "+447700900102"]


@task
def load(part: int) -> None:
    """Stand for the pipeline's work, of which some parts cannot be done."""
    if part % 2:
        raise ValueError(f"part {part} has no rows")


@task(
    on_failure_callback=WasslyNotifier(
        contact_mobile_number="{{ params.owner }}",
        # Where Airflow does not say why, the message should not be lost for that.
        message="🗞️ Your report of {{ run_id }} is not published: _{{ exception | default('see the log') }}_",
    )
)
def publish() -> None:
    """Stand for a task that has an owner."""
    raise PermissionError("the web server refuses the password")


with DAG(
    "wassly_failure_alert",
    # In your own DAG "@daily", for instance.
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    params={"owner": "+447700900123"},
    on_failure_callback=WasslyNotifier(contact_mobile_number=ON_CALL),
    tags=["wassly", "example"],
    doc_md=__doc__,
) as dag:
    load.expand(part=[1, 2, 3, 4])
    publish()
