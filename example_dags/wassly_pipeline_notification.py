"""A pipeline that says over WhatsApp that it has ended well."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow_provider_wassly.operators.send_message import WasslySendMessageOperator

try:
    from airflow.sdk import DAG, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
    from airflow.models.dag import DAG


@task
def load() -> int:
    """Stand for the pipeline's work."""
    return 1234


with DAG(
    "wassly_pipeline_notification",
    # In your own DAG "@daily", for instance. Without it, a first try makes one run and one message.
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    # A number that the British regulator keeps for films: nobody has it.
    params={"recipient": "+447700900123"},
    tags=["wassly", "example"],
    doc_md=__doc__,
) as dag:
    rows = load()
    notify = WasslySendMessageOperator(
        task_id="notify",
        contact_mobile_number="{{ params.recipient }}",
        message="✅ *{{ dag.dag_id }}* has loaded {{ ti.xcom_pull(task_ids='load') }} rows (`{{ run_id }}`)",
        retries=3,
        retry_delay=timedelta(minutes=2),
    )
    rows >> notify
