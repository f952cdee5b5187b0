"""
The remaining quota, as Wassly's last answer told it.

No endpoint returns it: only the answer to a message that was sent does. So every receipt's figure is
kept in an Airflow Variable, one for each connection, for all tasks that want to know.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any, ClassVar, Literal

from airflow_provider_wassly import _compat
from airflow_provider_wassly.client.clock import SYSTEM, Clock

log = logging.getLogger(__name__)

#: A time that is further ahead was written by a wrong clock, and its age is unknown.
_CLOCKS_DIFFER = timedelta(hours=1)

#: What reading a Variable raises that somebody else has written.
_GARBAGE = (KeyError, TypeError, ValueError, OverflowError, RecursionError)

#: Between writing an own mark and reading it back, and at most for looking and writing it; see ``claim_probe``.
_CLAIM_SECONDS = 5.0


def now() -> datetime:
    """Return the time that ages are counted from."""
    return datetime.now(timezone.utc)


@dataclass(frozen=True)
class QuotaReading:
    """
    What an answer of Wassly said about the account's quota.

    :param remaining_conversations: how many conversations remained.
    :param read_at: when the answer came.
    :param instance_id: the WhatsApp Web session that had sent.
    """

    remaining_conversations: int
    read_at: datetime
    instance_id: str | None = None

    @property
    def age(self) -> timedelta:
        """How long ago that was."""
        return max(timedelta(0), now() - self.read_at)

    def as_dict(self) -> dict[str, Any]:
        """Return it as a task returns it."""
        return {
            "remaining_conversations": self.remaining_conversations,
            "read_at": self.read_at.isoformat(),
            "instance_id": self.instance_id,
        }


class Quota:
    """
    The recorded quota of one connection.

    Airflow has no atomic operation on Variables. Of two workers that write at the same moment the
    later write stays, even if its reading is the older one by that moment; the next answer mends it.

    The clocks of workers can differ. One that is ahead lets its reading look younger than it is, and defers the next
    probe, by as much, for an hour at most; it keeps no newer reading out.

    :param conn_id: the connection.
    """

    #: Of the class, so that a test can put its own in place for all that make one.
    clock: ClassVar[Clock] = SYSTEM

    def __init__(self, conn_id: str) -> None:
        # Airflow 3.0 loses keys with a slash, and a key has 250 characters at the most.
        usable = re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", conn_id)
        name = conn_id if usable else hashlib.sha256(conn_id.encode()).hexdigest()
        self._key = f"wassly_quota__{name}"
        self._probe_key = f"wassly_quota_probe__{name}"

    def read(self) -> QuotaReading | None:
        """
        Return the latest reading, ``None`` if there is none.

        :raises Exception: when Airflow does not answer.
        """
        text = _compat.get_variable(self._key)
        if text is None:
            return None
        try:
            values = _parsed(text)
            instance_id = values.get("instance_id")
            return QuotaReading(
                int(values["remaining_conversations"]),
                _time(values["read_at"]),
                instance_id if isinstance(instance_id, str) else None,
            )
        except _GARBAGE:
            log.warning("The Variable %s holds no quota reading; it is taken for none", self._key)
            return None

    def record(self, remaining_conversations: int, instance_id: str | None, age: timedelta = timedelta(0)) -> None:
        """
        Keep a new reading, unless a newer one is kept already. What goes wrong is a warning.

        :param remaining_conversations: what the answer said.
        :param instance_id: the sending session.
        :param age: how long ago the answer came.
        """
        reading = QuotaReading(remaining_conversations, now() - age, instance_id)
        if not _compat.can_reach_airflow():
            log.debug("The remaining quota is not recorded: this is no running task")
            return
        try:
            kept = self.read()
            # One from the future was written by a clock that is ahead, and before the answer that has just come.
            if kept is not None and reading.read_at < kept.read_at <= now():
                return
            values = {"version": 1, **reading.as_dict()}
            _compat.set_variable(self._key, json.dumps(values), "The remaining quota, as Wassly told it last.")
        except Exception as error:
            log.warning("Could not record the remaining quota: %s: %s", type(error).__name__, error)

    def forget(self) -> None:
        """
        Remove the reading.

        :raises Exception: when Airflow does not answer.
        """
        if _compat.get_variable(self._key) is not None:
            _compat.delete_variable(self._key)

    def last_probe(self) -> datetime | None:
        """
        Return when the last probe of this connection was claimed, whoever made it; ``None`` if there was none.

        :raises Exception: when Airflow does not answer.
        """
        text = _compat.get_variable(self._probe_key)
        if text is None:
            return None
        try:
            return _time(_parsed(text)["at"])
        except _GARBAGE:
            log.warning("The Variable %s holds no time of a probe; it is taken for absent", self._probe_key)
            return None

    def claim_probe(self, interval: timedelta) -> bool:
        """
        Take the right to send a probe now, for this process alone. It is used up whatever comes of the probe.

        Airflow has no atomic operation on Variables. So a worker writes its mark, waits, and reads it back: if another
        mark is there, it gives up. A worker that is slow to look and write could overwrite a mark that was already
        read back, so it gives up too. Two workers never win at once, however slow Airflow is; if it always is, none
        wins. What remains: a worker whose clock is ahead takes the interval for over too early, by as much.

        :param interval: the time between two probes.
        :raises Exception: when Airflow does not answer.
        """
        began = self.clock.monotonic()
        if not is_due(self.last_probe(), interval):
            return False
        mine = json.dumps({"version": 1, "at": now().isoformat(), "by": uuid.uuid4().hex})
        _compat.set_variable(self._probe_key, mine, "When a Wassly quota sensor sent its last probe.")
        took = self.clock.monotonic() - began
        if took > _CLAIM_SECONDS:
            log.warning("No probe is sent: claiming it took %.1f seconds, so another worker may have sent one", took)
            return False
        self.clock.sleep(_CLAIM_SECONDS)
        return _compat.get_variable(self._probe_key) == mine


def is_due(last_probe: datetime | None, interval: timedelta) -> bool:
    """Tell whether a probe may follow the last one, ``None`` if there was none, after ``interval``."""
    return last_probe is None or now() - last_probe >= interval


class Verdict(Enum):
    """What a reading means to somebody who waits for quota."""

    ENOUGH = "enough"
    WAIT = "wait"
    #: Only a probe can tell.
    PROBE = "probe"
    FAIL = "fail"


def judge(
    reading: QuotaReading | None,
    *,
    needed: int,
    max_age: timedelta,
    probing: bool,
    on_unknown: Literal["proceed", "wait", "fail"],
) -> tuple[Verdict, str, int]:
    """
    Decide what a reading means; also return it in words, and the level at which that is logged.

    :param reading: the recorded one, ``None`` if there is none.
    :param needed: how many conversations must remain.
    :param max_age: how old a reading may be to be trusted.
    :param probing: whether a probe may be sent.
    :param on_unknown: what the absence of a reading means when there is no probing.
    """
    if reading is None:
        what = f"no reading yet, {needed} needed"
        if probing:
            return Verdict.PROBE, f"Quota unknown: {what}; only a probe can tell", logging.INFO
        return {
            "proceed": (Verdict.ENOUGH, f"Quota unknown: {what}; going on, the send itself will tell", logging.WARNING),
            "wait": (Verdict.WAIT, f"Waiting: {what}; something must be sent with this connection", logging.INFO),
            "fail": (Verdict.FAIL, f"Quota unknown: {what} (on_unknown='fail')", logging.ERROR),
        }[on_unknown]
    what = f"{reading.remaining_conversations} left (reading {_in_words(reading.age)} old), {needed} needed"
    enough = reading.remaining_conversations >= needed
    fresh = reading.age < max_age
    if enough and fresh:
        return Verdict.ENOUGH, f"Quota OK: {what}", logging.INFO
    if probing:
        return Verdict.PROBE, f"Quota {'too old' if enough else 'too low'}: {what}; only a probe can tell", logging.INFO
    too_old = f"older than max_age ({_in_words(max_age)})"
    if enough:
        return Verdict.ENOUGH, f"Quota OK, but {too_old}: {what}", logging.WARNING
    if fresh:
        return Verdict.WAIT, f"Waiting, quota too low: {what}", logging.INFO
    return (
        Verdict.WAIT,
        f"Waiting, quota too low: {what}; the reading is {too_old}, so that only a message that is sent, a probe "
        "(probe_to) or hook.forget_quota() can end this",
        logging.WARNING,
    )


def _in_words(duration: timedelta) -> str:
    """Return a duration in its two largest units: ``5 s``, ``3 min 20 s``, ``1 d 12 h``."""
    left = round(duration.total_seconds())
    parts = []
    for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, seconds)
        if number:
            parts.append(f"{number} {unit}")
    return " ".join(parts[:2]) or "0 s"


def _parsed(text: str) -> dict[str, Any]:
    values = json.loads(text)
    if not isinstance(values, dict):
        raise TypeError("no JSON object")
    return values


def _time(text: Any) -> datetime:
    moment = datetime.fromisoformat(text)
    moment = moment.astimezone(timezone.utc) if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    if moment - now() > _CLOCKS_DIFFER:
        raise ValueError("in the future")
    return moment
