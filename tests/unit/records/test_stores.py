"""Where a task stores what has to outlive an attempt."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from airflow_provider_wassly.airflow_compat import tasks, variables, versions
from airflow_provider_wassly.records.stores import TaskStateStore, VariableStore, store_of, when_it_ends
from tests.support.kept import HAS_TASK_STATE_STORE, Kept
from tests.support.task import task_instance
from tests.support.variables import Variables


@pytest.mark.skipif(not HAS_TASK_STATE_STORE, reason="this Airflow has no task_state_store")
def test_the_state_of_a_task_is_kept_as_long_as_its_run() -> None:
    kept: list[tuple[str, Any, Any]] = []

    class State:
        def set(self, key: str, value: Any, *, retention: Any) -> None:
            kept.append((key, value, retention))

    TaskStateStore(State(), "record").set({"a": 1})
    assert kept == [("record", {"a": 1}, variables.never_expire())]


def test_each_value_is_removed_by_its_own_name() -> None:
    kept = Kept({"record": '{"a": 1}', "another": '{"a": 2}'})
    store = TaskStateStore(kept.task_state_store(), "record")
    assert store.get() == {"a": 1}
    store.delete()
    assert kept.values == {"another": '{"a": 2}'}
    assert store.get() is None


def test_a_variable_says_what_it_is_and_when_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(variables, "set_variable", lambda key, value, description: told.append(description))
    VariableStore(task_instance(), "record").set({})
    assert told == ["Which Wassly messages were sent. Removed when the task succeeds."]


def test_where_no_task_runs_nothing_is_kept() -> None:
    assert store_of({}, "record") is None


@pytest.fixture
def listeners(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    added: list[Any] = []
    monkeypatch.setattr(tasks, "listen_for_end", added.append)
    return added


def test_outside_of_a_loop_a_region_makes_no_other_record(listeners: list[Any]) -> None:
    """In Airflow 3.4 every task instance has a region; in a loop, its id is not zero."""
    outside, inside = uuid.UUID(int=0), uuid.UUID(int=7)
    told: list[bool] = []
    when_it_ends({"ti": task_instance()}, told.append)
    (tell,) = listeners
    tell(task_instance(region_id=inside), True)
    assert told == []
    tell(task_instance(region_id=outside), True)
    tell(task_instance(region_id=None), True)
    assert told == [True, True]


@pytest.mark.skipif(versions.VERSION < (3, 2), reason="before Airflow 3.2 nobody is told of an end that was not noted")
@pytest.mark.parametrize("map_index", [-1, 4])
@pytest.mark.parametrize("end", ["success", "failed"])
def test_an_end_that_airflow_has_not_noted_is_none(end: str, map_index: int) -> None:
    noted: dict[str, str] = {}

    def get_task_states(*, dag_id: str, map_index: int, task_ids: list[str], run_ids: list[str]) -> dict[str, Any]:
        assert (dag_id, task_ids, run_ids) == ("d", ["send"], ["r"])
        name = "send" if map_index == -1 else f"send_{map_index}"
        return {"r": {name: noted["state"]}} if noted else {}

    ti = task_instance(state=end, map_index=map_index, get_task_states=get_task_states)
    told: list[bool] = []
    manager = listener_manager()
    before = set(manager.pm.get_plugins())
    tasks.listen_for_end(lambda ti, succeeded: told.append(succeeded))
    try:
        others = ["running", "failed"] if end == "success" else ["queued", "success"]
        for state in ["", "up_for_retry", *others]:
            noted.update({"state": state} if state else {})
            tell_of(end, ti)
        assert told == []
        noted["state"] = end
        tell_of(end, ti)
        assert told == [end == "success"]
        # Airflow records a failure only after the process has ended.
        noted["state"] = "running"
        tell_of(end, ti)
        assert len(told) == (1 if end == "success" else 2)
    finally:
        for listener in set(manager.pm.get_plugins()) - before:
            manager.pm.unregister(listener)


def listener_manager() -> Any:
    return versions.first_of("get_listener_manager", "airflow.sdk.listener", "airflow.listeners.listener")()


def tell_of(end: str, ti: Any) -> None:
    hook = listener_manager().hook
    if end == "success":
        hook.on_task_instance_success(previous_state=None, task_instance=ti)
    else:
        hook.on_task_instance_failed(previous_state=None, task_instance=ti, error=None)


def test_the_end_of_the_running_task_is_told_and_no_other(listeners: list[Any]) -> None:
    told: list[bool] = []
    when_it_ends({}, told.append)
    assert listeners == []
    when_it_ends({"ti": task_instance()}, told.append)
    (tell,) = listeners
    tell(task_instance(map_index=1), True)
    assert told == []
    tell(task_instance(), False)
    tell(task_instance(), True)
    assert told == [False, True]


@pytest.mark.parametrize("value", [None, [], "text", 7])
def test_what_no_package_of_ours_wrote_is_an_error(monkeypatch: pytest.MonkeyPatch, value: object) -> None:
    kept = Kept({"record": json.dumps(value)})
    with pytest.raises(ValueError, match="it is of type"):
        TaskStateStore(kept.task_state_store(), "record").get()
    variables = Variables(monkeypatch)
    store = VariableStore(task_instance(), "record")
    store.set({})
    variables.values = dict.fromkeys(variables.values, json.dumps(value))
    with pytest.raises(ValueError, match="it is of type"):
        store.get()


@pytest.mark.parametrize(("keeps", "kind"), [(True, TaskStateStore), (False, VariableStore)])
def test_what_has_to_outlive_a_clear_is_where_airflow_does_not_throw_it_away(
    monkeypatch: pytest.MonkeyPatch, keeps: bool, kind: type
) -> None:
    monkeypatch.setattr(versions, "CLEARING_KEEPS_TASK_STATE", keeps)
    context = {"ti": task_instance(), "task_state_store": Kept().task_state_store()}
    assert isinstance(store_of(context, "record", outlives_clear=True), kind)
    assert isinstance(store_of(context, "record"), TaskStateStore)
    del context["task_state_store"]
    assert isinstance(store_of(context, "record"), VariableStore)
