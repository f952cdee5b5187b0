"""Airflow's version, and what depends on it."""

from __future__ import annotations

import importlib
from typing import Any

from airflow import __version__ as _airflow_version

VERSION = tuple(map(int, _airflow_version.split(".")[:2]))

IS_AIRFLOW_2 = VERSION < (3, 0)

#: Whether the contents of ``task_state_store`` (3.3+) survive clearing the task.
CLEARING_KEEPS_TASK_STATE = VERSION < (3, 4)

#: Whether a failed task can run again under the same try number (``RetryAction.RESCHEDULE``).
RUNS_TRIES_AGAIN = VERSION >= (3, 4)

#: Whether a task's process can continue to run, and write, after Airflow has given it up.
OUTLIVES_ITS_SUPERVISOR = IS_AIRFLOW_2


def first_of(name: str, *modules: str) -> Any:
    """Return ``name`` from the first module that has it; list the newest Airflow's module first."""
    for module in modules:
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"no {name} in {', '.join(modules)}")
