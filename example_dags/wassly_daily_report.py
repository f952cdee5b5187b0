"""
A daily report: one task writes a CSV file for the data interval, the next sends it over WhatsApp.

The text of the message is in ``templates/daily_report.j2``. The report goes to this machine's temporary folder. If your
tasks run on several machines, write it to ``s3://…`` or ``gs://…`` and pass that URI as ``document``.
"""

from __future__ import annotations

import csv
import random
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_wassly.operators.send_message import WasslySendMessageOperator

try:
    from airflow.sdk import DAG, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
    from airflow.models.dag import DAG


@task
def write_report(data_interval_start: datetime | None = None) -> dict[str, Any]:
    """Write the day's orders to a CSV file; replace the invented orders with your query."""
    # A run triggered without a date has no data interval.
    day = (data_interval_start or datetime.now(timezone.utc) - timedelta(days=1)).date().isoformat()
    invented = random.Random(day)
    orders = [(f"{day}-{number:03}", invented.randint(5, 500)) for number in range(1, 25)]

    folder = Path(tempfile.gettempdir()) / "wassly_reports"
    folder.mkdir(exist_ok=True)
    path = folder / f"orders-{day}.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("order", "amount"))
        writer.writerows(orders)
    return {"path": str(path), "day": day, "orders": len(orders), "amount": sum(amount for _, amount in orders)}


with DAG(
    "wassly_daily_report",
    schedule=CronDataIntervalTimetable("0 6 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    # With catchup, the reports of all missed days would go out at once.
    catchup=False,
    # A number that the British regulator reserves for drama: it belongs to nobody.
    params={"recipient": "+447700900123"},
    tags=["wassly", "example"],
    doc_md=__doc__,
) as dag:
    report = write_report()
    WasslySendMessageOperator(
        task_id="send_report",
        contact_mobile_number="{{ params.recipient }}",
        message="templates/daily_report.j2",
        document=report["path"],
        retries=3,
        retry_delay=timedelta(minutes=2),
    )
