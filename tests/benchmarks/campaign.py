"""A broadcast to a list of any length, through a server that answers as Wassly does."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any


def connection(port: int) -> str:
    extra = {"apikey": "k", "instance_id": "i"}
    return json.dumps(
        {"conn_type": "wassly", "host": "127.0.0.1", "schema": "http", "port": port, "login": "a@b.example",
         "password": "p", "extra": extra}
    )  # fmt: skip


def write_list(path: Path, recipients: int) -> str:
    with path.open("w") as file:
        file.write("contact_mobile_number,name\n")
        for number in range(recipients):
            file.write(f"+4477{number:09},Customer {number}\n")
    return str(path)


def send(port: int, recipients: int, workers: int, context: Any) -> float:
    """Run a broadcast in this process; return the messages sent per second."""
    from airflow_provider_wassly.operators.broadcast import WasslyBroadcastOperator

    os.environ["AIRFLOW_CONN_WASSLY_DEFAULT"] = connection(port)
    with tempfile.TemporaryDirectory() as folder:
        task = WasslyBroadcastOperator(
            task_id="send",
            recipients=write_list(Path(folder) / "list.csv", recipients),
            message="Hello {{ recipient.name }}",
            messages_per_minute=None,
            max_workers=workers,
            report=f"{folder}/report.csv",
        )
        begun = time.perf_counter()
        summary = task.execute(context)
        seconds = time.perf_counter() - begun
    assert summary["accepted"] == recipients
    return recipients / seconds
