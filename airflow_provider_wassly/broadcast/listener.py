"""Shows the progress of a broadcast in Airflow: as an XCom and as metrics."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from airflow_provider_wassly.hooks.wassly import WasslyHook

log = logging.getLogger(__name__)


class ProgressListener:
    """
    Pushes the progress as XCom ``progress`` and sets the gauges ``wassly.broadcast.…``.

    :param context: the context of the running task.
    :param hook: the hook of its connection.
    :param pushes: whether the task pushes XComs.
    """

    def __init__(self, context: Mapping[str, Any], hook: WasslyHook, *, pushes: bool = True) -> None:
        self._ti = context.get("ti") if pushes else None
        self._hook = hook

    def push(self, progress: dict[str, Any]) -> None:
        """Push the progress. If that fails, the sending continues."""
        if self._ti is not None:
            try:
                self._ti.xcom_push(key="progress", value=progress)
            except Exception as error:
                log.warning("Could not push the progress: %s: %s", type(error).__name__, error)

    def measure(self, name: str, value: float) -> None:
        """Set a gauge."""
        self._hook.gauge(f"wassly.broadcast.{name}", value)
