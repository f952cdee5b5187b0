"""An Airflow connection, read field by field."""

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

#: A connection that comes without a type, from a secrets backend for instance, is as good.
_OWN_TYPES = {"wassly", ""}

#: The fields of the extra that are arguments of the client, under the same names.
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
    """What is read of an Airflow connection, on any version."""

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
    """The connection's values, each in its type; ``None`` where the connection leaves it to the default."""

    #: The arguments of the client, secrets among them.
    client: dict[str, Any] = field(repr=False)
    instance_id: str | None
    attachment_roots: list[str] | None
    max_attachment_bytes: int | None
    record_quota: bool

    @classmethod
    def of(cls, connection: ConnectionLike) -> ConnectionSettings:
        """
        Read a connection.

        :raises WasslyConfigError: names the connection, the field and the fix.
        """
        try:
            return cls._read(connection)
        except WasslyConfigError as error:
            raise connection_error(connection.conn_id, error) from None

    def secrets(self) -> set[str]:
        """Return what no log may show: the credentials, and those of the proxies, in either spelling."""
        secrets = {self.client[name] for name in ("apikey", "token", "password") if name in self.client}
        for proxy in self.client.get("proxies", {}).values():
            credentials = proxy.rpartition("@")[0].rpartition("//")[2]
            secrets |= {credentials, credentials.partition(":")[2]}
        return {spelling for secret in secrets for spelling in (secret, unquote(secret)) if spelling}

    @classmethod
    def _read(cls, connection: ConnectionLike) -> ConnectionSettings:
        kind = connection.conn_type or ""
        if kind.strip().lower() not in _OWN_TYPES:
            raise WasslyConfigError(f"conn_type: is {kind!r}, must be 'wassly'; a URI begins with wassly://")
        extra = _Extra(connection.extra)
        # A line break is that of a file that it was read from. A space may be part of it.
        password = (connection.password or "").strip("\r\n") or None
        if is_mask(password):
            raise WasslyConfigError(f"password: {MASKED}")
        login = (connection.login or "").strip()
        apikey = extra.get("apikey")
        if not apikey:
            raise WasslyConfigError(_missing_apikey(extra, login, password))
        # A default of the client is not repeated here: what the connection does not say is left out.
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
        )
        extra.warn_of_unknown(connection.conn_id)
        return settings


def connection_error(conn_id: str, error: WasslyConfigError) -> WasslyConfigError:
    """Return ``error`` with the name of the connection that it is about."""
    return WasslyConfigError(f"Connection {conn_id!r}, field {error.message}")


class _Extra:
    def __init__(self, text: str | None) -> None:
        try:
            values = json.loads(text) if text and text.strip() else {}
        except ValueError as error:
            raise WasslyConfigError(f"extra: is not valid JSON: {error}") from None
        if not isinstance(values, dict):
            raise WasslyConfigError('extra: must be a JSON object such as {"apikey": "…"}')
        self._values: dict[str, Any] = values

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def get(self, name: str) -> Any:
        """Return the value in its type, ``None`` when it is absent or left empty in the form."""
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
            # The Test button of Airflow 2.11 sends each field a second time, under its name in the form.
            if name not in EXTRA_FIELDS and not name.startswith("extra__"):
                near = difflib.get_close_matches(name, EXTRA_FIELDS, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                log.warning("Connection %r: the extra field %r is not known and has no effect%s", conn_id, name, hint)


def _missing_apikey(extra: _Extra, login: str, password: str | None) -> str:
    spellings = ("api_key", "apiKey", "api-key", "APIKEY", "key", "extra__wassly__apikey")
    misspelt = next((name for name in spellings if name in extra), None)
    if misspelt:
        return f"apikey: missing in the extra; it holds {misspelt!r}, the name must be 'apikey'"
    if password and not login:
        return (
            "apikey: missing in the extra. The field password is set and login is empty: if that is the API key, "
            "move it to the extra field 'apikey'"
        )
    hint = " (one in the field password is not read)" if password else ""
    return f"apikey: missing in the extra{hint}; Wassly shows it in the account's settings"


def _base_url(connection: ConnectionLike) -> str:
    host = (connection.host or "").strip() or urlsplit(DEFAULT_BASE_URL).netloc
    scheme = (connection.schema or "").strip().lower().removesuffix("://")
    port = connection.port
    if "@" in host:
        # Before any text that would show them.
        raise WasslyConfigError("host: holds credentials; they belong into login and password")
    if scheme not in {"", "https", "http"}:
        raise WasslyConfigError(
            f"schema: must be https, http or empty, not {scheme!r}. In a URI it is what follows the host; a base URL "
            "with a path goes into the host's place, as in wassly://https%3A%2F%2Fgateway.example%2Fpath"
        )
    if "://" not in host:
        if re.match(r"https?:?/", host, re.IGNORECASE):
            raise WasslyConfigError(f"host: {host!r} is no URL; after http or https comes ://")
        if host.count(":") > 1 and not host.startswith("["):
            host = f"[{host}]"  # an IPv6 address
        host = f"{scheme or 'https'}://{host}"
    elif scheme and scheme != urlsplit(host).scheme.lower():
        raise WasslyConfigError(f"schema: {scheme!r} contradicts the host {host!r}; leave it empty")
    try:
        parts = urlsplit(host)
        port_in_host = parts.port
    except ValueError as error:
        raise WasslyConfigError(f"host: {host!r} is no URL: {error}") from None
    if port and not 0 < int(port) < 65536:
        raise WasslyConfigError(f"port: must be between 1 and 65535, not {port}")
    if port and port_in_host and int(port) != port_in_host:
        raise WasslyConfigError(f"port: {port} contradicts the host {host!r}; leave one of them out")
    if port and not port_in_host:
        parts = parts._replace(netloc=f"{parts.netloc}:{port}")
    return urlunsplit(parts)
