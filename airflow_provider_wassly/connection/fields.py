"""The fields of a connection's extra: how a form shows each, and how its value is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from airflow_provider_wassly.connection import values


class ConnectionField(NamedTuple):
    """One key of the connection's extra."""

    label: str
    kind: Literal["string", "password", "integer", "number", "boolean"]
    description: str
    #: Returns a value in its type; see :mod:`~airflow_provider_wassly.connection.values`.
    read: Callable[[Any], Any]
    #: Shown before Airflow 3.2 only, so nothing that is not in the description.
    placeholder: str = ""
    #: Shown, and saved, by Airflow 3.2+ in a new connection.
    default: bool | None = None
    #: Without it there is no message. The form of Airflow 3.2+ asks for it.
    required: bool = False
    #: Of no concern to most: in a section of its own on Airflow 3.2+, before that marked in its label.
    advanced: bool = True


#: In the order of the form: what is needed, what most want, the rest.
EXTRA_FIELDS: dict[str, ConnectionField] = {
    "apikey": ConnectionField(
        "API key",
        "password",
        "Required. The account's API key, from its settings in Wassly.",
        values.text,
        required=True,
        advanced=False,
    ),
    "instance_id": ConnectionField(
        "Default instance",
        "string",
        "The instance id of the WhatsApp Web session that sends. Without it each task has to name one. "
        "Test the connection to see those of the account.",
        values.text,
        "14wdfwef-da6f-…",
        advanced=False,
    ),
    "token": ConnectionField(
        "Token",
        "password",
        "A bearer token, tried first. Not needed when email and password are given.",
        values.token,
        advanced=False,
    ),
    "default_region": ConnectionField(
        "Default region",
        "string",
        "Two-letter country, such as DE, in which numbers without a country code are read. "
        "Without it such numbers are refused.",
        values.text,
        "DE",
        advanced=False,
    ),
    "allowed_recipients": ConnectionField(
        "Allowed recipients",
        "string",
        "For staging: numbers such as +491701234567, separated by commas. When set, nobody else can be sent to.",
        values.texts,
        "+491701234567, +201012345678",
    ),
    "attachment_roots": ConnectionField(
        "Attachment folders",
        "string",
        "Folders and URI prefixes such as /data/reports, s3://bucket/reports, separated by commas. "
        "When set, files outside of them are refused.",
        values.texts,
        "/data/reports, s3://bucket/reports",
    ),
    "max_attachment_bytes": ConnectionField(
        "Largest attachment",
        "integer",
        "In bytes. Larger files are refused. No limit by default.",
        values.positive_int,
        "104857600",
    ),
    "connect_timeout": ConnectionField(
        "Connect timeout", "number", "Seconds for making a connection, 10 by default.", values.seconds_above_0, "10"
    ),
    "read_timeout": ConnectionField(
        "Read timeout", "number", "Seconds to wait for a reply, 60 by default.", values.seconds_above_0, "60"
    ),
    "verify": ConnectionField(
        "Verify TLS",
        "string",
        "true (the default), the path of a CA bundle, or false to verify nothing.",
        values.boolean_or_path,
        "true",
    ),
    "proxies": ConnectionField(
        "Proxies",
        "password",
        'JSON such as {"https": "http://user:password@proxy:3128"}. The environment\'s proxies by default.',
        values.proxies,
        '{"https": "http://proxy:3128"}',
    ),
    "allow_http": ConnectionField(
        "Allow plain http",
        "boolean",
        "Sends credentials and messages unencrypted. Needed for an http:// base URL that is not this machine.",
        values.boolean,
    ),
    "record_quota": ConnectionField(
        "Record quota",
        "boolean",
        "true (the default) or false: whether the remaining quota is kept after each send.",
        values.boolean,
        "true",
        default=True,
    ),
}
