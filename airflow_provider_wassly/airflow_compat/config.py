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


def has_fernet_key() -> bool:
    """
    Return whether this process's configuration has a key to encrypt with.

    On Airflow 2, a task encrypts a Variable with it. From 3.0 on, the API server does, with its own key, which a task
    cannot see; the two normally have the same configuration.
    """
    key = conf().get("core", "fernet_key", fallback="")
    # From 3.2 on, tasks do not expand the default, which is a placeholder in braces.
    return bool(key) and key != "{FERNET_KEY}"


def seconds_after_sigterm() -> float:
    """Return how many seconds a task has for cleaning up after SIGTERM."""
    if versions.IS_AIRFLOW_2:
        return float(max(1, conf().getint("core", "killed_task_cleanup_time") - 5))
    return 4.0  # of the 5 seconds that the supervisor waits
