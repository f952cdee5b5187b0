"""A real Airflow with scheduler, triggerer and LocalExecutor (SequentialExecutor on 2.11), as its own processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import airflow

IS_AIRFLOW_2 = airflow.__version__.startswith("2.")
COMPONENTS = ("scheduler", "triggerer") if IS_AIRFLOW_2 else ("api-server", "scheduler", "dag-processor", "triggerer")


class AirflowServer:
    """
    Runs every DAG in its folder as soon as it is parsed.

    :param home: an empty folder.
    :param environment: variables that its processes get, connections for instance.
    """

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.home = home
        self.dags = home / "dags"
        self.dags.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        port = self.url.rpartition(":")[2]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        self._environment = kept | {
            # Airflow looks for its own command there.
            "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW__API__PORT": port,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": "a secret that all of its processes share, for tests only",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
            "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "2",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
            "AIRFLOW__SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": "15",
            **environment,
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start it; returns when it works."""
        subprocess.run(self._command("db", "migrate"), env=self._environment, check=True, capture_output=True)
        for component in COMPONENTS:
            self.start_component(component)
        if not IS_AIRFLOW_2:
            self.wait_for(self._is_healthy, "Airflow's API", seconds=120)

    def start_component(self, component: str, *arguments: str) -> None:
        """Start one of its processes; by default the command is the component's name."""
        with (self.home / f"{component}.log").open("ab") as output:
            self._processes[component] = subprocess.Popen(
                self._command(*(arguments or (component,))),
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A session of its own, so that no other process can be meant when it is ended.
                start_new_session=True,
            )

    def kill_component(self, component: str) -> None:
        """Kill one of its processes, and those that it has started, without a warning."""
        process = self._processes.pop(component)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """End all of its processes."""
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                os.killpg(process.pid, signal.SIGTERM)
        for component, process in list(self._processes.items()):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):
                self.kill_component(component)
            process.wait()

    def wait_for(self, condition: Callable[[], object], what: str, *, seconds: float) -> None:
        """Wait until a condition holds; fail with Airflow's own output if it never does."""
        deadline = time.monotonic() + seconds
        while not condition():
            ended = [name for name, process in self._processes.items() if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                logs = "\n".join(path.read_text(errors="replace")[-5000:] for path in self.home.glob("*.log"))
                raise AssertionError(f"waited in vain for {what}\n{logs}")
            time.sleep(0.2)

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Query Airflow's database."""
        database = sqlite3.connect(f"file:{self.home}/airflow.db?mode=ro", uri=True, timeout=30)
        try:
            return database.execute(statement, values).fetchall()
        finally:
            database.close()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Call the REST API (Airflow 3)."""
        request = urllib.request.Request(
            f"{self.url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._token()}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def clear(self, dag_id: str, task_id: str) -> None:
        """Clear a task as a person does in Airflow's pages."""
        ((run_id,),) = self.query("select run_id from dag_run where dag_id = ?", dag_id)
        if IS_AIRFLOW_2:
            command = self._command("tasks", "clear", "--yes", "--task-regex", f"^{task_id}$", dag_id)
            subprocess.run(command, env=self._environment, check=True, capture_output=True)
        else:
            self.call(
                "POST",
                f"/api/v2/dags/{dag_id}/clearTaskInstances",
                {"dag_run_id": run_id, "task_ids": [task_id], "dry_run": False, "only_failed": False},
            )

    def task_logs(self, dag_id: str) -> str:
        """Return the logs of all tries of a DAG's tasks."""
        paths = sorted(self.home.glob(f"logs/dag_id={dag_id}/**/*.log"))
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')}" for path in paths)

    def _token(self) -> str:
        with urllib.request.urlopen(f"{self.url}/auth/token", timeout=30) as answer:
            token: str = json.load(answer)["access_token"]
        return token

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/api/v2/monitor/health", timeout=5) as answer:
                health = json.load(answer)
        except OSError:
            return False
        return all(health[name]["status"] == "healthy" for name in ("scheduler", "dag_processor", "triggerer"))

    @staticmethod
    def _command(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "airflow", *arguments]
