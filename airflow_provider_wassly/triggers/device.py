"""The trigger of the device sensor."""

from __future__ import annotations

from typing import Any

from airflow_provider_wassly.client import WasslyError
from airflow_provider_wassly.hooks.wassly import WasslyHook
from airflow_provider_wassly.triggers.base import PollTrigger


class DeviceTrigger(PollTrigger):
    """
    Waits until the sending WhatsApp Web session is connected.

    :param instance_id: the WhatsApp Web session; by default the connection's.
    :param kwargs: see :class:`PollTrigger`.
    """

    def __init__(self, *, instance_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.instance_id = instance_id
        self._hook: WasslyHook | None = None

    def arguments(self) -> dict[str, Any]:
        """Return what makes this trigger again, from JSON."""
        return {**super().arguments(), "instance_id": self.instance_id}

    def look(self) -> str | None:
        """Ask for the device list once."""
        self._hook = self._hook or WasslyHook(self.wassly_conn_id)
        try:
            device = self._hook.find_device(self.instance_id)
        except WasslyError as error:
            if not error.may_pass:
                raise
            self.log.warning("Not known at the moment: %s. Looking again later", error)
            return None
        self.log.info("Instance %s is %s", device.instance_id, device.status or "without status")
        return f"Instance {device.instance_id} is connected" if device.is_connected else None
