"""Checks whether disconnected devices are back, while others send."""

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
    Reads the device list in a thread of its own, so that connected devices keep sending meanwhile.

    :param client: the client.
    :param wake: called when the reply is there.
    """

    def __init__(self, client: WasslyClient, wake: Callable[[], None]) -> None:
        self._client = client
        self._clock = client.clock
        self._wake = wake
        self._answers: queue.SimpleQueue[list[Device] | WasslyError] = self._clock.queue()
        self._is_asking = False
        self._next = 0.0

    def begin(self) -> None:
        """Take the first look in a minute: the list has just been read, because a message was refused."""
        self._next = self._clock.monotonic() + INTERVAL

    def look(self) -> dict[str, bool] | None:
        """
        Return whether each device is connected, ``None`` if there is no new reply; ask again if it is time to.

        :raises WasslyError: when the list cannot be read for a reason that cannot pass.
        """
        with suppress(queue.Empty):
            answer = self._answers.get_nowait()
            self._is_asking = False
            if isinstance(answer, WasslyError):
                if not answer.may_pass:
                    raise answer
                log.warning("Could not check the devices; trying again in a minute: %s", answer)
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
