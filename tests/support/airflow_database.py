"""Queries of Airflow's database that work alike on every version."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

_VERSION = tuple(map(int, version("apache-airflow").split(".")[:2]))

#: 3.4 stores a task's earlier tries in the same table as the latest, and results with the try that returned them.
_AS_BEFORE = """
create temp view task_instance as select *, region_index as map_index from main.task_instance where working_set;
create temp view xcom as select task_instance.*, xcom_v2.key, xcom_v2.value
    from task_instance join xcom_v2 on xcom_v2.task_instance_id = task_instance.id;
"""


def query(database: Path, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Run a query written for Airflow 3.3's tables, whatever version the database belongs to."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
        if _VERSION >= (3, 4):
            connection.executescript(_AS_BEFORE)
        return connection.execute(statement, values).fetchall()
