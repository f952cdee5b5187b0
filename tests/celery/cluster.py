"""A real Airflow whose tasks run on Celery workers, with Redis as the broker and PostgreSQL as the database."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import sqlalchemy

from airflow_provider_wassly.sandbox import Sandbox
from tests.celery.services import PostgreSQL, Redis
from tests.support.airflow_server import AirflowServer

WORKERS = ("one", "two")
#: How many tasks each worker runs at the same time.
SLOTS = 2
#: Redis redelivers a task that no worker has confirmed within this many seconds; the default is a day.
VISIBILITY_TIMEOUT = 15


@dataclasses.dataclass(frozen=True)
class Try:
    """
    One try of a task, as its process recorded it.

    :param worker: the process of the Celery worker that it ran on.
    """

    task_id: str
    map_index: int
    try_number: int
    worker: int


class CeleryCluster(AirflowServer):
    """
    Runs the DAGs of ``dags.py`` when they are triggered.

    :param home: an empty folder.
    """

    def __init__(self, home: Path, redis: Redis, postgresql: PostgreSQL) -> None:
        transport = "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__"
        super().__init__(
            home,
            {
                "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
                "AIRFLOW__CORE__PARALLELISM": "32",
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{postgresql.address}",
                "AIRFLOW__CELERY__BROKER_URL": redis.url,
                "AIRFLOW__CELERY__RESULT_BACKEND": f"db+postgresql+psycopg2://{postgresql.address}",
                "AIRFLOW__CELERY__WORKER_CONCURRENCY": str(SLOTS),
                f"{transport}VISIBILITY_TIMEOUT": str(VISIBILITY_TIMEOUT),
                # Check for such tasks every second.
                f"{transport}UNACKED_RESTORE_INTERVAL": "1",
                f"{transport}UNACKED_RESTORE_THROTTLE": "1",
                # In case a worker is killed during the check.
                f"{transport}UNACKED_MUTEX_EXPIRE": "5",
            },
        )
        shutil.copy(Path(__file__).parent / "dags.py", self.dags)
        self._engine = sqlalchemy.create_engine(f"postgresql+psycopg2://{postgresql.address}")

    def start(self) -> None:
        """Start it; return once it works."""
        super().start()
        for worker in WORKERS:
            self.start_component(worker)
        self.wait_for(lambda: all(self._is_ready(worker) for worker in WORKERS), "the workers", seconds=60)

    def start_component(self, component: str, *arguments: str) -> None:
        """Start one of its processes."""
        if component in WORKERS:
            arguments = ("celery", "worker", "--celery-hostname", f"{component}@%h", "--skip-serve-logs")
        super().start_component(component, *arguments)

    def stop(self) -> None:
        """End all of its processes."""
        super().stop()
        self._engine.dispose()

    def worker_of(self, one: Try) -> str:
        """Return the name of the worker that runs a try."""
        (name,) = (worker for worker in WORKERS if self._processes[worker].pid == one.worker)
        return name

    def replace_worker(self, worker: str) -> None:
        """Kill a worker and its tasks, and restart it."""
        self.kill_component(worker)
        self.start_component(worker)

    def worker_logs(self) -> str:
        """Return the workers' output."""
        return "\n".join((self.home / f"{worker}.log").read_text(errors="replace") for worker in WORKERS)

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Query Airflow's database."""
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(statement.replace("?", "%s"), values)]

    def add_connection(self, conn_id: str, box: Sandbox, **extra: Any) -> None:
        """Save a sandbox as a connection, in Airflow's database."""
        connection = json.loads(box.connection)
        connection["extra"] = json.dumps(connection["extra"] | extra)
        self.call("POST", "/api/v2/connections", {"connection_id": conn_id, **connection})

    def trigger(self, dag_id: str) -> None:
        """Run a DAG."""
        self.wait_for(lambda: self.query("select 1 from dag where dag_id = ?", dag_id), f"the DAG {dag_id}", seconds=60)
        self.call("POST", f"/api/v2/dags/{dag_id}/dagRuns", {"logical_date": None})

    def wait_for_end(self, dag_id: str, *, seconds: float) -> None:
        """Wait until a DAG's only run has ended."""

        def is_over() -> bool:
            return self.query("select state from dag_run where dag_id = ?", dag_id)[0][0] in ("success", "failed")

        self.wait_for(is_over, f"the end of {dag_id}", seconds=seconds)

    def outcomes(self, dag_id: str) -> list[tuple[str, int, str, int]]:
        """Return the name, map index, state and latest try of each task of a DAG."""
        rows = self.query(
            "select task_id, map_index, state, try_number from task_instance where dag_id = ? order by 1, 2", dag_id
        )
        return [(task, index, state, tries) for task, index, state, tries in rows]

    def returned(self, dag_id: str, task_id: str) -> Any:
        """Return a task's return value."""
        ((run_id,),) = self.query("select run_id from dag_run where dag_id = ?", dag_id)
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        return self.call("GET", path)["value"]

    def tries(self, dag_id: str) -> list[Try]:
        """Return the tries of a DAG's sending tasks so far, oldest first."""
        notes = self.home / f"{dag_id}.tries"
        lines = notes.read_text().splitlines() if notes.exists() else []
        return [Try(**json.loads(line)) for line in lines]

    def _is_ready(self, worker: str) -> bool:
        return " ready." in (self.home / f"{worker}.log").read_text(errors="replace")


def tries_in_vain(tries: list[Try]) -> Counter[int]:
    """Return the number of failed tries of each mapped task."""
    return Counter(one.map_index for one in tries) - Counter({one.map_index: 1 for one in tries})
