"""The sensor that waits for the sending device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_wassly.sensors.base import WasslySensor

if TYPE_CHECKING:
    from airflow_provider_wassly.triggers.device import DeviceTrigger


class WasslyDeviceSensor(WasslySensor):
    """
    Waits until the sending WhatsApp Web session is connected.

    Asks for the account's device list, which costs nothing. Returns
    ``{"instance_id": …, "name": …, "status": …, "last_active": …}``. An instance that the account does
    not have fails at once.

    :param instance_id: the WhatsApp Web session; by default the connection's. (templated)
    :param wassly_conn_id: the Airflow connection. (templated)
    :param deferrable: wait in the triggerer and not on a worker; default ``[operators] default_deferrable``.
    """

    def look(self) -> tuple[bool, dict[str, Any]]:
        """Ask for the device list once."""
        device = self.hook.find_device(self.instance_id)
        self.log.info("Instance %s is %s", device.instance_id, device.status or "without status")
        return device.is_connected, {
            "instance_id": device.instance_id,
            "name": device.name,
            "status": device.status,
            "last_active": device.last_active,
        }

    def trigger(self, **waiting: Any) -> DeviceTrigger:
        """Return the trigger that asks for the device list."""
        from airflow_provider_wassly.triggers.device import DeviceTrigger

        return DeviceTrigger(instance_id=self.instance_id, **waiting)
