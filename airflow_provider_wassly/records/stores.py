"""Where a task keeps values that outlive an attempt."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from typing import Any, Protocol

from airflow_provider_wassly.airflow_compat import tasks, variables, versions

log = logging.getLogger(__name__)


class Store(Protocol):
    """Keeps one value. Every method raises an exception if it fails."""

    #: Whether processes of other attempts can write to it.
    is_shared: bool

    def get(self) -> dict[str, Any] | None:
        """
        Return the value, ``None`` if there is none.

        :raises ValueError: when :meth:`set` did not write the value.
        """
        ...

    def set(self, value: dict[str, Any]) -> None:
        """Replace the value."""
        ...

    def delete(self) -> None:
        """Remove the value."""
        ...


class TaskStateStore:
    """Airflow 3.3+: the state of the task instance. It survives retries and is deleted with the DAG run."""

    #: Airflow accepts writes of the live try only.
    is_shared = False

    def __init__(self, accessor: Any, key: str) -> None:
        self._accessor = accessor
        self._key = key

    def get(self) -> dict[str, Any] | None:
        """Return the value."""
        missing = object()
        value = self._accessor.get(self._key, default=missing)
        return None if value is missing else _checked(value)

    def set(self, value: dict[str, Any]) -> None:
        """Replace the value."""
        self._accessor.set(self._key, value, retention=variables.never_expire())

    def delete(self) -> None:
        """Remove the value."""
        self._accessor.delete(self._key)


class VariableStore:
    """A Variable per task instance: before Airflow 3.3, and from 3.4 on for values that must survive clearing."""

    is_shared = True

    def __init__(self, ti: Any, name: str) -> None:
        identity = json.dumps(_identity(ti)).encode()
        self._key = f"{name}__{hashlib.sha256(identity).hexdigest()}"

    def get(self) -> dict[str, Any] | None:
        """Return the value."""
        text = variables.get_variable(self._key)
        return None if text is None else _checked(json.loads(text))

    def set(self, value: dict[str, Any]) -> None:
        """Replace the value."""
        variables.set_variable(
            self._key, json.dumps(value), "Which Wassly messages were sent. Removed when the task succeeds."
        )

    def delete(self) -> None:
        """Remove the value."""
        variables.delete_variable(self._key)


def _checked(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"it is of type {type(value).__name__}")
    return value


def store_of(context: Any, name: str, *, outlives_clear: bool = False) -> Store | None:
    """
    Return the store for a value of the running task, ``None`` if no task is running.

    :param outlives_clear: whether the value must survive clearing the task.
    """
    ti = context.get("ti")
    if ti is None:
        return None
    accessor = context.get("task_state_store")
    if accessor is None or (outlives_clear and not versions.CLEARING_KEEPS_TASK_STATE):
        return VariableStore(ti, name)
    return TaskStateStore(accessor, name)


def when_it_ends(context: Any, remove: Callable[[bool], None]) -> None:
    """
    Call ``remove`` once Airflow has recorded the end of the task of ``context``.

    A listener calls it, not a callback: Airflow 2 runs callbacks before it records the success, and until then another
    try may need the record.

    :param remove: receives whether the task succeeded. Its exceptions are logged.
    """
    ti = context.get("ti")
    if ti is None:
        return
    identity = _identity(ti)

    def tell(ended: Any, succeeded: bool) -> None:
        if _identity(ended) == identity:
            try:
                remove(succeeded)
            except Exception as error:
                log.warning("Could not remove the send record: %s: %s", type(error).__name__, error)

    tasks.listen_for_end(tell)


def _identity(ti: Any) -> list[Any]:
    # The tasks of a loop (Airflow 3.4) have the same name and index in each iteration.
    region = getattr(ti, "region_id", None)
    is_in_loop = region is not None and getattr(region, "int", 1) != 0
    return [ti.dag_id, ti.run_id, ti.task_id, ti.map_index, *([str(region)] if is_in_loop else [])]
