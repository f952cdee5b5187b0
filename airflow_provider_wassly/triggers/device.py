"""The trigger of the device sensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_provider_wassly.client import Device
from airflow_provider_wassly.hooks.wassly import WasslyHook
from airflow_provider_wassly.triggers.base import PollTrigger

#: Short, because a failed call is repeated at the next check anyway.
_CLIENT_OPTIONS = {"connect_timeout": 5.0, "read_timeout": 10.0, "max_attempts": 1}


class DeviceTrigger(PollTrigger):
    """
    Waits until the sending WhatsApp Web session is connected, or one of several.

    :param instance_id: the WhatsApp Web session to wait for. Default: the connection's.
    :param instance_ids: several of them; the first that is connected ends the wait. Default: only ``instance_id``.
    :param kwargs: the arguments of :class:`PollTrigger`.
    """

    def __init__(
        self, *, instance_id: str | None = None, instance_ids: Sequence[str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.instance_id = instance_id
        self.instance_ids = instance_ids

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that recreate this trigger, ready for JSON."""
        return {**super().arguments(), "instance_id": self.instance_id, "instance_ids": self.instance_ids}

    def ask(self) -> tuple[list[Device], str | None]:
        """Return the account's device list and the connection's instance."""
        # A new hook for each check: the connection may have been edited.
        # All triggers of a triggerer share a token already.
        hook = WasslyHook(self.wassly_conn_id, client_options=_CLIENT_OPTIONS, share_token=False)
        with hook.get_conn() as client:
            return client.list_devices(), hook.settings.instance_id

    def judge(self, answer: tuple[list[Device], str | None]) -> str | None:
        """Look for the instances in the list."""
        devices, instance_of_connection = answer
        by_id: dict[str | None, Device] = {device.instance_id: device for device in devices}
        for wanted in self.instance_ids or (self.instance_id or instance_of_connection,):
            if (device := by_id.get(wanted)) is None:
                return f"Instance {wanted!r} is not in the account's device list"
            self.log.info("Instance %s is %s", device.instance_id, device.status or "in an unknown state")
            if device.is_connected:
                return f"Instance {device.instance_id} is connected"
        return None
