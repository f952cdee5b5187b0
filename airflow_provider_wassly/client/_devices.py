"""Look up the devices whose messages were rejected."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from airflow_provider_wassly.client.clock import Clock
from airflow_provider_wassly.client.errors import WasslyError
from airflow_provider_wassly.client.models import Device

log = logging.getLogger(__name__)

#: How many seconds one device list explains the rejections of a device.
_LASTS = 60.0


class DeviceStates:
    """
    Fetches the device list at most once a minute per device, however many of its messages are rejected.

    :param fetch: returns the device list.
    :param clock: measures the minute.
    """

    def __init__(self, fetch: Callable[[], list[Device]], clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, list[Device] | None]] = {}

    def devices_for(self, instance_id: str) -> list[Device] | None:
        """Return the device list, at most a minute old; ``None`` if it could not be read."""
        with self._lock:
            known = self._known.get(instance_id)
            if known is None or self._clock.monotonic() - known[0] >= _LASTS:
                known = self._known[instance_id] = (self._clock.monotonic(), self._list_or_none())
            return known[1]

    def _list_or_none(self) -> list[Device] | None:
        try:
            return self._fetch()
        except WasslyError as error:
            log.debug("Could not read the device list after a rejection: %s", error)
            return None
