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
    placeholder: str = ""


EXTRA_FIELDS: dict[str, Field] = {
    "apikey": Field("API key", "password", "Required. The account's API key."),
    "token": Field("Token", "password", "A bearer token, used first. Not needed when email and password are given."),
    "instance_id": Field(
        "Default instance",
        "string",
        "The sending WhatsApp Web session, unless a task names another.",
        "14wdfwef-da6f-…",
    ),
    "default_region": Field(
        "Default region", "string", "Two-letter country in which numbers without country code are read.", "DE"
    ),
    "allowed_recipients": Field(
        "Allowed recipients",
        "string",
        "Numbers, separated by commas. When set, nobody else can be sent to.",
        "+491701234567, +201012345678",
    ),
    "attachment_roots": Field(
        "Attachment folders",
        "string",
        "Folders and URI prefixes, separated by commas. When set, files outside of them are refused.",
        "/data/reports, s3://bucket/reports",
    ),
    "max_attachment_bytes": Field(
        "Largest attachment", "integer", "In bytes. Larger files are refused. No limit by default.", "104857600"
    ),
    "connect_timeout": Field("Connect timeout", "number", "Seconds for making a connection.", "10"),
    "read_timeout": Field("Read timeout", "number", "Seconds without a byte of the answer.", "60"),
    "verify": Field("Verify TLS", "string", "Path of a CA bundle, or false to verify nothing.", "true"),
    "proxies": Field(
        "Proxies", "password", "JSON as for requests. By default the environment's.", '{"https": "http://proxy:3128"}'
    ),
    "allow_http": Field("Allow plain http", "boolean", "Needed for a host without TLS that is not this machine."),
    "record_quota": Field(
        "Record quota", "boolean", "Whether the remaining quota is kept after each send. On by default."
    ),
}

HIDDEN_FIELDS: list[str] = []

RELABELING: dict[str, str] = {"host": "Base URL", "login": "Email", "schema": "Scheme"}

PLACEHOLDERS: dict[str, str] = {
    "host": "https://www.wassly.com",
    "schema": "https",
    "login": "you@example.com",
    "password": "only needed without a token",
    **{name: field.placeholder for name, field in EXTRA_FIELDS.items() if field.placeholder},
}


def conn_fields() -> dict[str, dict[str, Any]]:
    """Return the fields in the form of the provider info."""
    return {name: _conn_field(field) for name, field in EXTRA_FIELDS.items()}


def _conn_field(field: Field) -> dict[str, Any]:
    kind = "string" if field.kind == "password" else field.kind
    schema: dict[str, Any] = {"type": [kind, "null"]}
    if field.kind == "password":
        schema["format"] = "password"
    return {"label": field.label, "description": field.description, "schema": schema}
