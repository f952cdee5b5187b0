"""A pipeline that reports its success over WhatsApp."""

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
    """Do the pipeline's work; replace this with your own."""
    return 1234


with DAG(
    "wassly_pipeline_notification",
    # In your own DAG, for example "@daily". With None, it runs, and sends, only when you trigger it.
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    # A number that the British regulator reserves for drama: it belongs to nobody.
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
