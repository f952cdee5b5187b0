"""The virtual clock itself: the tests that use it are only as reliable as it is."""

from __future__ import annotations

import queue
import time

import pytest

from tests.support.clock import NothingCanHappen, VirtualClock


def test_a_day_passes_in_no_time_and_in_order() -> None:
    clock = VirtualClock()
    told: list[tuple[str, float]] = []

    def tell_every(seconds: float) -> None:
        for _ in range(3):
            clock.sleep(seconds)
            told.append((f"{seconds:.0f}", round(clock.monotonic() - 1000)))

    began = time.monotonic()
    clock.start(lambda: tell_every(20_000), "slow")
    clock.start(lambda: tell_every(7_000), "fast")
    clock.sleep(86_400)
    assert told == [
        ("7000", 7_000), ("7000", 14_000), ("20000", 20_000), ("7000", 21_000), ("20000", 40_000), ("20000", 60_000),
    ]  # fmt: skip
    assert time.monotonic() - began < 10


def order(seed: int) -> list[int]:
    clock = VirtualClock(seed)
    told: list[int] = []

    def tell(number: int) -> None:
        for _ in range(5):
            clock.let_others_go_on()
            told.append(number)

    for number in range(4):
        clock.start(lambda number=number: tell(number), "")  # type: ignore[misc]
    clock.wait(lambda: len(told) == 20)
    return told


def test_the_seed_decides_who_goes_on() -> None:
    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(20)}) == 20


def test_the_seed_is_shown_when_a_test_fails(capsys: pytest.CaptureFixture[str]) -> None:
    VirtualClock(7)
    assert capsys.readouterr().out == "VirtualClock(seed=7)\n"


def test_a_queue_hands_each_thing_to_one() -> None:
    clock = VirtualClock()
    things = clock.queue()
    taken: list[int] = []
    for _ in range(3):
        clock.start(lambda: taken.append(things.get()), "")
    clock.sleep(1)
    assert taken == []
    for thing in range(3):
        things.put(thing)
    clock.sleep(1)
    with pytest.raises(queue.Empty):
        things.get(timeout=5)
    assert sorted(taken) == [0, 1, 2]
    with pytest.raises(queue.Empty):
        things.get_nowait()


def test_an_event_wakes_all_who_wait_for_it() -> None:
    clock = VirtualClock()
    event = clock.event()
    woken: list[bool] = []
    for _ in range(3):
        clock.start(lambda: woken.append(event.wait()), "")
    assert not event.wait(60)
    event.set()
    clock.sleep(1)
    assert woken == [True] * 3


def test_who_waits_for_what_nobody_does_is_told() -> None:
    clock = VirtualClock()
    with pytest.raises(NothingCanHappen):
        clock.event().wait()


def test_what_a_thread_raises_reaches_the_test() -> None:
    clock = VirtualClock()

    def fail() -> None:
        raise ZeroDivisionError

    clock.start(fail, "")
    with pytest.raises(ZeroDivisionError):
        clock.sleep(1)
