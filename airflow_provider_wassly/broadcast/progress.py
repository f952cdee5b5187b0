"""What a broadcast logs while it runs."""

from __future__ import annotations

import logging
from datetime import timedelta

from airflow_provider_wassly.broadcast.recipients import Row
from airflow_provider_wassly.broadcast.report import Outcome, short
from airflow_provider_wassly.broadcast.tally import Tally

log = logging.getLogger(__name__)

#: Seconds between two progress lines: a fraction of the time so far, within limits, so that a broadcast of several days
#: logs a few hundred.
_PROGRESS_SHARE = 0.03
_PROGRESS_LEAST = 10.0
_PROGRESS_MOST = 900.0

#: How many failures get a log line of their own; the report has them all.
_MAX_LOGGED = 200

_WORDS = {"failed": "failed", "invalid": "is invalid", "unknown": "has an UNKNOWN outcome"}


class ProgressLog:
    """
    Logs the start of a broadcast, its progress from time to time, and the recipients that fail.

    :param tally: the counts so far.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._next = 0.0
        self._logged = 0

    def log_start(self, *, before: int, messages_per_minute: float | None, max_workers: int) -> None:
        """
        Log how many recipients there are to send to, and how long that will take.

        :param before: how many recipients earlier attempts sent to, or may have.
        :param messages_per_minute: the pace, ``None`` for no limit.
        :param max_workers: how many messages are in flight at once.
        """
        self._next = self._tally.clock.monotonic() + _PROGRESS_LEAST
        left = self._tally.total - before
        if messages_per_minute is None:
            at_once = "one" if max_workers == 1 else f"up to {max_workers}"
            speed = f"without a pace limit, {at_once} at a time"
        else:
            duration = _duration(left, messages_per_minute)
            speed = f"at {messages_per_minute:g} messages per minute, which takes about {duration}"
        again = f" ({before} were already handled by earlier attempts)" if before else ""
        log.info("Sending to up to %d recipients%s %s", left, again, speed)

    def log_progress_if_due(self) -> None:
        """Log the progress, if it is time to."""
        tally, now = self._tally, self._tally.clock.monotonic()
        if now < self._next:
            return
        self._next = now + min(max(_PROGRESS_LEAST, tally.seconds * _PROGRESS_SHARE), _PROGRESS_MOST)
        parts = [f"{number} {outcome}" for outcome, number in tally.outcomes.items() if outcome != "not_sent"]
        left = tally.total - tally.done
        if left and tally.per_minute:
            parts.append(f"{tally.per_minute:.1f} per minute, about {_duration(left, tally.per_minute)} left")
        if tally.remaining_conversations is not None:
            parts.append(f"{tally.remaining_conversations} conversations remain")
        details = f": {', '.join(parts)}" if parts else ""
        log.info("%d of %d recipients done%s", tally.done, tally.total, details)

    def log_failure(self, row: Row, outcome: Outcome, reason: str) -> None:
        """Log why a recipient failed, unless too many have; the report has them all."""
        self._logged += 1
        if self._logged <= _MAX_LOGGED:
            log.warning("%s (%s) %s: %s", row.where.capitalize(), short(row.number), _WORDS[outcome], reason)
        if self._logged == _MAX_LOGGED:
            log.warning("Logged %d failures; further ones are only in the report", _MAX_LOGGED)


def _duration(messages: int, per_minute: float) -> timedelta:
    """Return how long it takes to send messages at a pace, in whole seconds."""
    return timedelta(seconds=round(messages / per_minute * 60))
