"""The running task, its run and its pages."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

from airflow_provider_wassly.airflow_compat import config, variables, versions


def task_url(ti: Any) -> str | None:
    """Return the address of the page with the log of a task's try."""
    url: str | None = getattr(ti, "log_url", None)
    if url and not versions.IS_AIRFLOW_2:
        # 3.0 puts no slash after a base URL without one.
        base = (config.conf().get("api", "base_url", fallback=None) or "").rstrip("/")
        if base and url.startswith(f"{base}dags/"):
            url = f"{base}/{url[len(base) :]}"
    return url


def run_url(dag_id: str, run_id: str) -> str | None:
    """Return the address of the page of a DAG run, ``None`` where no base URL is set."""
    section = "webserver" if versions.IS_AIRFLOW_2 else "api"
    base = config.conf().get(section, "base_url", fallback=None)
    if not base:
        return None
    page = f"grid?dag_run_id={quote(run_id, safe='')}" if versions.IS_AIRFLOW_2 else f"runs/{quote(run_id, safe='')}"
    return f"{base.rstrip('/')}/dags/{dag_id}/{page}"


def task_states(dag_run: Any, dag_id: str, run_id: str, task_ids: Iterable[str]) -> list[tuple[str, str | None]]:
    """
    Return task id and state of each task instance of a run. For DAG callbacks.

    :param task_ids: those of the DAG; on Airflow 3 a mapped task's is told from its index by them.
    :raises Exception: when Airflow does not tell.
    """
    if versions.IS_AIRFLOW_2:
        return [(ti.task_id, ti.state) for ti in dag_run.get_task_instances()]
    if versions.VERSION < (3, 1):
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
    if versions.IS_AIRFLOW_2:
        run = getattr(context.get("dag_run"), "id", None)
        return None, None if run is None else str(run)
    instance = getattr(context["ti"], "id", None)
    return None if instance is None else str(instance), None


def runs_here(ti: Any) -> bool:
    """Tell whether this process runs the task instance, and does not just render its templates to show them."""
    return bool(getattr(ti, "pid", None) == os.getpid()) if versions.IS_AIRFLOW_2 else variables.can_reach_airflow()


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

    versions.first_of("get_listener_manager", "airflow.sdk.listener", "airflow.listeners.listener")().add_listener(
        Listener()
    )


def _knows_the_end(ti: Any, *expected: str) -> bool:
    """
    Tell whether Airflow has this task instance in one of the expected states.

    From 3.2 on, listeners are also called when the report of the end was lost, or refused because Airflow has given up
    this attempt. Then another attempt follows.
    """
    if versions.VERSION < (3, 2):
        return True
    states = ti.get_task_states(dag_id=ti.dag_id, map_index=ti.map_index, task_ids=[ti.task_id], run_ids=[ti.run_id])
    return any(state in expected for state in states.get(ti.run_id, {}).values())
