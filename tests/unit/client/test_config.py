from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import requests.utils

from airflow_provider_wassly.client import WasslyAuthError, WasslyClient, WasslyConfigError


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Isolates the proxy settings that requests reads from this machine's environment."""
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


def client(**options: Any) -> WasslyClient:
    return WasslyClient(**{"apikey": "the-apikey", "token": "the-token", **options})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"apikey": ""}, "^apikey: missing"),
        ({"apikey": "a\nb"}, "^apikey: contains a line break"),
        ({"apikey": " a"}, "^apikey: contains"),
        ({"apikey": "schlüssel"}, "^apikey: contains"),
        ({"token": "a\r\nX: y"}, "^token: contains"),
        ({"token": None}, "^login and password: missing"),
        ({"token": None, "email": "a@example.com"}, "^password: missing"),
        ({"token": None, "password": "p"}, "^login: missing"),
        ({"token": "", "email": "", "password": ""}, "^login and password: missing"),
        ({"base_url": "www.wassly.com"}, "^host: .* is not a URL"),
        ({"base_url": "ftp://www.wassly.com"}, "^host: .* is not a URL"),
        ({"base_url": "https://"}, "^host: .* is not a URL"),
        ({"base_url": "https://[::1"}, "^host: .* is not a URL"),
        ({"base_url": "https://a:port"}, "^host: .* is not a URL"),
        ({"base_url": "https://a b"}, "^host: .* is not a URL"),
        ({"base_url": ""}, "^host: .* is not a URL"),
        ({"base_url": "https://user:secret@a"}, "^host: contains credentials"),
        ({"base_url": "https://a/?x=1"}, "^host: contains credentials, a query"),
        ({"base_url": "http://www.wassly.com"}, "^host: .*unencrypted.*allow_http"),
        ({"base_url": "http://10.0.0.1"}, "^host: .*unencrypted"),
        ({"base_url": "http://127.0.0.1.example.com"}, "^host: .*unencrypted"),
        ({"verify": "/no/such/bundle.pem"}, "^verify: no such CA bundle"),
        ({"proxies": {"https": "http://user:secret@[bad"}}, "^proxies: the address for 'https' is not a URL such as"),
        (
            {"proxies": {"https": "http://user:secret@proxy:port"}},
            "^proxies: the address for 'https' is not a URL such as",
        ),
        ({"proxies": {"https": "htp://user:secret@proxy:1"}}, "^proxies: the address for 'https' is not a URL such as"),
        ({"proxies": {"https": "http://u:sec[ret@proxy:1"}}, "^proxies: the address for 'https' is not a URL such as"),
        ({"proxies": {"https": "http://"}}, "^proxies: the address for 'https' is not a URL such as"),
        ({"proxies": {"HTTP": "http://proxy:1"}}, "^proxies: the key 'HTTP' has no effect; did you mean 'http'"),
        ({"proxies": {"HTTPS": "http://proxy:1"}}, "^proxies: the key 'HTTPS' has no effect; did you mean 'https'"),
        ({"proxies": {"https_proxy": "http://proxy:1"}}, "^proxies: the key 'https_proxy' .* mean 'https'"),
        ({"proxies": {"HTTP_PROXY": "http://proxy:1"}}, "^proxies: the key 'HTTP_PROXY' .* mean 'http'"),
        ({"proxies": {"NO_PROXY": "a"}}, "^proxies: the key 'NO_PROXY' .* mean 'no_proxy'"),
        ({"proxies": {"https:": "http://proxy:1"}}, "^proxies: the key 'https:' .* mean 'https'"),
        ({"proxies": {"proxy": "http://proxy:1"}}, "^proxies: the key 'proxy' .* mean 'all'"),
        ({"proxies": {"http://u:secret@proxy": "x"}}, "^proxies: no key applies to https://www.wassly.com"),
        ({"proxies": {"u:secret@proxy": "http://proxy:1"}}, "^proxies: the key 'proxy' has no effect"),
        (
            {"proxies": {"http": "http://proxy:1"}},
            "^proxies: no key applies to https://www.wassly.com; add the key 'https'",
        ),
        ({"proxies": {"https://other": "http://proxy:1"}}, "^proxies: no key applies to https://www.wassly.com"),
        ({"default_region": "Germany"}, "^default_region: "),
        ({"allowed_recipients": "+491701234567"}, "^allowed_recipients: must be a list"),
        ({"allowed_recipients": ["0170 1234567"]}, "^allowed_recipients: 017…4567: .*no country code"),
        ({"allowed_recipients": ["+491701234567", "12"]}, "^allowed_recipients: 12: .*no country code"),
        ({"connect_timeout": 0}, "^connect_timeout: must be a number of seconds above 0"),
        ({"connect_timeout": -1}, "^connect_timeout: "),
        ({"read_timeout": math.inf}, "^read_timeout: "),
        ({"read_timeout": math.nan}, "^read_timeout: "),
    ],
)
def test_what_is_wrong_is_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(WasslyConfigError, match=said) as caught:
        client(**options)
    assert "secret" not in caught.value.summary


