from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.models.trigger import Trigger

from airflow_provider_wassly.client import (
    Device,
    WasslyAuthError,
    WasslyClient,
    WasslyError,
    WasslyRateLimited,
    WasslyUnavailable,
)
from airflow_provider_wassly.client.clock import SYSTEM, Clock
from airflow_provider_wassly.quota import Probes, Quota
from airflow_provider_wassly.triggers import _looks
from airflow_provider_wassly.triggers.base import PollTrigger
from airflow_provider_wassly.triggers.device import DeviceTrigger
from airflow_provider_wassly.triggers.quota import QuotaTrigger
from tests.support.clock import VirtualClock
from tests.support.variables import Variables

CONNECTION = json.dumps(
    {"conn_type": "wassly", "host": "127.0.0.1", "extra": {"apikey": "key", "token": "token", "instance_id": "one"}}
)


def device(status: str, instance_id: str = "one") -> Device:
    return Device(id="1", name="phone", status=status, last_active=None, instance_id=instance_id)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> VirtualClock:
    clock = VirtualClock()
    monkeypatch.setattr(PollTrigger, "clock", clock)
    monkeypatch.setattr(Probes, "clock", clock)
    return clock


def waiting(seconds: float = 3600, **others: Any) -> dict[str, Any]:
    deadline = (PollTrigger.clock.now() + timedelta(seconds=seconds)).isoformat()
    return {"wassly_conn_id": "work", "deadline": deadline, "poke_interval": 60, **others}


def quota_trigger(**others: Any) -> QuotaTrigger:
    return QuotaTrigger(
        **{"needed": 200, "max_age": 3600.0, "probe_interval": None, "on_unknown": "wait", **waiting(), **others}
    )


def events(*triggers: PollTrigger) -> list[list[str]]:
    """Run triggers in parallel, as a triggerer does, and return the messages of each one's events."""

    async def one(trigger: PollTrigger) -> list[str]:
        return [event.payload["message"] async for event in trigger.run()]

    async def run() -> list[list[str]]:
        return await asyncio.gather(*map(one, triggers))

    return asyncio.run(run())


def still_waits(trigger: PollTrigger) -> bool:
    """Return whether it waits until the timeout."""
    return events(trigger) == [["Timeout reached"]]


class Slow(PollTrigger):
    seconds = 0.4

    def ask(self) -> None:
        time.sleep(self.seconds)

    def judge(self, answer: None) -> str:
        return "done"


class Broken(PollTrigger):
    def ask(self) -> None:
        raise RuntimeError("it is broken")


class BrokenJudge(PollTrigger):
    def ask(self) -> None:
        pass

    def judge(self, answer: None) -> str:
        raise RuntimeError("it is broken")


class Noting(PollTrigger):
    """Records the times of its checks, in seconds after its start."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._began = self.clock.monotonic()
        self.looks: list[int] = []

    def ask(self) -> None:
        self.looks.append(round(self.clock.monotonic() - self._began))

    def judge(self, answer: None) -> None:
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


@pytest.fixture
def real_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PollTrigger, "clock", SYSTEM)


@pytest.mark.realtime
def test_slow_looks_delay_neither_the_event_loop_nor_each_other_nor_the_names_of_others() -> None:
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            # Runs in a thread of the event loop's default executor.
            await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80)
            longest = max(longest, time.monotonic() - before)

    async def run() -> float:
        ticking = asyncio.create_task(tick())
        began = time.monotonic()
        triggers = [Slow(**waiting(wassly_conn_id=f"account {number}")) for number in range(40)]
        await asyncio.gather(*(trigger.run().__anext__() for trigger in triggers))
        ticking.cancel()
        return time.monotonic() - began

    assert asyncio.run(run()) < 3
    assert longest < 0.7


@pytest.mark.realtime
@pytest.mark.usefixtures("real_clock")
def test_a_look_that_hangs_holds_up_neither_the_deadline_nor_the_end_of_the_process() -> None:
    began = time.monotonic()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Slow, "seconds", 20.0)
        assert events(Slow(**waiting(0.3, poke_interval=0.1))) == [["Timeout reached"]]
        assert time.monotonic() - began < 3
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "wassly-look"]
    assert thread.daemon


@pytest.mark.realtime
@pytest.mark.usefixtures("real_clock")
def test_a_trigger_that_is_cancelled_does_not_end_the_look_of_the_others() -> None:
    async def run() -> list[str]:
        triggers = [Slow(**waiting(poke_interval=0)) for _ in range(3)]
        first, *others = [asyncio.ensure_future(trigger.run().__anext__()) for trigger in triggers]
        await asyncio.sleep(0.1)
        first.cancel()
        return [event.payload["message"] for event in await asyncio.gather(*others)]

    assert asyncio.run(run()) == ["done", "done"]


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next moment that something waits for."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 1000.0
        selector: Any = self._selector  # type: ignore[attr-defined]
        select = selector.select

        def jump(timeout: float | None = None) -> Any:
            ready = select(0)
            if not ready and timeout:
                self._now += timeout
            return ready

        selector.select = jump

    def time(self) -> float:
        return self._now


class LoopClock(Clock):
    """The clock of the running :class:`JumpingLoop`."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def now(self) -> datetime:
        return datetime(2026, 11, 24, tzinfo=timezone.utc) + timedelta(seconds=self.monotonic())


