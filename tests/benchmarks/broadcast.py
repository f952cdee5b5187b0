"""
The rate of a broadcast in a real Airflow, beside what is possible and beside mapped tasks, and its memory.

Usage: ``python tests/benchmarks/broadcast.py [recipients]``: how many the memory is measured with, 200,000 by default.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
WORKERS = 10
#: Seconds that the service takes for an answer, and how many recipients are sent to.
LATENCIES = {0.02: 5000, 0.1: 2000, 0.5: 400}
MAPPED = 60
PACE = 300
PACED = 100

DAG_FILE = """
import json
from datetime import datetime, timezone
from pathlib import Path

from airflow.providers.http.operators.http import HttpOperator
from airflow.sdk import DAG

from airflow_provider_wassly.operators.broadcast import WasslyBroadcastOperator

HERE = Path(__file__).parent.parent
plan = json.loads((HERE / "plan.json").read_text())
ONCE = dict(schedule="@once", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), max_active_tasks=64)

with DAG("broadcasts", **ONCE):
    before = None
    for name, arguments in plan["broadcasts"].items():
        after = WasslyBroadcastOperator(task_id=name, message="Hello {{ recipient.name }}", **arguments)
        if before:
            before >> after
        before = after

with DAG("mapped", **ONCE):
    HttpOperator.partial(
        task_id="send", http_conn_id="http", endpoint="/api/whatsapp-web-send-message", method="POST"
    ).expand(data=[{"contact_mobile_number": f"+4477009{n:05}"} for n in range(plan["mapped"])])
"""


@contextlib.contextmanager
def service(latency: float) -> Iterator[int]:
    """Run the peer in a process of its own; give its port."""
    process = subprocess.Popen(
        [sys.executable, str(HERE.parent / "service.py"), str(latency)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


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


def rates() -> None:
    """Measure inside of a real Airflow, with its scheduler and LocalExecutor."""
    from tests.support.airflow_server import AirflowServer

    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environment = {"AIRFLOW__CORE__PARALLELISM": str(WORKERS)}
        broadcasts: dict[str, Any] = {}
        for latency, recipients in LATENCIES.items():
            name = f"latency_{latency * 1000:.0f}"
            port = stack.enter_context(service(latency))
            environment[f"AIRFLOW_CONN_{name.upper()}"] = connection(port)
            broadcasts[name] = {
                "recipients": write_list(home / f"{name}.csv", recipients),
                "wassly_conn_id": name,
                "messages_per_minute": None,
                "max_workers": WORKERS,
            }
        slow, paced = stack.enter_context(service(0.1)), stack.enter_context(service(0.1))
        environment["AIRFLOW_CONN_HTTP"] = f"http://127.0.0.1:{slow}"
        environment["AIRFLOW_CONN_PACED"] = connection(paced)
        broadcasts["paced"] = {
            "recipients": write_list(home / "paced.csv", PACED),
            "wassly_conn_id": "paced",
            "messages_per_minute": PACE,
        }
        (home / "plan.json").write_text(json.dumps({"broadcasts": broadcasts, "mapped": MAPPED}))
        server = AirflowServer(home, environment)
        stack.callback(server.stop)
        (server.dags / "benchmark.py").write_text(DAG_FILE)
        server.start()
        server.wait_for(
            lambda: (
                dict(server.query("select dag_id, state from dag_run"))
                == dict.fromkeys(("broadcasts", "mapped"), "success")
            ),
            "the end of all runs",
            seconds=900,
        )
        returned = {
            task_id: json.loads(value)
            for task_id, value in server.query("select task_id, value from xcom where dag_id = 'broadcasts'")
        }
        print(f"\nMessages per second in Airflow, {WORKERS} workers")
        print(f"{'answer takes':>14}{'messages/s':>12}{'of what is possible':>21}")
        for latency in LATENCIES:
            rate = returned[f"latency_{latency * 1000:.0f}"]["messages_per_minute"] / 60
            print(f"{latency * 1000:>11.0f} ms{rate:>12.1f}{rate * latency / WORKERS:>21.2f}")
        ((first, last),) = server.query(
            "select min(start_date), max(end_date) from task_instance where dag_id = 'mapped'"
        )
        mapped = MAPPED / (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()
        ours = returned["latency_100"]["messages_per_minute"] / 60
        print(
            f"{MAPPED} mapped HttpOperator tasks at 100 ms: {mapped:.2f} messages/s, {ours / mapped:.0f} times slower"
        )
        with urllib.request.urlopen(f"http://127.0.0.1:{paced}/") as answer:
            seconds = float(answer.read())
        # Between n messages there are n - 1 gaps.
        kept = (PACED - 1) / seconds * 60
        print(f"messages_per_minute={PACE}: {kept:.1f} a minute were sent, {kept / PACE - 1:+.1%}")


def one_broadcast(recipients: int) -> None:
    """Run one in this process and print its rate and its peak of memory."""
    from airflow_provider_wassly.operators.broadcast import WasslyBroadcastOperator

    with tempfile.TemporaryDirectory() as folder, service(0) as port:
        os.environ["AIRFLOW_CONN_WASSLY_DEFAULT"] = connection(port)
        task = WasslyBroadcastOperator(
            task_id="send",
            recipients=write_list(Path(folder) / "list.csv", recipients),
            message="Hello {{ recipient.name }}",
            messages_per_minute=None,
            max_workers=4,
            report=f"{folder}/report.csv",
        )
        begun = time.perf_counter()
        summary = task.execute({})
        assert summary["accepted"] == recipients
        seconds = time.perf_counter() - begun
    print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, recipients / seconds]))


def memory(recipients: int) -> None:
    peaks = {}
    for number in (1000, recipients):
        done = subprocess.run(
            [sys.executable, str(HERE), "one", str(number)], check=True, capture_output=True, text=True
        )
        kibibytes, rate = json.loads(done.stdout.splitlines()[-1])
        peaks[number] = kibibytes
        print(f"{number:>9} recipients: {kibibytes / 1024:6.1f} MiB at most, {rate:.0f} messages/s without latency")
    growth = (peaks[recipients] - peaks[1000]) * 1024 / (recipients - 1000)
    print(f"Memory grows by {growth:.0f} bytes a recipient")


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parents[2]))
    if sys.argv[1:2] == ["one"]:
        one_broadcast(int(sys.argv[2]))
    else:
        rates()
        memory(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