@pytest.mark.parametrize(
    "base_url",
    [
        "https://a",
        "https://a:8443/base/",
        "http://127.0.0.1:1",
        "http://localhost",
        "http://[::1]:80",
        "http://127.9.9.9",
    ],
)
def test_addresses_that_are_taken(base_url: str) -> None:
    assert client(base_url=base_url).base_url == base_url.rstrip("/")


@pytest.mark.parametrize(
    ("base_url", "read"),
    [
        ("https://a/api", "https://a"),
        ("https://a/api/", "https://a"),
        ("https://a:8443/gateway/api", "https://a:8443/gateway"),
        ("https://a/api/login", "https://a"),
        ("https://a/api/whatsapp-web-devices", "https://a"),
        ("https://a/api/whatsapp-web-send-message/", "https://a"),
        # Only one is removed, because a gateway may have a similar prefix.
        ("https://a/api/api", "https://a/api"),
        ("https://api", "https://api"),
        ("https://api.example/rapi", "https://api.example/rapi"),
    ],
)
def test_what_the_calls_add_is_taken_off_the_base_url(base_url: str, read: str) -> None:
    assert client(base_url=base_url).base_url == read


@pytest.mark.parametrize("before", ["Bearer ", "bearer  ", "BEARER\t", "Authorization: Bearer "])
def test_a_token_with_the_word_that_stands_before_it_in_the_header(before: str) -> None:
    assert client(token=f"{before}the-token")._tokens.token == "the-token"


@pytest.mark.parametrize(
    "proxies",
    [
        {},
        {"https": "http://user:p%40ss@proxy:3128"},
        {"https": "proxy:3128", "http": "proxy:3128"},
        {"https": " http://proxy:3128\n"},
        {"all": "https://proxy"},
        {"https://www.wassly.com": "http://proxy:3128"},
        {"all://www.wassly.com": "http://[::1]:3128"},
        # No proxy for this connection, whatever the environment says.
        {"https": ""},
        {"no_proxy": "*"},
    ],
)
def test_proxies_that_are_taken(proxies: dict[str, str]) -> None:
    client(proxies=proxies)


def test_a_proxy_for_other_addresses_does_no_harm_on_this_machine() -> None:
    client(base_url="http://127.0.0.1:8095", proxies={"https": "http://proxy:3128"})


def test_a_socks_proxy_needs_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_wassly.client.transport.network.find_spec", lambda name: None)
    with pytest.raises(WasslyConfigError, match=r"^proxies: the address for 'https' is a SOCKS proxy.* PySocks"):
        client(proxies={"https": "socks5h://user:secret@proxy"})


# What requests reads from the environment.


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_a_proxy_of_the_environment_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "http://user:secret@proxy:port")
    with pytest.raises(WasslyConfigError, match=r"^proxies: the address in the environment \(HTTPS_PROXY") as caught:
        client()
    assert "secret" not in str(caught.value)
    client(proxies={"https": "http://proxy:1"})
    client(proxies={"no_proxy": "www.wassly.com"})
    client(base_url="http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "wassly.com")
    client()


def test_the_password_of_a_proxy_of_the_environment_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:s%20cret@proxy:1")
    redact = client()._redactor
    assert redact("s%20cret, s cret") == "***, ***"


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_ca_bundle_of_the_environment_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setenv(name, "/no/such/bundle.pem")
    with pytest.raises(
        WasslyConfigError,
        match=rf"^verify: no such CA bundle: /no/such/bundle.pem \(from .* {name}; correct it, or set",
    ):
        client()
    (tmp_path / "empty.pem").touch()
    monkeypatch.setenv(name, str(tmp_path / "empty.pem"))
    with pytest.raises(WasslyConfigError, match=rf"^verify: cannot read the CA bundle .*empty.pem: .* {name}"):
        client()
    monkeypatch.setenv(name, requests.utils.DEFAULT_CA_BUNDLE_PATH)
    client()


def test_a_ca_bundle_of_the_environment_that_is_not_used_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/bundle.pem")
    client(verify=False)
    client(verify=requests.utils.DEFAULT_CA_BUNDLE_PATH)
    client(base_url="https://127.0.0.1")
    client(base_url="http://wassly.internal", allow_http=True)


def test_plain_http_can_be_allowed() -> None:
    client(base_url="http://wassly.internal", allow_http=True)


def test_without_verification_there_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    client(verify=False)
    assert "Not verifying TLS certificates of www.wassly.com" in caplog.text


def test_a_bundle_that_exists_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    client(verify=requests.utils.DEFAULT_CA_BUNDLE_PATH)
    client(verify=str(tmp_path))
    assert caplog.records == []


def test_a_bundle_that_is_none_is_named(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("no certificate")
    with pytest.raises(WasslyConfigError, match=r"^verify: cannot read the CA bundle .*ca\.pem: "):
        client(verify=str(bundle))


@pytest.mark.parametrize("password", ["p", 'p"\\ä/', "\ud800", "p" * 10_000])
def test_any_password_is_taken_and_never_shown(password: str) -> None:
    made = client(email="a@example.com", password=password)
    assert repr(made) == "WasslyClient(base_url='https://www.wassly.com')"


def test_a_login_without_credentials_is_an_auth_error_before_any_call() -> None:
    with pytest.raises(WasslyAuthError, match="login and password are not set"):
        client(base_url="http://127.0.0.1:1").login()
