"""Where a task keeps what has to outlive one of its attempts."""

from __future__ import annotations

import contextvars
import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from airflow_provider_wassly import _compat

log = logging.getLogger(__name__)

T = TypeVar("T")


class Store(Protocol):
    """Keeps one value. Every method raises when it could not do its work."""

    def get(self) -> dict[str, Any] | None:
        """Return the value, ``None`` if there is none."""
        ...

    def set(self, value: dict[str, Any]) -> None:
        """Keep a value in place of the one before."""
        ...

    def delete(self) -> None:
        """Remove the value."""
        ...


class TaskStateStore:
    """Airflow 3.3+: the state of the task instance, which survives its tries and goes with its DAG run."""

    def __init__(self, accessor: Any, key: str) -> None:
        self._accessor = accessor
        self._key = key

    def get(self) -> dict[str, Any] | None:
        """Return the value."""
        value: dict[str, Any] | None = self._accessor.get(self._key)
        return value

    def set(self, value: dict[str, Any]) -> None:
        """Keep a value."""
        self._accessor.set(self._key, value, retention=_compat.never_expire())

    def delete(self) -> None:
        """Remove the value."""
        self._accessor.delete(self._key)


class VariableStore:
    """Airflow before 3.3: a Variable of the task instance."""

    def __init__(self, ti: Any, name: str) -> None:
        identity = json.dumps(_identity(ti)).encode()
        self._key = f"{name}__{hashlib.sha256(identity).hexdigest()}"

    def get(self) -> dict[str, Any] | None:
        """Return the value."""
        text = _compat.get_variable(self._key)
        return None if text is None else json.loads(text)

    def set(self, value: dict[str, Any]) -> None:
        """Keep a value."""
        _compat.set_variable(
            self._key, json.dumps(value), "Which Wassly messages were sent. Removed when the task succeeds."
        )

    def delete(self) -> None:
        """Remove the value."""
        _compat.delete_variable(self._key)


def store_of(context: Any, name: str) -> Store | None:
    """Return the store of the running task for a value; ``None`` where no task is running."""
    ti = context.get("ti")
    if ti is None:
        return None
    accessor = context.get("task_state_store")
    return VariableStore(ti, name) if accessor is None else TaskStateStore(accessor, name)


def forget_after_success(context: Any, names: Callable[[], Iterable[str]]) -> None:
    """
    Have Variables removed when Airflow knows that the task of ``context`` has succeeded.

    By a listener and not a success callback: Airflow 2 runs those before it has written down the success, and until
    then a next try may need the record.

    :param names: of the values, as :func:`store_of` got them.
    """
    ti = context.get("ti")
    if _compat.HAS_TASK_STATE_STORE or ti is None:
        return
    identity = _identity(ti)

    def forget(ended: Any) -> None:
        if _identity(ended) == identity:
            try:
                for name in names():
                    VariableStore(ti, name).delete()
            except Exception as error:
                log.warning("The Variable of the send record could not be removed: %s: %s", type(error).__name__, error)

    _compat.listen_for_success(forget)


def _identity(ti: Any) -> list[Any]:
    return [ti.dag_id, ti.run_id, ti.task_id, ti.map_index]


def in_one_piece(access: Callable[[], T]) -> T:
    """
    Read or write in a thread of its own and wait for its end, come what may.

    A signal (``execution_timeout``, SIGTERM on Airflow 2) raises in the main thread. In the middle of
    it, the record, or the task's channel to Airflow, would be left in a state that nobody knows.
    """
    results: list[T] = []
    failures: list[BaseException] = []
    done = threading.Event()

    def work() -> None:
        try:
            results.append(access())
        except BaseException as error:
            failures.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), name="wassly-send-record")
    interruption: BaseException | None = None
    while not done.is_set():
        try:
            if thread.ident is None:
                thread.start()
            done.wait()
        except RuntimeError:
            if thread.ident is None:  # the system gives no thread
                raise
        except BaseException as error:
            interruption = interruption or error
    if interruption is not None:
        raise interruption
    if failures:
        raise failures[0]
    return results[0]
