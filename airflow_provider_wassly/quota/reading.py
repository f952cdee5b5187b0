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
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow_provider_wassly.airflow_compat import variables

log = logging.getLogger(__name__)

#: A time that is further ahead was written by a wrong clock, and its age is unknown.
_CLOCKS_DIFFER = timedelta(hours=1)

#: What reading a Variable raises that somebody else has written.
GARBAGE = (KeyError, TypeError, ValueError, OverflowError, RecursionError)


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

    The clocks of workers can differ. One that is ahead makes its reading look younger than it is, for an hour at most;
    it keeps no newer reading out.

    :param conn_id: the connection.
    """

    def __init__(self, conn_id: str) -> None:
        self._key = key_of("wassly_quota", conn_id)

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
        if not variables.can_reach_airflow():
            log.debug("The remaining quota is not recorded: this is no running task")
            return
        try:
            kept = self.read()
            # One from the future was written by a clock that is ahead, and before the answer that has just come.
            if kept is not None and reading.read_at < kept.read_at <= now():
                return
            values = {"version": 1, **reading.as_dict()}
            variables.set_variable(self._key, json.dumps(values), "The remaining quota, as Wassly told it last.")
        except Exception as error:
            log.warning("Could not record the remaining quota: %s: %s", type(error).__name__, error)

    def forget(self) -> None:
        """
        Remove the reading.

        :raises Exception: when Airflow does not answer.
        """
        if variables.get_variable(self._key) is not None:
            variables.delete_variable(self._key)


def key_of(kind: str, conn_id: str) -> str:
    """Return the key of the Variable that holds something of a connection."""
    # Airflow 3.0 loses keys with a slash, and a key has 250 characters at the most.
    usable = re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", conn_id)
    return f"{kind}__{conn_id if usable else hashlib.sha256(conn_id.encode()).hexdigest()}"


def parsed(text: str) -> dict[str, Any]:
    """
    Return what a Variable holds.

    :raises Exception: one of ``GARBAGE``, if it is no JSON object.
    """
    values = json.loads(text)
    if not isinstance(values, dict):
        raise TypeError("no JSON object")
    return values


def moment_of(text: Any) -> datetime:
    """
    Return a time that was written down.

    :raises Exception: one of ``GARBAGE``, if it is none, or in the future.
    """
    moment = datetime.fromisoformat(text)
    moment = moment.astimezone(timezone.utc) if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    if moment - now() > _CLOCKS_DIFFER:
        raise ValueError("in the future")
    return moment
