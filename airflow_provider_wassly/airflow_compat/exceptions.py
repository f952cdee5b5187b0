"""The exceptions with which a task tells Airflow how it ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_wassly.airflow_compat import versions


def fail_exception(message: str) -> Exception:
    """Return the exception that fails a task without using its retries."""
    exception: Exception = versions.first_of("AirflowFailException", "airflow.sdk.exceptions", "airflow.exceptions")(
        message
    )
    return exception


def skip_exception(message: str) -> Exception:
    """Return the exception that skips a task."""
    exception: Exception = versions.first_of("AirflowSkipException", "airflow.sdk.exceptions", "airflow.exceptions")(
        message
    )
    return exception


def not_found_exceptions() -> tuple[type[Exception], ...]:
    """Return the exceptions that Airflow raises when a connection does not exist."""
    return (versions.first_of("AirflowNotFoundException", "airflow.sdk.exceptions", "airflow.exceptions"),)


def sensor_timeout(message: str) -> Exception:
    """Return the exception that ends a sensor after its timeout."""
    exception: Exception = versions.first_of("AirflowSensorTimeout", "airflow.sdk.exceptions", "airflow.exceptions")(
        message
    )
    return exception


def what_ends_a_sensor() -> tuple[type[BaseException], ...]:
    """Return the exceptions of a poke that ``silent_fail`` does not swallow and ``soft_fail`` turns into a skip."""
    return tuple(
        versions.first_of(name, "airflow.sdk.exceptions", "airflow.exceptions")
        for name in ("AirflowSensorTimeout", "AirflowTaskTimeout", "AirflowFailException")
    )


def deferral_error() -> type[Exception]:
    """Return the exception that a deferred task gets when its trigger failed or timed out."""
    error: type[Exception] = versions.first_of("TaskDeferralError", "airflow.sdk.exceptions", "airflow.exceptions")
    return error


def has_deferral_timed_out(method_name: str, kwargs: Mapping[str, Any] | None) -> bool:
    """Return whether a deferred task resumes because its deferral reached its ``timeout``."""
    return method_name == "__fail__" and (kwargs or {}).get("error") in ("Trigger timeout", "Trigger/execution timeout")
