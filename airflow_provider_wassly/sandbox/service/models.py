"""The service's data: messages, their files, devices and calls."""

from __future__ import annotations

import builtins
import dataclasses
from datetime import datetime, timezone
from pathlib import Path


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(timezone.utc)


@dataclasses.dataclass(frozen=True)
class ReceivedFile:
    """
    A file that came with a message. Its content is on disk until the sandbox stops, or stays in the data folder.

    :param field: ``document`` or ``media``.
    :param name: the file name as it was sent.
    :param content_type: the MIME type as it was sent, ``""`` without one.
    :param size: the length, in bytes.
    :param sha256: the hexadecimal SHA-256 digest of the content.
    :param path: the path of the content on disk.
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

    :param id: a number that counts up from 1 and is never reused.
    :param contact_mobile_number: the recipient.
    :param contact_name: the contact's name; ``None`` if the request had no such field, ``""`` if it was empty.
    :param message: the text; ``None`` if the request had no such field, ``""`` if it was empty.
    :param instance_id: the sending instance.
    :param message_type: ``text``, ``document`` or ``media``; ``media`` if both files were sent.
    :param conversation_id: an id for each recipient number.
    :param received_at: when the message was stored.
    :param document: the document, ``None`` without one.
    :param media: the media file, ``None`` without one.
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
    """
    A WhatsApp Web session of the account.

    :param status: ``connected``, or why not.
    :param last_active: an ISO 8601 time.
    :param instance_id: the id that a message names as its sender.
    """

    id: str
    name: str
    status: str
    last_active: str
    instance_id: str

    @property
    def connected(self) -> bool:
        """Whether it can send messages."""
        return self.status == "connected"

    def as_json(self) -> dict[str, str]:
        """Return the device as in the API's device list."""
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
    A call to an API endpoint, updated while the call is running.

    :param endpoint: ``login``, ``devices`` or ``send``.
    :param content_length: the length that the request announced, in bytes; ``None`` if it announced none.
    :param started_at: when the headers were read.
    :param bytes_received: how much of the request's body was read, in bytes.
    :param status: the HTTP status of the answer; ``None`` without an answer.
    :param fault: the name of the fault that was applied, ``None`` without one.
    :param finished_at: when the whole answer was sent, or the connection was lost; ``None`` before that.
    """

    endpoint: str
    content_length: int | None
    started_at: datetime = dataclasses.field(default_factory=utc_now)
    bytes_received: int = 0
    status: int | None = None
    fault: str | None = None
    finished_at: datetime | None = None

    def finish(self) -> None:
        """Record the end of the call; only the first time counts."""
        self.finished_at = self.finished_at or utc_now()
