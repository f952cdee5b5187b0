"""Decide which worker may send the next probe: a message sent only to get a quota reading."""

from __future__ import annotations

import json
import logging
import uuid
from datetime import datetime, timedelta
from typing import ClassVar

from airflow_provider_wassly.airflow_compat import variables
from airflow_provider_wassly.client.clock import SYSTEM, Clock
from airflow_provider_wassly.quota import reading
from airflow_provider_wassly.quota.reading import GARBAGE, moment_of, parsed

log = logging.getLogger(__name__)

#: Seconds from writing a mark to reading it back, and the most that writing it may take; see :meth:`Probes.claim`.
_CLAIM_SECONDS = 5.0


class Probes:
    """
    The probes of one connection.

    A worker whose clock is ahead delays the next probe by as much, for an hour at most.

    :param conn_id: the connection.
    """

    #: A class attribute, so that a test can replace it for every instance.
    clock: ClassVar[Clock] = SYSTEM

    def __init__(self, conn_id: str) -> None:
        self._key = variables.key_of("wassly_quota_probe", conn_id)

    def last(self) -> datetime | None:
        """
        Return when any worker last claimed a probe of this connection, ``None`` if none has.

        :raises Exception: when Airflow does not answer.
        """
        text = variables.get_variable(self._key)
        if text is None:
            return None
        try:
            return moment_of(parsed(text)["at"])
        except GARBAGE:
            log.warning("Ignoring the Variable %s: it does not contain the time of a probe", self._key)
            return None

    def claim(self, interval: timedelta) -> bool:
        """
        Claim the right to send a probe now, for this process alone. The claim counts even if the probe fails.

        Airflow has no atomic operation on Variables. So a worker writes its mark, waits, and reads it back; if it finds
        another mark, it gives up. A worker that takes long to read and write could overwrite a mark that was already
        read back, so it gives up too. Two workers never win at once, however slow Airflow is; if it is always slow,
        none wins. One flaw remains: for a worker whose clock is ahead, the interval ends too early by as much.

        :param interval: the shortest time between two probes.
        :return: whether this process may send a probe.
        :raises Exception: when Airflow does not answer.
        """
        began = self.clock.monotonic()
        if not is_due(self.last(), interval):
            return False
        mine = json.dumps({"version": 1, "at": reading.now().isoformat(), "by": uuid.uuid4().hex})
        variables.set_variable(self._key, mine, "When a Wassly quota sensor last claimed a probe.")
        took = self.clock.monotonic() - began
        if took > _CLAIM_SECONDS:
            log.warning("Not sending a probe: claiming it took %.1f seconds, so another worker may have sent one", took)
            return False
        self.clock.sleep(_CLAIM_SECONDS)
        return variables.get_variable(self._key) == mine


def is_due(last_probe: datetime | None, interval: timedelta) -> bool:
    """
    Return whether the next probe may be sent.

    :param last_probe: when the last one was claimed, ``None`` if there was none.
    :param interval: the shortest time between two probes.
    """
    return last_probe is None or reading.now() - last_probe >= interval
