from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_wassly.broadcast.hours import Hours

BERLIN = ZoneInfo("Europe/Berlin")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def at(text: str, zone: Any = timezone.utc) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone)


def test_without_any_hours_messages_may_always_leave() -> None:
    hours = Hours(None, None)
    assert hours.is_open(at("2026-11-28 03:00"))
    assert hours.opens_at(at("2026-11-28 03:00")) == at("2026-11-28 03:00")
    assert hours.closes_at(at("2026-11-28 03:00")) is None


@pytest.mark.parametrize(
    ("now", "opens", "closes"),
    [
        ("2026-11-27 08:59:59", "2026-11-27 09:00", "2026-11-27 08:59:59"),
        ("2026-11-27 09:00", "2026-11-27 09:00", "2026-11-27 20:00"),
        ("2026-11-27 19:59:59", "2026-11-27 19:59:59", "2026-11-27 20:00"),
        ("2026-11-27 20:00", "2026-11-30 09:00", "2026-11-27 20:00"),  # a Friday
        ("2026-11-29 12:00", "2026-11-30 09:00", "2026-11-29 12:00"),
    ],
)
def test_hours_of_some_days(now: str, opens: str, closes: str) -> None:
    hours = Hours(("09:00", "20:00"), {"mon", "tue", "wed", "thu", "fri"}, BERLIN)
    assert hours.opens_at(at(now, BERLIN)) == at(opens, BERLIN)
    assert hours.closes_at(at(now, BERLIN)) == at(closes, BERLIN)


def test_hours_over_midnight_belong_to_the_day_on_which_they_begin() -> None:
    hours = Hours(("22:00", "06:00"), ["Friday"], BERLIN)
    assert not hours.is_open(at("2026-11-27 05:00", BERLIN))  # that of Thursday
    assert hours.is_open(at("2026-11-27 22:00", BERLIN))
    assert hours.is_open(at("2026-11-28 05:59", BERLIN))
    assert not hours.is_open(at("2026-11-28 06:00", BERLIN))
    assert not hours.is_open(at("2026-11-28 23:00", BERLIN))


def test_the_clocks_go_forward() -> None:
    hours = Hours(("02:30", "03:15"), None, BERLIN)
    opens = hours.opens_at(at("2026-03-29 00:00", BERLIN))
    assert opens == at("2026-03-29 01:00")  # 03:00 in Berlin, as 02:30 is not there
    assert hours.closes_at(opens) == at("2026-03-29 01:15")
    skipped = Hours(("02:15", "02:45"), None, BERLIN)
    assert skipped.opens_at(at("2026-03-29 00:00", BERLIN)) == at("2026-03-30 02:15", BERLIN)


def test_the_clocks_go_back() -> None:
    hours = Hours(("02:15", "02:45"), None, BERLIN)
    opens = hours.opens_at(at("2026-10-25 00:00", BERLIN))
    assert opens == at("2026-10-25 00:15")
    closes = hours.closes_at(opens)
    assert closes == at("2026-10-25 00:45")
    assert hours.opens_at(closes) == at("2026-10-25 01:15")  # 02:15 once more
    whole = Hours(("09:00", "20:00"), None, BERLIN)
    assert whole.opens_at(at("2026-10-24 21:00", BERLIN)) == at("2026-10-25 08:00")


def test_the_day_of_a_cap_is_that_of_the_zone() -> None:
    hours = Hours(None, None, BERLIN)
    assert hours.day_of(at("2026-11-27 23:30")) == date(2026, 11, 28)
    assert hours.next_day(at("2026-11-27 12:00")) == at("2026-11-28 00:00", BERLIN)
    assert hours.next_day(at("2026-10-24 23:30")) == at("2026-10-26 00:00", BERLIN)  # of 25 hours


@pytest.mark.parametrize(
    ("between", "on", "reason"),
    [
        (("9", "20:00"), None, "send_between must be times such as '09:00', not '9'"),
        (("09:00", "25:00"), None, "not '25:00'"),
        (("09:00",), None, "send_between must be two times"),
        ("09:00-20:00", None, "send_between must be two times"),
        (("09:00", "09:00"), None, "send_between must begin and end at different times"),
        ((9, 20), None, "not 9"),
        (None, {"mon", "mo"}, "send_on must be days"),
        (None, set(), "send_on must be days"),
        (None, [1], "send_on must be days"),
    ],
)
def test_what_is_no_time_or_day_is_named(between: Any, on: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Hours(between, on)


def test_a_whole_day_can_be_written_as_such() -> None:
    assert Hours(("00:00", "24:00"), ["sat"], BERLIN).closes_at(at("2026-11-28 00:00", BERLIN)) == at(
        "2026-11-29 00:00", BERLIN
    )


TIMES = st.tuples(st.integers(0, 23), st.sampled_from([0, 5, 15, 20, 30, 45])).map(lambda t: f"{t[0]:02}:{t[1]:02}")
ZONES = st.sampled_from(["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Cairo"])


@given(
    st.tuples(TIMES, TIMES).filter(lambda times: times[0] != times[1]),
    st.sets(st.sampled_from(DAYS), min_size=1),
    ZONES,
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)),
)
def test_nothing_opens_or_closes_before_it_is_said_to(
    between: tuple[str, str], on: set[str], zone: str, moment: datetime
) -> None:
    hours = Hours(between, on, ZoneInfo(zone))
    now = moment.replace(second=0, microsecond=0, tzinfo=timezone.utc)
    for search, wanted in ((hours.opens_at, True), (hours.closes_at, False)):
        found = search(now)
        assert found is not None
        assert hours.is_open(found) is wanted
        minutes = int((found - now) / timedelta(minutes=1))
        # Every minute of the first two days, and then every seventh.
        for minute in [*range(min(minutes, 2880)), *range(2880, minutes, 7)]:
            assert hours.is_open(now + timedelta(minutes=minute)) is not wanted


def test_an_hour_that_a_change_of_the_clocks_skips_comes_again_a_week_later() -> None:
    hours = Hours(("02:15", "02:45"), ["sun"], ZoneInfo("Europe/Berlin"))
    closed = datetime(2027, 3, 21, 3, tzinfo=ZoneInfo("Europe/Berlin"))
    # There is no such hour on the 28th.
    assert hours.opens_at(closed) == datetime(2027, 4, 4, 2, 15, tzinfo=ZoneInfo("Europe/Berlin"))
