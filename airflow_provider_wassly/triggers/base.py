"""The base of the triggers: they check at intervals and never block the triggerer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from datetime import datetime
from typing import Any, ClassVar

from airflow_provider_wassly.airflow_compat.bases import BaseTrigger, TriggerEvent
from airflow_provider_wassly.client import WasslyError
from airflow_provider_wassly.client.clock import SYSTEM, Clock
from airflow_provider_wassly.triggers._looks import Look, LookResult


class PollTrigger(BaseTrigger):
    """
    Waits until the task should check again, or until the deadline.

    A trigger decides nothing and sends nothing: its single event wakes the task, which checks for itself. So it does no
    harm if Airflow runs a trigger twice, or again after a restart.

    Triggers that ask the same question share the answer: a thousand of them make one call per interval.

    :param wassly_conn_id: the Airflow connection.
    :param deadline: when to stop waiting, in ISO 8601 format with an offset.
    :param poke_interval: the time between two checks, in seconds.
    :param exponential_backoff: whether to double the interval after each check. Default: no.
    :param max_wait: the maximum interval, in seconds. Default: none.
    """

    #: A class attribute, because Airflow recreates triggers from what :meth:`serialize` returns.
    clock: ClassVar[Clock] = SYSTEM

    def __init__(
        self,
        *,
        wassly_conn_id: str,
        deadline: str,
        poke_interval: float,
        exponential_backoff: bool = False,
        max_wait: float | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.wassly_conn_id = wassly_conn_id
        self.deadline = deadline
        self.poke_interval = poke_interval
        self.exponential_backoff = exponential_backoff
        self.max_wait = max_wait

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that recreate this trigger, ready for JSON."""
        return {
            "wassly_conn_id": self.wassly_conn_id,
            "deadline": self.deadline,
            "poke_interval": self.poke_interval,
            "exponential_backoff": self.exponential_backoff,
            "max_wait": self.max_wait,
        }

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        return f"{type(self).__module__}.{type(self).__qualname__}", self.arguments()

    def subject(self) -> Hashable:
        """Return what the answer depends on; triggers of this class with an equal subject share it."""
        return self.wassly_conn_id

    def ask(self) -> Any:
        """Fetch what :meth:`judge` needs. Runs in a thread."""
        raise NotImplementedError

    def judge(self, answer: Any) -> str | None:
        """
        Return why the task should check again, or ``None`` to keep waiting.

        :param answer: the result of :meth:`ask`, called on this trigger or on another with the same subject.
        """
        raise NotImplementedError

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then yield one event."""
        deadline = datetime.fromisoformat(self.deadline)
        look = Look.at((type(self), self.subject()), self.clock)
        interval = self.poke_interval
        # The task has just checked.
        known_at = self.clock.monotonic()
        while (left := (deadline - self.clock.now()).total_seconds()) > 0:
            due = max(0.0, known_at + interval - self.clock.monotonic())
            await self.clock.pause(min(due, left))
            if due >= left:
                continue  # the task itself makes the last check
            try:
                answer = await asyncio.wait_for(look.newer_than(known_at, self.ask), left - due)
            except asyncio.TimeoutError:
                continue
            if (message := self._reason_to_wake(answer)) is not None:
                yield self._event(message)
                return
            # Count the interval from the answer, not from now: triggers that share answers then fall into step.
            known_at = answer.came_at
            if self.exponential_backoff:
                interval = min(interval * 2, self.max_wait or interval * 2)
        yield self._event("Timeout reached")

    def _reason_to_wake(self, answer: LookResult) -> str | None:
        error = answer.error
        if error is None:
            try:
                return self.judge(answer.value)
            except Exception as raised:
                error = raised
        if isinstance(error, WasslyError) and error.may_pass:
            self.log.warning("Checking again later: %s", error)
            return None
        # An error that cannot pass: wake the task, which fails with it.
        return f"{type(error).__name__}: {error}"

    def _event(self, message: str) -> TriggerEvent:
        # The deadline is in the event, because "airflow dags test" drops the deferral's kwargs.
        return TriggerEvent({"message": message, "deadline": self.deadline})  # type: ignore[no-untyped-call]
