"""What Airflow stores for a task, in memory, with writes that can fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from airflow_provider_wassly.airflow_compat import versions
from airflow_provider_wassly.records.stores import Store

#: Whether a running task's context holds ``task_state_store`` on this Airflow.
HAS_TASK_STATE_STORE = versions.VERSION >= (3, 3)


class Kept:
    """
    Values by key, stored as text as in a database.

    The package sees it as a store (:meth:`store`), as a context's ``task_state_store`` (:meth:`task_state_store`) or as
    Airflow's Variables (:class:`tests.support.variables.Variables`).
    """

    def __init__(self, values: dict[str, str] | None = None) -> None:
        self.values = dict(values or {})
        #: The keys of all accesses, in order.
        self.reads: list[str] = []
        self.writes: list[str] = []
        #: An exception for every access to raise.
        self.failure: Exception | None = None
        #: The writes that fail, by number -> whether they take effect anyway.
        self.failing_writes: dict[int, bool] = {}
        #: Called with ``read``, ``write`` (before it takes effect) and ``written``.
        self.on_event: Callable[[str], None] = lambda what: None
        #: Whether other attempts can write here too, as with Variables.
        self.is_shared = False

    def get(self, key: str) -> str | None:
        self.reads.append(key)
        self.on_event("read")
        self._fail()
        return self.values.get(key)

    def set(self, key: str, value: str) -> None:
        with_effect, fails = self._begin_to_write(key)
        if with_effect:
            self.values[key] = value
        self._end_writing(fails)

    def delete(self, key: str) -> None:
        with_effect, fails = self._begin_to_write(key)
        if with_effect:
            self.values.pop(key, None)
        self._end_writing(fails)

    def store(self, name: str) -> Store:
        """Return the store of one value."""
        return _Store(self, name)

    def task_state_store(self) -> TaskState:
        """Return it with the interface of the one in Airflow 3.3's context."""
        return TaskState(self)

    def _begin_to_write(self, key: str) -> tuple[bool, bool]:
        self.on_event("write")
        place = len(self.writes)
        self.writes.append(key)
        self._fail()
        return self.failing_writes.get(place, True), place in self.failing_writes

    def _end_writing(self, fails: bool) -> None:
        self.on_event("written")
        if fails:
            raise ConnectionError("Airflow's API does not answer")

    def _fail(self) -> None:
        if self.failure:
            raise self.failure


class TaskState:
    """Has the interface of Airflow 3.3's ``task_state_store``, of which each task instance has its own."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    def get(self, key: str, default: Any = None) -> Any:
        text = self._kept.get(key)
        return default if text is None else json.loads(text)

    def set(self, key: str, value: Any, *, retention: Any) -> None:
        self._kept.set(key, json.dumps(value))

    def delete(self, key: str) -> None:
        self._kept.delete(key)


class _Store:
    def __init__(self, kept: Kept, name: str) -> None:
        self.is_shared = kept.is_shared
        self._state = kept.task_state_store()
        self._name = name

    def get(self) -> Any:
        missing = object()
        value = self._state.get(self._name, default=missing)
        if value is missing:
            return None
        if not isinstance(value, dict):
            raise ValueError(f"it is of type {type(value).__name__}")
        return value

    def set(self, value: Any) -> None:
        self._state.set(self._name, value, retention=None)

    def delete(self) -> None:
        self._state.delete(self._name)
