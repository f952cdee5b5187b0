"""The trigger of a broadcast that waits until a moment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, ClassVar

from airflow_provider_wassly.airflow_compat.bases import BaseTrigger, TriggerEvent
from airflow_provider_wassly.client.clock import SYSTEM, Clock

#: Seconds between two looks at the clock, which can be set while the trigger waits. A machine can sleep, too.
_LOOK = 60.0


class TimeTrigger(BaseTrigger):
    """
    Waits until a moment, also across restarts of the triggerer.

    :param moment: when the wait ends, in ISO 8601 format with a UTC offset.
    """

    #: A class attribute, because Airflow recreates triggers from what :meth:`serialize` returns.
    clock: ClassVar[Clock] = SYSTEM

    def __init__(self, moment: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.moment = moment

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {"moment": self.moment}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then yield one event."""
        moment = datetime.fromisoformat(self.moment)
        while (left := (moment - self.clock.now()).total_seconds()) > 0:
            await self.clock.pause(min(left, _LOOK))
        yield TriggerEvent({"moment": self.moment})  # type: ignore[no-untyped-call]
