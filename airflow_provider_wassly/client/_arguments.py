"""Check a client's arguments before the first call."""

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
    """
    Check the credentials.

    :raises WasslyConfigError: names the one that is missing or cannot be sent as a header.
    """
    for name, value in {"apikey": apikey, "token": token}.items():
        if value and not is_header_value(value):
            raise WasslyConfigError(
                f"{name}: contains a line break, a leading or trailing space or a non-ASCII character; remove it"
            )
    if not apikey:
        raise WasslyConfigError("apikey: missing; copy it from the account's settings in Wassly")
    if not token and not (email and password):
        missing = "login and password" if not (email or password) else "password" if email else "login"
        raise WasslyConfigError(f"{missing}: missing; set login (the account's email) and password, or a token")


def suspicions(apikey: str, token: str | None, password: str | None) -> str:
    """Return hints about credentials that look wrong but may be right, for the error when Wassly rejects them."""
    found = [
        f"; {name} contains a space (in a URI, write + as %2B)"
        for name, value in {"apikey": apikey, "token": token}.items()
        if value and " " in value
    ]
    found += [
        f"; {name} seems to include quotes or a header name: remove them"
        for name, value in {"apikey": apikey, "token": token}.items()
        if value and re.match(r"[\"']|(authorization|bearer|token|api-?key)(\s|:|$)", value, re.IGNORECASE)
    ]
    if password and password != password.strip():
        found.append("; password starts or ends with white space: remove it unless it belongs to the password")
    return "".join(found)


def check_base_url(base_url: str, allow_http: bool) -> str:
    """
    Check a base URL and return its host.

    :raises WasslyConfigError: when it is not a URL, contains more than scheme, host, port and path, or is plain http
        to another machine without ``allow_http``.
    """
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise WasslyConfigError(f"host: {base_url!r} is not a URL: {error}") from None
    if parts.scheme not in {"http", "https"} or not host or any(char.isspace() for char in base_url):
        raise WasslyConfigError(f"host: {base_url!r} is not a URL such as {DEFAULT_BASE_URL}")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise WasslyConfigError(
            "host: contains credentials, a query or a fragment; use only scheme, host, port and path"
        )
    if parts.scheme == "http" and not allow_http and not is_loopback(host):
        raise WasslyConfigError(
            f"host: http://{host} would send apikey, password and messages unencrypted; "
            "use https, or set allow_http in the connection's extra"
        )
    return host


def without_endpoint(base_url: str) -> str:
    """Return the base URL without an endpoint or ``/api`` at its end, which is easily copied along."""
    parts = urlsplit(base_url)
    path = parts.path.rstrip("/")
    for end in (LOGIN, DEVICES, SEND, "/api"):
        if path.endswith(end):
            path = path.removesuffix(end).rstrip("/")
            break
    return urlunsplit(parts._replace(path=path))


def check_seconds(**timeouts: float) -> None:
    """
    Check timeouts.

    :raises WasslyConfigError: when one is not a finite number of seconds above 0.
    """
    for name, seconds in timeouts.items():
        if not 0 < seconds < math.inf:
            raise WasslyConfigError(f"{name}: must be a number of seconds above 0, not {seconds!r}")


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


def check_recipients(recipients: Collection[str] | None, region: str | None) -> frozenset[str] | None:
    """
    Return the allowed recipients in international form; ``None`` allows every number.

    :param recipients: numbers in any form that :func:`~airflow_provider_wassly.client.numbers.read` takes.
    :param region: the country for numbers without a country code.
    :raises WasslyConfigError: names the number that is invalid.
    """
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