class AtOnce(Executor):
    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(call(*args, **kwargs))
        return future


Many = Callable[[Callable[[], Awaitable[None]]], None]


@pytest.fixture
def in_virtual_time(monkeypatch: pytest.MonkeyPatch) -> Many:
    monkeypatch.setattr(PollTrigger, "clock", LoopClock())
    monkeypatch.setattr(_looks, "_THREADS", AtOnce())

    def run(body: Callable[[], Awaitable[None]]) -> None:
        loop = JumpingLoop()
        try:
            loop.run_until_complete(body())
        finally:
            loop.close()

    return run


async def when_they_end(triggers: list[PollTrigger], apart: float) -> list[float]:
    """Start triggers one after another; return the time at which each ends."""
    loop = asyncio.get_running_loop()

    async def one(number: int, trigger: PollTrigger) -> float:
        await asyncio.sleep(number * apart)
        async for _ in trigger.run():
            pass
        return loop.time()

    return await asyncio.gather(*(one(number, trigger) for number, trigger in enumerate(triggers)))


def test_a_thousand_waiting_sensors_make_one_call_in_an_interval(
    in_virtual_time: Many, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[float] = []
    connected_at = 0.0

    def list_devices(client: WasslyClient) -> list[Device]:
        calls.append(asyncio.get_running_loop().time())
        return [device("connected" if calls[-1] >= connected_at else "disconnected", "one"), device("connected", "two")]

    monkeypatch.setattr(WasslyClient, "list_devices", list_devices)
    monkeypatch.setenv("AIRFLOW_CONN_WORK", CONNECTION)

    async def body() -> None:
        nonlocal connected_at
        began = asyncio.get_running_loop().time()
        connected_at = began + 300
        # They start within two minutes, and not all of them name the instance.
        triggers = [DeviceTrigger(instance_id=("one", None)[number % 2], **waiting()) for number in range(1000)]
        ended = await when_they_end([*triggers], apart=0.12)
        assert len(calls) <= 300 / 60 + 2
        assert max(ended) - connected_at <= 60
        assert min(ended) >= connected_at

    in_virtual_time(body)


def test_waiting_quota_sensors_read_what_airflow_keeps_once_in_an_interval(
    in_virtual_time: Many, airflow: Variables
) -> None:
    async def body() -> None:
        triggers = [quota_trigger(probe_interval=3600.0 if number % 2 else None) for number in range(100)]
        await when_they_end([*triggers], apart=1.2)

    Quota("work").record(5, None)
    assert Probes("work").claim(timedelta(hours=1))
    airflow.reads.clear()
    in_virtual_time(body)
    # One hour and two minutes; with probing, each check reads two Variables.
    assert 3 * 55 < len(airflow.reads) <= 3 * 63


class Doorbell(PollTrigger):
    """Waits until a given time."""

    rings_at = 0.0

    def ask(self) -> bool:
        return asyncio.get_running_loop().time() >= self.rings_at

    def judge(self, answer: bool) -> str | None:
        return "it rings" if answer else None


def test_who_shares_the_answers_of_others_waits_no_longer_than_its_own_interval(
    in_virtual_time: Many, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        intervals = [random.choice([7.0, 60.0, 90.0, 300.0]) for _ in range(30)]
        for _ in range(8):
            rings_at = asyncio.get_running_loop().time() + random.uniform(1000, 2000)
            monkeypatch.setattr(Doorbell, "rings_at", rings_at)
            triggers = [Doorbell(**waiting(poke_interval=interval)) for interval in intervals]
            ended = await when_they_end([*triggers], apart=random.uniform(0, 10))
            for interval, at in zip(intervals, ended, strict=True):
                assert rings_at <= at <= rings_at + interval + 0.001

    in_virtual_time(body)


def test_connections_do_not_share_their_answers(in_virtual_time: Many, monkeypatch: pytest.MonkeyPatch) -> None:
    def list_devices(client: WasslyClient) -> list[Device]:
        return [device("connected" if "home" in client.base_url else "disconnected")]

    monkeypatch.setattr(WasslyClient, "list_devices", list_devices)
    monkeypatch.setenv("AIRFLOW_CONN_WORK", CONNECTION)
    monkeypatch.setenv("AIRFLOW_CONN_HOME", CONNECTION.replace("127.0.0.1", "home.example"))

    async def body() -> None:
        triggers: list[PollTrigger] = [
            DeviceTrigger(instance_id="one", **waiting(wassly_conn_id=conn_id)) for conn_id in ("work", "home")
        ]
        began = asyncio.get_running_loop().time()
        ended = await when_they_end(triggers, apart=0)
        assert [round(at - began) for at in ended] == [3600, 60]

    in_virtual_time(body)


def test_an_edit_of_the_connection_counts_from_the_next_look_on(
    in_virtual_time: Many, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts: list[str] = []

    def list_devices(client: WasslyClient) -> list[Device]:
        hosts.append(client.base_url)
        monkeypatch.setenv("AIRFLOW_CONN_WORK", CONNECTION.replace("127.0.0.1", "other.example"))
        return [device("disconnected")]

    monkeypatch.setattr(WasslyClient, "list_devices", list_devices)
    monkeypatch.setenv("AIRFLOW_CONN_WORK", CONNECTION)

    async def body() -> None:
        await when_they_end([DeviceTrigger(instance_id="one", **waiting(150))], apart=0)

    in_virtual_time(body)
    assert hosts == ["https://127.0.0.1", "https://other.example"]


def test_a_look_makes_one_attempt_with_short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[list[Any]] = []
    init = WasslyClient.__init__

    def note(client: WasslyClient, **options: Any) -> None:
        made.append([options[name] for name in ("connect_timeout", "read_timeout", "max_attempts")])
        init(client, **options)

    monkeypatch.setattr(WasslyClient, "__init__", note)
    monkeypatch.setattr(WasslyClient, "list_devices", lambda client: [device("connected")])
    monkeypatch.setenv("AIRFLOW_CONN_WORK", CONNECTION)
    events(DeviceTrigger(instance_id="one", **waiting()))
    assert made == [[5.0, 10.0, 1]]


def test_an_error_ends_it_with_one_event() -> None:
    for kind in (Broken, BrokenJudge):
        assert events(kind(**waiting())) == [["RuntimeError: it is broken"]]


def test_it_ends_at_its_deadline_and_never_sleeps_beyond(clock: VirtualClock) -> None:
    began = clock.monotonic()
    assert events(Noting(**waiting(90, poke_interval=60))) == [["Timeout reached"]]
    assert clock.monotonic() - began == pytest.approx(90, abs=0.1)
    trigger = Noting(**waiting(-1))
    assert events(trigger) == [["Timeout reached"]]
    assert trigger.looks == []


@pytest.mark.parametrize(
    ("backoff", "looks"),
    [
        ({}, [60, 120, 180, 240, 300, 360, 420, 480, 540, 600]),
        ({"exponential_backoff": True}, [60, 180, 420]),
        ({"exponential_backoff": True, "max_wait": 150}, [60, 180, 330, 480]),
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
    # As after a triggerer restart.
    assert len(events(quota_trigger(**trigger.arguments()))[0]) == 1


def test_the_quota_trigger_ends_when_a_probe_is_due_and_claims_none(airflow: Variables) -> None:
    def trigger() -> QuotaTrigger:
        return quota_trigger(probe_interval=3600.0)

    assert "only a probe can show it" in events(trigger())[0][0]
    assert airflow.values == {}
    assert Probes("work").claim(timedelta(hours=1))
    assert still_waits(trigger())
    airflow.wait(hours=1)
    assert "only a probe can show it" in events(trigger())[0][0]


def test_the_quota_trigger_ends_when_airflow_does_not_answer(airflow: Variables) -> None:
    airflow.failure = ConnectionError("Airflow's API does not answer")
    assert events(quota_trigger()) == [["ConnectionError: Airflow's API does not answer"]]


@pytest.mark.parametrize("passing", [WasslyUnavailable("no route"), WasslyRateLimited("too many requests")])
def test_the_device_trigger_waits_for_the_device_and_over_an_outage(
    monkeypatch: pytest.MonkeyPatch, passing: WasslyError
) -> None:
    answers: list[Device | WasslyError] = [device("disconnected"), passing, device("connected")]

    def list_devices(client: WasslyClient) -> list[Device]:
        answer = answers.pop(0)
        if isinstance(answer, WasslyError):
            raise answer
        return [answer]

    monkeypatch.setattr(WasslyClient, "list_devices", list_devices)
    monkeypatch.setenv("AIRFLOW_CONN_WORK", CONNECTION)
    assert events(DeviceTrigger(instance_id="one", **waiting())) == [["Instance one is connected"]]
    assert answers == []


def test_the_device_trigger_ends_when_the_account_does_not_have_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WasslyClient, "list_devices", lambda client: [device("connected")])
    monkeypatch.setenv("AIRFLOW_CONN_WORK", CONNECTION)
    ((message,),) = events(DeviceTrigger(instance_id="two", **waiting()))
    assert "'two'" in message


def test_the_device_trigger_gives_up_on_bad_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    def list_devices(client: WasslyClient) -> list[Device]:
        raise WasslyAuthError("the apikey is not accepted", status=401)

    monkeypatch.setattr(WasslyClient, "list_devices", list_devices)
    monkeypatch.setenv("AIRFLOW_CONN_WORK", CONNECTION)
    assert events(DeviceTrigger(**waiting())) == [["WasslyAuthError: the apikey is not accepted"]]
