"""Where a task keeps what has to outlive one of its attempts."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from typing import Any, Protocol

from airflow_provider_wassly.airflow_compat import tasks, variables, versions

log = logging.getLogger(__name__)


class Store(Protocol):
    """Keeps one value. Every method raises when it could not do its work."""

    #: Whether processes of other attempts of the task can write to it.
    is_shared: bool

    def get(self) -> dict[str, Any] | None:
        """
        Return the value, ``None`` if there is none.

        :raises ValueError: when it is nothing that :meth:`set` wrote.
        """
        ...

    def set(self, value: dict[str, Any]) -> None:
        """Keep a value in place of the one before."""
        ...

    def delete(self) -> None:
        """Remove the value."""
        ...


class TaskStateStore:
    """Airflow 3.3+: the state of the task instance, which survives its tries and goes with its DAG run."""

    #: Airflow refuses the writes of all but the live try.
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
        """Keep a value."""
        self._accessor.set(self._key, value, retention=variables.never_expire())

    def delete(self) -> None:
        """Remove the value."""
        self._accessor.delete(self._key)


class VariableStore:
    """A Variable of the task instance: before Airflow 3.3, and for what has to outlive a clear from 3.4 on."""

    is_shared = True

    def __init__(self, ti: Any, name: str) -> None:
        identity = json.dumps(_identity(ti)).encode()
        self._key = f"{name}__{hashlib.sha256(identity).hexdigest()}"

    def get(self) -> dict[str, Any] | None:
        """Return the value."""
        text = variables.get_variable(self._key)
        return None if text is None else _checked(json.loads(text))

    def set(self, value: dict[str, Any]) -> None:
        """Keep a value."""
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
    Return the store of the running task for a value; ``None`` where no task is running.

    :param outlives_clear: whether the value has to be there when somebody has cleared the task.
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
    Have ``remove`` called when Airflow knows that the task of ``context`` has ended.

    By a listener and not a callback: Airflow 2 runs callbacks before it has written down the success, and until then a
    next try may need the record.

    :param remove: is told whether the task has succeeded. What it raises is logged.
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
    # Tasks of a loop (3.4) have the same names and indexes in each iteration.
    region = getattr(ti, "region_id", None)
    is_in_loop = region is not None and getattr(region, "int", 1) != 0
    return [ti.dag_id, ti.run_id, ti.task_id, ti.map_index, *([str(region)] if is_in_loop else [])]
