"""The sensors in every mode, against the sandbox."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import tenacity
from airflow.models.trigger import Trigger

from airflow_provider_wassly.airflow_compat import bases, variables
from airflow_provider_wassly.client import client
from airflow_provider_wassly.client._answers import read_receipt
from airflow_provider_wassly.client.clock import Clock
from airflow_provider_wassly.hooks.wassly import WasslyHook
from airflow_provider_wassly.quota import Probes, Quota
from airflow_provider_wassly.sandbox import Sandbox
from airflow_provider_wassly.sensors.base import WasslySensor
from airflow_provider_wassly.sensors.device import WasslyDeviceSensor
from airflow_provider_wassly.sensors.quota import WasslyQuotaSensor
from tests.support.variables import Variables

TO = "+447700900199"
CONTEXT: Any = {}


class NoWait(Clock):
    def sleep(self, seconds: float) -> None:
        pass


@pytest.fixture(autouse=True)
def airflow(monkeypatch: pytest.MonkeyPatch, wassly_default: Sandbox) -> Variables:
    monkeypatch.setattr(client, "_BACKOFF", tenacity.wait_none())
    monkeypatch.setattr(Probes, "clock", NoWait())
    return Variables(monkeypatch)


@pytest.fixture(params=["poke", "deferrable"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def options(way: str, **others: Any) -> dict[str, Any]:
    return {"task_id": "sensor", "poke_interval": 0.02, "timeout": 20, "deferrable": way == "deferrable", **others}


def quota_sensor(way: str = "poke", **others: Any) -> WasslyQuotaSensor:
    return WasslyQuotaSensor(**{"min_remaining_conversations": 200, **options(way, **others)})


def device_sensor(way: str = "poke", **others: Any) -> WasslyDeviceSensor:
    return WasslyDeviceSensor(**options(way, **others))


def run(sensor: WasslySensor, deferrals: int = 1000) -> Any:
    """Run a sensor as Airflow does, and its triggers as a triggerer does."""

    step: Callable[[], Any] = partial(sensor.execute, CONTEXT)
    while True:
        try:
            return step()
        except BaseException as deferred:
            if type(deferred).__name__ != "TaskDeferred" or not deferrals:
                raise
            deferrals -= 1
            again: Any = deferred
        row = Trigger.from_object(again.trigger)
        (event,) = asyncio.run(_events(type(again.trigger)(**row.kwargs)))
        # "airflow dags test" passes nothing else to the task.
        kwargs = {"event": json.loads(json.dumps(event.payload))}
        step = partial(sensor.resume_execution, again.method_name, kwargs, CONTEXT)


async def _events(trigger: Any) -> list[Any]:
    return [event async for event in trigger.run()]


def later(action: Callable[[], object], seconds: float = 0.3) -> None:
    threading.Timer(seconds, action).start()


def failure(sensor: WasslySensor, name: str = "AirflowFailException") -> str:
    began = time.monotonic()
    with pytest.raises(Exception) as caught:  # noqa: PT011
        run(sensor)
    assert type(caught.value).__name__ == name, repr(caught.value)
    assert time.monotonic() - began < 15
    return str(caught.value)


def probes(box: Sandbox) -> int:
    return sum(call.endpoint == "send" for call in box.calls)


# Both sensors.


@pytest.mark.parametrize("make", [quota_sensor, device_sensor])
def test_a_connection_that_does_not_exist_ends_it_at_once(make: Callable[..., WasslySensor], mode: str) -> None:
    text = failure(make(mode, wassly_conn_id="nowhere"))
    assert "'nowhere'" in text
    assert "wassly_conn_id" in text


def test_a_timeout(mode: str) -> None:
    assert "timed out" in failure(quota_sensor(mode, on_unknown="wait", timeout=0.2), "AirflowSensorTimeout")


def test_soft_fail_skips_when_the_time_is_over(mode: str) -> None:
    sensor = quota_sensor(mode, on_unknown="wait", timeout=0.2, soft_fail=True)
    failure(sensor, "AirflowSkipException")


@pytest.mark.parametrize("how", ["soft_fail", "never_fail"])
def test_soft_fail_and_never_fail_skip_on_bad_input(mode: str, how: str) -> None:
    failure(device_sensor(mode, instance_id="nobody", **{how: True}), "AirflowSkipException")


def test_never_fail_does_not_skip_when_the_time_is_over(mode: str) -> None:
    sensor = quota_sensor(mode, on_unknown="wait", timeout=0.2, never_fail=True)
    failure(sensor, "AirflowSensorTimeout")


def test_reschedule_looks_once_and_comes_back(airflow: Variables, monkeypatch: pytest.MonkeyPatch) -> None:
    sensor = quota_sensor(mode="reschedule", on_unknown="wait", poke_interval=300)
    ti = SimpleNamespace(max_tries=0, get_first_reschedule_date=lambda context: None)
    ti.dag_id = ti.task_id = ti.run_id = "none"
    ti.map_index = -1
    module = sys.modules[bases.BaseSensorOperator.__module__]
    if hasattr(module, "_orig_start_date"):  # Airflow 2.11 asks its database
        monkeypatch.setattr(module, "_orig_start_date", lambda **of: None)
        monkeypatch.setattr(module, "_is_metadatabase_mysql", lambda: False)
    context: Any = {"ti": ti}
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        sensor.execute(context)
    assert type(caught.value).__name__ == "AirflowRescheduleException"
    Quota("wassly_default").record(200, None)
    assert sensor.execute(context)["remaining_conversations"] == 200


# The quota sensor.


def test_it_goes_on_when_a_message_leaves_enough(mode: str, airflow: Variables) -> None:
    Quota("wassly_default").record(199, "one")
    later(lambda: Quota("wassly_default").record(200, "two"))
    assert run(quota_sensor(mode)) == {
        "remaining_conversations": 200,
        "read_at": "2026-11-24T12:00:00+00:00",
        "instance_id": "two",
    }


def test_it_goes_on_at_once_with_an_old_reading_that_is_enough(mode: str, airflow: Variables) -> None:
    Quota("wassly_default").record(200, None)
    airflow.wait(days=30)
    assert run(quota_sensor(mode), deferrals=0)["remaining_conversations"] == 200


def test_it_waits_with_an_old_reading_that_is_too_low_until_it_is_forgotten(mode: str, airflow: Variables) -> None:
    Quota("wassly_default").record(199, None)
    airflow.wait(days=30)
    later(WasslyHook().forget_quota)
    assert run(quota_sensor(mode)) is None


def test_without_any_reading(mode: str, box: Sandbox) -> None:
    assert run(quota_sensor(mode), deferrals=0) is None
    assert "probe_to" in failure(quota_sensor(mode, on_unknown="fail"))
    later(lambda: WasslyHook().send_message(TO, "a message of somebody else"))
    assert run(quota_sensor(mode, on_unknown="wait"))["remaining_conversations"] == 999


def test_a_probe_tells(mode: str, box: Sandbox, airflow: Variables) -> None:
    sensor = quota_sensor(mode, probe_to=TO, probe_message="how much?", on_unknown="fail")
    assert run(sensor, deferrals=0)["remaining_conversations"] == 999
    (message,) = box.messages
    assert (message.contact_mobile_number, message.message) == (TO, "how much?")
    # Now there is a reading.
    assert run(quota_sensor(mode, probe_to=TO))["remaining_conversations"] == 999
    assert probes(box) == 1
    airflow.wait(hours=36)
    assert run(quota_sensor(mode, probe_to=TO))["remaining_conversations"] == 998


def test_a_probe_is_sent_once_in_an_interval(mode: str, box: Sandbox, airflow: Variables) -> None:
    box.conversations = 100
    for _ in range(3):
        failure(quota_sensor(mode, probe_to=TO, timeout=0.3), "AirflowSensorTimeout")
    assert probes(box) == 1
    box.conversations = 500
    later(lambda: airflow.wait(hours=1))
    assert run(quota_sensor(mode, probe_to=TO))["remaining_conversations"] == 499
    assert probes(box) == 2


@pytest.mark.parametrize("record", [True, False])
def test_a_probe_whose_outcome_is_unknown_is_not_repeated_before_its_time(
    mode: str, box: Sandbox, airflow: Variables, record: bool
) -> None:
    box.fail_next("reset_after_body", record=record)
    failure(quota_sensor(mode, probe_to=TO, timeout=0.3), "AirflowSensorTimeout")
    assert probes(box) == 1
    airflow.wait(hours=1)
    run(quota_sensor(mode, probe_to=TO))
    assert probes(box) == 2


@pytest.mark.parametrize("old", [None, 1000])
def test_a_probe_whose_answer_says_nothing_of_the_quota_lets_no_old_reading_pass(
    mode: str, box: Sandbox, airflow: Variables, old: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if old is not None:
        Quota("wassly_default").record(old, None)
        airflow.wait(hours=37)
    monkeypatch.setattr(
        client, "read_receipt", lambda answer: replace(read_receipt(answer), remaining_conversations=None)
    )
    failure(quota_sensor(mode, probe_to=TO, timeout=0.3), "AirflowSensorTimeout")
    assert probes(box) == 1


@pytest.mark.parametrize(("remains", "is_enough"), [(300, True), (100, False)])
def test_the_answer_to_a_probe_counts_although_it_cannot_be_recorded(
    mode: str, box: Sandbox, airflow: Variables, remains: int, is_enough: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    Quota("wassly_default").record(1000, None)
    airflow.wait(hours=37)
    box.conversations = remains + 1

    def refuse(*_: object) -> None:
        raise ConnectionError("Airflow's API does not answer")

    set_variable = variables.set_variable
    key = "wassly_quota__wassly_default"
    monkeypatch.setattr(
        variables, "set_variable", lambda *values: refuse() if values[0] == key else set_variable(*values)
    )
    sensor = quota_sensor(mode, probe_to=TO, timeout=0.3)
    if is_enough:
        assert run(sensor)["remaining_conversations"] == remains
    else:
        failure(sensor, "AirflowSensorTimeout")
    assert probes(box) == 1


def test_a_probe_that_the_quota_does_not_allow_waits(mode: str, box: Sandbox, airflow: Variables) -> None:
    box.conversations = 0

    def top_up() -> None:
        box.conversations = 1000
        airflow.wait(hours=1)

    later(top_up)
    assert run(quota_sensor(mode, probe_to=TO))["remaining_conversations"] == 999


def test_an_outage_is_waited_for(mode: str, own_box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WASSLY_DEFAULT", own_box.connection)
    own_box.stop()
    failure(quota_sensor(mode, probe_to=TO, timeout=0.3), "AirflowSensorTimeout")


def test_bad_credentials_end_a_probe(mode: str, box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    values = json.loads(box.connection)
    values["extra"]["apikey"] = "wrong"
    monkeypatch.setenv("AIRFLOW_CONN_WASSLY_DEFAULT", json.dumps(values))
    assert "Check the connection's apikey" in failure(quota_sensor(mode, probe_to=TO))
    assert "Check the connection's apikey" in failure(device_sensor(mode))


@pytest.mark.parametrize("number", ["12", "nobody", ""])
def test_a_probe_number_that_is_none_fails_even_while_the_quota_is_enough(
    mode: str, airflow: Variables, number: str
) -> None:
    Quota("wassly_default").record(1000, None)
    text = failure(quota_sensor(mode, probe_to=number))
    assert text.startswith("probe_to: ")
    assert "contact_mobile_number" not in text


def test_without_recording_there_is_nothing_to_wait_for(
    mode: str, box: Sandbox, monkeypatch: pytest.MonkeyPatch, airflow: Variables
) -> None:
    values = json.loads(box.connection)
    values["extra"]["record_quota"] = False
    monkeypatch.setenv("AIRFLOW_CONN_WASSLY_DEFAULT", json.dumps(values))
    assert "record_quota" in failure(quota_sensor(mode))
    WasslyHook().send_message(TO, "hello")
    assert airflow.values == {}


def test_each_poke_logs_one_line(
    airflow: Variables, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    Quota("wassly_default").record(199, None)
    airflow.wait(minutes=3)
    sensor = quota_sensor()
    for _ in range(2):
        sensor.poke(CONTEXT)
    # Airflow 3 does not log through the standard library.
    printed = caplog.text or capsys.readouterr().out
    assert printed.count("Waiting, quota too low: 199 left (reading 3 min old), 200 needed") == 2
    # Only the sensor's own lines, not Airflow's.
    assert sum("WasslyQuotaSensor" in line for line in printed.splitlines()) == 2


# The device sensor.


def test_it_goes_on_when_the_device_comes_back(mode: str, box: Sandbox) -> None:
    box.disconnect_device("sandbox-instance")
    later(lambda: box.connect_device("sandbox-instance"))
    found = run(device_sensor(mode))
    assert (found["instance_id"], found["status"]) == ("sandbox-instance", "connected")
    assert set(found) == {"instance_id", "name", "status", "last_active"}
    assert box.messages == []


def test_an_instance_that_the_account_does_not_have_fails_and_names_those_it_has(mode: str) -> None:
    text = failure(device_sensor(mode, instance_id="nobody"))
    assert "instance_id" in text
    assert "'nobody'" in text
    assert "sandbox-instance" in text


def test_the_device_sensor_waits_over_an_outage(mode: str, box: Sandbox) -> None:
    box.fail_next("http_500", times=8, endpoint="devices")
    assert run(device_sensor(mode))["status"] == "connected"
