from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.models.trigger import Trigger

from airflow_provider_wassly.client import Device, WasslyAuthError, WasslyError, WasslyRateLimited, WasslyUnavailable
from airflow_provider_wassly.hooks.wassly import WasslyHook
from airflow_provider_wassly.quota import Quota
from airflow_provider_wassly.triggers.base import PollTrigger
from airflow_provider_wassly.triggers.device import DeviceTrigger
from airflow_provider_wassly.triggers.quota import QuotaTrigger
from tests.support.variables import Variables


def waiting(seconds: float = 60, **others: Any) -> dict[str, Any]:
    deadline = (datetime.now(timezone.utc) + timedelta(seconds=seconds)).isoformat()
    return {"wassly_conn_id": "work", "deadline": deadline, "poke_interval": 0.01, **others}


def quota_trigger(**others: Any) -> QuotaTrigger:
    return QuotaTrigger(
        **{"needed": 200, "max_age": 3600.0, "probe_interval": None, "on_unknown": "wait", **waiting(), **others}
    )


def events(*triggers: PollTrigger, during: float = 10) -> list[list[str]]:
    """Run triggers at once, as a triggerer does, and return the messages that each of them ends with."""

    async def one(trigger: PollTrigger) -> list[str]:
        return [event.payload["message"] async for event in trigger.run()]

    async def run() -> list[list[str]]:
        return await asyncio.wait_for(asyncio.gather(*map(one, triggers)), during)

    return asyncio.run(run())


def still_waits(trigger: PollTrigger, seconds: float = 0.3) -> bool:
    try:
        events(trigger, during=seconds)
    except asyncio.TimeoutError:
        return True
    return False


class Slow(PollTrigger):
    seconds = 1.0

    def look(self) -> str | None:
        time.sleep(self.seconds)
        return "done"


class Broken(PollTrigger):
    def look(self) -> str | None:
        raise RuntimeError("it is broken")


class Counting(PollTrigger):
    looks = 0

    def look(self) -> str | None:
        self.looks += 1
        return None


@pytest.mark.parametrize(
    "trigger",
    [
        DeviceTrigger(instance_id=None, **waiting()),
        DeviceTrigger(instance_id="one", **waiting(exponential_backoff=True, max_wait=30.5)),
        quota_trigger(),
        quota_trigger(probe_interval=0.5, on_unknown="proceed"),
    ],
)
def test_a_trigger_goes_through_airflows_database(trigger: PollTrigger) -> None:
    row = Trigger.from_object(trigger)
    kind = {DeviceTrigger: "device.DeviceTrigger", QuotaTrigger: "quota.QuotaTrigger"}[type(trigger)]
    assert row.classpath == f"airflow_provider_wassly.triggers.{kind}"
    again = type(trigger)(**row.kwargs)
    assert again.serialize() == trigger.serialize()


def test_slow_looks_delay_neither_the_event_loop_nor_each_other() -> None:
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - before)

    async def run() -> float:
        ticking = asyncio.create_task(tick())
        began = time.monotonic()
        await asyncio.gather(*(trigger.run().__anext__() for trigger in (Slow(**waiting()) for _ in range(4))))
        ticking.cancel()
        return time.monotonic() - began

    assert asyncio.run(run()) < 3
    assert longest < 0.7


def test_an_error_ends_it_with_one_event() -> None:
    assert events(Broken(**waiting())) == [["RuntimeError: it is broken"]]


def test_it_ends_at_its_deadline_and_never_sleeps_beyond() -> None:
    began = time.monotonic()
    assert events(Counting(**waiting(0.2, poke_interval=60))) == [["The time is over"]]
    assert time.monotonic() - began < 5
    trigger = Counting(**waiting(-1))
    assert events(trigger) == [["The time is over"]]
    assert trigger.looks == 0


def test_exponential_backoff_doubles_up_to_max_wait() -> None:
    looks = []
    for others in ({}, {"exponential_backoff": True}, {"exponential_backoff": True, "max_wait": 0.05}):
        trigger = Counting(**waiting(0.8, poke_interval=0.02, **others))
        events(trigger)
        looks.append(trigger.looks)
    every_time, doubling, up_to = looks
    assert doubling <= 7 < up_to < every_time


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Variables:
    return Variables(monkeypatch)


def test_the_quota_trigger_ends_when_the_reading_is_enough(airflow: Variables) -> None:
    assert still_waits(quota_trigger())
    Quota("work").record(199, None)
    assert still_waits(quota_trigger())
    Quota("work").record(200, None)
    trigger = quota_trigger()
    assert (
        events(trigger, quota_trigger(**trigger.arguments()))
        == [["200 conversations remained 0:00:00 ago, at least 200 wanted"]] * 2
    )
    # As after a restart of the triggerer.
    assert len(events(quota_trigger(**trigger.arguments()))[0]) == 1


def test_the_quota_trigger_ends_when_a_probe_is_due_and_claims_none(airflow: Variables) -> None:
    def trigger() -> QuotaTrigger:
        return quota_trigger(probe_interval=3600.0)

    assert "a probe has to tell" in events(trigger())[0][0]
    assert airflow.values == {}
    assert Quota("work").claim_probe(timedelta(hours=1), sleep=lambda seconds: None)
    assert still_waits(trigger())
    airflow.wait(hours=1)
    assert "a probe has to tell" in events(trigger())[0][0]


def test_the_quota_trigger_ends_when_airflow_does_not_answer(airflow: Variables) -> None:
    airflow.failure = ConnectionError("Airflow's API does not answer")
    assert events(quota_trigger()) == [["ConnectionError: Airflow's API does not answer"]]


def device(status: str) -> Device:
    return Device(id="1", name="phone", status=status, last_active=None, instance_id="one")


@pytest.mark.parametrize("passing", [WasslyUnavailable("no route"), WasslyRateLimited("too many requests")])
def test_the_device_trigger_waits_for_the_device_and_over_an_outage(
    monkeypatch: pytest.MonkeyPatch, passing: WasslyError
) -> None:
    answers: list[Device | WasslyError] = [device("disconnected"), passing, device("connected")]

    def find(hook: WasslyHook, instance_id: str | None = None) -> Device:
        answer = answers.pop(0)
        if isinstance(answer, WasslyError):
            raise answer
        return answer

    monkeypatch.setattr(WasslyHook, "find_device", find)
    assert events(DeviceTrigger(instance_id="one", **waiting())) == [["Instance one is connected"]]
    assert answers == []


def test_the_device_trigger_gives_up_on_bad_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(hook: WasslyHook, instance_id: str | None = None) -> Device:
        raise WasslyAuthError("the apikey is not accepted", status=401)

    monkeypatch.setattr(WasslyHook, "find_device", find)
    assert events(DeviceTrigger(**waiting())) == [["WasslyAuthError: the apikey is not accepted"]]
