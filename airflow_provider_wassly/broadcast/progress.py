"""What the log tells of a broadcast while it runs."""

from __future__ import annotations

import logging
from datetime import timedelta

from airflow_provider_wassly.broadcast.recipients import Row
from airflow_provider_wassly.broadcast.report import Outcome, short
from airflow_provider_wassly.broadcast.tally import Tally

log = logging.getLogger(__name__)

#: Seconds between two progress lines: a share of the time that has passed, within limits, so that a broadcast of days
#: leaves some hundreds of them.
_PROGRESS_SHARE = 0.03
_PROGRESS_LEAST = 10.0
_PROGRESS_MOST = 900.0

#: Failures that get a line of their own in the log; the report has them all.
_MAX_LOGGED = 200


class ProgressLog:
    """
    Logs how a broadcast goes: its start, how far it is now and then, and recipients that fail.

    :param tally: counts what has come of the recipients.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._next = 0.0
        self._logged = 0

    def start(self, *, before: int, messages_per_minute: float | None, max_workers: int) -> None:
        """
        Say how many are sent to, and how long that takes.

        :param before: how many of them earlier tries have sent to, or may have.
        :param messages_per_minute: the pace, ``None`` for none.
        :param max_workers: how many messages are on their way at the same time.
        """
        self._next = self._tally.clock.monotonic() + _PROGRESS_LEAST
        left = self._tally.total - before
        if messages_per_minute is None:
            speed = f"as fast as {max_workers} threads go"
        else:
            speed = (
                f"at {messages_per_minute:g} messages a minute: that takes about {_duration(left, messages_per_minute)}"
            )
        again = f" ({before} were already handled by earlier attempts)" if before else ""
        log.info("Sending to up to %d recipients%s, %s", left, again, speed)

    def progress(self) -> None:
        """Say how far it is, if it is time to."""
        tally, now = self._tally, self._tally.clock.monotonic()
        if now < self._next:
            return
        self._next = now + min(max(_PROGRESS_LEAST, tally.seconds * _PROGRESS_SHARE), _PROGRESS_MOST)
        parts = [f"{number} {outcome}" for outcome, number in tally.outcomes.items() if outcome != "not_sent"]
        left = tally.total - tally.done
        if left and tally.per_minute:
            parts.append(f"{tally.per_minute:.1f} a minute, about {_duration(left, tally.per_minute)} left")
        if tally.remaining_conversations is not None:
            parts.append(f"{tally.remaining_conversations} conversations remain")
        log.info("%d of %d recipients: %s", tally.done, tally.total, ", ".join(parts) or "nothing yet")

    def failure(self, row: Row, outcome: Outcome, reason: str) -> None:
        """Say why a recipient failed, unless so many have that the report has to do."""
        self._logged += 1
        if self._logged <= _MAX_LOGGED:
            word = "UNKNOWN whether accepted" if outcome == "unknown" else outcome
            log.warning("%s (%s): %s: %s", row.where.capitalize(), short(row.number), word, reason)
        if self._logged == _MAX_LOGGED:
            log.warning("Further recipients that fail are in the report only")


def _duration(messages: int, per_minute: float) -> timedelta:
    """Return how long it takes to send messages at a pace, in whole seconds."""
    return timedelta(seconds=round(messages / per_minute * 60))
