"""One message: as it was asked for, and as it is sent once it has passed every check that needs no call."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from airflow_provider_wassly.client.attachments import Attachment
from airflow_provider_wassly.client.errors import WasslyInvalidMessage
from airflow_provider_wassly.client.numbers import read, shorten

log = logging.getLogger(__name__)

#: WhatsApp's limits for a message and for the caption of a file, in characters.
MAX_MESSAGE = 4096
MAX_CAPTION = 1024


class FileParameters(NamedTuple):
    """A file as it was asked for: nothing has been checked yet."""

    location: Any
    name: Any = None
    content_type: Any = None


@dataclass(frozen=True)
class MessageParameters:
    """
    One message as it was asked for: nothing has been checked yet.

    Every way to send a message starts with one of these. The names are the API's own where it has one.

    :param contact_mobile_number: the recipient's number, with ``+`` and country code, or in the national form of the
        ``default_region``.
    :param message: the text; required without ``document`` and ``media``.
    :param contact_name: the contact's display name.
    :param document: a document, as a path or :class:`Attachment`; through the hook also as a URI.
    :param document_name: the file name that the recipient sees. Default: the last part of the path. A name without a
        known extension gets the file's.
    :param document_content_type: the document's MIME type. Default: derived from its name.
    :param media: an image, video or audio file, in the same forms.
    :param media_name: as ``document_name``.
    :param media_content_type: as ``document_content_type``.
    :param instance_id: the WhatsApp Web session that sends; through the hook, the connection's by default.
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
        """The message's files by the API's field name."""
        files = {
            "document": FileParameters(self.document, self.document_name, self.document_content_type),
            "media": FileParameters(self.media, self.media_name, self.media_content_type),
        }
        return {parameter: file for parameter, file in files.items() if file.location is not None}

    def with_files(self, found: Mapping[str, Attachment]) -> MessageParameters:
        """Return the same message with these files instead of its own."""
        return replace(self, document=found.get("document"), media=found.get("media"))


@dataclass(frozen=True)
class OutgoingMessage:
    """
    One message, ready to be sent.

    :param contact_mobile_number: the recipient's number, as ``+`` and digits.
    :param instance_id: the WhatsApp Web session that sends.
    :param texts: the API's text fields in sending order, ``instance_id`` last.
    :param files: the attachments by the API's field name.
    :param warning: a warning about a doubtful number, to be logged before sending; usually empty.
    """

    contact_mobile_number: str = field(repr=False)
    instance_id: str
    texts: dict[str, str] = field(repr=False)
    files: dict[str, Attachment] = field(repr=False)
    warning: str = ""

    @property
    def kind(self) -> str:
        """The message's kind for log lines: ``text``, ``document``, ``media`` or ``document and media``."""
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
    :param allowed_recipients: the only numbers (as ``+`` and digits) that can be sent to. Default: every number.
    :return: the message, ready to be sent.
    :raises WasslyInvalidMessage: names the parameter that is wrong.
    """
    number, warning = read(parameters.contact_mobile_number, default_region)
    if allowed_recipients is not None and number not in allowed_recipients:
        raise WasslyInvalidMessage(
            f"{shorten(number)} is not in the connection's allowed_recipients", field="contact_mobile_number"
        )
    instance = _checked_text(parameters.instance_id, "instance_id").strip()
    if not instance:
        raise WasslyInvalidMessage(
            "empty; set it here or in the connection's extra (see Wassly's device list)", field="instance_id"
        )
    body = _checked_text(parameters.message, "message")
    name = _checked_text(parameters.contact_name, "contact_name").strip()
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
        if not files:
            text = "a message of white space only" if body else "no message"
            raise WasslyInvalidMessage(f"nothing to send: {text}, no document and no media", field="message")
        body = ""
    _warn_if_long(body, MAX_CAPTION if files else MAX_MESSAGE, "caption" if files else "message")
    # The order is part of the guarantee: see SendBody.
    texts = {
        "message": body,
        "contact_name": name,
        "contact_mobile_number": number,
        "instance_id": instance,
    }
    return OutgoingMessage(number, instance, {key: text for key, text in texts.items() if text}, files, warning)


def _checked_text(value: Any, parameter: str) -> str:
    """
    Return a text that can be sent; ``None`` becomes an empty one.

    :raises WasslyInvalidMessage: names the parameter that is not text, or cannot be encoded.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise WasslyInvalidMessage(f"must be text, not {type(value).__name__}", field=parameter)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise WasslyInvalidMessage(
            "contains half a character (a lone surrogate), which cannot be sent; remove it", field=parameter
        ) from None
    return value


def _warn_if_long(text: str, limit: int, what: str) -> None:
    if len(text) > limit:
        log.warning(
            "Sending a %s of %d characters unchanged: WhatsApp's limit is %d, so it may be cut or refused",
            what,
            len(text),
            limit,
        )
