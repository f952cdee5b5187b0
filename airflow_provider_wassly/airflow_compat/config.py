"""Airflow's configuration."""

from __future__ import annotations

from typing import Any

from airflow_provider_wassly.airflow_compat import versions


def default_deferrable() -> bool:
    """Return the setting ``[operators] default_deferrable``."""
    return bool(conf().getboolean("operators", "default_deferrable", fallback=False))


def conf() -> Any:
    """Return Airflow's configuration."""
    return versions.first_of("conf", "airflow.sdk.configuration", "airflow.configuration")


def seconds_after_sigterm() -> float:
    """Return how many seconds a task has for cleaning up after SIGTERM."""
    if versions.IS_AIRFLOW_2:
        return float(max(1, conf().getint("core", "killed_task_cleanup_time") - 5))
    return 4.0  # of the 5 seconds that the supervisor waits
