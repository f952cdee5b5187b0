"""
Alert people over WhatsApp when a pipeline fails: one message per run, however many of its tasks failed.

Without a ``message``, the notifier describes what happened. As a DAG callback, it counts the failed tasks. As a task
callback, like that of ``publish`` below, it describes that task. This DAG fails on purpose.
"""

from __future__ import annotations

from datetime import datetime, timezone

from airflow_provider_wassly.notifications.wassly import WasslyNotifier

try:
    from airflow.sdk import DAG, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
    from airflow.models.dag import DAG

# Numbers that the British regulator reserves for drama: they belong to nobody.
ON_CALL = ["+447700900101", "+447700900102"]


@task
def load(part: int) -> None:
    """Do a part of the pipeline's work; some parts fail here."""
    if part % 2:
        raise ValueError(f"part {part} has no rows")


@task(
    on_failure_callback=WasslyNotifier(
        contact_mobile_number="{{ params.owner }}",
        # The default is needed where Airflow passes no exception: an undefined name would prevent the message.
        message="🗞️ Your report of {{ run_id }} is not published: _{{ exception | default('see the log') }}_",
    )
)
def publish() -> None:
    """Publish the report; this task has an owner of its own."""
    raise PermissionError("the web server refuses the password")


with DAG(
    "wassly_failure_alert",
    # In your own DAG, for example "@daily".
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
