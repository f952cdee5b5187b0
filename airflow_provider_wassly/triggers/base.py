"""What the triggers share: they look from time to time, without ever holding up the triggerer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, ClassVar

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_provider_wassly.client.clock import SYSTEM, Clock


class PollTrigger(BaseTrigger):
    """
    Waits until it is worth for the task to look again, or until the time is over.

    It decides nothing and sends nothing: the one event that it ends with wakes the task, which looks
    for itself. So a trigger that runs twice, as Airflow allows, or anew after a restart, does no harm.

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

    def look(self) -> str | None:
        """
        Return why it is worth for the task to look again, ``None`` if it is not. Runs in a thread.

        What cannot pass is worth it too: the task then fails with it.
        """
        raise NotImplementedError

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and end with one event."""
        deadline = datetime.fromisoformat(self.deadline)
        interval = self.poke_interval
        while True:
            left = (deadline - self.clock.now()).total_seconds()
            if left <= 0:
                yield self._event("The time is over")
                return
            await self.clock.pause(max(0.0, min(interval, left)))
            try:
                # Not asyncio.to_thread: Airflow's own calls go back to this event loop from such a thread.
                # Not the one thread that all triggers share by default: a look can last as long as a timeout.
                message = await sync_to_async(self.look, thread_sensitive=False)()
            except Exception as error:
                message = f"{type(error).__name__}: {error}"
            if message is not None:
                yield self._event(message)
                return
            if self.exponential_backoff:
                interval = min(interval * 2, self.max_wait or interval * 2)

    def _event(self, message: str) -> TriggerEvent:
        # The deadline is here and not in the deferral's kwargs: "airflow dags test" drops those.
        return TriggerEvent({"message": message, "deadline": self.deadline})  # type: ignore[no-untyped-call]
