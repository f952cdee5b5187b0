"""A real Airflow of a test's own, used through its command line."""

from __future__ import annotations

import json
import os
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import airflow

#: Of the Airflow that is installed.
VERSION = tuple(map(int, airflow.__version__.split(".")[:2]))

# One process for all commands: starting Airflow takes longer than most of them.
_COMMANDS = """
import shlex, sys
import airflow
from airflow.__main__ import main
if airflow.__version__.startswith("3.0."):
    # Its "dags test" leaves out what sets up the log of a real task, and so shows every secret.
    from airflow.sdk.log import configure_logging
    configure_logging(enable_pretty_log=False, output=sys.stdout)
for line in sys.argv[1:]:
    sys.argv = ["airflow", *shlex.split(line)]
    try:
        main()
    except SystemExit:
        pass
"""


class AirflowCli:
    """
    An Airflow with its own home, database and folder of DAGs.

    :param home: an empty folder.
    :param environment: variables that its processes get, connections for instance.
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
        environment = kept | {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home}/airflow.db",
            **self._environment,
        }
        if not (self.home / "airflow.db").exists():
            commands = ("db migrate", *commands)
        done = subprocess.run(
            [sys.executable, "-c", _COMMANDS, *commands],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
        )
        self.output += done.stdout
        return done.stdout

    def test_dag(self, *dag_ids: str) -> str:
        """Run DAGs once each, as ``airflow dags test`` does, and return what is printed."""
        return self.run(*(shlex.join(["dags", "test", dag_id, "2026-11-24"]) for dag_id in dag_ids))

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Query Airflow's database."""
        with sqlite3.connect(self.home / "airflow.db") as database:
            return database.execute(statement, values).fetchall()

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
