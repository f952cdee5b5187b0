"""Read an Airflow connection field by field."""

from __future__ import annotations

import difflib
import json
import logging
import re
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit, urlunsplit

from airflow_provider_wassly.client import DEFAULT_BASE_URL, WasslyConfigError
from airflow_provider_wassly.connection.fields import EXTRA_FIELDS
from airflow_provider_wassly.connection.values import MASKED, is_mask

log = logging.getLogger(__name__)

#: A connection may come without a type, for instance from a secrets backend.
_OWN_TYPES = {"wassly", ""}

#: The fields of the extra that are client arguments of the same name.
_OF_THE_CLIENT = (
    "apikey",
    "token",
    "connect_timeout",
    "read_timeout",
    "verify",
    "proxies",
    "allow_http",
    "default_region",
    "allowed_recipients",
)


class ConnectionLike(Protocol):
    """The attributes of an Airflow connection that are read, on any version."""

    conn_id: str
    conn_type: str | None
    host: str | None
    schema: str | None
    login: str | None
    port: int | None
    extra: str | None

    @property
    def password(self) -> str | None:
        """The password, decrypted."""
        ...


@dataclass(frozen=True)
class ConnectionSettings:
    """The connection's values in their types; ``None`` where the connection does not set one."""

    #: The client's arguments, including secrets.
    client: dict[str, Any] = field(repr=False)
    instance_id: str | None
    attachment_roots: list[str] | None
    max_attachment_bytes: int | None
    record_quota: bool
    share_token: bool

    @classmethod
    def of(cls, connection: ConnectionLike) -> ConnectionSettings:
        """
        Read a connection.

        :param connection: an Airflow connection of type ``wassly``.
        :raises WasslyConfigError: names the connection, the field and the fix.
        """
        try:
            return cls._read(connection)
        except WasslyConfigError as error:
            raise connection_error(connection.conn_id, error) from None

    def secrets(self) -> set[str]:
        """Return what no log may show: all credentials, the proxies' included, percent-encoded and decoded."""
        secrets = {self.client[name] for name in ("apikey", "token", "password") if name in self.client}
        for proxy in self.client.get("proxies", {}).values():
            credentials = proxy.rpartition("@")[0].rpartition("//")[2]
            secrets |= {credentials, credentials.partition(":")[2]}
        return {spelling for secret in secrets for spelling in (secret, unquote(secret)) if spelling}

    @classmethod
    def _read(cls, connection: ConnectionLike) -> ConnectionSettings:
        kind = connection.conn_type or ""
        if kind.strip().lower() not in _OWN_TYPES:
            raise WasslyConfigError(f"conn_type: must be 'wassly', not {kind!r}; a URI starts with wassly://")
        extra = _Extra(connection.extra)
        # A line break comes from the file that the password was read from. A space may belong to it.
        password = (connection.password or "").strip("\r\n") or None
        if is_mask(password):
            raise WasslyConfigError(f"password: {MASKED}")
        login = (connection.login or "").strip()
        apikey = extra.get("apikey")
        if not apikey:
            raise WasslyConfigError(_missing_apikey(extra, login, password))
        # The client has its own defaults, so what the connection does not set is left out.
        client = {
            "base_url": _base_url(connection),
            "email": login or None,
            "password": password,
            **{name: extra.get(name) for name in _OF_THE_CLIENT},
        }
        settings = cls(
            client={name: value for name, value in client.items() if value is not None},
            instance_id=extra.get("instance_id"),
            attachment_roots=extra.get("attachment_roots"),
            max_attachment_bytes=extra.get("max_attachment_bytes"),
            record_quota=extra.get("record_quota") is not False,
            share_token=extra.get("share_token") is True,
        )
        extra.warn_of_unknown(connection.conn_id)
        return settings


def connection_error(conn_id: str, error: WasslyConfigError) -> WasslyConfigError:
    """Return ``error`` with the connection's name in front."""
    return WasslyConfigError(f"Connection {conn_id!r}, field {error.message}")


