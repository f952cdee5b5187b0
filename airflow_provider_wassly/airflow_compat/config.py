"""What Airflow's configuration says."""

from __future__ import annotations

from typing import Any

from airflow_provider_wassly.airflow_compat import versions


def default_deferrable() -> bool:
    """Return what ``[operators] default_deferrable`` says."""
    return bool(conf().getboolean("operators", "default_deferrable", fallback=False))


def conf() -> Any:
    """Return Airflow's configuration."""
    return versions.first_of("conf", "airflow.sdk.configuration", "airflow.configuration")


def seconds_after_sigterm() -> float:
    """Return how long a task that is stopped may still take for putting things in order."""
    if versions.IS_AIRFLOW_2:
        return float(max(1, conf().getint("core", "killed_task_cleanup_time") - 5))
    return 4.0  # of the 5 that the supervisor waits
