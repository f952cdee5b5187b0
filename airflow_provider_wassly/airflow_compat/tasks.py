"""The running task, its DAG run and their pages."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any
from urllib.parse import quote

from airflow_provider_wassly.airflow_compat import config, variables, versions


def task_url(ti: Any) -> str | None:
    """Return the URL of the page with an attempt's log, ``None`` if Airflow does not provide it."""
    url: str | None = getattr(ti, "log_url", None)
    if url and not versions.IS_AIRFLOW_2:
        # 3.0 appends to a base URL without putting a slash in between.
        base = (config.conf().get("api", "base_url", fallback=None) or "").rstrip("/")
        if base and url.startswith(f"{base}dags/"):
            url = f"{base}/{url[len(base) :]}"
    return url


def run_url(dag_id: str, run_id: str) -> str | None:
    """Return the URL of a DAG run's page, ``None`` if no base URL is set."""
    section = "webserver" if versions.IS_AIRFLOW_2 else "api"
    base = config.conf().get(section, "base_url", fallback=None)
    if not base:
        return None
    page = f"grid?dag_run_id={quote(run_id, safe='')}" if versions.IS_AIRFLOW_2 else f"runs/{quote(run_id, safe='')}"
    return f"{base.rstrip('/')}/dags/{dag_id}/{page}"


def task_states(dag_run: Any, dag_id: str, run_id: str, task_ids: Iterable[str]) -> list[tuple[str, str | None]]:
    """
    Return task id and state of each task instance in a run, for DAG callbacks.

    :param task_ids: the DAG's task ids; Airflow 3 appends the index to a mapped task's, and they tell the two apart.
    :raises Exception: when Airflow does not provide the states.
    """
    if versions.IS_AIRFLOW_2:
        return [(ti.task_id, ti.state) for ti in dag_run.get_task_instances()]
    if versions.VERSION < (3, 1):
        # The DAG processor does not know this request and never answers it.
        raise NotImplementedError("Airflow 3.0 does not provide the task states to a DAG callback")
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    known = set(task_ids)
    states = RuntimeTaskInstance.get_task_states(dag_id=dag_id, run_ids=[run_id]).get(run_id, {})
    # A mapped task's name ends in its index. A task that the DAG no longer has keeps its name.
    mapped = {name: base for name in states if name not in known and (base := name.rpartition("_")[0]) in known}
    return [(mapped.get(name, name), state) for name, state in states.items()]


def identity(context: Any) -> tuple[str | None, str | None]:
    """Return the running task instance's id (Airflow 3) and its DAG run's id (Airflow 2)."""
    if versions.IS_AIRFLOW_2:
        run = getattr(context.get("dag_run"), "id", None)
        return None, None if run is None else str(run)
    instance = getattr(context["ti"], "id", None)
    return None if instance is None else str(instance), None


def resumes(ti: Any) -> bool:
    """Return whether the task instance was deferred and resumes (Airflow 2). It keeps its try number meanwhile."""
    return getattr(ti, "next_method", None) is not None


def trigger_at(moment: datetime) -> Any:
    """Return a trigger that waits until a moment. After a restart of the triggerer, it waits for the same moment."""
    return versions.first_of(
        "DateTimeTrigger", "airflow.providers.standard.triggers.temporal", "airflow.triggers.temporal"
    )(moment)


def runs_here(ti: Any) -> bool:
    """Return whether this process runs the task instance, rather than only rendering its templates for a page."""
    return bool(getattr(ti, "pid", None) == os.getpid()) if versions.IS_AIRFLOW_2 else variables.can_reach_airflow()


def listen_for_end(tell: Callable[[Any, bool], None]) -> None:
    """
    Call ``tell`` for each task instance that ends in this process, once Airflow has recorded its end.

    A failure that Airflow retries is not an end.

    :param tell: called with the task instance and whether it succeeded.
    """
    from airflow.listeners import hookimpl

    class Listener:
        @hookimpl
        def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None:
            if _knows_the_end(task_instance, "success"):
                tell(task_instance, True)

        @hookimpl
        def on_task_instance_failed(self, previous_state: Any, task_instance: Any) -> None:
            # Airflow records a failure only after the process has ended.
            if task_instance.state == "failed" and _knows_the_end(task_instance, "running", "failed"):
                tell(task_instance, False)

    versions.first_of("get_listener_manager", "airflow.sdk.listener", "airflow.listeners.listener")().add_listener(
        Listener()
    )


def _knows_the_end(ti: Any, *expected: str) -> bool:
    """
    Return whether Airflow has recorded one of the expected states for this task instance.

    From 3.2 on, Airflow also calls listeners when the report of the end was lost, or refused because Airflow has given
    up this attempt. Then another attempt follows.
    """
    if versions.VERSION < (3, 2):
        return True
    states = ti.get_task_states(dag_id=ti.dag_id, map_index=ti.map_index, task_ids=[ti.task_id], run_ids=[ti.run_id])
    return any(state in expected for state in states.get(ti.run_id, {}).values())
