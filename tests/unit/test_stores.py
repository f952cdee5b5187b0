"""Where a task keeps what has to outlive one of its attempts."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_wassly import _compat
from airflow_provider_wassly.stores import TaskStateStore, VariableStore, forget_after_success, store_of
from tests.support.kept import Kept
from tests.support.task import task_instance
from tests.support.variables import Variables


@pytest.mark.skipif(not _compat.HAS_TASK_STATE_STORE, reason="this Airflow has no task_state_store")
def test_the_state_of_a_task_is_kept_as_long_as_its_run() -> None:
    kept: list[tuple[str, Any, Any]] = []

    class State:
        def set(self, key: str, value: Any, *, retention: Any) -> None:
            kept.append((key, value, retention))

    TaskStateStore(State(), "record").set({"a": 1})
    assert kept == [("record", {"a": 1}, _compat.never_expire())]


def test_each_value_is_removed_by_its_own_name() -> None:
    kept = Kept({"record": '{"a": 1}', "another": '{"a": 2}'})
    store = TaskStateStore(kept.task_state_store(), "record")
    assert store.get() == {"a": 1}
    store.delete()
    assert kept.values == {"another": '{"a": 2}'}
    assert store.get() is None


def test_a_variable_says_what_it_is_and_when_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(_compat, "set_variable", lambda key, value, description: told.append(description))
    VariableStore(task_instance(), "record").set({})
    assert told == ["Which Wassly messages were sent. Removed when the task succeeds."]


def test_where_no_task_runs_nothing_is_kept() -> None:
    assert store_of({}, "record") is None


@pytest.fixture
def listeners(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    added: list[Any] = []
    monkeypatch.setattr(_compat, "listen_for_success", added.append)
    return added


def test_nobody_listens_where_there_are_no_variables_to_remove(
    listeners: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_compat, "HAS_TASK_STATE_STORE", True)
    forget_after_success({"ti": task_instance()}, lambda: ["record"])
    monkeypatch.setattr(_compat, "HAS_TASK_STATE_STORE", False)
    forget_after_success({}, lambda: ["record"])
    assert listeners == []


def test_a_variable_that_cannot_be_removed_is_a_warning(
    listeners: list[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_compat, "HAS_TASK_STATE_STORE", False)
    forget_after_success({"ti": task_instance()}, lambda: ["record"])
    Variables(monkeypatch).failure = ConnectionError("Airflow's API does not answer")
    listeners[0](task_instance())
    assert caplog.messages == [
        "The Variable of the send record could not be removed: ConnectionError: Airflow's API does not answer"
    ]