class _Extra:
    def __init__(self, text: str | None) -> None:
        try:
            values = json.loads(text) if text and text.strip() else {}
        except ValueError as error:
            raise WasslyConfigError(f"extra: not valid JSON: {error}") from None
        if not isinstance(values, dict):
            raise WasslyConfigError('extra: must be a JSON object such as {"apikey": "…"}')
        self._values: dict[str, Any] = values

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def get(self, name: str) -> Any:
        """Return a value in its type, ``None`` if it is missing or was left empty in the form."""
        value = self._values.get(name)
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        try:
            if is_mask(value):
                raise ValueError(MASKED)
            return EXTRA_FIELDS[name].read(value)
        except ValueError as error:
            raise WasslyConfigError(f"{name}: {error}") from None

    def warn_of_unknown(self, conn_id: str) -> None:
        for name in self._values:
            # The Test button of Airflow 2.11 sends each field twice, the second time under its name in the form.
            if name not in EXTRA_FIELDS and not name.startswith("extra__"):
                near = difflib.get_close_matches(name, EXTRA_FIELDS, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                log.warning("Ignoring the unknown extra field %r of connection %r%s", name, conn_id, hint)


def _missing_apikey(extra: _Extra, login: str, password: str | None) -> str:
    """Return the error text for a missing API key, with the place where it may have been put instead."""
    spellings = ("api_key", "apiKey", "api-key", "APIKEY", "key", "extra__wassly__apikey")
    misspelt = next((name for name in spellings if name in extra), None)
    if misspelt:
        return f"apikey: missing in the extra; rename {misspelt!r} to 'apikey'"
    if password and not login:
        return (
            "apikey: missing in the extra. If the field password holds the API key (login is empty), move it to the "
            "extra field 'apikey'"
        )
    hint = " (the field password is not read for it)" if password else ""
    return f"apikey: missing in the extra{hint}; copy it from the account's settings in Wassly"


def _base_url(connection: ConnectionLike) -> str:
    """
    Return the base URL from host, schema and port.

    :raises WasslyConfigError: names the field that is wrong.
    """
    host = (connection.host or "").strip() or urlsplit(DEFAULT_BASE_URL).netloc
    scheme = (connection.schema or "").strip().lower().removesuffix("://")
    port = connection.port
    if "@" in host:
        # Checked first: the texts below would show them.
        raise WasslyConfigError("host: contains credentials; put them into login and password")
    if scheme not in {"", "https", "http"}:
        raise WasslyConfigError(
            f"schema: must be https, http or empty, not {scheme!r}. In a URI the schema follows the host; a base URL "
            "with a path takes the host's place, as in wassly://https%3A%2F%2Fgateway.example%2Fpath"
        )
    if "://" not in host:
        if re.match(r"https?:?/", host, re.IGNORECASE):
            raise WasslyConfigError(f"host: {host!r} is not a URL; write :// after http or https")
        if host.count(":") > 1 and not host.startswith("["):
            host = f"[{host}]"  # an IPv6 address
        host = f"{scheme or 'https'}://{host}"
    elif scheme and scheme != urlsplit(host).scheme.lower():
        raise WasslyConfigError(f"schema: {scheme!r} contradicts the host {host!r}; leave it empty")
    try:
        parts = urlsplit(host)
        port_in_host = parts.port
    except ValueError as error:
        raise WasslyConfigError(f"host: {host!r} is not a URL: {error}") from None
    if port and not 0 < int(port) < 65536:
        raise WasslyConfigError(f"port: must be between 1 and 65535, not {port}")
    if port and port_in_host and int(port) != port_in_host:
        raise WasslyConfigError(f"port: {port} contradicts the host {host!r}; leave one of them out")
    if port and not port_in_host:
        parts = parts._replace(netloc=f"{parts.netloc}:{port}")
    return urlunsplit(parts)
