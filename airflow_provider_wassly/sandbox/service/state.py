"""What the stand-in service knows beside the messages: devices, tokens, quota, calls. Safe to use from any thread."""

from __future__ import annotations

import dataclasses
import secrets
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from airflow_provider_wassly.sandbox.service.changes import Changes
from airflow_provider_wassly.sandbox.service.inbox import Inbox
from airflow_provider_wassly.sandbox.service.models import Call, Message, ReceivedFile, SandboxDevice, now

MAX_LATENCY = 3600
MAX_CALLS = 10_000


def _device(given: str | Mapping[str, str], number: int) -> SandboxDevice:
    if not isinstance(given, str | Mapping):
        raise ValueError(f"devices: every device is an instance id or a mapping, not {given!r}")
    fields = {"instance_id": given} if isinstance(given, str) else dict(given)
    known = {
        "id": f"device_{number}",
        "name": "Sandbox phone",
        "status": "connected",
        "lastActive": now().isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    if unknown := fields.keys() - known.keys() - {"instance_id"}:
        raise ValueError(f"devices: unknown key {sorted(unknown)[0]!r}")
    if not fields.get("instance_id"):
        raise ValueError("devices: every device needs an instance_id")
    for key, value in fields.items():
        if not isinstance(value, str):
            raise ValueError(f"devices: {key!r} must be a text, not {value!r}")
    values = known | fields
    return SandboxDevice(values["id"], values["name"], values["status"], values["lastActive"], values["instance_id"])


def _check_latency(value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MAX_LATENCY:
        raise ValueError(f"latency must be a number of seconds from 0 to {MAX_LATENCY}, not {value!r}")


def _check_conversations(value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"conversations must be a whole number from 0 up, not {value!r}")


class ServiceState:
    """
    The state of the stand-in service. Everything that changes it is a method or a property of this class.

    :param inbox: where the messages go.
    :param changes: is told of every change.
    :param conversations: how many messages may be sent.
    :param devices: instance ids, or mappings with the keys of the API's device list.
    :param token: a bearer token that is valid from the start.
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
            raise ValueError(f"devices: a list of them, not {devices!r}")
        self._first_devices = [_device(given, number) for number, given in enumerate(devices, start=1)]
        if len({device.instance_id for device in self._first_devices}) < len(self._first_devices):
            raise ValueError("devices: an instance_id is there twice")
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
        """Forget everything and be as at the start."""
        with self._lock:
            self.inbox.clear(conversations=True)
            self._begin()
        self.changes.note()

    def configure(self, *, latency: float | None = None, conversations: int | None = None) -> None:
        """
        Change what can be set; all of it or, when a value is wrong, nothing.

        :param latency: seconds that pass before each answer of the API.
        :param conversations: how many conversations remain.
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
        """Note that a call has come in."""
        call = Call(endpoint, content_length)
        with self._lock:
            self._calls.append(call)
            self._number_of_calls += 1
        return call

    @property
    def calls(self) -> list[Call]:
        """The calls of the API, oldest first: the last :data:`MAX_CALLS` of them."""
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
        """Tell whether a token is good."""
        with self._lock:
            return token in self._tokens

    def expire_tokens(self) -> None:
        """Make all tokens invalid, the one that was given at the start too."""
        with self._lock:
            self._tokens.clear()

    # Devices

    @property
    def devices(self) -> list[SandboxDevice]:
        """The account's devices as they are now."""
        with self._lock:
            return list(self._devices.values())

    def device(self, instance_id: str) -> SandboxDevice | None:
        """The device with this instance id."""
        with self._lock:
            return self._devices.get(instance_id)

    def set_device_status(self, instance_id: str, status: str) -> None:
        """
        Connect or disconnect a device.

        :raises ValueError: when there is no such device.
        """
        with self._lock:
            device = self._devices.get(instance_id)
            if device is None:
                known = ", ".join(self._devices) or "none"
                raise ValueError(f"instance_id: no device {instance_id!r}; there are: {known}")
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
        Keep a message as accepted, and use up one conversation.

        One message takes one here. What really counts as a conversation only the real service knows.

        :return: the message and how many conversations remain, or ``None`` when there was none left.
        :raises OSError: when the message cannot be kept.
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
        """Forget the messages and remove their files."""
        self.inbox.clear()
        self.changes.note()

    def state(self) -> dict[str, Any]:
        """The settings and counters at a glance."""
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
