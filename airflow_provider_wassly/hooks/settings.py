"""An Airflow connection, read field by field."""

from __future__ import annotations

import difflib
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit, urlunsplit

from airflow_provider_wassly.client import DEFAULT_BASE_URL, WasslyConfigError
from airflow_provider_wassly.connection_form import EXTRA_FIELDS

log = logging.getLogger(__name__)

T = TypeVar("T")


class ConnectionLike(Protocol):
    """What is read of an Airflow connection, on any version."""

    conn_id: str
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

    client: dict[str, Any]
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

    @classmethod
    def _read(cls, connection: ConnectionLike) -> ConnectionSettings:
        extra = _Extra(connection.extra)
        password = _secret("password", connection.password)
        login = (connection.login or "").strip()
        apikey = _secret("apikey", extra.get("apikey", _text))
        token = _secret("token", extra.get("token", _text))
        if not apikey:
            raise WasslyConfigError(_missing_apikey(extra, login, password))
        # A default of the client is not repeated here: what the connection does not say is left out.
        client = {
            "apikey": apikey,
            "base_url": _base_url(connection),
            "token": token,
            "email": login or None,
            "password": password,
            "connect_timeout": extra.get("connect_timeout", _seconds),
            "read_timeout": extra.get("read_timeout", _seconds),
            "verify": extra.get("verify", _bool_or_path),
            "proxies": extra.get("proxies", _mapping),
            "allow_http": extra.get("allow_http", _bool),
            "default_region": extra.get("default_region", _text),
            "allowed_recipients": extra.get("allowed_recipients", _list),
        }
        record_quota = extra.get("record_quota", _bool)
        settings = cls(
            client={name: value for name, value in client.items() if value is not None},
            instance_id=extra.get("instance_id", _text),
            attachment_roots=extra.get("attachment_roots", _list),
            max_attachment_bytes=extra.get("max_attachment_bytes", _positive_int),
            record_quota=True if record_quota is None else record_quota,
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
        except ValueError:
            raise WasslyConfigError("extra: is not valid JSON") from None
        if not isinstance(values, dict):
            raise WasslyConfigError('extra: must be a JSON object such as {"apikey": "…"}')
        self._values: dict[str, Any] = values

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def get(self, name: str, read: Callable[[Any], T]) -> T | None:
        """Return the value in its type, ``None`` when it is absent or left empty in the form."""
        value = self._values.get(name)
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        try:
            return read(value)
        except ValueError as error:
            raise WasslyConfigError(f"{name}: {error}") from None

    def warn_of_unknown(self, conn_id: str) -> None:
        for name in self._values:
            if name not in EXTRA_FIELDS:
                near = difflib.get_close_matches(name, EXTRA_FIELDS, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                log.warning("Connection %r: the extra field %r is not known and has no effect%s", conn_id, name, hint)


def _missing_apikey(extra: _Extra, login: str, password: str | None) -> str:
    misspelt = next((name for name in ("api_key", "apiKey", "api-key", "APIKEY", "key") if name in extra), None)
    if misspelt:
        return f"apikey: missing in the extra; it holds {misspelt!r}, the name must be 'apikey'"
    if password and not login:
        return (
            "apikey: missing in the extra. The field password is set and login is empty: if that is the API key, "
            "move it to the extra field 'apikey'"
        )
    return "apikey: missing in the extra; Wassly shows it in the account's settings"


def _base_url(connection: ConnectionLike) -> str:
    host = (connection.host or "").strip()
    scheme = (connection.schema or "").strip().lower().removesuffix("://")
    port = connection.port
    if not host:
        host = urlsplit(DEFAULT_BASE_URL).netloc
    if "://" not in host:
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
    if port and port_in_host and int(port) != port_in_host:
        raise WasslyConfigError(f"port: {port} contradicts the host {host!r}; leave one of them out")
    if port and not port_in_host:
        parts = parts._replace(netloc=f"{parts.netloc}:{port}")
    return urlunsplit(parts)


def _secret(name: str, value: str | None) -> str | None:
    if value and set(value.strip()) == {"*"}:
        raise WasslyConfigError(
            f"{name}: holds {value.strip()!r}, which Airflow's pages show in place of a secret; enter the secret again"
        )
    return value or None


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"must be text, not {type(value).__name__}")
    return str(value).strip()


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in {"true", "1", "yes", "on"}:
        return True
    if word in {"false", "0", "no", "off"}:
        return False
    raise ValueError(f"must be true or false, not {value!r}")


def _bool_or_path(value: Any) -> bool | str:
    try:
        return _bool(value)
    except ValueError:
        return _text(value)


def _seconds(value: Any) -> float:
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ValueError(f"must be a number of seconds above 0, not {value!r}")
    return seconds


def _positive_int(value: Any) -> int:
    try:
        number = 0 if isinstance(value, bool) else int(str(value).replace("_", ""))
    except ValueError:
        number = 0
    if number <= 0:
        raise ValueError(f"must be a whole number above 0, not {value!r}")
    return number


def _list(value: Any) -> list[str]:
    if isinstance(value, str):
        value = _parsed(value) if value.lstrip().startswith("[") else value.replace("\n", ",").split(",")
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise ValueError('must be a list of texts, as JSON (["…", "…"]) or separated by commas')
    return [entry.strip() for entry in value if entry.strip()]


def _mapping(value: Any) -> Mapping[str, str]:
    if isinstance(value, str):
        value = _parsed(value)
    if not isinstance(value, dict) or not all(isinstance(url, str) for url in value.values()):
        raise ValueError('must be a JSON object such as {"https": "http://proxy:3128"}')
    return value


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError("is not valid JSON") from None
