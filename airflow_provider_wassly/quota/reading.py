"""
The remaining quota, from Wassly's last answer.

Wassly has no quota endpoint; the quota comes only with the reply to a message. So the figure in every receipt is saved
in an Airflow Variable, one per connection, for all tasks that need it.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow_provider_wassly.airflow_compat import variables

log = logging.getLogger(__name__)

#: A time further ahead comes from a wrong clock, so the age of its reading is unknown.
_CLOCKS_DIFFER = timedelta(hours=1)

#: What reading a Variable raises if somebody else has written it.
GARBAGE = (KeyError, TypeError, ValueError, OverflowError, RecursionError)


def now() -> datetime:
    """Return the current time in UTC, which ages are counted from."""
    return datetime.now(timezone.utc)


@dataclass(frozen=True)
class QuotaReading:
    """
    The account's quota, as one of Wassly's answers reported it.

    :param remaining_conversations: how many conversations remained.
    :param read_at: when the answer arrived, in UTC.
    :param instance_id: the WhatsApp Web session that sent the message, ``None`` if unknown.
    """

    remaining_conversations: int
    read_at: datetime
    instance_id: str | None = None

    @property
    def age(self) -> timedelta:
        """How long ago the answer arrived."""
        return max(timedelta(0), now() - self.read_at)

    def as_dict(self) -> dict[str, Any]:
        """Return the reading in the form in which a task returns it, ready for JSON."""
        return {
            "remaining_conversations": self.remaining_conversations,
            "read_at": self.read_at.isoformat(),
            "instance_id": self.instance_id,
        }


class Quota:
    """
    The saved quota of one connection.

    Airflow has no atomic operation on Variables. If two workers write at once, the older value may stay until the next
    message.

    Workers' clocks can differ. A clock that is ahead makes a reading look younger than it is, by an hour at most, but
    never keeps a newer reading out.

    :param conn_id: the connection.
    """

    def __init__(self, conn_id: str) -> None:
        self._key = variables.key_of("wassly_quota", conn_id)

    def read(self) -> QuotaReading | None:
        """
        Return the latest reading, ``None`` if there is none.

        :raises Exception: when Airflow does not answer.
        """
        text = variables.get_variable(self._key)
        if text is None:
            return None
        try:
            values = parsed(text)
            instance_id = values.get("instance_id")
            return QuotaReading(
                int(values["remaining_conversations"]),
                moment_of(values["read_at"]),
                instance_id if isinstance(instance_id, str) else None,
            )
        except GARBAGE:
            log.warning("Ignoring the Variable %s: it does not contain a quota reading", self._key)
            return None

    def record(self, remaining_conversations: int, instance_id: str | None, age: timedelta = timedelta(0)) -> None:
        """
        Save a new reading unless a newer one is saved already. A failure is only logged as a warning.

        :param remaining_conversations: the number in the answer.
        :param instance_id: the WhatsApp Web session that sent the message.
        :param age: how long ago the answer arrived.
        """
        reading = QuotaReading(remaining_conversations, now() - age, instance_id)
        if not variables.can_reach_airflow():
            log.debug("Not saving the remaining quota: this is not a running task")
            return
        try:
            kept = self.read()
            # A reading from the future comes from a clock that is ahead; it is older than the answer that just arrived.
            if kept is not None and reading.read_at < kept.read_at <= now():
                return
            values = {"version": 1, **reading.as_dict()}
            variables.set_variable(self._key, json.dumps(values), "The remaining quota, from Wassly's last answer.")
        except Exception as error:
            log.warning("Could not save the remaining quota: %s: %s", type(error).__name__, error)

    def forget(self) -> None:
        """
        Delete the saved reading, if there is one.

        :raises Exception: when Airflow does not answer.
        """
        if variables.get_variable(self._key) is not None:
            variables.delete_variable(self._key)


def parsed(text: str) -> dict[str, Any]:
    """
    Return the JSON object in a Variable.

    :raises Exception: one of ``GARBAGE``, if there is none.
    """
    values = json.loads(text)
    if not isinstance(values, dict):
        raise TypeError("not a JSON object")
    return values


def moment_of(text: Any) -> datetime:
    """
    Return a saved time, in UTC.

    :raises Exception: one of ``GARBAGE``, if it is not a time, or more than an hour in the future.
    """
    moment = datetime.fromisoformat(text)
    moment = moment.astimezone(timezone.utc) if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    if moment - now() > _CLOCKS_DIFFER:
        raise ValueError("in the future")
    return moment
