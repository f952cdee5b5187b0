"""A real Airflow for a test, used through its command line."""

from __future__ import annotations

import functools
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import airflow

from tests.support.airflow_database import query
from tests.support.airflow_forks import UNDATED

#: The version of the installed Airflow.
VERSION = tuple(map(int, airflow.__version__.split(".")[:2]))

ROOT = Path(__file__).parents[2]


@functools.cache
def _started(settings: frozenset[tuple[str, str]]) -> subprocess.Popen[str]:
    """A running Airflow with these settings, shared by all tests of this process that need the same ones."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_CONN")}
    command = [sys.executable, "-m", "tests.support.airflow_forks"]
    return subprocess.Popen(
        command, cwd=ROOT, env=kept | dict(settings), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


class AirflowCli:
    """
    An Airflow with its own home, database and DAG folder.

    :param home: an empty folder.
    :param environment: environment variables for its processes, such as connections.
    """

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.home = home
        self.dags = home / "dags"
        self.dags.mkdir()
        self._environment = environment
        self.output = ""

    def run(self, *commands: str) -> str:
        """Run commands such as ``dags test reports 2026-11-24`` and return what they print."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_CONN")}
        settings = {name: value for name, value in self._environment.items() if name.startswith("AIRFLOW__")}
        started = _started(frozenset(settings.items()))
        assert started.stdin is not None
        assert started.stdout is not None
        print(json.dumps([str(self.home), commands, kept | self._environment]), file=started.stdin, flush=True)
        printed: str = json.loads(started.stdout.readline())
        self.output += printed
        return printed

    def test_dag(self, *dag_ids: str, is_dated: bool = True) -> str:
        """
        Run each DAG once, as ``airflow dags test`` does, and return the output.

        :param is_dated: whether the runs have a logical date. Runs without one, such as those that an asset starts,
            exist from Airflow 3 on.
        """
        self._environment[UNDATED] = "" if is_dated else "1"
        return self.run(*(shlex.join(["dags", "test", dag_id, "2026-11-24"]) for dag_id in dag_ids))

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Query Airflow's database."""
        return query(self.home / "airflow.db", statement, *values)

    def states(self, dag_id: str) -> dict[str, str]:
        """Return the state of each task, mapped ones as ``task[index]``."""
        rows = self.query("select task_id, map_index, state from task_instance where dag_id = ?", dag_id)
        return {task if index < 0 else f"{task}[{index}]": state for task, index, state in rows}

    def returned(self, dag_id: str) -> dict[str, Any]:
        """Return what each task returned, mapped ones as ``task[index]``."""
        rows = self.query(
            "select task_id, map_index, value from xcom where dag_id = ? and key = 'return_value'", dag_id
        )
        return {task if index < 0 else f"{task}[{index}]": json.loads(value) for task, index, value in rows}
