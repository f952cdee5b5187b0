"""The one place that knows Airflow's versions (2.11 to 3.4)."""

from __future__ import annotations

import datetime
import importlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow import __version__ as _airflow_version

if TYPE_CHECKING:
    from airflow.sdk import BaseHook, BaseNotifier, BaseOperator, BaseSensorOperator, PokeReturnValue
    from airflow.sdk.definitions.context import Context

__all__ = [
    "CLEARING_KEEPS_TASK_STATE",
    "OUTLIVES_ITS_SUPERVISOR",
    "RUNS_TRIES_AGAIN",
    "BaseHook",
    "BaseNotifier",
    "BaseOperator",
    "BaseSensorOperator",
    "Context",
    "PokeReturnValue",
    "can_reach_airflow",
    "count",
    "default_deferrable",
    "deferral_error",
    "delete_variable",
    "depend_on",
    "fail_exception",
    "gauge",
    "get_variable",
    "has_deferral_timed_out",
    "identity",
    "listen_for_end",
    "mask_secret",
    "mask_secret_here",
    "names_in_templates",
    "never_expire",
    "not_found_exceptions",
    "object_storage_path",
    "reads_saved_connections",
    "redact",
    "render_to_string",
    "run_url",
    "runs_here",
    "seconds_after_sigterm",
    "sensor_timeout",
    "set_variable",
    "skip_exception",
    "task_states",
    "task_url",
    "what_ends_a_sensor",
]

_VERSION = tuple(map(int, _airflow_version.split(".")[:2]))
_IS_AIRFLOW_2 = _VERSION < (3, 0)

#: Whether what ``task_state_store`` holds (3.3+) survives when somebody clears the task.
CLEARING_KEEPS_TASK_STATE = _VERSION < (3, 4)

#: Whether a task that failed can run again under the same try number (``RetryAction.RESCHEDULE``).
RUNS_TRIES_AGAIN = _VERSION >= (3, 4)

#: Whether a task's process can go on, and write, after Airflow has given it up.
OUTLIVES_ITS_SUPERVISOR = _IS_AIRFLOW_2


def _first_of(name: str, *modules: str) -> Any:
    """Return ``name`` from the first module that has it; the newest Airflow's module stands first."""
    for module in modules:
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"no {name} in {', '.join(modules)}")


_BASES = {
    "BaseHook": ("airflow.sdk", "airflow.hooks.base"),
    "BaseNotifier": ("airflow.sdk", "airflow.notifications.basenotifier"),
    "BaseOperator": ("airflow.sdk", "airflow.models.baseoperator"),
    "BaseSensorOperator": ("airflow.sdk", "airflow.sensors.base"),
    "PokeReturnValue": ("airflow.sdk", "airflow.sensors.base"),
}


