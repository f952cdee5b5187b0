"""A task and its tries, run as Airflow does, in the test's process."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

from airflow_provider_wassly.airflow_compat import exceptions, versions
from tests.support.kept import Kept

log = logging.getLogger("airflow.task")

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2.11
    from airflow.models.dag import DAG  # type: ignore[no-redef]

TaskDeferred = versions.first_of("TaskDeferred", "airflow.sdk.exceptions", "airflow.exceptions")


class Stopped(BaseException):
    """Stands for what Airflow raises in a running task: its execution timeout, or SIGTERM on 2.11."""


class Ended:
    """How a try ended: its return value, or the error and what it pushed anyway."""

    def __init__(self, returned: dict[str, Any] | None, error: BaseException | None, pushed: dict[str, Any]) -> None:
        self.returned = returned
        self.pushed = pushed
        self._error = error

    @property
    def error(self) -> BaseException:
        assert self._error is not None, f"it succeeded: {self.returned}"
        return self._error

    @property
    def summary(self) -> dict[str, Any]:
        found = self.returned if self._error is None else self.pushed["return_value"]
        assert found is not None
        return found

    @property
    def counts(self) -> dict[str, int]:
        """Of a broadcast: the outcomes that occurred."""
        outcomes = ("accepted", "failed", "invalid", "unknown", "duplicate", "excluded", "not_sent")
        return {outcome: self.summary[outcome] for outcome in outcomes if self.summary[outcome]}


class Task:
    """
    A task of one DAG run and its tries, with what Airflow stores for them.

    :param operator: the operator class.
    :param state: the task's state as on Airflow 3.3; ``None`` for Variables.
    :param listeners: called when it ends.
    :param arguments: the operator's arguments, unless a try overrides them.
    """

    def __init__(
        self,
        operator: Callable[..., Any],
        state: Kept | None = None,
        listeners: list[Callable[[Any, bool], None]] | None = None,
        **arguments: Any,
    ) -> None:
        self.retries = 2
        self._make = operator
        self._arguments = arguments
        self._state = state
        self._listeners = [] if listeners is None else listeners
        self._try_number = 0
        self._made = 1
        self._max_tries = self.retries
        self.map_index = -1
        self.dag_options: dict[str, Any] = {}
        #: Whether Airflow learns of a success, and its API answers when the task pushes something.
        self.airflow_answers = True
        self.operator: Any = None
        #: How the last process ended, if it gave up its worker slot.
        self.deferral: Any = None
        #: Whether each try has a process of its own, and with it ends whatever listens in that.
        self.has_own_processes = True
        #: Once set, the task runs again only if it is cleared.
        self.has_succeeded = False

    def run(self, **arguments: Any) -> Ended:
        """Run the first try, or the next one as after a failure."""
        self._try_number += 1
        return self.again(**arguments)

    def resume(self, event: Any = None, **arguments: Any) -> Ended:
        """Resume the try that has been deferred, in a new process."""
        deferral = self.deferral
        assert deferral is not None

        def go_on(operator: Any, context: Any) -> Any:
            return getattr(operator, deferral.method_name)(context, event, **deferral.kwargs or {})

        return self.again(go_on, next_method=deferral.method_name, **arguments)

    def again(
        self, execute: Callable[[Any, Any], Any] | None = None, *, next_method: str | None = None, **arguments: Any
    ) -> Ended:
        """Run the same try again, as Airflow 3.4 does when a retry policy says so."""
        self.deferral = None
        if self.has_own_processes:
            self._listeners.clear()
        with DAG(
            "campaign", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), **self.dag_options
        ) as dag:
            operator = self._make(task_id="send", retries=self.retries, **{**self._arguments, **arguments})
        self.operator = operator
        pushed: dict[str, Any] = {}

        def push(key: str, value: Any) -> None:
            if not self.airflow_answers:
                raise ConnectionError("409: the task was cleared")
            pushed[key] = value

        ti = task_instance(
            dag_id="campaign",
            id=f"{self._made}/{self._try_number}",
            try_number=self._try_number,
            max_tries=self._max_tries,
            map_index=self.map_index,
            task=operator,
            xcom_push=push,
            next_method=next_method,
        )
        context: Any = {"dag": dag, "task": operator, "ti": ti, "ds": "2026-11-24", "run_id": ti.run_id}
        context["dag_run"] = SimpleNamespace(id=self._made)
        if self._state is not None:
            context["task_state_store"] = self._state.task_state_store()
        try:
            operator.render_template_fields(context)
            returned = operator.execute(context) if execute is None else execute(operator, context)
        except TaskDeferred as deferral:
            self.deferral = deferral
            return Ended(None, deferral, pushed)
        except BaseException as error:
            if not isinstance(error, (Exception, Stopped)):
                raise
            log.error("Task failed with exception", exc_info=error)
            if isinstance(error, type(exceptions.fail_exception(""))) or self._try_number > self._max_tries:
                self._tell_of_the_end(ti, False)
            return Ended(None, error, pushed)
        self._tell_of_the_end(ti, True)
        return Ended(returned, None, pushed)

    def _tell_of_the_end(self, ti: Any, succeeded: bool) -> None:
        self.has_succeeded = succeeded
        for tell in self._listeners if self.airflow_answers else []:
            tell(ti, succeeded)
        self._listeners.clear()

    def make_again(self) -> None:
        """Delete the run: the next run is the first try of a new one with the same names."""
        self._made += 1
        self._try_number, self._max_tries = 0, self.retries

    def clear(self) -> None:
        """Clear the task: the next run is its first one after that."""
        self._max_tries = self._try_number + self.retries

    def kill(self) -> None:
        """Stop the task, as Airflow's signal handler does."""
        if self.operator is not None:
            self.operator.on_kill()

    def kept(self) -> str:
        """The contents of its state."""
        return json.dumps(self._state.values if self._state else {})


def task_instance(**values: Any) -> Any:
    """Return a ``ti`` for a context: the first try of a task with two retries, updated with ``values``."""
    usual = {"dag_id": "d", "run_id": "r", "task_id": "send", "map_index": -1, "max_tries": 2, "try_number": 1}
    ti = SimpleNamespace(**{**usual, "task": SimpleNamespace(retries=2), **values})
    if "id" not in values:
        # Each try has its own, and keeps it when Airflow runs the try again.
        ti.id = f"{ti.dag_id}/{ti.run_id}/{ti.task_id}/{ti.map_index}/{ti.try_number}"
    return ti
