"""Airflow's metrics."""

from __future__ import annotations

from typing import Any

from airflow_provider_wassly.airflow_compat import versions


def count(name: str, number: int = 1, *, tags: dict[str, str]) -> None:
    """Add a number to a counter in Airflow's metrics."""
    _stats().incr(name, number, tags=tags)


def gauge(name: str, value: float, tags: dict[str, str]) -> None:
    """Set a gauge in Airflow's metrics."""
    _stats().gauge(name, value, tags=tags)


def _stats() -> Any:
    return versions.first_of("Stats", "airflow.sdk.observability.stats", "airflow.stats")