def __getattr__(name: str) -> Any:
    """Find a base class when it is asked for: who imports an operator does not pay for hooks and sensors."""
    if name in _BASES:
        return _first_of(name, *_BASES[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def fail_exception(message: str) -> Exception:
    """Return the exception that fails a task without using its retries."""
    exception: Exception = _first_of("AirflowFailException", "airflow.sdk.exceptions", "airflow.exceptions")(message)
    return exception


def skip_exception(message: str) -> Exception:
    """Return the exception that skips a task."""
    exception: Exception = _first_of("AirflowSkipException", "airflow.sdk.exceptions", "airflow.exceptions")(message)
    return exception


def not_found_exceptions() -> tuple[type[Exception], ...]:
    """Return the exceptions that mean that there is no such connection."""
    return (_first_of("AirflowNotFoundException", "airflow.sdk.exceptions", "airflow.exceptions"),)


def reads_saved_connections() -> bool:
    """Tell whether a connection that is saved in Airflow's database is found here."""
    if _VERSION < (3, 1) or os.environ.get("_AIRFLOW_PROCESS_CONTEXT") == "server":
        return True
    return hasattr(sys.modules.get("airflow.sdk.execution_time.task_runner"), "SUPERVISOR_COMMS")


def sensor_timeout(message: str) -> Exception:
    """Return the exception that ends a sensor whose time is over."""
    exception: Exception = _first_of("AirflowSensorTimeout", "airflow.sdk.exceptions", "airflow.exceptions")(message)
    return exception


def what_ends_a_sensor() -> tuple[type[BaseException], ...]:
    """Return the exceptions of a poke that ``silent_fail`` does not pass over, and that ``soft_fail`` makes a skip."""
    return tuple(
        _first_of(name, "airflow.sdk.exceptions", "airflow.exceptions")
        for name in ("AirflowSensorTimeout", "AirflowTaskTimeout", "AirflowFailException")
    )


def deferral_error() -> type[Exception]:
    """Return the exception that a deferred task is resumed with when its trigger did not end by itself."""
    error: type[Exception] = _first_of("TaskDeferralError", "airflow.sdk.exceptions", "airflow.exceptions")
    return error


def has_deferral_timed_out(method_name: str, kwargs: Mapping[str, Any] | None) -> bool:
    """Tell whether a deferred task is resumed because the ``timeout`` of its deferral is over."""
    return method_name == "__fail__" and (kwargs or {}).get("error") in ("Trigger timeout", "Trigger/execution timeout")


def default_deferrable() -> bool:
    """Return what ``[operators] default_deferrable`` says."""
    return bool(_conf().getboolean("operators", "default_deferrable", fallback=False))


def _conf() -> Any:
    return _first_of("conf", "airflow.sdk.configuration", "airflow.configuration")


def seconds_after_sigterm() -> float:
    """Return how long a task that is stopped may still take for putting things in order."""
    if _IS_AIRFLOW_2:
        return float(max(1, _conf().getint("core", "killed_task_cleanup_time") - 5))
    return 4.0  # of the 5 that the supervisor waits


def count(name: str, tags: dict[str, str]) -> None:
    """Add one to a counter of Airflow's metrics."""
    _stats().incr(name, tags=tags)


def gauge(name: str, value: float, tags: dict[str, str]) -> None:
    """Set a gauge of Airflow's metrics."""
    _stats().gauge(name, value, tags=tags)


def _stats() -> Any:
    return _first_of("Stats", "airflow.sdk.observability.stats", "airflow.stats")


def mask_secret(secret: str) -> None:
    """Have Airflow replace ``secret`` in logs and rendered fields from now on."""
    _first_of("mask_secret", "airflow.sdk.log", "airflow.utils.log.secrets_masker")(secret)


def mask_secret_here(secret: str) -> None:
    """Do so in this process alone, without a call to Airflow: from any thread."""
    _first_of("_secrets_masker", *_MASKERS)().add_mask(secret)


def redact(text: str) -> str:
    """Return ``text`` with ``***`` for every secret that Airflow knows of in this process."""
    return str(_first_of("redact", *_MASKERS)(text))


_MASKERS = (
    "airflow.sdk._shared.secrets_masker",
    "airflow.sdk.execution_time.secrets_masker",  # 3.0
    "airflow.utils.log.secrets_masker",  # 2.11
)


def object_storage_path(uri: str, conn_id: str | None) -> Any:
    """Return Airflow's path object for ``uri``."""
    path = _first_of("ObjectStoragePath", "airflow.sdk", "airflow.io.path")
    # Before 3.2 even a None would hide a connection that the URI itself names (s3://conn@bucket/…).
    return path(uri) if conn_id is None else path(uri, conn_id=conn_id)


def depend_on(operator: Any, value: Any) -> None:
    """Let ``operator`` run after the tasks whose output ``value`` is, as Airflow does for template fields."""
    if not getattr(operator, "_BaseOperator__from_mapped", False):  # made when it runs; its relations are known
        xcom_arg = _first_of("XComArg", "airflow.sdk.definitions.xcom_arg", "airflow.models.xcom_arg")
        xcom_arg.apply_upstream_relationship(operator, value)


def render_to_string(template: Any, context: Context) -> str:
    """Render a Jinja template as text, whatever the DAG says about native objects."""
    render = _first_of("render_template_to_string", "airflow.sdk.definitions.context", "airflow.utils.helpers")
    text: str = render(template, context)
    return text


def names_in_templates() -> set[str]:
    """Return the names that Airflow gives to templates, also those that only some runs have."""
    if _IS_AIRFLOW_2:
        return set(importlib.import_module("airflow.utils.context").KNOWN_CONTEXT_KEYS)
    return set(importlib.import_module("airflow.sdk.definitions.context").Context.__annotations__)


def never_expire() -> datetime.timedelta:
    """Return the retention of what ``task_state_store`` keeps as long as the DAG run (Airflow 3.3+)."""
    retention: datetime.timedelta = _first_of("NEVER_EXPIRE", "airflow.sdk.execution_time.context")
    return retention


def task_url(ti: Any) -> str | None:
    """Return the address of the page with the log of a task's try."""
    url: str | None = getattr(ti, "log_url", None)
    if url and not _IS_AIRFLOW_2:
        # 3.0 puts no slash after a base URL without one.
        base = (_conf().get("api", "base_url", fallback=None) or "").rstrip("/")
        if base and url.startswith(f"{base}dags/"):
            url = f"{base}/{url[len(base) :]}"
    return url


def run_url(dag_id: str, run_id: str) -> str | None:
    """Return the address of the page of a DAG run, ``None`` where no base URL is set."""
    section = "webserver" if _IS_AIRFLOW_2 else "api"
    base = _conf().get(section, "base_url", fallback=None)
    if not base:
        return None
    page = f"grid?dag_run_id={quote(run_id, safe='')}" if _IS_AIRFLOW_2 else f"runs/{quote(run_id, safe='')}"
    return f"{base.rstrip('/')}/dags/{dag_id}/{page}"


def task_states(dag_run: Any, dag_id: str, run_id: str, task_ids: Iterable[str]) -> list[tuple[str, str | None]]:
    """
    Return task id and state of each task instance of a run. For DAG callbacks.

    :param task_ids: those of the DAG; on Airflow 3 a mapped task's is told from its index by them.
    :raises Exception: when Airflow does not tell.
    """
    if _IS_AIRFLOW_2:
        return [(ti.task_id, ti.state) for ti in dag_run.get_task_instances()]
    if _VERSION < (3, 1):
        # The DAG processor does not know this question and never answers.
        raise NotImplementedError("Airflow 3.0 does not tell a DAG callback the states of the tasks")
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    known = set(task_ids)
    states = RuntimeTaskInstance.get_task_states(dag_id=dag_id, run_ids=[run_id]).get(run_id, {})
    # A mapped task's name ends in its index. One that is known to the DAG no more stays as it is.
    mapped = {name: base for name in states if name not in known and (base := name.rpartition("_")[0]) in known}
    return [(mapped.get(name, name), state) for name, state in states.items()]


def identity(context: Any) -> tuple[str | None, str | None]:
    """Return the id of the running task instance (Airflow 3) and that of its DAG run (Airflow 2)."""
    if _IS_AIRFLOW_2:
        run = getattr(context.get("dag_run"), "id", None)
        return None, None if run is None else str(run)
    instance = getattr(context["ti"], "id", None)
    return None if instance is None else str(instance), None


def runs_here(ti: Any) -> bool:
    """Tell whether this process runs the task instance, and does not just render its templates to show them."""
    return bool(getattr(ti, "pid", None) == os.getpid()) if _IS_AIRFLOW_2 else can_reach_airflow()


def listen_for_end(tell: Callable[[Any, bool], None]) -> None:
    """
    Call ``tell`` with each task instance that ends in this process, if Airflow knows that it has ended.

    Its second argument says whether it has succeeded; a failure after which Airflow retries is no end.
    """
    from airflow.listeners import hookimpl

    class Listener:
        @hookimpl
        def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None:
            if _knows_the_end(task_instance, "success"):
                tell(task_instance, True)

        @hookimpl
        def on_task_instance_failed(self, previous_state: Any, task_instance: Any) -> None:
            # Airflow notes a failure only after the process has ended.
            if task_instance.state == "failed" and _knows_the_end(task_instance, "running", "failed"):
                tell(task_instance, False)

    _first_of("get_listener_manager", "airflow.sdk.listener", "airflow.listeners.listener")().add_listener(Listener())


def _knows_the_end(ti: Any, *expected: str) -> bool:
    """
    Tell whether Airflow has this task instance in one of the expected states.

    From 3.2 on, listeners are also called when the report of the end was lost, or refused because Airflow has given up
    this attempt. Then another attempt follows.
    """
    if _VERSION < (3, 2):
        return True
    states = ti.get_task_states(dag_id=ti.dag_id, map_index=ti.map_index, task_ids=[ti.task_id], run_ids=[ti.run_id])
    return any(state in expected for state in states.get(ti.run_id, {}).values())


# Variables without Variable.get, .set and .delete, because of what those do when Airflow's database or API fails:
# get says that there is none (2.11, 3.1, 3.2), set and delete log it and return (3.x).


def can_reach_airflow() -> bool:
    """Tell whether Variables can be read and written here."""
    if _IS_AIRFLOW_2:
        return True
    from airflow.sdk.execution_time import task_runner

    if not hasattr(task_runner, "SUPERVISOR_COMMS"):
        return False  # a plain Python program
    # Before 3.2 the channel to Airflow gives answers to the wrong thread.
    return _VERSION >= (3, 2) or threading.current_thread() is threading.main_thread()


def get_variable(key: str) -> str | None:
    """
    Return the value of a Variable that Airflow itself keeps, ``None`` if there is none. For a running task.

    :raises Exception: when that cannot be found out.
    """
    if _IS_AIRFLOW_2:
        from airflow.models.variable import Variable
        from airflow.utils.session import create_session

        with create_session() as session:
            found = session.query(Variable).filter_by(key=key).one_or_none()
            if found is None:
                return None
            if found.val is None:
                raise ValueError(f"the Variable {key} cannot be decrypted; the fernet key has changed")
            text: str = found.val
            return text
    from airflow.sdk.execution_time.comms import GetVariable, VariableResult

    answer = _ask(GetVariable(key=key))
    return answer.value if isinstance(answer, VariableResult) else None


def set_variable(key: str, value: str, description: str) -> None:
    """
    Set a Variable. For a running task.

    :raises Exception: when that did not work.
    """
    if _IS_AIRFLOW_2:
        from airflow.models.variable import Variable

        Variable.set(key, value, description)
        return
    from airflow.sdk.execution_time.comms import PutVariable

    _ask(PutVariable(key=key, value=value, description=description))


def delete_variable(key: str) -> None:
    """
    Remove a Variable, if it is there. For a running task.

    :raises Exception: when that did not work.
    """
    if _IS_AIRFLOW_2:
        from airflow.models.variable import Variable

        Variable.delete(key)
        return
    from airflow.sdk.execution_time.comms import DeleteVariable

    _ask(DeleteVariable(key=key))


def _ask(request: Any) -> Any:
    """Send a request over the running task's channel to Airflow; return the answer, ``None`` for "not found"."""
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import ErrorResponse

    if not hasattr(task_runner, "SUPERVISOR_COMMS"):
        raise RuntimeError("Airflow's Variables can be reached from a running task only")
    answer = task_runner.SUPERVISOR_COMMS.send(request)
    if not isinstance(answer, ErrorResponse):
        return answer
    if answer.error == ErrorType.VARIABLE_NOT_FOUND:
        return None
    raise AirflowRuntimeError(answer)
