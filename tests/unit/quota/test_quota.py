from __future__ import annotations

import json
import logging
import random
import re
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_wassly.airflow_compat import variables
from airflow_provider_wassly.client.clock import Clock
from airflow_provider_wassly.quota import Probes, Quota, QuotaReading, Verdict, is_due, judge
from tests.support.clock import VirtualClock
from tests.support.variables import Variables

KEY = "wassly_quota__work"
PROBE_KEY = "wassly_quota_probe__work"
HOUR = timedelta(hours=1)


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Variables:
    return Variables(monkeypatch)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> VirtualClock:
    clock = VirtualClock()
    monkeypatch.setattr(Probes, "clock", clock)
    return clock


def remaining() -> int | None:
    reading = Quota("work").read()
    return None if reading is None else reading.remaining_conversations


def test_a_reading_is_kept_with_its_time_and_its_session(airflow: Variables) -> None:
    assert Quota("work").read() is None
    Quota("work").record(40969, "one")
    airflow.wait(minutes=5)
    reading = Quota("work").read()
    assert reading == QuotaReading(40969, datetime(2026, 11, 24, 12, tzinfo=timezone.utc), "one")
    assert reading is not None
    assert reading.age == timedelta(minutes=5)
    assert json.loads(airflow.values[KEY]) == {
        "version": 1,
        "remaining_conversations": 40969,
        "read_at": "2026-11-24T12:00:00+00:00",
        "instance_id": "one",
    }


def test_the_last_of_many_readings_is_kept_however_fast_they_come(airflow: Variables) -> None:
    for remains in (12, 11, 10):
        Quota("work").record(remains, "one")
        airflow.wait(seconds=1)
    assert json.loads(airflow.values[KEY])["remaining_conversations"] == 10


def test_a_reading_that_has_waited_does_not_replace_one_that_came_meanwhile(airflow: Variables) -> None:
    Quota("work").record(89, "one")
    airflow.wait(seconds=25)
    Quota("work").record(99, "one", timedelta(seconds=30))
    assert remaining() == 89
    Quota("work").record(88, "one", timedelta(seconds=10))
    assert remaining() == 88


def test_a_newer_reading_of_another_worker_stays(airflow: Variables, monkeypatch: pytest.MonkeyPatch) -> None:
    get = variables.get_variable

    def get_late(key: str) -> str | None:
        # Another worker gets its answer and stores it before this one has read.
        monkeypatch.setattr(variables, "get_variable", get)
        airflow.wait(seconds=1)
        Quota("work").record(9, "one")
        return get(key)

    monkeypatch.setattr(variables, "get_variable", get_late)
    Quota("work").record(10, "two")
    assert remaining() == 9


@pytest.mark.parametrize("seconds_ahead", [2, 60, 3599, 3601, 10**6])
def test_a_worker_whose_clock_is_ahead_keeps_no_newer_reading_out(airflow: Variables, seconds_ahead: int) -> None:
    airflow.wait(seconds=seconds_ahead)
    Quota("work").record(10, "ahead")
    airflow.wait(seconds=1 - seconds_ahead)
    Quota("work").record(9, "right")
    assert remaining() == 9
    airflow.wait(seconds=1 + seconds_ahead)
    Quota("work").record(8, "ahead")
    airflow.wait(seconds=1 - seconds_ahead)
    Quota("work").record(7, "right", timedelta(seconds=1))
    assert remaining() == 7


def test_connections_have_readings_of_their_own(airflow: Variables) -> None:
    Quota("work").record(1, None)
    Quota("home").record(2, None)
    assert (remaining(), Quota("home").read()) == (1, QuotaReading(2, airflow.time))


@pytest.mark.parametrize("conn_id", ["a/b", "a b", "a\nb", "ü", "x" * 250, "a\n", "", "a'; drop table variable --"])
def test_any_connection_id_has_a_key_that_every_airflow_takes(airflow: Variables, conn_id: str) -> None:
    Quota(conn_id).record(7, None)
    assert Probes(conn_id).claim(HOUR)
    for key in airflow.values:
        assert len(key) <= 250
        assert key.isascii()
        assert all(character.isalnum() or character in "_.-" for character in key), key
    reading = Quota(conn_id).read()
    assert reading is not None
    assert reading.remaining_conversations == 7


