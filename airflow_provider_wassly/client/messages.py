"""One message: what it is to be, and what it is once every check has passed that needs no call."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from airflow_provider_wassly.client.attachments import Attachment
from airflow_provider_wassly.client.errors import WasslyInvalidMessage
from airflow_provider_wassly.client.numbers import read, shorten

log = logging.getLogger(__name__)

#: What WhatsApp shows of a message, and of the caption of a file.
MAX_MESSAGE = 4096
MAX_CAPTION = 1024


class FileParameters(NamedTuple):
    """A file as it was asked for."""

    location: Any
    name: Any = None
    content_type: Any = None


@dataclass(frozen=True)
class MessageParameters:
    """
    One message as it was asked for: nothing of it is checked yet.

    Every way to send a message makes one of these first. The names are the API's own, where it has one.

    :param contact_mobile_number: the recipient, with ``+`` and country code, or in the national form of the
        ``default_region``.
    :param message: the text; required when there is neither ``document`` nor ``media``.
    :param contact_name: display name of the contact.
    :param document: a document, as path or :class:`Attachment`. Through the hook also a URI.
    :param document_name: the file name that the recipient sees; by default the last part of the path. One without a
        known extension gets the file's.
    :param document_content_type: its MIME type; by default the one that goes with the name.
    :param media: an image, a video or an audio file, in the same forms.
    :param media_name: as ``document_name``.
    :param media_content_type: as ``document_content_type``.
    :param instance_id: the WhatsApp Web session that sends. Through the hook by default the connection's.
    """

    contact_mobile_number: Any = field(repr=False)
    message: Any = field(default=None, repr=False)
    contact_name: Any = field(default=None, repr=False)
    document: Any = None
    document_name: Any = None
    document_content_type: Any = None
    media: Any = None
    media_name: Any = None
    media_content_type: Any = None
    instance_id: Any = None

    @property
    def files(self) -> dict[str, FileParameters]:
        """The files that are given, by the API's field name."""
        files = {
            "document": FileParameters(self.document, self.document_name, self.document_content_type),
            "media": FileParameters(self.media, self.media_name, self.media_content_type),
        }
        return {parameter: file for parameter, file in files.items() if file.location is not None}

    def with_files(self, found: Mapping[str, Attachment]) -> MessageParameters:
        """Return the same message with the files that were found for it."""
        return replace(self, document=found.get("document"), media=found.get("media"))


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
    parameters: MessageParameters,
    *,
    default_region: str | None = None,
    allowed_recipients: Collection[str] | None = None,
) -> OutgoingMessage:
    """
    Check a message and return it in the form in which it is sent.

    :param parameters: the message as it was asked for.
    :param default_region: see :func:`~airflow_provider_wassly.client.numbers.read`.
    :param allowed_recipients: when given, the only numbers (as ``+`` and digits) that can be sent to.
    :raises WasslyInvalidMessage: names the parameter that is wrong.
    """
    number, warning = read(parameters.contact_mobile_number, default_region)
    if allowed_recipients is not None and number not in allowed_recipients:
        raise WasslyInvalidMessage(
            f"{shorten(number)} is not among the connection's allowed_recipients", field="contact_mobile_number"
        )
    instance = _text(parameters.instance_id, "instance_id").strip()
    if not instance:
        raise WasslyInvalidMessage(
            "empty; set it here or in the connection's extra (Wassly's device list shows it)", field="instance_id"
        )
    body = _text(parameters.message, "message")
    name = _text(parameters.contact_name, "contact_name").strip()
    files = {
        parameter: file.location
        if isinstance(file.location, Attachment)
        else Attachment.from_path(file.location, name=file.name, content_type=file.content_type, parameter=parameter)
        for parameter, file in parameters.files.items()
    }
    for parameter, attachment in files.items():
        if attachment.size == 0:
            raise WasslyInvalidMessage(f"{attachment.name} is empty (0 bytes)", field=parameter)
    if not body.strip():
        body = ""
        if not files:
            text = "a text of white space only" if _text(parameters.message, "message") else "no text"
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
