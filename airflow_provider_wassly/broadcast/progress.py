"""What a broadcast reports while it runs: log lines, metrics and an XCom."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Protocol

from airflow_provider_wassly.broadcast import estimate
from airflow_provider_wassly.broadcast.devices import Wait
from airflow_provider_wassly.broadcast.hours import Hours
from airflow_provider_wassly.broadcast.recipients import Row
from airflow_provider_wassly.broadcast.report import Outcome, short
from airflow_provider_wassly.broadcast.tally import Tally

log = logging.getLogger(__name__)

#: Seconds since the start, and the seconds between two progress lines until then. A broadcast of several days logs a
#: few hundred.
_LINES = ((120.0, 10.0), (3600.0, 60.0), (float("inf"), 600.0))

#: Seconds between two updates of metrics and XCom.
_UPDATE = 60.0

#: How many failures get a log line of their own; the report has them all.
_MAX_LOGGED = 200

_WORDS = {"failed": "failed", "invalid": "is invalid", "unknown": "has an UNKNOWN outcome"}


class Listener(Protocol):
    """Shows the progress of a broadcast where people look. It must not raise."""

    def push(self, progress: dict[str, Any]) -> None:
        """Show the progress. Called about once a minute, when a wait begins, and at the end."""

    def measure(self, name: str, value: float) -> None:
        """Show a metric."""


class Progress:
    """
    Reports the start of a broadcast, its progress from time to time, its waits, and its failures.

    :param tally: the counts so far.
    :param hours: when messages may leave.
    :param done_at: returns when the broadcast will be done; ``None`` if that is not known.
    :param listener: shows progress and metrics; ``None`` if nobody looks.
    """

    def __init__(
        self, tally: Tally, hours: Hours, done_at: Callable[[datetime], datetime | None], listener: Listener | None
    ) -> None:
        self._tally = tally
        self._hours = hours
        self._done_at = done_at
        self._listener = listener
        self._next_line = 0.0
        self._next_update = 0.0
        self._logged = 0
        self._wait: Wait | None = None
        self._has_updated = False

    @property
    def next(self) -> float:
        """When the next report is due, by the monotonic clock."""
        return min(self._next_line, self._next_update)

    def log_start(self, *, before: int, messages_per_minute: float | None, max_workers: int, devices: int) -> None:
        """
        Log how many recipients are left, how fast they are sent to, and when that will be done.

        :param before: how many recipients earlier attempts sent to, or may have sent to.
        :param messages_per_minute: the pace of each device, ``None`` for no limit.
        :param max_workers: how many messages are in flight at once.
        :param devices: how many devices send.
        """
        self._next_line = self._tally.clock.monotonic() + _LINES[0][1]
        self._next_update = self._tally.clock.monotonic() + _UPDATE
        if messages_per_minute is None:
            at_once = "one" if max_workers == 1 else f"up to {max_workers}"
            speed = f"without a pace limit, {at_once} at a time"
        else:
            speed = f"at {messages_per_minute:g} messages per minute"
        from_each = f" from each of {devices} devices" if devices > 1 else ""
        hours = f", {self._hours.in_words}" if self._hours.in_words else ""
        again = f" ({before} were already handled by earlier attempts)" if before else ""
        done = f": {text}" if (text := self._done_in_words()) else ""
        left = self._tally.total - before
        log.info("Sending to up to %d recipients%s %s%s%s%s", left, again, speed, from_each, hours, done)

    def tell_if_due(self) -> None:
        """Log the progress and update metrics and XCom, if it is time to."""
        tally, now = self._tally, self._tally.clock.monotonic()
        if now >= self._next_update:
            self.update()
        if now < self._next_line:
            return
        self._next_line = now + next(gap for end, gap in _LINES if tally.seconds < end)
        if self._wait is not None:
            return  # the last line says what it waits for
        parts = [f"{number} {outcome}" for outcome, number in tally.outcomes.items() if outcome != "not_sent"]
        if tally.total > tally.done and tally.per_minute:
            parts.append(f"{tally.per_minute:.1f} per minute")
            parts.extend(filter(None, [self._done_in_words()]))
        if tally.remaining_conversations is not None:
            parts.append(f"{tally.remaining_conversations} conversations remain")
        details = f": {', '.join(parts)}" if parts else ""
        log.info("%d of %d recipients done%s", tally.done, tally.total, details)

    def tell_wait(self, wait: Wait | None) -> None:
        """
        Log what the broadcast waits for, and until when.

        :param wait: the wait, ``None`` if it is over.
        """
        if wait == self._wait:
            return
        self._wait = wait
        if wait is None:
            log.info("Resuming with %d recipients left", self._tally.total - self._tally.done)
            return
        until = "" if wait.until is None else f" until {self._in_words(wait.until)}"
        log.info("Waiting%s, because %s", until, wait.reason)
        self.update()

    def log_device(self, instance_id: str, wait: Wait | None) -> None:
        """
        Log that a device waits while others send.

        :param wait: the wait, ``None`` if it is over.
        """
        if wait is None:
            log.info("Device %s resumes", instance_id)
            return
        until = "" if wait.until is None else f" until {self._in_words(wait.until)}"
        log.info("Device %s waits%s, because %s", instance_id, until, wait.reason)

    def update(self) -> None:
        """Update metrics and XCom."""
        self._next_update = self._tally.clock.monotonic() + _UPDATE
        self._has_updated = True
        if self._listener is None:
            return
        tally, now = self._tally, self._tally.clock.now()
        done_at = self._done_at(now)
        wait = self._wait
        progress = {
            "recipients": tally.total,
            **tally.counts,
            "messages_per_minute": round(tally.per_minute, 1),
            "done_at": _iso(done_at),
            "waiting_for": None if wait is None else wait.reason,
            "waiting_until": None if wait is None else _iso(wait.until),
        }
        for outcome, number in tally.counts.items():
            self._listener.measure(outcome, number)
        if done_at is not None:
            self._listener.measure("seconds_left", (done_at - now).total_seconds())
        self._listener.push(progress)

    def end(self) -> None:
        """Update metrics and XCom a last time, if the broadcast took long enough to have had an update."""
        self._wait = None
        if self._has_updated:
            self.update()

    def log_failure(self, row: Row, outcome: Outcome, reason: str) -> None:
        """Log why a recipient failed, unless too many have; the report has them all."""
        self._logged += 1
        if self._logged <= _MAX_LOGGED:
            log.warning("%s (%s) %s: %s", row.where.capitalize(), short(row.number), _WORDS[outcome], reason)
        if self._logged == _MAX_LOGGED:
            log.warning("Logged %d failures; further ones are only in the report", _MAX_LOGGED)

    def _done_in_words(self) -> str:
        now = self._tally.clock.now()
        done_at = self._done_at(now)
        if done_at is None:
            return ""
        duration = timedelta(seconds=round((done_at - now).total_seconds()))
        return f"done {self._in_words(done_at)}, in about {duration}"

    def _in_words(self, moment: datetime) -> str:
        return estimate.in_words(moment, self._tally.clock.now(), self._hours)


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")
