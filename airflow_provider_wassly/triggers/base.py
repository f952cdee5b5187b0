"""What the triggers share: they look from time to time, without ever holding up the triggerer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from datetime import datetime
from typing import Any, ClassVar

from airflow_provider_wassly.airflow_compat.bases import BaseTrigger, TriggerEvent
from airflow_provider_wassly.client import WasslyError
from airflow_provider_wassly.client.clock import SYSTEM, Clock
from airflow_provider_wassly.triggers._looks import Answer, Look


class PollTrigger(BaseTrigger):
    """
    Waits until it is worth for the task to look again, or until the time is over.

    It decides nothing and sends nothing: the one event that it ends with wakes the task, which looks
    for itself. So a trigger that runs twice, as Airflow allows, or anew after a restart, does no harm.

    Triggers that ask the same share the answer, so that a thousand of them make one call in an interval.

    :param wassly_conn_id: the Airflow connection.
    :param deadline: when to stop waiting, as ISO 8601 with offset.
    :param poke_interval: seconds between two looks.
    :param exponential_backoff: double the interval after each look.
    :param max_wait: seconds that the interval does not grow beyond.
    """

    #: Of the class: a trigger is made anew from what :meth:`serialize` returns.
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
        """Return what makes this trigger again, from JSON."""
        return {
            "wassly_conn_id": self.wassly_conn_id,
            "deadline": self.deadline,
            "poke_interval": self.poke_interval,
            "exponential_backoff": self.exponential_backoff,
            "max_wait": self.max_wait,
        }

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class and arguments."""
        return f"{type(self).__module__}.{type(self).__qualname__}", self.arguments()

    def subject(self) -> Hashable:
        """Return what :meth:`ask` depends on; triggers of this class for which it is equal share the answer."""
        return self.wassly_conn_id

    def ask(self) -> Any:
        """Find out what :meth:`judge` has to know. Runs in a thread."""
        raise NotImplementedError

    def judge(self, answer: Any) -> str | None:
        """
        Return why it is worth for the task to look again, ``None`` if it is not.

        :param answer: what :meth:`ask` has returned, of this trigger or of another one.
        """
        raise NotImplementedError

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and end with one event."""
        deadline = datetime.fromisoformat(self.deadline)
        look = Look.at((type(self), self.subject()), self.clock)
        interval = self.poke_interval
        # The task has just looked.
        known_at = self.clock.monotonic()
        while (left := (deadline - self.clock.now()).total_seconds()) > 0:
            due = max(0.0, known_at + interval - self.clock.monotonic())
            await self.clock.pause(min(due, left))
            if due >= left:
                continue  # the task itself looks once more
            try:
                answer = await asyncio.wait_for(look.newer_than(known_at, self.ask), left - due)
            except asyncio.TimeoutError:
                continue
            if (message := self._worth(answer)) is not None:
                yield self._event(message)
                return
            # From then, and not from now: so all that share answers soon wait for the same one.
            known_at = answer.came_at
            if self.exponential_backoff:
                interval = min(interval * 2, self.max_wait or interval * 2)
        yield self._event("The time is over")

    def _worth(self, answer: Answer) -> str | None:
        error = answer.error
        if error is None:
            try:
                return self.judge(answer.value)
            except Exception as raised:
                error = raised
        if isinstance(error, WasslyError) and error.may_pass:
            self.log.warning("Looking again later: %s", error)
            return None
        # What cannot pass is worth it too: the task then fails with it.
        return f"{type(error).__name__}: {error}"

    def _event(self, message: str) -> TriggerEvent:
        # The deadline is here and not in the deferral's kwargs: "airflow dags test" drops those.
        return TriggerEvent({"message": message, "deadline": self.deadline})  # type: ignore[no-untyped-call]
