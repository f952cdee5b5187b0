"""What the stand-in service knows: messages, devices, tokens, quota, calls. Safe to use from any thread."""

from __future__ import annotations

import builtins
import dataclasses
import hashlib
import secrets
import tempfile
import threading
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

CHUNK = 1024 * 1024
MAX_LATENCY = 3600


def _now() -> datetime:
    return datetime.now(timezone.utc)


@dataclasses.dataclass(frozen=True)
class Attachment:
    """
    A file that came with a message; its content lies on disk until the sandbox stops.

    :param field: ``document`` or ``media``.
    :param name: the file name as it was sent.
    :param content_type: the MIME type as it was sent, ``""`` when there was none.
    :param size: length in bytes.
    :param sha256: hexadecimal digest of the content.
    :param path: where the content lies.
    """

    field: str
    name: str
    content_type: str
    size: int
    sha256: str
    path: Path

    @property
    def bytes(self) -> builtins.bytes:
        """The whole content, read from disk."""
        return self.path.read_bytes()


@dataclasses.dataclass(frozen=True)
class Message:
    """
    A message that the service accepted.

    :param id: counts up from 1 and is never given twice.
    :param contact_name: ``None`` when it was not sent, as opposed to empty; so with ``message``.
    :param message_type: ``text``, ``document`` or ``media``; ``media`` when both files were sent.
    :param conversation_id: one per recipient number.
    """

    id: int
    contact_mobile_number: str
    contact_name: str | None
    message: str | None
    instance_id: str
    message_type: str
    conversation_id: int
    received_at: datetime
    document: Attachment | None
    media: Attachment | None


@dataclasses.dataclass(frozen=True)
class Device:
    """A WhatsApp Web session of the account."""

    id: str
    name: str
    status: str
    last_active: str
    instance_id: str

    @property
    def connected(self) -> bool:
        """Whether messages can be sent from it."""
        return self.status == "connected"

    def as_json(self) -> dict[str, str]:
        """The device as the API's device list shows it."""
        return {
            "id": self.id,
            "name": self.name,
            "status": self.status,
            "lastActive": self.last_active,
            "instance_id": self.instance_id,
        }


@dataclasses.dataclass
class Call:
    """
    One call of an API endpoint; it changes while the call is under way.

    :param endpoint: ``login``, ``devices`` or ``send``.
    :param content_length: what the request announced, ``None`` if it did not.
    :param started_at: when the headers had been read.
    :param bytes_received: how much of the request's body was read.
    :param status: the status of the answer; ``None`` while there is none, or if there never was one.
    :param fault: the name of the fault that was applied.
    :param finished_at: when the last of the answer was handed over, or the connection was lost.
    """

    endpoint: str
    content_length: int | None
    started_at: datetime = dataclasses.field(default_factory=_now)
    bytes_received: int = 0
    status: int | None = None
    fault: str | None = None
    finished_at: datetime | None = None

    def finish(self) -> None:
        """Note the end of the call, once."""
        self.finished_at = self.finished_at or _now()


