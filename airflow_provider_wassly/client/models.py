"""Wassly's answers as plain typed objects."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SendReceipt:
    """
    Proof that Wassly accepted the message. The API reports acceptance, not delivery.

    A value that is missing in the answer, or unreadable, is ``None``.
    """

    #: Wassly's name for the kind of message: ``text``, ``document``, ``media`` …
    message_type: str | None
    #: Wassly's id of the conversation.
    conversation_id: int | str | None
    #: How many conversations the account has left after this message.
    remaining_conversations: int | None


@dataclass(frozen=True)
class Device:
    """A WhatsApp Web session of the account. A value that is missing in the answer is ``None``."""

    #: Wassly's id of the device; sending needs :attr:`instance_id` instead.
    id: str | None
    #: A name for people, for instance ``Chrome on Windows``.
    name: str | None
    #: ``connected`` if the device can send.
    status: str | None
    #: When the device was last active, as Wassly writes it: for instance ``2024-01-15T10:30:00Z``.
    last_active: str | None
    #: The sender, for :meth:`WasslyClient.send_message`.
    instance_id: str | None

    @property
    def is_connected(self) -> bool:
        """Whether the device can send now."""
        return self.status is not None and self.status.strip().lower() == "connected"