GARBAGE = [
    "",
    "no JSON",
    "[]",
    "{}",
    "null",
    '{"remaining_conversations": 5}',
    '{"remaining_conversations": 5, "read_at": null}',
    '{"remaining_conversations": 5, "read_at": 5}',
    '{"remaining_conversations": 5, "read_at": "yesterday"}',
    '{"remaining_conversations": 5, "read_at": "0001-01-01T00:00:00+23:00"}',
    '{"remaining_conversations": 5, "read_at": "2126-01-01T00:00:00+00:00"}',
    '{"remaining_conversations": null, "read_at": "2026-11-24T12:00:00+00:00"}',
    '{"remaining_conversations": Infinity, "read_at": "2026-11-24T12:00:00+00:00"}',
    '{"remaining_conversations": "many", "read_at": "2026-11-24T12:00:00+00:00"}',
]


@pytest.mark.parametrize("text", GARBAGE)
def test_what_is_no_reading_is_none_with_a_warning_and_is_replaced(
    airflow: Variables, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    airflow.values[KEY] = text
    assert remaining() is None
    assert KEY in caplog.text
    Quota("work").record(3, None)
    assert remaining() == 3


@given(text=st.one_of(st.text(), st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps)))
def test_no_text_in_the_variable_is_an_error(text: str) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        airflow = Variables(monkeypatch)
        airflow.values[KEY] = airflow.values[PROBE_KEY] = text
        assert remaining() is None
        assert may_probe()


def test_the_reading_of_a_clock_that_is_a_little_ahead_is_fresh(airflow: Variables) -> None:
    Quota("work").record(3, None)
    airflow.wait(seconds=-20)
    reading = Quota("work").read()
    assert reading is not None
    assert reading.age == timedelta(0)


def test_a_time_without_zone_is_utc(airflow: Variables) -> None:
    airflow.values[KEY] = '{"remaining_conversations": 5, "read_at": "2026-11-24T11:00:00"}'
    reading = Quota("work").read()
    assert reading is not None
    assert reading.age == HOUR


def test_a_failure_to_record_is_a_warning(airflow: Variables, caplog: pytest.LogCaptureFixture) -> None:
    airflow.failure = ConnectionError("Airflow's API does not answer")
    Quota("work").record(3, None)
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (
        logging.WARNING,
        "Could not save the remaining quota: ConnectionError: Airflow's API does not answer",
    )
    airflow.failure = None
    assert remaining() is None
    Quota("work").record(2, None)
    assert remaining() == 2


def test_outside_of_a_task_nothing_is_recorded(airflow: Variables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variables, "can_reach_airflow", lambda: False)
    Quota("work").record(3, None)
    assert airflow.values == {}


def test_forgetting(airflow: Variables) -> None:
    Quota("work").forget()
    Quota("work").record(3, None)
    Quota("work").forget()
    assert (remaining(), airflow.values) == (None, {})


def test_an_error_of_airflow_while_reading_or_forgetting_is_raised(airflow: Variables) -> None:
    airflow.failure = ConnectionError("Airflow's API does not answer")
    for action in (Quota("work").read, Quota("work").forget, Probes("work").last):
        with pytest.raises(ConnectionError):
            action()


def claim(interval: timedelta = HOUR) -> bool:
    return Probes("work").claim(interval)


def may_probe() -> bool:
    return is_due(Probes("work").last(), HOUR)


def test_a_probe_is_claimed_once_in_an_interval_whatever_became_of_it(airflow: Variables) -> None:
    assert claim()
    airflow.wait(minutes=59)
    assert not claim()
    assert not may_probe()
    airflow.wait(minutes=1)
    assert may_probe()
    assert claim()


def test_the_interval_is_that_of_who_asks(airflow: Variables) -> None:
    assert claim(timedelta(hours=5))
    airflow.wait(minutes=10)
    assert not claim(HOUR)
    assert claim(timedelta(minutes=10))


