"""Asks, beside the sending, whether disconnected devices are back."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable
from contextlib import suppress

from airflow_provider_wassly.client import Device, WasslyClient, WasslyError

log = logging.getLogger(__name__)

#: Seconds between two looks at the device list.
INTERVAL = 60.0


class DeviceWatch:
    """
    Reads the device list in a thread of its own, so that devices that work need not wait for the answer.

    :param client: the client.
    :param wake: called when an answer has come.
    """

    def __init__(self, client: WasslyClient, wake: Callable[[], None]) -> None:
        self._client = client
        self._clock = client.clock
        self._wake = wake
        self._answers: queue.SimpleQueue[list[Device] | WasslyError] = self._clock.queue()
        self._is_asking = False
        self._next = 0.0

    def begin(self) -> None:
        """Have the first look an interval from now, because a look has just shown a device as disconnected."""
        self._next = self._clock.monotonic() + INTERVAL

    def look(self) -> dict[str, bool] | None:
        """
        Return whether each device is connected, ``None`` if there is no new answer. Ask again if it is time to.

        :raises WasslyError: when the list cannot be read, and that cannot pass.
        """
        with suppress(queue.Empty):
            answer = self._answers.get_nowait()
            self._is_asking = False
            if isinstance(answer, WasslyError):
                if not answer.may_pass:
                    raise answer
                log.warning("Checking the devices again later: %s", answer)
                return None
            return {device.instance_id: device.is_connected for device in answer if device.instance_id}
        if not self._is_asking and self._clock.monotonic() >= self._next:
            self._is_asking = True
            self._next = self._clock.monotonic() + INTERVAL
            self._clock.start(self._ask, "wassly-broadcast-devices")
        return None

    def _ask(self) -> None:
        try:
            answer: list[Device] | WasslyError = self._client.list_devices()
        except WasslyError as error:
            answer = error
        self._answers.put(answer)
        self._wake()
