"""Whatever happens, a sensor ends the same way in every mode: as a plain sensor of this Airflow does."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_wassly.airflow_compat import bases, exceptions, versions
from airflow_provider_wassly.client import WasslyAuthError, WasslyConfigError, WasslyRateLimited, WasslyUnavailable
from airflow_provider_wassly.sensors.base import WasslySensor
from airflow_provider_wassly.triggers.base import PollTrigger

Look = Callable[[], tuple[bool, Any]]

_EXCEPTIONS = ("airflow.sdk.exceptions", "airflow.exceptions")


def airflows(name: str) -> Any:
    return versions.first_of(name, *_EXCEPTIONS)


class StillWaits(BaseException):
    """Raised where a sensor in poke mode would sleep."""


class Plain(bases.BaseSensorOperator):
    """A plain sensor as a DAG author would write it: waits on temporary errors and fails on permanent ones."""

    def __init__(self, *, happens: Look, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._look = happens

    def poke(self, context: Any) -> Any:
        try:
            is_done, value = self._look()
        except (WasslyUnavailable, WasslyRateLimited):
            return False
        except (WasslyAuthError, WasslyConfigError) as error:
            raise exceptions.fail_exception(str(error)) from error
        return bases.PokeReturnValue(is_done, value)


class Ours(WasslySensor):
    def __init__(self, *, happens: Look, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._look = happens

    def look(self) -> tuple[bool, Any]:
        return self._look()

    def trigger(self, **waiting: Any) -> PollTrigger:
        return PollTrigger(**waiting)


def returns(is_done: bool, value: Any = None) -> Look:
    return lambda: (is_done, value)


def raises(kind: Any, *arguments: Any, **others: Any) -> Look:
    def look() -> tuple[bool, Any]:
        raise kind(*arguments, **others)

    return look


EVENTS: dict[str, Look] = {
    "done": returns(True, {"a": 1}),
    "done without a value": returns(True),
    "not yet": returns(False),
    "unavailable": raises(WasslyUnavailable, "no route"),
    "rate limited": raises(WasslyRateLimited, "too many requests"),
    "bad credentials": raises(WasslyAuthError, "the apikey is not accepted", status=401),
    "bad connection": raises(WasslyConfigError, "no apikey"),
    "bug": raises(RuntimeError, "it is broken"),
    "bug of Airflow": raises(airflows("AirflowException"), "it is broken"),
    "fail": raises(airflows("AirflowFailException"), "no use"),
    "skip": raises(airflows("AirflowSkipException"), "nothing to do"),
    "sensor timeout": raises(airflows("AirflowSensorTimeout"), "over"),
    "task timeout": raises(airflows("AirflowTaskTimeout"), "over"),
    "interrupt": raises(KeyboardInterrupt),
}

OPTIONS: dict[str, dict[str, bool]] = {
    "none": {},
    "soft_fail": {"soft_fail": True},
    "never_fail": {"never_fail": True},
    "silent_fail": {"silent_fail": True},
    "soft_fail and silent_fail": {"soft_fail": True, "silent_fail": True},
    "never_fail and silent_fail": {"never_fail": True, "silent_fail": True},
}

#: Timeouts: reached right after the first check, or never.
TIMES = {"in time": 1e6, "time over": 0.0}


@pytest.fixture(autouse=True)
def nobody_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(seconds: float) -> None:
        raise StillWaits

    module = sys.modules[bases.BaseSensorOperator.__module__]
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    long_ago = datetime.now(timezone.utc) - timedelta(seconds=60)
    if hasattr(module, "_orig_start_date"):  # Airflow 2.11 asks its database
        monkeypatch.setattr(module, "_orig_start_date", lambda **of: long_ago)
        monkeypatch.setattr(module, "_is_metadatabase_mysql", lambda: False)


def context() -> Any:
    long_ago = datetime.now(timezone.utc) - timedelta(seconds=60)
    ti = SimpleNamespace(max_tries=0, get_first_reschedule_date=lambda context: long_ago)
    ti.dag_id = ti.task_id = ti.run_id = "none"
    ti.map_index = -1
    return {"ti": ti}


def ending(run: Callable[[], Any]) -> tuple[str, Any]:
    """Return how a task ends, or that it is still waiting."""
    try:
        return "success", run()
    except BaseException as error:
        name = type(error).__name__
        return ("waits", None) if name in ("StillWaits", "AirflowRescheduleException", "TaskDeferred") else (name, None)


def resumed(sensor: Ours, timeout: float) -> Any:
    deadline = datetime.now(timezone.utc) + timedelta(seconds=timeout)
    event = {"message": "look again", "deadline": deadline.isoformat()}
    return sensor.resume_execution("execute_complete", {"event": event}, context())


def how_airflow_says_that_a_deferral_timed_out() -> str:
    try:
        from airflow.sdk.bases.operator import TriggerFailureReason
    except ImportError:  # what the scheduler of 2.11 raises
        return "Trigger/execution timeout"
    return str(TriggerFailureReason.TRIGGER_TIMEOUT.value)


@pytest.mark.parametrize("time_left", TIMES)
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("event", EVENTS)
def test_each_mode_ends_as_a_plain_sensor_does(event: str, option: str, time_left: str) -> None:
    look, timeout = EVENTS[event], TIMES[time_left]
    options = {"task_id": "sensor", "poke_interval": 60, "timeout": timeout, **OPTIONS[option]}
    expected = ending(lambda: Plain(happens=look, **options).execute(context()))

    def ours(**mode: Any) -> Ours:
        return Ours(happens=look, **mode, **options)

    endings = {
        "plain, rescheduled": ending(lambda: Plain(happens=look, mode="reschedule", **options).execute(context())),
        "poke": ending(lambda: ours(deferrable=False).execute(context())),
        "reschedule": ending(lambda: ours(deferrable=False, mode="reschedule").execute(context())),
        "deferrable": ending(lambda: ours(deferrable=True).execute(context())),
        "after a deferral": ending(lambda: resumed(ours(deferrable=True), timeout)),
    }
    assert endings == dict.fromkeys(endings, expected)


def test_the_yardstick_knows_all_endings() -> None:
    endings = {
        ending(partial(Plain(happens=look, task_id="sensor", timeout=timeout, **options).execute, context()))[0]
        for look in EVENTS.values()
        for timeout in TIMES.values()
        for options in OPTIONS.values()
    }
    assert endings == {
        "success",
        "waits",
        "AirflowException",
        "AirflowFailException",
        "AirflowSensorTimeout",
        "AirflowSkipException",
        "AirflowTaskTimeout",
        "KeyboardInterrupt",
        "RuntimeError",
    }


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("event", EVENTS)
def test_without_a_triggerer_it_ends_as_a_plain_sensor_whose_time_is_over(event: str, option: str) -> None:
    options = {"task_id": "sensor", "poke_interval": 60, **OPTIONS[option]}
    expected = ending(lambda: Plain(happens=EVENTS[event], timeout=0, **options).execute(context()))
    sensor = Ours(happens=EVENTS[event], deferrable=True, timeout=3600, **options)
    error = {"error": how_airflow_says_that_a_deferral_timed_out()}
    assert ending(lambda: sensor.resume_execution("__fail__", error, context())) == expected


@pytest.mark.parametrize("option", [name for name in OPTIONS if "silent_fail" not in name])
def test_a_trigger_that_cannot_run_is_as_an_exception_that_nobody_expects(option: str) -> None:
    options = {"task_id": "sensor", **OPTIONS[option]}
    error = raises(airflows("TaskDeferralError"), "there is no such trigger")
    expected = ending(lambda: Plain(happens=error, **options).execute(context()))
    sensor = Ours(happens=returns(True), deferrable=True, **options)
    assert ending(lambda: sensor.resume_execution("__fail__", {"error": "Trigger failure"}, context())) == expected


def test_with_silent_fail_a_trigger_that_cannot_run_fails_all_the_same() -> None:
    sensor = Ours(happens=returns(True), deferrable=True, task_id="sensor", silent_fail=True)
    ended = ending(lambda: sensor.resume_execution("__fail__", {"error": "Trigger failure"}, context()))
    assert ended == ("TaskDeferralError", None)


@pytest.mark.parametrize(
    ("timeout", "bound"),
    [(timedelta(seconds=100), 160), (timedelta(days=7), 7 * 86400 + 60), (timedelta.max, 365 * 86400 + 60)],
)
def test_airflow_is_told_when_a_deferral_has_to_end(timeout: timedelta, bound: float) -> None:
    sensor = Ours(happens=returns(False), deferrable=True, task_id="sensor", timeout=timeout)
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        sensor.execute(context())
    deferred: Any = caught.value
    assert deferred.timeout.total_seconds() == pytest.approx(bound, abs=30)


def test_silent_fail_says_what_went_wrong(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    sensor = Ours(happens=EVENTS["bug"], deferrable=True, task_id="sensor", silent_fail=True)
    assert ending(lambda: sensor.execute(context())) == ("waits", None)
    # Airflow 3 does not log through the standard library.
    printed = caplog.text or capsys.readouterr().out
    assert "it is broken" in printed
    assert "silent_fail" in printed