class SlowVariables:
    """
    Airflow's Variables, where each access takes time before and after it takes effect.

    :param longest: the maximum duration of each of the two, in seconds.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, clock: VirtualClock, longest: float) -> None:
        get, set_ = variables.get_variable, variables.set_variable

        def get_slowly(key: str) -> str | None:
            clock.sleep(random.uniform(0, longest))
            value = get(key)
            clock.sleep(random.uniform(0, longest))
            return value

        def set_slowly(key: str, value: str, description: str) -> None:
            clock.sleep(random.uniform(0, longest))
            set_(key, value, description)
            clock.sleep(random.uniform(0, longest))

        monkeypatch.setattr(variables, "get_variable", get_slowly)
        monkeypatch.setattr(variables, "set_variable", set_slowly)


def claim_in_several_workers(clock: VirtualClock, workers: int) -> int:
    """Return how many of them may probe."""
    won: list[bool] = []
    for _ in range(workers):
        clock.start(lambda: won.append(claim()), "worker")
    clock.wait(lambda: len(won) == workers)
    return sum(won)


@pytest.mark.parametrize("longest", [0.0, 0.1, 1.0, 2.0, 4.0, 10.0])
def test_of_several_that_claim_at_once_never_two_win_however_slow_airflow_is(
    airflow: Variables, monkeypatch: pytest.MonkeyPatch, clock: VirtualClock, longest: float
) -> None:
    SlowVariables(monkeypatch, clock, longest)
    for _ in range(300):
        airflow.values.clear()
        won = claim_in_several_workers(clock, random.choice([2, 2, 3]))
        assert won <= 1
        # Reading and writing take up to four of these times.
        assert won == 1 or longest > 1


def test_a_claim_that_took_too_long_is_used_up_and_says_so(
    airflow: Variables, monkeypatch: pytest.MonkeyPatch, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    airflow.on_event = lambda what: clock.sleep(6) if what == "write" else None
    assert not claim()
    assert "claiming it took 6.0 seconds" in caplog.text
    airflow.on_event = lambda what: None
    assert not claim()
    airflow.wait(hours=1)
    assert claim()


def test_a_claim_that_crashes_is_used_up(airflow: Variables, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(clock: Clock, seconds: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(VirtualClock, "sleep", crash)
        with pytest.raises(KeyboardInterrupt):
            claim()
    assert not claim()


def test_a_probe_that_cannot_be_claimed_for_sure_is_an_error(airflow: Variables) -> None:
    airflow.failure = ConnectionError("Airflow's API does not answer")
    with pytest.raises(ConnectionError):
        claim()


@pytest.mark.parametrize("mark", [*GARBAGE, '{"at": "2126-01-01T00:00:00+00:00"}'])
def test_a_mark_that_is_none_does_not_forbid_probes_for_ever(airflow: Variables, mark: str) -> None:
    airflow.values[PROBE_KEY] = mark
    assert claim()
    assert not claim()


DAY_AND_HALF = timedelta(hours=36)
Unknown = Literal["proceed", "wait", "fail"]


def judged(reading: QuotaReading | None, *, probing: bool = False, on_unknown: Unknown = "proceed") -> Any:
    return judge(reading, needed=200, max_age=DAY_AND_HALF, probing=probing, on_unknown=on_unknown)


@pytest.mark.parametrize(
    ("remains", "hours", "verdict", "with_probe", "level", "text"),
    [
        (
            200,
            35.9,
            Verdict.ENOUGH,
            Verdict.ENOUGH,
            logging.INFO,
            r"^Quota OK: 200 left \(reading 1 d 11 h old\), 200 needed$",
        ),
        (
            199,
            35.9,
            Verdict.WAIT,
            Verdict.PROBE,
            logging.INFO,
            r"^Waiting, quota too low: 199 left \(reading 1 d 11 h",
        ),
        (
            0,
            0,
            Verdict.WAIT,
            Verdict.PROBE,
            logging.INFO,
            r"^Waiting, quota too low: 0 left \(reading 0 s old\)",
        ),
        (
            200,
            36,
            Verdict.ENOUGH,
            Verdict.PROBE,
            logging.WARNING,
            r"^Quota OK: 200 left .*, 200 needed; but the reading is older than max_age \(1 d 12 h\)$",
        ),
        (199, 36, Verdict.WAIT, Verdict.PROBE, logging.WARNING, r"only a sent message, .*probe_to.*forget_quota\(\)"),
        (
            None,
            0,
            Verdict.ENOUGH,
            Verdict.PROBE,
            logging.WARNING,
            "^Proceeding with unknown quota: no reading yet.*sending will show it",
        ),
    ],
)
def test_what_a_reading_means(
    airflow: Variables,
    remains: int | None,
    hours: float,
    verdict: Verdict,
    with_probe: Verdict,
    level: int,
    text: str,
) -> None:
    if remains is not None:
        Quota("work").record(remains, None)
    airflow.wait(hours=hours)
    reading = Quota("work").read()
    found, words, logged_at = judged(reading)
    assert (found, logged_at) == (verdict, level)
    assert "200 needed" in words
    assert re.search(text, words), words
    assert judged(reading, probing=True)[0] is with_probe


def test_what_the_absence_of_a_reading_means() -> None:
    assert [judged(None, on_unknown=choice)[0] for choice in ("proceed", "wait", "fail")] == [
        Verdict.ENOUGH,
        Verdict.WAIT,
        Verdict.FAIL,
    ]
    assert {judged(None, probing=True, on_unknown=choice)[0] for choice in ("proceed", "wait", "fail")} == {
        Verdict.PROBE
    }
