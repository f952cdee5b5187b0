"""When a broadcast may send: the hours of a day, the days of a week."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from datetime import date, datetime, time, timedelta, timezone, tzinfo

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

#: More than two weeks: a change of the clocks can skip the only hour of a week.
_LOOKAHEAD_DAYS = 16


class Hours:
    """
    The hours in which messages may leave, in local time.

    An interval such as ``("22:00", "06:00")`` crosses midnight and belongs to the day on which it begins. When the
    clocks change, an hour that is skipped is lost, and one that comes twice is used twice.

    .. code-block:: python

        Hours(("09:00", "20:00"), {"mon", "tue", "wed", "thu", "fri"}, ZoneInfo("Europe/Berlin"))

    :param send_between: begin and end as ``HH:MM``; ``None`` for the whole day.
    :param send_on: days of the week, as ``mon``, ``tue`` and so on; ``None`` for all.
    :param zone: the time zone of both.
    :raises ValueError: names the wrong parameter.
    """

    def __init__(
        self, send_between: tuple[str, str] | None, send_on: Collection[str] | None, zone: tzinfo = timezone.utc
    ) -> None:
        self._zone = zone
        self._begin, self._end = (time(), time()) if send_between is None else _interval(send_between)
        self._days = set(range(7)) if send_on is None else _days(send_on)
        #: The state found last: from when, whether open, until when.
        self._known: tuple[datetime, bool, datetime] | None = None

    @property
    def in_words(self) -> str:
        """The hours and days; an empty string if messages may always leave."""
        hours = "" if self._begin == self._end else f"{self._begin:%H:%M}–{self._end:%H:%M}"
        days = "" if len(self._days) == 7 else ", ".join(DAYS[day][:3].capitalize() for day in sorted(self._days))
        return " on ".join(filter(None, (hours, days)))

    def local(self, moment: datetime) -> datetime:
        """Return a moment in the time zone of the hours."""
        return moment.astimezone(self._zone)

    def is_open(self, moment: datetime) -> bool:
        """Tell whether messages may leave at a moment."""
        return self._state(moment)[0]

    def opens_at(self, moment: datetime) -> datetime:
        """Return the given moment if messages may leave then, otherwise the next one at which they may."""
        is_open, until = self._state(moment)
        return moment if is_open or until is None else until

    def closes_at(self, moment: datetime) -> datetime | None:
        """Return until when messages may leave; the given moment if they may not, ``None`` if they always may."""
        is_open, until = self._state(moment)
        return until if is_open else moment

    def day_of(self, moment: datetime) -> date:
        """Return the calendar day of a moment; ``max_per_day`` counts by it."""
        return moment.astimezone(self._zone).date()

    def next_day(self, moment: datetime) -> datetime:
        """Return the moment at which the next calendar day begins."""
        today = self.day_of(moment)
        return next(later for later in self._edges(moment) if self.day_of(later) > today)

    def _state(self, moment: datetime) -> tuple[bool, datetime | None]:
        """Return whether messages may leave at a moment, and when that changes; ``None`` if it never does."""
        if self._begin == self._end and len(self._days) == 7:
            return True, None
        if self._known is None or not self._known[0] <= moment < self._known[2]:
            is_open = self._is_open(moment)
            until = next(later for later in self._edges(moment) if self._is_open(later) is not is_open)
            self._known = moment, is_open, until
        return self._known[1:]

    def _is_open(self, moment: datetime) -> bool:
        local = self.local(moment)
        now = local.time().replace(fold=0)
        if self._begin < self._end:
            return self._begin <= now < self._end and local.weekday() in self._days
        if now >= self._begin:
            return local.weekday() in self._days
        return now < self._end and (local.weekday() - 1) % 7 in self._days

    def _edges(self, moment: datetime) -> Iterator[datetime]:
        """Yield the moments, in order and for more than two weeks, at which the state or the day can change."""
        begin = moment.astimezone(timezone.utc)
        for _ in range(_LOOKAHEAD_DAYS):
            end = begin + timedelta(days=1)
            edges = {
                datetime.combine(self.day_of(begin) + timedelta(days=days), wall, self._zone)
                .replace(fold=fold)
                .astimezone(timezone.utc)
                for days in (0, 1)
                for wall in (self._begin, self._end, time())
                for fold in (0, 1)
            }
            if self.local(begin).utcoffset() != self.local(end).utcoffset():
                # The clocks change. Wherever they do, it is at a quarter of an hour.
                quarter = begin.replace(minute=begin.minute // 15 * 15, second=0, microsecond=0)
                edges.update(quarter + timedelta(minutes=15 * number) for number in range(1, 24 * 4 + 1))
            yield from sorted(edge for edge in edges if begin < edge <= end)
            begin = end


def _interval(value: tuple[str, str]) -> tuple[time, time]:
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise ValueError(f"send_between must be two times, such as ('09:00', '20:00'), not {value!r}")
    begin, end = map(_time, value)
    if begin == end and value[1] != "24:00":
        raise ValueError(
            f"send_between must begin and end at different times, not {value!r}; leave it out for the whole day"
        )
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
        for number, day in enumerate(DAYS)
        if isinstance(name, str) and name.lower() in (day, day[:3])
    }
    if not names or len(found) < len(set(names)):
        raise ValueError(f"send_on must be days such as {{'mon', 'tue'}}, not {value!r}")
    return found


#: No limit of hours or days.
ALWAYS = Hours(None, None)
