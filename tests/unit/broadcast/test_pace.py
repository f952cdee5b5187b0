"""A steady pace, whatever happens."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_wassly.broadcast.pace import Pace
from tests.support.clock import VirtualClock

GAP = 6.0  # seconds between two messages at ten a minute

#: How much shorter a gap may be after a late message; the very first gap always is.
SLACK = 0.05 * GAP


class Clock(VirtualClock):
    """A clock on which each wait takes longer than requested, by a time that the test chooses."""

    lateness: Callable[[], float] = staticmethod(lambda: 0.0)

    def wait(self, is_over: Callable[[], bool], seconds: float = math.inf) -> None:
        super().wait(is_over, seconds)
        self.advance(self.lateness())


@pytest.fixture
def clock() -> Clock:
    return Clock()


def soon(moments: Any) -> Any:
    """Return values equal to these times, apart from the clock's tick at each reading."""
    return pytest.approx(moments, abs=0.01)


def turns(pace: Pace, clock: Clock, number: int, work: Callable[[], float] = lambda: 0.0) -> list[float]:
    """Return when messages leave if each takes this long to send."""
    times = []
    for _ in range(number):
        assert pace.wait_for_turn()
        times.append(clock.monotonic())
        clock.advance(work())
    return times


def gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(times)]


def test_the_first_message_leaves_at_once(clock: Clock) -> None:
    assert turns(Pace(10, 0.5, clock=clock), clock, 1) == soon([1000])


def test_without_jitter_all_gaps_are_the_same(clock: Clock) -> None:
    first, *others = gaps(turns(Pace(10, clock=clock), clock, 20))
    assert GAP - SLACK <= first <= GAP
    assert others == pytest.approx([GAP] * 18)


@pytest.mark.parametrize("jitter", [0.2, 0.5, 1.0])
def test_jitter_varies_the_gaps_and_keeps_the_average(clock: Clock, jitter: float) -> None:
    found = gaps(turns(Pace(10, jitter, clock=clock), clock, 4000))
    assert sum(found) / len(found) == pytest.approx(GAP, rel=0.05)
    assert GAP * (1 - jitter) - SLACK <= min(found) < GAP * (1 - 0.9 * jitter)
    assert GAP * (1 + 0.9 * jitter) < max(found) <= GAP * (1 + jitter) + 0.001


def test_the_time_that_sending_takes_does_not_slow_the_pace(clock: Clock) -> None:
    _, *others = gaps(turns(Pace(10, clock=clock), clock, 20, lambda: 5.0))
    assert others == pytest.approx([GAP] * 18)


def test_a_system_that_wakes_a_little_late_does_not_slow_the_pace(clock: Clock) -> None:
    clock.lateness = lambda: GAP * 0.04
    times = turns(Pace(10, clock=clock), clock, 101)
    assert (times[-1] - times[0]) / 100 == pytest.approx(GAP, rel=0.01)


def test_there_is_no_burst_after_a_stall(clock: Clock) -> None:
    pace = Pace(10, clock=clock)
    turns(pace, clock, 3)
    clock.advance(100 * GAP)
    resumed = clock.monotonic()
    times = turns(pace, clock, 5)
    assert times[0] == soon(resumed)
    assert min(gaps(times)) >= GAP - SLACK


def test_messages_that_take_longer_than_the_gap_follow_each_other_at_once(clock: Clock) -> None:
    assert gaps(turns(Pace(10, clock=clock), clock, 10, lambda: 7.0)) == pytest.approx([7.0] * 9)


seconds = st.floats(0, 40)


@settings(deadline=None)
@given(st.lists(st.tuples(seconds, seconds, seconds), min_size=2, max_size=30), st.floats(0, 1))
def test_whatever_happens_no_gap_is_shorter_than_the_jitter_allows(
    events: list[tuple[float, float, float]], jitter: float
) -> None:
    clock = Clock()
    pace = Pace(10, jitter, clock=clock)
    times = []
    for work, late, held in events:
        clock.lateness = lambda late=late: late  # type: ignore[misc]
        assert pace.wait_for_turn()
        times.append(clock.monotonic())
        clock.advance(work)
        if held > 20:
            pace.hold(held)
            assert pace.seconds_to_next(0) >= held - 0.001
    assert min(gaps(times)) >= GAP * (1 - jitter) - SLACK - 0.001


