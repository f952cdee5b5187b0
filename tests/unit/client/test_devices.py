"""How often the device list is fetched when many messages are rejected."""

from __future__ import annotations

import threading

import pytest

from airflow_provider_wassly.client import Device, WasslyUnavailable
from airflow_provider_wassly.client._devices import DeviceStates
from airflow_provider_wassly.client.clock import Clock

DEVICES = [Device(id="1", name="Phone", status="connected", last_active=None, instance_id="one")]


class Stopped(Clock):
    """A clock that the test sets."""

    time = 1000.0

    def monotonic(self) -> float:
        return self.time


class Account:
    """An account that counts requests for its device list."""

    def __init__(self) -> None:
        self.clock = Stopped()
        self.asked = 0
        self.failure: Exception | None = None
        self.states = DeviceStates(self.fetch, self.clock)

    def fetch(self) -> list[Device]:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return DEVICES


def test_many_rejections_of_a_device_ask_once_a_minute() -> None:
    account = Account()
    for _ in range(300):
        assert account.states.devices_for("one") == DEVICES
        account.clock.time += 1
    assert account.asked == 5


def test_each_device_is_asked_for() -> None:
    account = Account()
    for name in ("one", "two", "one", "two"):
        account.states.devices_for(name)
    assert account.asked == 2


def test_a_list_that_cannot_be_had_is_not_asked_for_again_at_once() -> None:
    account = Account()
    account.failure = WasslyUnavailable("no connection")
    assert [account.states.devices_for("one") for _ in range(3)] == [None] * 3
    assert account.asked == 1
    account.failure = None
    account.clock.time += 60
    assert account.states.devices_for("one") == DEVICES


def test_what_interrupts_it_is_no_answer() -> None:
    account = Account()
    account.failure = KeyboardInterrupt()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        account.states.devices_for("one")
    account.failure = None
    assert account.states.devices_for("one") == DEVICES


def test_many_threads_ask_once() -> None:
    account = Account()
    begun = threading.Barrier(10)

    def ask() -> None:
        begun.wait(10)
        account.states.devices_for("one")

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert account.asked == 1
