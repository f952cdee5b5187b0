"""When a broadcast will be done."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow_provider_wassly.broadcast.hours import DAYS, Hours

#: How many days of sending to look ahead. A longer broadcast has no estimate.
_MOST_DAYS = 400


def done_at(
    now: datetime,
    messages: int,
    per_minute: float | None,
    hours: Hours,
    max_per_day: int | None = None,
    sent_today: int = 0,
) -> datetime | None:
    """
    Return when a device will have sent its messages; ``None`` if that is not known, or more than a year away.

    :param now: when it begins.
    :param messages: how many messages it has to send.
    :param per_minute: the pace; ``None`` if it is not known.
    :param hours: when messages may leave.
    :param max_per_day: how many may leave on a calendar day; ``None`` for no limit.
    :param sent_today: how many have left today already.
    """
    if messages <= 0:
        return now
    if per_minute is None and max_per_day is None:
        return None
    left, moment, day = float(messages), now, hours.day_of(now)
    for _ in range(_MOST_DAYS):
        moment = hours.opens_at(moment)
        if hours.day_of(moment) != day:
            day, sent_today = hours.day_of(moment), 0
        end = hours.closes_at(moment)
        room = left
        if max_per_day is not None:
            room = min(left, max(0, max_per_day - sent_today))
            midnight = hours.next_day(moment)
            end = midnight if end is None else min(end, midnight)
        if per_minute is not None and end is not None:
            room = min(room, (end - moment) / timedelta(minutes=1) * per_minute)
        if room >= left:
            return moment if per_minute is None else moment + timedelta(minutes=left / per_minute)
        left -= room
        sent_today += round(room)
        assert end is not None  # otherwise everything could leave now
        moment = end
    return None


def in_words(moment: datetime, now: datetime, hours: Hours) -> str:
    """Return a moment as people say it: ``today at 14:20``, ``Thursday at 14:20``, ``Thursday 2026-12-10 at 14:20``."""
    local = hours.local(moment)
    days = (local.date() - hours.day_of(now)).days
    day = DAYS[local.weekday()].capitalize()
    day = {0: "today", 1: "tomorrow"}.get(days, day) if days < 7 else f"{day} {local.date().isoformat()}"
    return f"{day} at {local:%H:%M}"
