"""Airflow's classes that ours derive from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_wassly.airflow_compat import versions

if TYPE_CHECKING:
    from airflow.sdk import BaseHook, BaseNotifier, BaseOperator, BaseSensorOperator, PokeReturnValue
    from airflow.sdk.definitions.context import Context
    from airflow.triggers.base import BaseTrigger, TriggerEvent

__all__ = [
    "BaseHook",
    "BaseNotifier",
    "BaseOperator",
    "BaseSensorOperator",
    "BaseTrigger",
    "Context",
    "PokeReturnValue",
    "TriggerEvent",
]


_BASES = {
    "BaseHook": ("airflow.sdk", "airflow.hooks.base"),
    "BaseNotifier": ("airflow.sdk", "airflow.notifications.basenotifier"),
    "BaseOperator": ("airflow.sdk", "airflow.models.baseoperator"),
    "BaseSensorOperator": ("airflow.sdk", "airflow.sensors.base"),
    "BaseTrigger": ("airflow.triggers.base",),
    "PokeReturnValue": ("airflow.sdk", "airflow.sensors.base"),
    "TriggerEvent": ("airflow.triggers.base",),
}


def __getattr__(name: str) -> Any:
    """Import a base class only when it is needed, so that an operator does not import hooks and sensors."""
    if name in _BASES:
        return versions.first_of(name, *_BASES[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
