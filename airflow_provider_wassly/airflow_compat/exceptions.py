"""The exceptions by which a task tells Airflow how it ends."""

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
    """Return the exceptions that mean that there is no such connection."""
    return (versions.first_of("AirflowNotFoundException", "airflow.sdk.exceptions", "airflow.exceptions"),)


def sensor_timeout(message: str) -> Exception:
    """Return the exception that ends a sensor whose time is over."""
    exception: Exception = versions.first_of("AirflowSensorTimeout", "airflow.sdk.exceptions", "airflow.exceptions")(
        message
    )
    return exception


def what_ends_a_sensor() -> tuple[type[BaseException], ...]:
    """Return the exceptions of a poke that ``silent_fail`` does not pass over, and that ``soft_fail`` makes a skip."""
    return tuple(
        versions.first_of(name, "airflow.sdk.exceptions", "airflow.exceptions")
        for name in ("AirflowSensorTimeout", "AirflowTaskTimeout", "AirflowFailException")
    )


def deferral_error() -> type[Exception]:
    """Return the exception that a deferred task is resumed with when its trigger did not end by itself."""
    error: type[Exception] = versions.first_of("TaskDeferralError", "airflow.sdk.exceptions", "airflow.exceptions")
    return error


def has_deferral_timed_out(method_name: str, kwargs: Mapping[str, Any] | None) -> bool:
    """Tell whether a deferred task is resumed because the ``timeout`` of its deferral is over."""
    return method_name == "__fail__" and (kwargs or {}).get("error") in ("Trigger timeout", "Trigger/execution timeout")
