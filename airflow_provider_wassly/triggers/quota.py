"""The trigger of the quota sensor."""

from __future__ import annotations

from collections.abc import Hashable
from datetime import datetime, timedelta
from typing import Any, Literal

from airflow_provider_wassly.quota import Probes, Quota, QuotaReading, Verdict, is_due, judge
from airflow_provider_wassly.triggers.base import PollTrigger


class QuotaTrigger(PollTrigger):
    """
    Waits until the stored reading shows enough quota, or a probe is due. The task sends the probe.

    :param needed: how many conversations must remain.
    :param max_age: the age up to which a reading is trusted, in seconds.
    :param probe_interval: the shortest time between two probes, in seconds; ``None`` for no probes.
    :param on_unknown: see :class:`~airflow_provider_wassly.sensors.quota.WasslyQuotaSensor`.
    :param kwargs: the arguments of :class:`PollTrigger`.
    """

    def __init__(
        self,
        *,
        needed: int,
        max_age: float,
        probe_interval: float | None,
        on_unknown: Literal["proceed", "wait", "fail"],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.needed = needed
        self.max_age = max_age
        self.probe_interval = probe_interval
        self.on_unknown = on_unknown

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that recreate this trigger, ready for JSON."""
        return {
            **super().arguments(),
            "needed": self.needed,
            "max_age": self.max_age,
            "probe_interval": self.probe_interval,
            "on_unknown": self.on_unknown,
        }

    def subject(self) -> Hashable:
        """Return the connection, and whether there is probing."""
        return super().subject(), self.probe_interval is None

    def ask(self) -> tuple[QuotaReading | None, datetime | None]:
        """Return the reading and, if there is probing, the time of the last probe."""
        last_probe = None if self.probe_interval is None else Probes(self.wassly_conn_id).last()
        return Quota(self.wassly_conn_id).read(), last_probe

    def judge(self, answer: tuple[QuotaReading | None, datetime | None]) -> str | None:
        """Return why the task should check again; ``None`` if it would only wait: quota too low, no probe due."""
        reading, last_probe = answer
        verdict, text, level = judge(
            reading,
            needed=self.needed,
            max_age=timedelta(seconds=self.max_age),
            probing=self.probe_interval is not None,
            on_unknown=self.on_unknown,
        )
        self.log.log(level, text)
        if verdict is Verdict.WAIT:
            return None
        if verdict is Verdict.PROBE and not is_due(last_probe, timedelta(seconds=self.probe_interval or 0)):
            return None
        return text
