"""Which attempt of a task is running, and which attempt wrote a record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from airflow_provider_wassly.airflow_compat import tasks, versions


@dataclass(frozen=True)
class Attempt:
    """
    One attempt of a task.

    The try number does not identify an attempt: Airflow 3.4 runs a task again under the same number, and a task
    instance that was deleted and created again starts over at 1.

    :param instance: the id of the task instance on Airflow 3: new for each try, the same when Airflow runs a try again
        (rescheduled, deferred, delivered twice). ``None`` on Airflow 2.
    :param run: the id of the DAG run on Airflow 2, which changes when the run is created again. ``None`` on Airflow 3.
    :param chain: ``max_tries``: retries do not change it, clearing almost always does.
    :param try_number: the try number.
    :param retries: the task's current retries. A record does not hold them.
    :param resumes: whether this try was deferred and resumes, on Airflow 2, where it has no id. A record does not hold
        that.
    """

    instance: str | None
    run: str | None
    chain: int
    try_number: int
    retries: int | None = None
    resumes: bool = False

    @classmethod
    def of(cls, context: Any) -> Attempt:
        """Return the attempt of the running task."""
        ti = context.get("ti")
        if ti is None:
            return cls(None, None, 0, 0)
        instance, run = tasks.identity(context)
        retries = getattr(getattr(ti, "task", None), "retries", None)
        return cls(instance, run, ti.max_tries, ti.try_number, retries, tasks.resumes(ti))

    def as_values(self) -> dict[str, Any]:
        """Return the values that a record keeps."""
        values = asdict(self)
        del values["retries"], values["resumes"]
        return values

    def owner_of(self, record: Mapping[str, Any]) -> Literal["mine", "earlier", "cleared", "other", "unclear"]:
        """
        Tell which attempt wrote a record that existed when this attempt began.

        :return: ``mine``: this try, which resumes or which Airflow runs again; ``earlier``: an earlier try of the same
            chain; ``cleared``: a try from before the task was cleared; ``other``: a deleted task instance of the same
            name; ``unclear``: the first version of this package wrote it, and it may be mine or not.
        """
        instance, run = record.get("instance"), record.get("run")
        if self.instance is not None and instance == self.instance:
            return "mine"
        if run != self.run and run is not None and self.run is not None:
            return "other"
        if record["try_number"] < self.try_number:
            return "earlier" if record["chain"] == self.chain else "cleared"
        if self.resumes and record["try_number"] == self.try_number:
            return "mine"
        if instance is None and record["try_number"] == self.try_number and versions.RUNS_TRIES_AGAIN:
            return "unclear"
        # Airflow has just confirmed that this is the live try, so no later one can exist.
        return "other"

    def is_ambiguous(self, record: Mapping[str, Any]) -> bool:
        """
        Tell whether a record of an ``earlier`` try may be from before the task was cleared.

        Clearing sets ``max_tries`` to the tries so far plus the task's retries. If the retries were lowered meanwhile,
        the result can be the old value again.
        """
        tries_before_a_clear = self.chain - (self.retries or 0)
        return bool(record["try_number"] <= tries_before_a_clear < self.try_number)
