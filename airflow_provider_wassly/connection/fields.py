"""The fields of a connection's extra: how the form shows each one, and how its value is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from airflow_provider_wassly.connection import values


class ConnectionField(NamedTuple):
    """One key of the connection's extra."""

    label: str
    kind: Literal["string", "password", "integer", "number", "boolean"]
    description: str
    #: Converts a value to its type; see :mod:`~airflow_provider_wassly.connection.values`.
    read: Callable[[Any], Any]
    #: Shown only before Airflow 3.2, so it says nothing that the description does not.
    placeholder: str = ""
    #: What Airflow 3.2+ shows, and saves, in a new connection.
    default: bool | None = None
    #: Whether nothing can be sent without it. The form of Airflow 3.2+ insists on it.
    required: bool = False
    #: Whether most users can ignore it: Airflow 3.2+ shows it in a section of its own, older ones mark its label.
    advanced: bool = True


#: In the order of the form: required fields, common ones, the rest.
EXTRA_FIELDS: dict[str, ConnectionField] = {
    "apikey": ConnectionField(
        "API key",
        "password",
        "Required. The account's API key, from the account's settings in Wassly.",
        values.text,
        required=True,
        advanced=False,
    ),
    "instance_id": ConnectionField(
        "Default instance",
        "string",
        "The instance id of the WhatsApp Web session that sends. If empty, each task has to set one. "
        "Test the connection to see the account's instances.",
        values.text,
        "14wdfwef-da6f-…",
        advanced=False,
    ),
    "token": ConnectionField(
        "Token",
        "password",
        "A bearer token, used first. Not needed with email and password.",
        values.token,
        advanced=False,
    ),
    "default_region": ConnectionField(
        "Default region",
        "string",
        "Two-letter country code, such as DE, for numbers without a country code. If empty, such numbers are refused.",
        values.text,
        "DE",
        advanced=False,
    ),
    "allowed_recipients": ConnectionField(
        "Allowed recipients",
        "string",
        "For staging: numbers such as +491701234567, separated by commas. If set, only they can be sent to.",
        values.texts,
        "+491701234567, +201012345678",
    ),
    "attachment_roots": ConnectionField(
        "Attachment folders",
        "string",
        "Folders and URI prefixes such as /data/reports, s3://bucket/reports, separated by commas. "
        "If set, files outside them are refused.",
        values.texts,
        "/data/reports, s3://bucket/reports",
    ),
    "max_attachment_bytes": ConnectionField(
        "Largest attachment",
        "integer",
        "In bytes; larger files are refused. No limit by default.",
        values.positive_int,
        "104857600",
    ),
    "connect_timeout": ConnectionField(
        "Connect timeout", "number", "Seconds to wait for a connection, 10 by default.", values.seconds_above_0, "10"
    ),
    "read_timeout": ConnectionField(
        "Read timeout", "number", "Seconds to wait for a reply, 60 by default.", values.seconds_above_0, "60"
    ),
    "verify": ConnectionField(
        "Verify TLS",
        "string",
        "true (the default), the path of a CA bundle, or false for no verification.",
        values.boolean_or_path,
        "true",
    ),
    "proxies": ConnectionField(
        "Proxies",
        "password",
        'JSON such as {"https": "http://user:password@proxy:3128"}. Default: the environment\'s proxies.',
        values.proxies,
        '{"https": "http://proxy:3128"}',
    ),
    "allow_http": ConnectionField(
        "Allow plain http",
        "boolean",
        "Sends credentials and messages unencrypted. Required for an http:// base URL to another machine.",
        values.boolean,
    ),
    "share_token": ConnectionField(
        "Share token",
        "boolean",
        "Saves the token of a login, encrypted, in a Variable, so that many tasks need only one login.",
        values.boolean,
    ),
    "record_quota": ConnectionField(
        "Record quota",
        "boolean",
        "true (the default) or false: whether to save the remaining quota after each message.",
        values.boolean,
        "true",
        default=True,
    ),
}
