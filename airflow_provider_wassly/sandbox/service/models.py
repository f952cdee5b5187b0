"""What the stand-in service deals with: messages, their files, devices, calls."""

from __future__ import annotations

import builtins
import dataclasses
from datetime import datetime, timezone
from pathlib import Path


def now() -> datetime:
    """Return the time, with its zone."""
    return datetime.now(timezone.utc)


@dataclasses.dataclass(frozen=True)
class ReceivedFile:
    """
    A file that came with a message; its content lies on disk until the sandbox stops, or in its data folder.

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
    document: ReceivedFile | None
    media: ReceivedFile | None


@dataclasses.dataclass(frozen=True)
class SandboxDevice:
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
    started_at: datetime = dataclasses.field(default_factory=now)
    bytes_received: int = 0
    status: int | None = None
    fault: str | None = None
    finished_at: datetime | None = None

    def finish(self) -> None:
        """Note the end of the call, once."""
        self.finished_at = self.finished_at or now()
