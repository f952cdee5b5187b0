"""The state of the service apart from the messages: devices, tokens, quota and calls."""

from __future__ import annotations

import dataclasses
import secrets
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from airflow_provider_wassly.sandbox.service.changes import Changes
from airflow_provider_wassly.sandbox.service.inbox import Inbox
from airflow_provider_wassly.sandbox.service.models import Call, Message, ReceivedFile, SandboxDevice, utc_now

MAX_LATENCY = 3600
MAX_CALLS = 10_000


def _device(given: str | Mapping[str, str], number: int) -> SandboxDevice:
    if not isinstance(given, str | Mapping):
        raise ValueError(f"devices: each must be an instance id or a mapping, not {given!r}")
    fields = {"instance_id": given} if isinstance(given, str) else dict(given)
    known = {
        "id": f"device_{number}",
        "name": "Sandbox phone",
        "status": "connected",
        "lastActive": utc_now().isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    if unknown := fields.keys() - known.keys() - {"instance_id"}:
        raise ValueError(f"devices: unknown key {sorted(unknown)[0]!r}")
    if not fields.get("instance_id"):
        raise ValueError("devices: each needs an instance_id")
    for key, value in fields.items():
        if not isinstance(value, str):
            raise ValueError(f"devices: {key!r} must be a string, not {value!r}")
    values = known | fields
    return SandboxDevice(values["id"], values["name"], values["status"], values["lastActive"], values["instance_id"])


def _check_latency(value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MAX_LATENCY:
        raise ValueError(f"latency must be a number of seconds from 0 to {MAX_LATENCY}, not {value!r}")


def _check_conversations(value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"conversations must be an integer of 0 or more, not {value!r}")


class ServiceState:
    """
    The state of the service. Only methods of this class change it. Thread-safe.

    :param inbox: stores the messages.
    :param changes: gets a report of every change.
    :param conversations: the initial quota.
    :param devices: instance ids, or mappings with the keys of the API's device list.
    :param token: a bearer token to accept from the start.
    """

    def __init__(
        self,
        inbox: Inbox,
        changes: Changes,
        *,
        conversations: int,
        devices: Iterable[str | Mapping[str, str]],
        token: str,
    ) -> None:
        self.inbox = inbox
        self.changes = changes
        self._lock = threading.RLock()
        self._first_token = token
        _check_conversations(conversations)
        self._first_conversations = conversations
        if isinstance(devices, str):
            raise ValueError(f"devices must be a list, not {devices!r}")
        self._first_devices = [_device(given, number) for number, given in enumerate(devices, start=1)]
        if len({device.instance_id for device in self._first_devices}) < len(self._first_devices):
            raise ValueError("devices: two have the same instance_id")
        self._begin()

    def _begin(self) -> None:
        self._calls: deque[Call] = deque(maxlen=MAX_CALLS)
        self._number_of_calls = 0
        self._devices = {device.instance_id: device for device in self._first_devices}
        self._tokens = {self._first_token}
        self.logins = 0
        self.conversations = self._first_conversations
        self.latency = 0.0

    def reset(self) -> None:
        """Return to the initial state."""
        with self._lock:
            self.inbox.clear(conversations=True)
            self._begin()
        self.changes.note()

    def configure(self, *, latency: float | None = None, conversations: int | None = None) -> None:
        """
        Change settings. If one value is wrong, nothing changes.

        :param latency: the delay before each API answer, in seconds. Default: unchanged.
        :param conversations: how many conversations remain. Default: unchanged.
        :raises ValueError: when a value is wrong.
        """
        if latency is not None:
            _check_latency(latency)
        if conversations is not None:
            _check_conversations(conversations)
        with self._lock:
            self.latency = self.latency if latency is None else latency
            self.conversations = self.conversations if conversations is None else conversations
        self.changes.note()

    # Calls

    def begin_call(self, endpoint: str, content_length: int | None) -> Call:
        """Record a new call."""
        call = Call(endpoint, content_length)
        with self._lock:
            self._calls.append(call)
            self._number_of_calls += 1
        return call

    @property
    def calls(self) -> list[Call]:
        """The last :data:`MAX_CALLS` API calls, oldest first."""
        with self._lock:
            return list(self._calls)

    # Tokens

    def login(self) -> str:
        """Issue a new token."""
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._tokens.add(token)
            self.logins += 1
        return token

    def is_valid(self, token: str) -> bool:
        """Return whether a token is valid."""
        with self._lock:
            return token in self._tokens

    def expire_tokens(self) -> None:
        """Invalidate all tokens, including the initial one."""
        with self._lock:
            self._tokens.clear()

    # Devices

    @property
    def devices(self) -> list[SandboxDevice]:
        """The account's devices, with their current status."""
        with self._lock:
            return list(self._devices.values())

    def device(self, instance_id: str) -> SandboxDevice | None:
        """Return the device with this instance id, ``None`` without one."""
        with self._lock:
            return self._devices.get(instance_id)

    def set_device_status(self, instance_id: str, status: str) -> None:
        """
        Set a device's status.

        :param status: ``connected`` or ``disconnected``.
        :raises ValueError: when there is no such device.
        """
        with self._lock:
            device = self._devices.get(instance_id)
            if device is None:
                known = ", ".join(self._devices) or "none"
                raise ValueError(f"instance_id: unknown device {instance_id!r}; known devices: {known}")
            self._devices[instance_id] = dataclasses.replace(device, status=status)
        self.changes.note()

    # Messages

    def accept(
        self,
        *,
        contact_mobile_number: str,
        contact_name: str | None,
        message: str | None,
        instance_id: str,
        document: ReceivedFile | None,
        media: ReceivedFile | None,
    ) -> tuple[Message, int] | None:
        """
        Store an accepted message, and use up one conversation.

        Here each message uses up one conversation. How the real service counts them is not documented.

        :return: the message and how many conversations remain, or ``None`` if there was none left.
        :raises OSError: when the message cannot be stored.
        """
        with self._lock:
            if not self.conversations:
                return None
            accepted = self.inbox.add(
                contact_mobile_number=contact_mobile_number,
                contact_name=contact_name,
                message=message,
                instance_id=instance_id,
                document=document,
                media=media,
            )
            self.conversations -= 1
            remaining = self.conversations
        self.changes.note()
        return accepted, remaining

    def delete_messages(self) -> None:
        """Delete the messages and their files."""
        self.inbox.clear()
        self.changes.note()

    def state(self) -> dict[str, Any]:
        """Return the settings and counters, ready for JSON."""
        with self._lock:
            return {
                "latency": self.latency,
                "conversations": self.conversations,
                "first_conversations": self._first_conversations,
                "messages": len(self.inbox),
                "last_message": self.inbox.last_id,
                "max_messages": self.inbox.max_messages,
                "calls": self._number_of_calls,
                "logins": self.logins,
                "devices": [device.as_json() for device in self._devices.values()],
            }
