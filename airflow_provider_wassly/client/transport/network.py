"""Check proxies and CA bundle, given or from the environment, before the first call."""

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
    Load the CA bundle that requests will use, unless it is its own: in a call, a bad one looks like a network failure.

    :param verify: whether to verify TLS certificates, or the path of a CA bundle.
    :param use_environment: whether to use the environment's bundle if none is given.
    :raises WasslyConfigError: when the bundle cannot be loaded; names the file and the variable that it came from.
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
        raise WasslyConfigError(f"verify: cannot read the CA bundle {path}: {error}{origin}") from None


@lru_cache(maxsize=16)
def _load(path: str, changed_at: int) -> None:
    """Load a bundle, once until it changes: this takes longer than everything else that a client checks."""
    kind = "capath" if os.path.isdir(path) else "cafile"
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(**{kind: path})


def check_proxies(base_url: str, given: Mapping[str, str], use_environment: bool) -> list[str]:
    """
    Check proxies for mistakes that requests ignores silently, and return their addresses.

    :param base_url: Wassly's address.
    :param given: the connection's proxies, as in requests.
    :param use_environment: whether to use the environment's proxies if none are given.
    :raises WasslyConfigError: names the key that is wrong, but no address, because it may contain a password.
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
    # This machine needs none: a connection may point to a sandbox for a while.
    if addresses and use_environment and requests.utils.select_proxy(base_url, given) is None:
        parts = urlsplit(base_url)
        raise WasslyConfigError(
            f"proxies: no key applies to {parts.scheme}://{parts.hostname}; add the key {parts.scheme!r}"
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
        raise WasslyConfigError(f"proxies: {where} is not a URL such as http://proxy:3128")
    if scheme.startswith("socks") and find_spec("socks") is None:
        raise WasslyConfigError(f"proxies: {where} is a SOCKS proxy, which needs the package PySocks")


def proxy_password(proxy: str) -> str:
    """Return the password in a proxy's address as it is spelt there; empty if there is none."""
    return urlsplit(_with_scheme(proxy)).password or ""


def _with_scheme(proxy: str) -> str:
    return proxy if "://" in proxy else f"http://{proxy}"


def _without_credentials(text: str) -> str:
    return text.rpartition("@")[2]
