from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest
from airflow.models.trigger import Trigger

from airflow_provider_wassly.client import Device, WasslyAuthError, WasslyError, WasslyRateLimited, WasslyUnavailable
from airflow_provider_wassly.hooks.wassly import WasslyHook
from airflow_provider_wassly.quota import Quota
from airflow_provider_wassly.triggers.base import PollTrigger
from airflow_provider_wassly.triggers.device import DeviceTrigger
from airflow_provider_wassly.triggers.quota import QuotaTrigger
from tests.support.clock import VirtualClock
from tests.support.variables import Variables


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> VirtualClock:
    clock = VirtualClock()
    monkeypatch.setattr(PollTrigger, "clock", clock)
    monkeypatch.setattr(Quota, "clock", clock)
    return clock


def waiting(seconds: float = 3600, **others: Any) -> dict[str, Any]:
    deadline = (PollTrigger.clock.now() + timedelta(seconds=seconds)).isoformat()
    return {"wassly_conn_id": "work", "deadline": deadline, "poke_interval": 60, **others}


def quota_trigger(**others: Any) -> QuotaTrigger:
    return QuotaTrigger(
        **{"needed": 200, "max_age": 3600.0, "probe_interval": None, "on_unknown": "wait", **waiting(), **others}
    )


def events(*triggers: PollTrigger) -> list[list[str]]:
    """Run triggers at once, as a triggerer does, and return the messages that each of them ends with."""

    async def one(trigger: PollTrigger) -> list[str]:
        return [event.payload["message"] async for event in trigger.run()]

    async def run() -> list[list[str]]:
        return await asyncio.gather(*map(one, triggers))

    return asyncio.run(run())


def still_waits(trigger: PollTrigger) -> bool:
    """Tell whether it waits to the end of its time."""
    return events(trigger) == [["The time is over"]]


class Slow(PollTrigger):
    seconds = 1.0

    def look(self) -> str | None:
        time.sleep(self.seconds)
        return "done"


class Broken(PollTrigger):
    def look(self) -> str | None:
        raise RuntimeError("it is broken")


class Noting(PollTrigger):
    """Notes when it looks: seconds after its start."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._began = self.clock.monotonic()
        self.looks: list[int] = []

    def look(self) -> str | None:
        self.looks.append(round(self.clock.monotonic() - self._began))
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


@pytest.mark.realtime
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


def test_it_ends_at_its_deadline_and_never_sleeps_beyond(clock: VirtualClock) -> None:
    began = clock.monotonic()
    assert events(Noting(**waiting(90, poke_interval=60))) == [["The time is over"]]
    assert clock.monotonic() - began == pytest.approx(90, abs=0.1)
    trigger = Noting(**waiting(-1))
    assert events(trigger) == [["The time is over"]]
    assert trigger.looks == []


@pytest.mark.parametrize(
    ("backoff", "looks"),
    [
        ({}, [60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 630]),
        ({"exponential_backoff": True}, [60, 180, 420, 630]),
        ({"exponential_backoff": True, "max_wait": 150}, [60, 180, 330, 480, 630]),
    ],
)
def test_exponential_backoff_doubles_up_to_max_wait(backoff: dict[str, Any], looks: list[int]) -> None:
    trigger = Noting(**waiting(630, **backoff))
    events(trigger)
    assert trigger.looks == looks


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
        == [["Quota OK: 200 left (reading 0 s old), 200 needed"]] * 2
    )
    # As after a restart of the triggerer.
    assert len(events(quota_trigger(**trigger.arguments()))[0]) == 1


def test_the_quota_trigger_ends_when_a_probe_is_due_and_claims_none(airflow: Variables) -> None:
    def trigger() -> QuotaTrigger:
        return quota_trigger(probe_interval=3600.0)

    assert "only a probe can tell" in events(trigger())[0][0]
    assert airflow.values == {}
    assert Quota("work").claim_probe(timedelta(hours=1))
    assert still_waits(trigger())
    airflow.wait(hours=1)
    assert "only a probe can tell" in events(trigger())[0][0]


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
