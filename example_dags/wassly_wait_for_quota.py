"""
Send only when the sending device is connected and enough conversations remain.

Both sensors are deferrable: they wait in the triggerer, without a worker slot.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow_provider_wassly.operators.send_message import WasslySendMessageOperator
from airflow_provider_wassly.sensors.device import WasslyDeviceSensor
from airflow_provider_wassly.sensors.quota import WasslyQuotaSensor

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2.11
    from airflow.models.dag import DAG

with DAG(
    "wassly_wait_for_quota",
    # In your own DAG, for example "@daily". With None, it runs, and sends, only when you trigger it.
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    # A number that the British regulator reserves for drama: it belongs to nobody.
    params={"recipient": "+447700900123"},
    tags=["wassly", "example"],
    doc_md=__doc__,
) as dag:
    device = WasslyDeviceSensor(task_id="wait_for_device", deferrable=True, timeout=timedelta(hours=6))
    quota = WasslyQuotaSensor(
        task_id="wait_for_quota", min_remaining_conversations=200, deferrable=True, timeout=timedelta(hours=24)
    )
    send = WasslySendMessageOperator(
        task_id="send",
        contact_mobile_number="{{ params.recipient }}",
        message="✅ *{{ dag.dag_id }}* has finished (`{{ run_id }}`)",
        retries=3,
        retry_delay=timedelta(minutes=2),
    )
    device >> quota >> send
