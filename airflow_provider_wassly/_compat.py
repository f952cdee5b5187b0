"""The one place that knows Airflow's versions (2.11 to 3.3)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import BaseHook, BaseOperator
    from airflow.sdk.definitions.context import Context
else:
    try:
        from airflow.sdk import BaseOperator
    except ImportError:  # 2.11
        from airflow.models.baseoperator import BaseOperator
    try:
        from airflow.sdk import BaseHook
    except ImportError:  # 2.11 and 3.0
        from airflow.hooks.base import BaseHook

__all__ = [
    "BaseHook",
    "BaseOperator",
    "Context",
    "fail_exception",
    "mask_secret",
    "object_storage_path",
    "render_to_string",
    "skip_exception",
]


def _first_of(name: str, *modules: str) -> Any:
    """Return ``name`` from the first module that has it; the newest Airflow's module stands first."""
    for module in modules:
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"no {name} in {', '.join(modules)}")


def fail_exception(message: str) -> Exception:
    """Return the exception that fails a task without using its retries."""
    exception: Exception = _first_of("AirflowFailException", "airflow.sdk.exceptions", "airflow.exceptions")(message)
    return exception


def skip_exception(message: str) -> Exception:
    """Return the exception that skips a task."""
    exception: Exception = _first_of("AirflowSkipException", "airflow.sdk.exceptions", "airflow.exceptions")(message)
    return exception


def mask_secret(secret: str) -> None:
    """Have Airflow replace ``secret`` in logs and rendered fields from now on."""
    _first_of("mask_secret", "airflow.sdk.log", "airflow.utils.log.secrets_masker")(secret)


def object_storage_path(uri: str, conn_id: str | None) -> Any:
    """Return Airflow's path object for ``uri``."""
    return _first_of("ObjectStoragePath", "airflow.sdk", "airflow.io.path")(uri, conn_id=conn_id)


def render_to_string(template: Any, context: Context) -> str:
    """Render a Jinja template as text, whatever the DAG says about native objects."""
    render = _first_of("render_template_to_string", "airflow.sdk.definitions.context", "airflow.utils.helpers")
    text: str = render(template, context)
    return text
