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
import threading
import time
import urllib.request
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from airflow_provider_wassly.sandbox import Sandbox
from tests.support.airflow_database import query

#: Read from the metadata, because importing Airflow takes seconds.
_AIRFLOW = version("apache-airflow")
VERSION = tuple(map(int, _AIRFLOW.split(".")[:2]))
IS_AIRFLOW_2 = VERSION < (3, 0)

#: The scheduler of 3.4.0b2 dies with an IntegrityError if a killed task has a callback and a retry left, or if the
#: machine fails under any task with a retry left: requesting the callback closes the session in which the scheduler
#: then wants to store the next try.
_SETTINGS_OF_BETA = """
from airflow import settings
from airflow.callbacks.database_callback_sink import DatabaseCallbackSink

__all__ = []
_send = DatabaseCallbackSink.send


def send(self, callback):
    session = settings.Session()
    _send(self, callback, session=session)
    session.commit()


DatabaseCallbackSink.send = send
"""


class ReservedPort:
    """A port that the kernel does not hand out as a free one, but that a server can listen on."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.number: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.number}"

    def close(self) -> None:
        """Release the port."""
        self._socket.close()


class AirflowServer:
    """
    Runs every DAG in its folder as soon as it is parsed.

    :param home: an empty folder.
    :param environment: environment variables for its processes.
    """

    #: Its processes and their arguments, in the order of starting: the scheduler's first tasks need the API. The
    #: log server would always use the same port, and is not needed because all processes share a disk.
    components: dict[str, tuple[str, ...]] = {
        **({} if IS_AIRFLOW_2 else {"api-server": ("--apps", "execution"), "dag-processor": ()}),
        "triggerer": ("--skip-serve-logs",),
        "scheduler": ("--skip-serve-logs",),
    }

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.home = home
        self.dags = home / "dags"
        self.dags.mkdir()
        if _AIRFLOW == "3.4.0b2":
            config = home / "config"
            config.mkdir()
            (config / "airflow_local_settings.py").write_text(_SETTINGS_OF_BETA)
        self._database = home / "airflow.db"
        self._port, self._pages_port = ReservedPort(), ReservedPort()
        self.url = self._port.url
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        self._environment = kept | {
            # Airflow starts its own command from the PATH.
            "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self._database}?timeout=60",
            "AIRFLOW__API__PORT": str(self._port.number),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": "a secret that all of its processes share, for tests only",
            # On a busy machine calls are slow, and a call that is abandoned and repeated can end a task.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
            # The files do not change.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
            "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "3600",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
            # This long after a triggerer dies, the next one takes over.
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
            "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "2",
            # A task sends no heartbeats while it runs callbacks. The beta's API server can delay a report for a
            # minute, and the report of a task's end must arrive before the task is considered dead.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "100" if _AIRFLOW == "3.4.0b2" else "40",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
            "AIRFLOW__SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": "15",
            **environment,
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stopped = False
        self._starting_pages = threading.Lock()

    def add_connection(self, conn_id: str, box: Sandbox, **extra: Any) -> None:
        """Add a sandbox as a connection, for processes that are started later."""
        connection = json.loads(box.connection)
        connection["extra"] |= extra
        self._environment[f"AIRFLOW_CONN_{conn_id.upper()}"] = json.dumps(connection)

    def start(self) -> None:
        """Start it; return once it works."""
        self.run("db", "migrate")
        for component in self.components:
            if component == "scheduler" and not IS_AIRFLOW_2:
                self.wait_for(lambda: _answers(f"{self.url}/execution/health"), "Airflow's API", seconds=300)
            self.start_component(component)

    def start_component(self, component: str, *arguments: str) -> None:
        """Start one of its processes; by default the command is the component's name, with its arguments."""
        if self._stopped:
            raise RuntimeError("Airflow has been stopped")
        with (self.home / f"{component}.log").open("ab") as output:
            self._processes[component] = subprocess.Popen(
                self._command(*(arguments or (component, *self.components[component]))),
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                # In its own session, so that stopping it cannot hit another process.
                start_new_session=True,
            )

    def kill_component(self, component: str) -> None:
        """Kill one of its processes and all their children, as a power failure would."""
        _kill_session(self._processes.pop(component))

    def stop(self) -> None:
        """Stop all of its processes, and everything that waits for it."""
        self._stopped = True
        while self._processes:
            _kill_session(self._processes.popitem()[1])
        self._port.close()
        self._pages_port.close()

    def wait_for(self, condition: Callable[[], object], what: str, *, seconds: float) -> None:
        """Wait until a condition holds; if it never does, fail with Airflow's output."""
        deadline = time.monotonic() + seconds
        while not condition():
            ended = [process for process in list(self._processes.values()) if process.poll() is not None]
            if self._stopped or ended or time.monotonic() > deadline:
                logs = "\n".join(path.read_text(errors="replace")[-5000:] for path in self.home.glob("*.log"))
                raise AssertionError(f"waited in vain for {what}\n{logs}")
            time.sleep(0.2)

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Query Airflow's database."""
        return query(self._database, statement, *values)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """
        Call the REST API (Airflow 3).

        The API server runs in a separate process: SQLite allows only one writer at a time, so this call can wait for a
        task's write, which in turn can wait for this process.
        """
        with self._starting_pages:
            if "pages" not in self._processes:
                port = str(self._pages_port.number)
                self.start_component("pages", "api-server", "--apps", "core", "--port", port)
                self.wait_for(lambda: _answers(f"{self._pages_port.url}/auth/token"), "Airflow's pages", seconds=300)
        request = urllib.request.Request(
            f"{self._pages_port.url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._token()}"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or "null")

    def clear(self, dag_id: str, task_id: str) -> None:
        """Clear a task as a user does in Airflow's UI."""
        ((run_id,),) = self.query("select run_id from dag_run where dag_id = ?", dag_id)
        if IS_AIRFLOW_2:
            self.run("tasks", "clear", "--yes", "--task-regex", f"^{task_id}$", dag_id)
        else:
            self.call(
                "POST",
                f"/api/v2/dags/{dag_id}/clearTaskInstances",
                {"dag_run_id": run_id, "task_ids": [task_id], "dry_run": False, "only_failed": False},
            )

    def start_run(self, dag_id: str, run_id: str) -> None:
        """Trigger a run as a user does."""
        date = "2026-01-01T00:00:00Z"
        if IS_AIRFLOW_2:
            self.run("dags", "trigger", "--run-id", run_id, "--exec-date", date, dag_id)
        else:
            self.call("POST", f"/api/v2/dags/{dag_id}/dagRuns", {"dag_run_id": run_id, "logical_date": date})

    def set_run_state(self, dag_id: str, run_id: str, state: str) -> None:
        """Mark a run as a user does."""
        if IS_AIRFLOW_2:
            self._with_run(dag_id, run_id, f"runs.one().set_state({state!r})")
        else:
            self.call("PATCH", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}", {"state": state})

    def delete_run(self, dag_id: str, run_id: str) -> None:
        """Delete a run as a user does."""
        if IS_AIRFLOW_2:
            self._with_run(dag_id, run_id, "runs.delete()")
        else:
            self.call("DELETE", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")

    def _with_run(self, dag_id: str, run_id: str, statement: str) -> None:
        """Do what Airflow 2's UI does; its webserver is not running here."""
        code = f"""
from airflow.models import DagRun
from airflow.utils.session import create_session

with create_session() as session:
    runs = session.query(DagRun).filter_by(dag_id={dag_id!r}, run_id={run_id!r})
    {statement}
"""
        subprocess.run([sys.executable, "-c", code], env=self._environment, check=True, capture_output=True)

    def retry_now(self, dag_id: str) -> None:
        """End the delay before the next try for all of a DAG's tasks."""
        statement = "update task_instance set end_date = datetime(end_date, '-1 day') where dag_id = ? and state = ?"
        with contextlib.closing(sqlite3.connect(self._database, timeout=60)) as database, database:
            database.execute(statement, (dag_id, "up_for_retry"))

    def task_logs(self, dag_id: str) -> str:
        """Return the logs of all tries of a DAG's tasks."""
        paths = sorted(self.home.glob(f"logs/dag_id={dag_id}/**/*.log"))
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')}" for path in paths)

    def _token(self) -> str:
        with urllib.request.urlopen(f"{self._pages_port.url}/auth/token", timeout=60) as answer:
            token: str = json.load(answer)["access_token"]
        return token

    def run(self, *arguments: str) -> None:
        """Run one of Airflow's commands to its end."""
        subprocess.run(self._command(*arguments), env=self._environment, check=True, capture_output=True)

    @staticmethod
    def _command(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "airflow", *arguments]


def _answers(url: str) -> bool:
    # The first answer takes seconds, longer than a task waits by default.
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return bool(200 <= answer.status < 300)
    except OSError:
        return False


def _kill_session(leader: subprocess.Popen[bytes]) -> None:
    # Not by process group: each task has its own.
    while members := _session(leader.pid):
        for member in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)
        leader.poll()
        time.sleep(0.05)
    leader.wait()


def _session(leader: int) -> list[int]:
    """Return the living processes of a session."""
    members = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue  # the process has ended meanwhile
        if int(session) == leader and state != "Z":
            members.append(int(path.parent.name))
    return members
