"""Airflow's scheduler and the processes that it starts, one step at a time: a test decides what befalls them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from greenlet import getcurrent, greenlet

from tests.support.clock import VirtualClock


class Process:
    """
    An attempt of a task: it goes on by steps, can be left where it is, and then is as good as killed.

    :param attempt: what it does.
    :param instance: the id of its task instance.
    """

    def __init__(self, attempt: Callable[[], Any], instance: str) -> None:
        self.instance = instance
        self.chain: Any = None
        #: How often the task had been cleared when it began.
        self.clears = 0
        #: Its task instance as it was when it began.
        self.ti: dict[str, Any] = {}
        self._attempt = attempt
        self._outer = getcurrent()
        self._inner = greenlet(self._live)
        self.is_over = False
        #: Set by what it does: nobody else is to come in between.
        self.is_in_one_piece = False
        #: Whether it has seen what an earlier attempt has left.
        self.has_looked = False
        self.ended: Any = None
        #: What the test remembers of it.
        self.arguments: dict[str, Any] = {}
        #: How many of its writes fail.
        self.failing = 0
        self.wassly: Any = None
        #: So many calls it had made when it was killed or given up.
        self.lost_after: int | None = None
        self.listeners: list[Callable[[Any, bool], None]] = []

        Process.unfinished.append(self)

    def _live(self) -> None:
        self.clock = VirtualClock(0)
        self.ended = self._attempt()
        self.is_over = True
        Process.unfinished.remove(self)

    def step(self) -> None:
        """Let it go on until something happens outside of it."""
        self._outer = getcurrent()
        self._inner.parent = self._outer
        Process.running, before = self, Process.running
        try:
            self._inner.switch()
        finally:
            Process.running = before

    def pause(self) -> None:
        """Called inside of it when something happens."""
        self._inner = getcurrent()
        self._outer.switch()

    #: All that are not over. They are kept: what is done with is ended by Python, and then puts its affairs in order,
    #: in the midst of what another one does.
    unfinished: list[Process] = []
    #: The one whose code runs.
    running: Process | None = None


@dataclass
class Kind:
    """
    How an Airflow behaves.

    :param has_instances: task instances have ids.
    :param keeps_state: there is a ``task_state_store``.
    :param clears_state: clearing a task throws it away.
    :param runs_again: a task that failed can run again in the same try.
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
    """What Airflow's database has of a task."""

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

    def make_again(self, whole_run: bool) -> None:
        """Delete it, and make one of the same names."""
        self.made += 1
        self.run += whole_run
        self.instances += 1
        self.try_number, self.max_tries, self.state = 0, self.retries, "scheduled"

    @property
    def id(self) -> str:
        return f"instance {self.instances}"
