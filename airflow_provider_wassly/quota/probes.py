"""Who may send the next message that only asks for the quota."""

from __future__ import annotations

import json
import logging
import uuid
from datetime import datetime, timedelta
from typing import ClassVar

from airflow_provider_wassly.airflow_compat import variables
from airflow_provider_wassly.client.clock import SYSTEM, Clock
from airflow_provider_wassly.quota import reading
from airflow_provider_wassly.quota.reading import GARBAGE, key_of, moment_of, parsed

log = logging.getLogger(__name__)

#: Between writing an own mark and reading it back, and at most for looking and writing it; see :meth:`Probes.claim`.
_CLAIM_SECONDS = 5.0


class Probes:
    """
    The probes of one connection.

    A worker whose clock is ahead defers the next one, by as much, for an hour at most.

    :param conn_id: the connection.
    """

    #: Of the class, so that a test can put its own in place for all that make one.
    clock: ClassVar[Clock] = SYSTEM

    def __init__(self, conn_id: str) -> None:
        self._key = key_of("wassly_quota_probe", conn_id)

    def last(self) -> datetime | None:
        """
        Return when the last probe of this connection was claimed, whoever made it; ``None`` if there was none.

        :raises Exception: when Airflow does not answer.
        """
        text = variables.get_variable(self._key)
        if text is None:
            return None
        try:
            return moment_of(parsed(text)["at"])
        except GARBAGE:
            log.warning("The Variable %s holds no time of a probe; it is taken for absent", self._key)
            return None

    def claim(self, interval: timedelta) -> bool:
        """
        Take the right to send one now, for this process alone. It is used up whatever comes of the probe.

        Airflow has no atomic operation on Variables. So a worker writes its mark, waits, and reads it back: if another
        mark is there, it gives up. A worker that is slow to look and write could overwrite a mark that was already
        read back, so it gives up too. Two workers never win at once, however slow Airflow is; if it always is, none
        wins. What remains: a worker whose clock is ahead takes the interval for over too early, by as much.

        :param interval: the time between two probes.
        :raises Exception: when Airflow does not answer.
        """
        began = self.clock.monotonic()
        if not is_due(self.last(), interval):
            return False
        mine = json.dumps({"version": 1, "at": reading.now().isoformat(), "by": uuid.uuid4().hex})
        variables.set_variable(self._key, mine, "When a Wassly quota sensor sent its last probe.")
        took = self.clock.monotonic() - began
        if took > _CLAIM_SECONDS:
            log.warning("No probe is sent: claiming it took %.1f seconds, so another worker may have sent one", took)
            return False
        self.clock.sleep(_CLAIM_SECONDS)
        return variables.get_variable(self._key) == mine


def is_due(last_probe: datetime | None, interval: timedelta) -> bool:
    """Tell whether a probe may follow the last one, ``None`` if there was none, after ``interval``."""
    return last_probe is None or reading.now() - last_probe >= interval
