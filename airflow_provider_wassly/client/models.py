"""What Wassly answers, as plain typed objects."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SendReceipt:
    """
    Wassly accepted the message. Whether a phone received it is not part of the API.

    A value that the answer did not hold, or not in a readable form, is ``None``.
    """

    #: ``text``, ``document``, ``media`` … as Wassly names it.
    message_type: str | None
    conversation_id: int | str | None
    #: The account's remaining quota after this message.
    remaining_conversations: int | None


@dataclass(frozen=True)
class Device:
    """A WhatsApp Web session of the account. A value that the answer did not hold is ``None``."""

    id: str | None
    name: str | None
    #: ``connected`` when it can send.
    status: str | None
    #: As Wassly writes it, for instance ``2024-01-15T10:30:00Z``.
    last_active: str | None
    #: What :meth:`WasslyClient.send_message` needs as sender.
    instance_id: str | None

    @property
    def is_connected(self) -> bool:
        """Whether the device can send now."""
        return self.status is not None and self.status.strip().lower() == "connected"
