"""The rate and the pace of a broadcast in a real Airflow, compared with the ideal and with mapped tasks."""

from __future__ import annotations

import contextlib
import json
import tempfile
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks import campaign
from tests.benchmarks.figures import Figure
from tests.benchmarks.processes import server

if TYPE_CHECKING:
    from tests.support.airflow_server import AirflowServer

WORKERS = 10
#: Milliseconds that the service takes to answer -> number of recipients, and the minimum share of the ideal rate.
RECIPIENTS = {20: 2500, 100: 1000, 500: 200}
LEAST = {20: 0.8, 100: 0.97}
#: The case to compare with mapped tasks.
COMPARED = 100
MAPPED = 30
PACE = 300
PACED = 100

DAG_FILE = """
import json
from datetime import datetime, timezone
from pathlib import Path

from airflow.providers.http.operators.http import HttpOperator
from airflow.sdk import DAG, chain

from airflow_provider_wassly.operators.broadcast import WasslyBroadcastOperator

plan = json.loads((Path(__file__).parent.parent / "plan.json").read_text())

with DAG(
    "benchmark",
    schedule="@once",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    max_active_tasks=64,
    # On a busy machine Airflow now and then loses a task that has just begun.
    default_args={"retries": 2, "retry_delay": 0},
):
    # One after the other, so that none takes another's processor.
    chain(
        *(
            WasslyBroadcastOperator(task_id=name, message="Hello {{ recipient.name }}", **arguments)
            for name, arguments in plan["broadcasts"].items()
        ),
        HttpOperator.partial(
            task_id="mapped", http_conn_id="http", endpoint="/api/whatsapp-web-send-message", method="POST"
        ).expand(data=[{"contact_mobile_number": f"+4477009{n:05}"} for n in range(plan["mapped"])]),
    )
"""

ENVIRONMENT = {
    "AIRFLOW__CORE__PARALLELISM": str(WORKERS),
    # This many mapped tasks starting at once keep two cores busy for longer than Airflow waits by default.
    "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "300",
}


def measure() -> list[Figure]:
    """Measure inside a real Airflow with scheduler and LocalExecutor."""
    from tests.support.airflow_server import AirflowServer

    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environment = dict(ENVIRONMENT)
        broadcasts: dict[str, Any] = {}

        def service(milliseconds: int) -> int:
            return stack.enter_context(server("service", str(milliseconds / 1000)))

        def plan(name: str, port: int, recipients: int, **arguments: Any) -> None:
            environment[f"AIRFLOW_CONN_{name.upper()}"] = campaign.connection(port)
            people = campaign.write_list(home / f"{name}.csv", recipients)
            broadcasts[name] = {"wassly_conn_id": name, "recipients": people, **arguments}

        for latency, recipients in RECIPIENTS.items():
            plan(f"latency_{latency}", service(latency), recipients, messages_per_minute=None, max_workers=WORKERS)
        paced = service(COMPARED)
        plan("paced", paced, PACED, messages_per_minute=PACE)
        environment["AIRFLOW_CONN_HTTP"] = f"http://127.0.0.1:{service(COMPARED)}"
        (home / "plan.json").write_text(json.dumps({"broadcasts": broadcasts, "mapped": MAPPED}))

        airflow = AirflowServer(home, environment)
        stack.callback(airflow.stop)
        (airflow.dags / "benchmark.py").write_text(DAG_FILE)
        airflow.start()
        run(airflow)
        returned = {
            task_id: json.loads(value)
            for task_id, value in airflow.query("select task_id, value from xcom where task_id != 'mapped'")
        }
        rates = {latency: returned[f"latency_{latency}"]["messages_per_minute"] / 60 for latency in RECIPIENTS}
        with urllib.request.urlopen(f"http://127.0.0.1:{paced}/") as answer:
            seconds_of_pace = float(answer.read())
        return [
            *(rate_figure(latency, rate) for latency, rate in rates.items()),
            mapped_figure(airflow, rates[COMPARED]),
            pace_figure(seconds_of_pace),
        ]


def run(airflow: AirflowServer) -> None:
    """Wait for the DAG run to end; fail unless it succeeds."""
    ended: list[tuple[Any, ...]] = []

    def is_over() -> bool:
        ended[:] = airflow.query("select state from dag_run where state in ('success', 'failed')")
        return bool(ended)

    airflow.wait_for(is_over, "the end of the DAG run", seconds=900)
    if ended != [("success",)]:
        states = airflow.query("select task_id, map_index, state from task_instance where state != 'success'")
        raise RuntimeError(f"the DAG run failed: {states}\n{airflow.task_logs('benchmark')[-5000:]}")


def rate_figure(latency: int, rate: float) -> Figure:
    possible = WORKERS * 1000 / latency
    least = LEAST.get(latency)
    return Figure(
        f"broadcast, {WORKERS} workers, answers after {latency} ms",
        f"{rate:.1f} messages/s, {rate / possible:.2f} of ideal",
        f"ideal {possible:.0f}",
        f"≥ {least:.2f} of ideal" if least else "",
        rate / possible >= least if least else None,
    )


def mapped_figure(airflow: AirflowServer, ours: float) -> Figure:
    ((first, last),) = airflow.query(
        "select min(start_date), max(end_date) from task_instance where task_id = 'mapped'"
    )
    mapped = MAPPED / (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()
    return Figure(
        f"the same at {COMPARED} ms, beside mapped tasks",
        f"{ours / mapped:.0f} times as fast",
        f"{MAPPED} mapped HttpOperator tasks: {mapped:.2f} messages/s",
    )


def pace_figure(seconds: float) -> Figure:
    # Between n messages there are n - 1 gaps.
    kept = (PACED - 1) / seconds * 60
    return Figure(f"pace of messages_per_minute={PACE}", f"{kept:.1f} a minute, {kept / PACE - 1:+.1%}")
