"""
The fields of a Wassly connection, as Airflow's form shows them.

Plain data, because Airflow 3.2+ reads it from the provider info without importing the hook. Older
versions ask the hook, which builds its widgets from the same data.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple


class Field(NamedTuple):
    """One key of the connection's extra."""

    label: str
    kind: Literal["string", "password", "integer", "number", "boolean"]
    description: str
    #: Shown before Airflow 3.2 only, so nothing that is not in the description.
    placeholder: str = ""
    #: Shown, and saved, by Airflow 3.2+ in a new connection.
    default: bool | None = None
    #: Without it there is no message. The form of Airflow 3.2+ asks for it.
    required: bool = False
    #: Of no concern to most: in a section of its own on Airflow 3.2+, before that marked in its label.
    advanced: bool = True


#: In the order of the form: what is needed, what most want, the rest.
EXTRA_FIELDS: dict[str, Field] = {
    "apikey": Field(
        "API key",
        "password",
        "Required. The account's API key, from its settings in Wassly.",
        required=True,
        advanced=False,
    ),
    "instance_id": Field(
        "Default instance",
        "string",
        "The instance id of the WhatsApp Web session that sends. Without it each task has to name one. "
        "Test the connection to see those of the account.",
        "14wdfwef-da6f-…",
        advanced=False,
    ),
    "token": Field(
        "Token",
        "password",
        "A bearer token, tried first. Not needed when email and password are given.",
        advanced=False,
    ),
    "default_region": Field(
        "Default region",
        "string",
        "Two-letter country, such as DE, in which numbers without a country code are read. "
        "Without it such numbers are refused.",
        "DE",
        advanced=False,
    ),
    "allowed_recipients": Field(
        "Allowed recipients",
        "string",
        "For staging: numbers such as +491701234567, separated by commas. When set, nobody else can be sent to.",
        "+491701234567, +201012345678",
    ),
    "attachment_roots": Field(
        "Attachment folders",
        "string",
        "Folders and URI prefixes such as /data/reports, s3://bucket/reports, separated by commas. "
        "When set, files outside of them are refused.",
        "/data/reports, s3://bucket/reports",
    ),
    "max_attachment_bytes": Field(
        "Largest attachment", "integer", "In bytes. Larger files are refused. No limit by default.", "104857600"
    ),
    "connect_timeout": Field("Connect timeout", "number", "Seconds for making a connection, 10 by default.", "10"),
    "read_timeout": Field("Read timeout", "number", "Seconds to wait for a reply, 60 by default.", "60"),
    "verify": Field(
        "Verify TLS", "string", "true (the default), the path of a CA bundle, or false to verify nothing.", "true"
    ),
    "proxies": Field(
        "Proxies",
        "password",
        'JSON such as {"https": "http://user:password@proxy:3128"}. The environment\'s proxies by default.',
        '{"https": "http://proxy:3128"}',
    ),
    "allow_http": Field(
        "Allow plain http",
        "boolean",
        "Sends credentials and messages unencrypted. Needed for an http:// base URL that is not this machine.",
    ),
    "record_quota": Field(
        "Record quota",
        "boolean",
        "true (the default) or false: whether the remaining quota is kept after each send.",
        "true",
        default=True,
    ),
}

#: What the form of Airflow 2.11 holds in place of a saved secret, and takes for "unchanged".
SECRET_UNCHANGED = "RATHER_LONG_SENSITIVE_FIELD_PLACEHOLDER"

#: Not ``extra``, although the fields above show all of it: the Test button of Airflow 2.11 needs it on the page.
HIDDEN_FIELDS: list[str] = []

#: What a label of an advanced field ends in, where the form has no section for them.
ADVANCED = "(advanced)"

RELABELING: dict[str, str] = {
    "host": "Base URL",
    "login": "Email",
    "port": f"Port {ADVANCED}",
    "schema": f"Scheme {ADVANCED}",
}

PLACEHOLDERS: dict[str, str] = {
    "host": "https://www.wassly.com (the default)",
    "schema": "not needed when the base URL has it",
    "port": "443",
    "login": "the account's email; not needed with a token",
    "password": "the account's password, not the API key; not needed with a token",
    **{name: field.placeholder for name, field in EXTRA_FIELDS.items() if field.placeholder},
}


def conn_fields() -> dict[str, dict[str, Any]]:
    """Return the fields in the form of the provider info."""
    return {name: _conn_field(field) for name, field in EXTRA_FIELDS.items()}


def _conn_field(field: Field) -> dict[str, Any]:
    kind = "string" if field.kind == "password" else field.kind
    schema: dict[str, Any] = {"type": kind if field.required else [kind, "null"]}
    if field.advanced:
        schema["section"] = "Advanced"
    if field.kind == "password":
        schema["format"] = "password"
    if field.default is not None:
        schema["default"] = field.default
    return {"label": field.label, "description": field.description, "schema": schema}