def test_nothing_leaves_while_it_is_held(clock: Clock) -> None:
    pace = Pace(10, clock=clock)
    pace.hold(100)
    first, *others = turns(pace, clock, 3)
    assert first == soon(1100)
    assert others == pytest.approx([1106, 1112])


def test_the_longest_hold_counts(clock: Clock) -> None:
    pace = Pace(None, clock=clock)
    pace.hold(100)
    pace.hold(1)
    assert turns(pace, clock, 1) == soon([1100])


def test_a_hold_reaches_also_whoever_waits_already(clock: Clock) -> None:
    pace = Pace(10, clock=clock)
    turns(pace, clock, 1)

    def meanwhile() -> float:
        clock.lateness = lambda: 0.0
        pace.hold(60)
        return 0.0

    clock.lateness = meanwhile
    earliest = clock.monotonic() + pace.seconds_to_next(0) + 60
    assert turns(pace, clock, 1) == pytest.approx([earliest])


def test_how_long_a_message_will_have_to_wait(clock: Clock) -> None:
    pace = Pace(10, clock=clock)
    assert [pace.seconds_to_next(waiting) for waiting in (0, 2)] == [0, 2 * GAP]
    turns(pace, clock, 2)
    assert pace.seconds_to_next(0) == pytest.approx(GAP)
    assert pace.seconds_to_next(2) == pytest.approx(3 * GAP)
    pace.hold(100)
    assert pace.seconds_to_next(2) == pytest.approx(100 + 2 * GAP)
    clock.advance(1000)
    assert pace.seconds_to_next(2) == pytest.approx(2 * GAP)


def test_without_a_pace_nobody_waits(clock: Clock) -> None:
    assert turns(Pace(None, 0.5, clock=clock), clock, 100) == soon([1000] * 100)


# With threads


def in_threads(clock: Clock, number: int, work: Callable[[], object]) -> None:
    """Run ``work`` in several threads to its end."""
    ended: list[object] = []
    for thread in range(number):
        clock.start(lambda: ended.append(work()), f"thread {thread}")
    clock.wait(lambda: len(ended) == number)


def test_threads_share_the_pace(clock: Clock) -> None:
    pace = Pace(60, clock=clock)
    left: list[float] = []

    def work() -> None:
        for _ in range(6):
            assert pace.wait_for_turn()
            left.append(clock.monotonic())

    in_threads(clock, 4, work)
    _, *others = gaps(left)
    assert others == soon([1.0] * 22)


def test_a_hold_is_for_all_threads(clock: Clock) -> None:
    pace = Pace(None, clock=clock)
    left: list[float] = []
    pace.hold(20)
    in_threads(clock, 4, lambda: left.append(clock.monotonic() if pace.wait_for_turn() else 0.0))
    assert left == soon([1020] * 4)


@pytest.mark.parametrize("reason", ["the pace", "a hold"])
def test_a_stop_wakes_everybody_who_waits(clock: Clock, reason: str) -> None:
    pace = Pace(1 / 60 if reason == "the pace" else None, clock=clock)
    if reason == "a hold":
        pace.hold(500)
    else:
        assert pace.wait_for_turn()
    may_leave: list[bool] = []
    for thread in range(3):
        clock.start(lambda: may_leave.append(pace.wait_for_turn()), f"thread {thread}")
    clock.sleep(10)
    assert may_leave == []
    pace.stop()
    clock.sleep(1)
    assert may_leave == [False, False, False]


def test_a_stop_wakes_whoever_waits_by_the_clock_of_the_system() -> None:
    pace = Pace(None)
    pace.hold(3600)
    may_leave: list[bool] = []
    threads = [threading.Thread(target=lambda: may_leave.append(pace.wait_for_turn()), daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    pace.stop()
    for thread in threads:
        thread.join(60)
    assert may_leave == [False, False, False]


def test_nothing_leaves_after_a_stop_even_if_it_is_due(clock: Clock) -> None:
    pace = Pace(10, clock=clock)
    pace.stop()
    assert not pace.wait_for_turn()
