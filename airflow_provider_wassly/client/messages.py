"""A message that passed every check that can be made before a call."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_wassly.client.attachments import Attachment
from airflow_provider_wassly.client.errors import WasslyInvalidMessage
from airflow_provider_wassly.client.numbers import read, shorten

log = logging.getLogger(__name__)

#: What WhatsApp shows of a message, and of the caption of a file.
MAX_MESSAGE = 4096
MAX_CAPTION = 1024


@dataclass(frozen=True)
class OutgoingMessage:
    """
    One message, ready to be sent.

    :param texts: the API's text fields in sending order; ``instance_id`` is the last one.
    :param files: the attachments by the API's field name.
    :param warning: what to log before it is sent, about a doubtful number; empty for most.
    """

    contact_mobile_number: str = field(repr=False)
    instance_id: str
    texts: dict[str, str] = field(repr=False)
    files: dict[str, Attachment] = field(repr=False)
    warning: str = ""

    @property
    def kind(self) -> str:
        """What log lines call it."""
        return " and ".join(self.files) or "text"


def prepare(
    *,
    contact_mobile_number: Any,
    instance_id: Any,
    message: Any = None,
    contact_name: Any = None,
    document: Attachment | str | os.PathLike[str] | None = None,
    media: Attachment | str | os.PathLike[str] | None = None,
    default_region: str | None = None,
    allowed_recipients: Collection[str] | None = None,
) -> OutgoingMessage:
    """
    Check a message and return it in the form in which it is sent.

    :param default_region: see :func:`~airflow_provider_wassly.client.numbers.read`.
    :param allowed_recipients: when given, the only numbers (as ``+`` and digits) that can be sent to.
    :raises WasslyInvalidMessage: names the parameter that is wrong.
    """
    number, warning = read(contact_mobile_number, default_region)
    if allowed_recipients is not None and number not in allowed_recipients:
        raise WasslyInvalidMessage(
            f"{shorten(number)} is not among the connection's allowed_recipients", field="contact_mobile_number"
        )
    instance = _text(instance_id, "instance_id").strip()
    if not instance:
        raise WasslyInvalidMessage(
            "empty; set it here or in the connection's extra (Wassly's device list shows it)", field="instance_id"
        )
    body = _text(message, "message")
    name = _text(contact_name, "contact_name").strip()
    given = {"document": document, "media": media}
    files = {
        parameter: file if isinstance(file, Attachment) else Attachment.from_path(file, parameter=parameter)
        for parameter, file in given.items()
        if file is not None
    }
    for parameter, attachment in files.items():
        if attachment.size == 0:
            raise WasslyInvalidMessage(f"{attachment.name} is empty (0 bytes)", field=parameter)
    if not body.strip():
        body = ""
        if not files:
            text = "a text of white space only" if _text(message, "message") else "no text"
            raise WasslyInvalidMessage(f"nothing to send: {text}, no document and no media", field="message")
    _warn_if_long(body, MAX_CAPTION if files else MAX_MESSAGE, "caption" if files else "message")
    # The order is part of the guarantee: see SendBody.
    texts = {
        "message": body,
        "contact_name": name,
        "contact_mobile_number": number,
        "instance_id": instance,
    }
    return OutgoingMessage(number, instance, {key: text for key, text in texts.items() if text}, files, warning)


def _text(value: Any, parameter: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise WasslyInvalidMessage(f"of type {type(value).__name__}, but it must be text", field=parameter)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise WasslyInvalidMessage(
            "holds half a character (a lone surrogate), which cannot be sent", field=parameter
        ) from None
    return value


def _warn_if_long(text: str, limit: int, what: str) -> None:
    if len(text) > limit:
        log.warning(
            "The %s has %d characters, WhatsApp takes %d; it is sent as it is and may be cut or refused",
            what,
            len(text),
            limit,
        )
