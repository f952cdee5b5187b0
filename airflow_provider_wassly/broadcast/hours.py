"""When a broadcast may send: the hours of a day, the days of a week."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from datetime import date, datetime, time, timedelta, timezone, tzinfo

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

#: More than a week.
_LOOKAHEAD_DAYS = 9


class Hours:
    """
    The hours in which messages may leave, by the clock on the wall.

    An interval such as ``("22:00", "06:00")`` crosses midnight and belongs to the day on which it begins. When the
    clocks change, the wall decides: an hour that is skipped is not sent in, one that comes twice is sent in twice.

    .. code-block:: python

        Hours(("09:00", "20:00"), {"mon", "tue", "wed", "thu", "fri"}, ZoneInfo("Europe/Berlin"))

    :param send_between: begin and end as ``HH:MM``; ``None`` for the whole day.
    :param send_on: days of the week, as ``mon``, ``tue`` and so on; ``None`` for all.
    :param zone: the time zone of both.
    :raises ValueError: names the parameter that is wrong.
    """

    def __init__(
        self, send_between: tuple[str, str] | None, send_on: Collection[str] | None, zone: tzinfo = timezone.utc
    ) -> None:
        self._zone = zone
        self._begin, self._end = (time(), time()) if send_between is None else _interval(send_between)
        self._days = set(range(7)) if send_on is None else _days(send_on)
        self._always = send_between is None and send_on is None

    def is_open(self, moment: datetime) -> bool:
        """Tell whether messages may leave at a moment."""
        if self._always:
            return True
        local = moment.astimezone(self._zone)
        now = local.time().replace(fold=0)
        if self._begin < self._end:
            return self._begin <= now < self._end and local.weekday() in self._days
        if now >= self._begin:
            return local.weekday() in self._days
        return now < self._end and (local.weekday() - 1) % 7 in self._days

    def opens_at(self, moment: datetime) -> datetime:
        """Return the first moment from the given one on at which messages may leave."""
        return self._next(moment.astimezone(timezone.utc), is_open=True)

    def closes_at(self, moment: datetime) -> datetime | None:
        """Return the first moment from the given one on at which none may leave; ``None`` if they always may."""
        if self._always or (self._begin == self._end and len(self._days) == 7):
            return None
        return self._next(moment.astimezone(timezone.utc), is_open=False)

    def day_of(self, moment: datetime) -> date:
        """Return the calendar day, by which a cap counts."""
        return moment.astimezone(self._zone).date()

    def next_day(self, moment: datetime) -> datetime:
        """Return the moment at which the next calendar day begins."""
        today = self.day_of(moment)
        return next(later for later in self._edges(moment) if self.day_of(later) > today)

    def _next(self, moment: datetime, *, is_open: bool) -> datetime:
        return next(later for later in self._edges(moment) if self.is_open(later) is is_open)

    def _edges(self, moment: datetime) -> Iterator[datetime]:
        """Yield the moment, and then, day by day, all later ones of a week at which anything can change."""
        yield moment
        # Clocks change at full quarters of an hour everywhere.
        begin = moment.replace(minute=moment.minute // 15 * 15, second=0, microsecond=0)
        for _ in range(_LOOKAHEAD_DAYS):
            end = begin + timedelta(days=1)
            quarters = {begin + timedelta(minutes=15 * number) for number in range(24 * 4)}
            walls = {
                datetime.combine(self.day_of(begin) + timedelta(days=days), wall, self._zone)
                .replace(fold=fold)
                .astimezone(timezone.utc)
                for days in (0, 1)
                for wall in (self._begin, self._end)
                for fold in (0, 1)
            }
            yield from sorted(edge for edge in quarters | walls if max(begin, moment) <= edge < end and edge > moment)
            begin = end


def _interval(value: tuple[str, str]) -> tuple[time, time]:
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise ValueError(f"send_between must be two times, such as ('09:00', '20:00'), not {value!r}")
    begin, end = map(_time, value)
    if begin == end and value[1] != "24:00":
        raise ValueError(f"send_between must have a beginning and an end that differ, not {value!r}")
    return begin, end


def _time(text: object) -> time:
    if text == "24:00":
        return time()
    if not isinstance(text, str) or not re.fullmatch(r"([01]?[0-9]|2[0-3]):[0-5][0-9]", text):
        raise ValueError(f"send_between must be times such as '09:00', not {text!r}")
    hour, minute = map(int, text.split(":"))
    return time(hour, minute)


def _days(value: Collection[str]) -> set[int]:
    names = [value] if isinstance(value, str) else list(value)
    found = {
        number
        for name in names
        for number, day in enumerate(_DAYS)
        if isinstance(name, str) and name.lower() in (day, day[:3])
    }
    if not names or len(found) < len(set(names)):
        raise ValueError(f"send_on must be days such as {{'mon', 'tue'}}, not {value!r}")
    return found
