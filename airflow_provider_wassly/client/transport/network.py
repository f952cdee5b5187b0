"""How Wassly is reached: proxies and CA bundle, given or from the environment, checked before the first call."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from urllib.parse import urlsplit

import requests
import urllib3

from airflow_provider_wassly.client.errors import WasslyConfigError


def check_bundle(verify: bool | str, use_environment: bool) -> None:
    """
    Load the CA bundle that requests will use, if it is not its own: in a call it would look like a network failure.

    :param use_environment: whether that of the environment is used where none is given.
    :raises WasslyConfigError: names the file, and the variable that names it.
    """
    path, origin = verify, ""
    if verify is True and use_environment:
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            if found := os.environ.get(name):
                path = found
                origin = f" (from the environment variable {name}; correct it, or set verify in the connection's extra)"
                break
    if isinstance(path, bool):
        return
    if not os.path.exists(path):
        raise WasslyConfigError(f"verify: no such CA bundle: {path}{origin}")
    try:
        _load(path, os.stat(path).st_mtime_ns)
    except OSError as error:
        raise WasslyConfigError(f"verify: {path} is no CA bundle that can be read: {error}{origin}") from None


@lru_cache(maxsize=16)
def _load(path: str, changed_at: int) -> None:
    """Load a bundle, once as long as it stays as it is: that takes longer than all else that a client checks."""
    kind = "capath" if os.path.isdir(path) else "cafile"
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(**{kind: path})


def check_proxies(base_url: str, given: Mapping[str, str], use_environment: bool) -> list[str]:
    """
    Return the addresses of the proxies, after a check of what requests would pass over in silence.

    :param use_environment: whether the environment's proxies are used where none is given.
    :raises WasslyConfigError: shows no address, as it may hold a password.
    """
    for key in given:
        if not re.fullmatch(r"(https?|all)(://.+)?|no_proxy", key):
            meant = next((word for word in ("https", "http", "no_proxy") if word in key.lower()), "all")
            raise WasslyConfigError(
                f"proxies: the key {_without_credentials(key)!r} has no effect; did you mean {meant!r}?"
            )
    addresses = {
        f"the address for {_without_credentials(key)!r}": url for key, url in given.items() if url and key != "no_proxy"
    }
    # None is needed for this machine: a connection may be pointed at a sandbox for a while.
    if addresses and use_environment and requests.utils.select_proxy(base_url, given) is None:
        parts = urlsplit(base_url)
        raise WasslyConfigError(
            f"proxies: no key is for {parts.scheme}://{parts.hostname}; add the key {parts.scheme!r}"
        )
    if use_environment:
        found = requests.utils.get_environ_proxies(base_url, no_proxy=given.get("no_proxy"))
        url = requests.utils.select_proxy(base_url, {**found, **given})
        if url and url not in given.values():
            addresses["the address in the environment (HTTPS_PROXY, HTTP_PROXY or ALL_PROXY)"] = url
    for where, url in addresses.items():
        _check_proxy(where, url)
    return list(addresses.values())


def _check_proxy(where: str, url: str) -> None:
    try:
        scheme, _, host, *_ = urllib3.util.parse_url(_with_scheme(url))
        proxy_password(url)
    except ValueError:
        scheme = host = None
    if not host or scheme not in {"http", "https", "socks4", "socks4a", "socks5", "socks5h"}:
        raise WasslyConfigError(f"proxies: {where} is no URL such as http://proxy:3128")
    if scheme.startswith("socks") and find_spec("socks") is None:
        raise WasslyConfigError(f"proxies: {where} is one of a SOCKS proxy, which needs the package PySocks")


def proxy_password(proxy: str) -> str:
    """Return the password in an address, in the spelling that it has there."""
    return urlsplit(_with_scheme(proxy)).password or ""


def _with_scheme(proxy: str) -> str:
    return proxy if "://" in proxy else f"http://{proxy}"


def _without_credentials(text: str) -> str:
    return text.rpartition("@")[2]
