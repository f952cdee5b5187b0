"""Which attempt of which task this is, and whose a record is that an attempt finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from airflow_provider_wassly.airflow_compat import tasks, versions


@dataclass(frozen=True)
class Attempt:
    """
    One attempt of a task.

    The number of a try is no identity: Airflow 3.4 runs a task again under the same number, and a task instance that
    was deleted and made again begins with the first one.

    :param instance: the id of the task instance on Airflow 3: new for each try, the same when Airflow runs a try again
        (rescheduled, deferred, delivered twice). ``None`` on Airflow 2.
    :param run: the id of the DAG run on Airflow 2, where a run that was made again has another. ``None`` on Airflow 3.
    :param chain: ``max_tries``, which retries leave as it is, and clearing, almost always, changes.
    :param try_number: the number of the try.
    :param retries: the task's retries now. A record does not hold them.
    """

    instance: str | None
    run: str | None
    chain: int
    try_number: int
    retries: int | None = None

    @classmethod
    def of(cls, context: Any) -> Attempt:
        """Return that of the running task."""
        ti = context.get("ti")
        if ti is None:
            return cls(None, None, 0, 0)
        instance, run = tasks.identity(context)
        return cls(instance, run, ti.max_tries, ti.try_number, getattr(getattr(ti, "task", None), "retries", None))

    def as_values(self) -> dict[str, Any]:
        """Return what a record holds of it."""
        values = asdict(self)
        del values["retries"]
        return values

    def owner_of(self, record: Mapping[str, Any]) -> Literal["mine", "earlier", "cleared", "other", "unclear"]:
        """
        Tell whose a record is that was there when this attempt began.

        :return: ``mine``: of this try, which Airflow runs again; ``earlier``: of an earlier try of its chain;
            ``cleared``: of an earlier chain, after which somebody has cleared the task; ``other``: of a task instance
            of the same name that was deleted since; ``unclear``: what the first version of this package wrote does not
            tell whether it is mine.
        """
        instance, run = record.get("instance"), record.get("run")
        if self.instance is not None and instance == self.instance:
            return "mine"
        if run != self.run and run is not None and self.run is not None:
            return "other"
        if record["try_number"] < self.try_number:
            return "earlier" if record["chain"] == self.chain else "cleared"
        if instance is None and record["try_number"] == self.try_number and versions.RUNS_TRIES_AGAIN:
            return "unclear"
        # Airflow has just confirmed that this is the live try, so nobody is further.
        return "other"

    def is_ambiguous(self, record: Mapping[str, Any]) -> bool:
        """
        Tell whether a record of an ``earlier`` try can be of one before a clear.

        Clearing sets ``max_tries`` to the tries so far plus the task's retries. When the retries were lowered
        meanwhile, that can be the old value again.
        """
        tries_before_a_clear = self.chain - (self.retries or 0)
        return bool(record["try_number"] <= tries_before_a_clear < self.try_number)