def _device(given: str | Mapping[str, str], number: int) -> Device:
    if not isinstance(given, str | Mapping):
        raise ValueError(f"devices: every device is an instance id or a mapping, not {given!r}")
    fields = {"instance_id": given} if isinstance(given, str) else dict(given)
    known = {
        "id": f"device_{number}",
        "name": "Sandbox phone",
        "status": "connected",
        "lastActive": _now().isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    if unknown := fields.keys() - known.keys() - {"instance_id"}:
        raise ValueError(f"devices: unknown key {sorted(unknown)[0]!r}")
    if not fields.get("instance_id"):
        raise ValueError("devices: every device needs an instance_id")
    for key, value in fields.items():
        if not isinstance(value, str):
            raise ValueError(f"devices: {key!r} must be a text, not {value!r}")
    values = known | fields
    return Device(values["id"], values["name"], values["status"], values["lastActive"], values["instance_id"])


def _check_latency(value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MAX_LATENCY:
        raise ValueError(f"latency must be a number of seconds from 0 to {MAX_LATENCY}, not {value!r}")


def _check_conversations(value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"conversations must be a whole number from 0 up, not {value!r}")


class Store:
    """
    The state of the stand-in service. Everything that changes it is a method or a property of this class.

    :param conversations: how many messages may be sent.
    :param devices: instance ids, or mappings with the keys of the API's device list.
    :param token: a bearer token that is valid from the start.
    """

    def __init__(self, *, conversations: int, devices: Iterable[str | Mapping[str, str]], token: str) -> None:
        self._lock = threading.RLock()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._message_ids = count(1)
        self._file_ids = count(1)
        self._first_token = token
        _check_conversations(conversations)
        self._first_conversations = conversations
        if isinstance(devices, str):
            raise ValueError(f"devices: a list of them, not {devices!r}")
        self._first_devices = [_device(given, number) for number, given in enumerate(devices, start=1)]
        if len({device.instance_id for device in self._first_devices}) < len(self._first_devices):
            raise ValueError("devices: an instance_id is there twice")
        self._messages: list[Message] = []
        self.reset()

    def reset(self) -> None:
        """Forget everything and be as at the start."""
        with self._lock:
            self.delete_messages()
            self._calls: list[Call] = []
            self._conversation_ids: dict[str, int] = {}
            self._devices = {device.instance_id: device for device in self._first_devices}
            self._tokens = {self._first_token}
            self.logins = 0
            self.conversations = self._first_conversations
            self.latency = 0.0

    def open(self) -> None:
        """Make the folder for attachments."""
        self._folder = tempfile.TemporaryDirectory(prefix="wassly-sandbox-", ignore_cleanup_errors=True)

    def close(self) -> None:
        """Remove the folder for attachments; the rest stays readable."""
        if self._folder:
            self._folder.cleanup()
            self._folder = None

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

    # Calls

    def begin_call(self, endpoint: str, content_length: int | None) -> Call:
        """Note that a call has come in."""
        call = Call(endpoint, content_length)
        with self._lock:
            self._calls.append(call)
        return call

    @property
    def calls(self) -> list[Call]:
        """All calls of the API, oldest first."""
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
    def devices(self) -> list[Device]:
        """The account's devices as they are now."""
        with self._lock:
            return list(self._devices.values())

    def device(self, instance_id: str) -> Device | None:
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

    # Messages

    def take_conversation(self) -> int | None:
        """
        Use up one conversation; return how many remain after it, or ``None`` when there was none left.

        One message takes one here. What really counts as a conversation only the real service knows.
        """
        with self._lock:
            if not self.conversations:
                return None
            self.conversations -= 1
            return self.conversations

    def save(self, field: str, name: str, content_type: str, source: BinaryIO) -> Attachment:
        """
        Copy a file to disk, without ever having the whole of it in memory.

        :raises RuntimeError: when the store is closed.
        """
        if not self._folder:
            raise RuntimeError("the sandbox has stopped")
        digest, size = hashlib.sha256(), 0
        path = Path(self._folder.name) / f"{next(self._file_ids)}-{field}"  # never a name that came from outside
        with path.open("wb") as target:
            while chunk := source.read(CHUNK):
                target.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        return Attachment(field, name, content_type, size, digest.hexdigest(), path)

    def add_message(
        self,
        *,
        contact_mobile_number: str,
        contact_name: str | None,
        message: str | None,
        instance_id: str,
        document: Attachment | None,
        media: Attachment | None,
    ) -> Message:
        """Record a message as accepted."""
        with self._lock:
            accepted = Message(
                id=next(self._message_ids),
                contact_mobile_number=contact_mobile_number,
                contact_name=contact_name,
                message=message,
                instance_id=instance_id,
                message_type="media" if media else "document" if document else "text",
                conversation_id=self._conversation_ids.setdefault(
                    contact_mobile_number, len(self._conversation_ids) + 1
                ),
                received_at=_now(),
                document=document,
                media=media,
            )
            self._messages.append(accepted)
        return accepted

    @property
    def messages(self) -> list[Message]:
        """All accepted messages, oldest first."""
        with self._lock:
            return list(self._messages)

    def delete_messages(self) -> None:
        """Forget the messages and remove their files."""
        with self._lock:
            deleted, self._messages = self._messages, []
        for message in deleted:
            for attachment in (message.document, message.media):
                if attachment:
                    attachment.path.unlink(missing_ok=True)

    def state(self) -> dict[str, Any]:
        """The settings and counters at a glance."""
        with self._lock:
            return {
                "latency": self.latency,
                "conversations": self.conversations,
                "messages": len(self._messages),
                "calls": len(self._calls),
                "logins": self.logins,
                "devices": [device.as_json() for device in self._devices.values()],
            }
