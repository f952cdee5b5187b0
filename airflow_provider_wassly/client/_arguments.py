"""The arguments of a client, checked before the first call."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Collection
from urllib.parse import urlsplit, urlunsplit

from airflow_provider_wassly.client._answers import is_header_value
from airflow_provider_wassly.client.errors import WasslyConfigError, WasslyError
from airflow_provider_wassly.client.numbers import normalize, shorten

DEFAULT_BASE_URL = "https://www.wassly.com"

LOGIN = "/api/login"
DEVICES = "/api/whatsapp-web-devices"
SEND = "/api/whatsapp-web-send-message"


def check_credentials(apikey: str, token: str | None, email: str | None, password: str | None) -> None:
    """Refuse what no call could be made with."""
    for name, value in {"apikey": apikey, "token": token}.items():
        if value and not is_header_value(value):
            raise WasslyConfigError(
                f"{name}: holds a line break, an outer space or a character beyond ASCII, which no header can carry"
            )
    if not apikey:
        raise WasslyConfigError("apikey: missing; Wassly shows it in the account's settings")
    if not token and not (email and password):
        missing = "login and password" if not (email or password) else "password" if email else "login"
        raise WasslyConfigError(f"{missing}: missing; give login (the account's email) and password, or a token")


def suspicions(apikey: str, token: str | None, password: str | None) -> str:
    """Return what looks wrong with credentials and yet may be right; to be said when they were not accepted."""
    found = [
        f"; {name} holds a space (in a URI a + is read as one: write %2B)"
        for name, value in {"apikey": apikey, "token": token}.items()
        if value and " " in value
    ]
    found += [
        f"; {name} holds more than the secret itself: remove quotes and the header's name"
        for name, value in {"apikey": apikey, "token": token}.items()
        if value and re.match(r"[\"']|(authorization|bearer|token|api-?key)(\s|:|$)", value, re.IGNORECASE)
    ]
    if password and password != password.strip():
        found.append("; password begins or ends with white space: remove it if it is not part of it")
    return "".join(found)


def check_base_url(base_url: str, allow_http: bool) -> str:
    """Return the host of ``base_url``."""
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise WasslyConfigError(f"host: {base_url!r} is no URL: {error}") from None
    if parts.scheme not in {"http", "https"} or not host or any(char.isspace() for char in base_url):
        raise WasslyConfigError(f"host: {base_url!r} is no URL such as {DEFAULT_BASE_URL}")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise WasslyConfigError(
            "host: holds credentials, a query or a fragment; only schema, host, port and path belong there"
        )
    if parts.scheme == "http" and not allow_http and not is_loopback(host):
        raise WasslyConfigError(
            f"host: http://{host} would send apikey, password and messages unencrypted; "
            "use https, or set allow_http in the connection's extra"
        )
    return host


def without_endpoint(base_url: str) -> str:
    """Return the base URL without what the calls add to it, which is easily copied with it."""
    parts = urlsplit(base_url)
    path = parts.path.rstrip("/")
    for end in (LOGIN, DEVICES, SEND, "/api"):
        if path.endswith(end):
            path = path.removesuffix(end).rstrip("/")
            break
    return urlunsplit(parts._replace(path=path))


def check_seconds(**timeouts: float) -> None:
    """Refuse what is no number of seconds."""
    for name, seconds in timeouts.items():
        if not 0 < seconds < math.inf:
            raise WasslyConfigError(f"{name}: must be a number of seconds above 0, not {seconds!r}")


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


def check_recipients(recipients: Collection[str] | None, region: str | None) -> frozenset[str] | None:
    """Return the numbers that may be sent to, as they are compared; ``None`` for all."""
    if recipients is None:
        return None
    if isinstance(recipients, str):
        raise WasslyConfigError("allowed_recipients: must be a list of numbers")
    allowed = set()
    for number in recipients:
        try:
            allowed.add(normalize(number, region))
        except WasslyError as error:
            raise WasslyConfigError(f"allowed_recipients: {shorten(str(number))}: {error}") from None
    return frozenset(allowed)
