"""The sensor that waits for the sending device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_wassly.sensors.base import WasslySensor

if TYPE_CHECKING:
    from airflow_provider_wassly.triggers.device import DeviceTrigger


class WasslyDeviceSensor(WasslySensor):
    """
    Waits until the sending WhatsApp Web session is connected.

    .. code-block:: python

        WasslyDeviceSensor(
            task_id="wait_for_device",
            deferrable=True,
            timeout=timedelta(hours=6),
        )

    Checks the account's device list, which costs no conversation. Fails at once if the account has no such instance.

    Returns the device: ``{"instance_id": …, "name": …, "status": …, "last_active": …}``.

    :param instance_id: the WhatsApp Web session to wait for. Default: the connection's. (templated)
    :param wassly_conn_id: the Airflow connection. Default: ``wassly_default``. (templated)
    :param deferrable: wait in the triggerer, without a worker slot. Default: ``[operators] default_deferrable``.
    :param kwargs: the arguments of any sensor, such as ``timeout``, ``poke_interval`` and ``mode``.
    """

    def look(self) -> tuple[bool, dict[str, Any]]:
        """Fetch the device list once."""
        device = self.hook.find_device(self.instance_id)
        self.log.info("Instance %s is %s", device.instance_id, device.status or "in an unknown state")
        return device.is_connected, {
            "instance_id": device.instance_id,
            "name": device.name,
            "status": device.status,
            "last_active": device.last_active,
        }

    def trigger(self, **waiting: Any) -> DeviceTrigger:
        """Return the trigger that checks the device list."""
        from airflow_provider_wassly.triggers.device import DeviceTrigger

        return DeviceTrigger(instance_id=self.instance_id, **waiting)
