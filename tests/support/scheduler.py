"""Airflow's scheduler and the processes that it starts, run step by step; the test decides what happens to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from greenlet import getcurrent, greenlet

from tests.support.clock import VirtualClock


class Process:
    """
    A task's attempt, run in steps. One that is no longer run is as good as killed.

    :param attempt: the function to run.
    :param instance: the task instance's id.
    :param begin: the time of day at which it starts. Default: the one of the virtual clock.
    """

    def __init__(self, attempt: Callable[[], Any], instance: str, begin: datetime | None = None) -> None:
        self.instance = instance
        self._begin = begin
        self.chain: Any = None
        #: How often the task had been cleared when the attempt began.
        self.clears = 0
        #: The task instance when the attempt began.
        self.ti: dict[str, Any] = {}
        self._attempt = attempt
        self._outer = getcurrent()
        self._inner = greenlet(self._live)
        self.is_over = False
        #: Set by the attempt while nothing else may run in between.
        self.is_in_one_piece = False
        #: Whether it has read the record of an earlier attempt.
        self.has_looked = False
        self.ended: Any = None
        #: The test's notes about it.
        self.arguments: dict[str, Any] = {}
        #: How many of its next writes fail.
        self.failing = 0
        self.wassly: Any = None
        #: How many calls it had made when it was killed or given up.
        self.lost_after: int | None = None
        self.listeners: list[Callable[[Any, bool], None]] = []
        #: The deferral after which it resumes, and the one with which it ended.
        self.resumes: Any = None
        self.deferral: Any = None
        #: What a daily limit counts for.
        self.records = 0

        Process.unfinished.append(self)

    def _live(self) -> None:
        self.clock = VirtualClock(0, self._begin)
        self.ended = self._attempt()
        self.is_over = True
        Process.unfinished.remove(self)

    def step(self) -> None:
        """Run it until its next event."""
        self._outer = getcurrent()
        self._inner.parent = self._outer
        Process.running, before = self, Process.running
        try:
            self._inner.switch()
        finally:
            Process.running = before

    def pause(self) -> None:
        """Called inside the attempt at each event."""
        self._inner = getcurrent()
        self._outer.switch()

    #: All unfinished processes. Without a reference, Python would end them, and their cleanup would run
    #: in the middle of another one's work.
    unfinished: list[Process] = []
    #: The one whose code is running.
    running: Process | None = None


@dataclass
class Kind:
    """
    The behaviour of an Airflow version.

    :param has_instances: whether task instances have ids.
    :param keeps_state: whether there is a ``task_state_store``.
    :param clears_state: whether clearing a task discards that.
    :param runs_again: whether a failed task can run again in the same try.
    """

    name: str
    has_instances: bool = True
    keeps_state: bool = False
    clears_state: bool = False
    runs_again: bool = False


KINDS = {
    kind.name: kind
    for kind in (
        Kind("2.11", has_instances=False),
        Kind("3.0", ),
        Kind("3.3", keeps_state=True),
        Kind("3.4", keeps_state=True, clears_state=True, runs_again=True),
    )
}  # fmt: skip


@dataclass
class TaskInstance:
    """A task as stored in Airflow's database."""

    retries: int = 1
    made: int = 1
    run: int = 1
    try_number: int = 0
    max_tries: int = 1
    state: str = "scheduled"
    instances: int = 0

    @property
    def is_over(self) -> bool:
        return self.state in ("success", "failed")

    def begin(self, again: bool) -> None:
        """Begin the next try, or the same one again."""
        if not again or not self.try_number:
            self.try_number += 1
            self.instances += 1
        self.state = "running"

    def fail(self, uses_retries: bool = True) -> None:
        self.state = "up_for_retry" if uses_retries and self.try_number <= self.max_tries else "failed"

    def clear(self) -> None:
        self.max_tries = self.try_number + self.retries
        self.state = "scheduled"

    def defer(self) -> None:
        self.state = "deferred"

    def make_again(self, whole_run: bool) -> None:
        """Delete it and create one with the same names."""
        self.made += 1
        self.run += whole_run
        self.instances += 1
        self.try_number, self.max_tries, self.state = 0, self.retries, "scheduled"

    @property
    def id(self) -> str:
        return f"instance {self.instances}"
