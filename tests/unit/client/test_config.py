from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_wassly.client import WasslyAuthError, WasslyClient, WasslyConfigError


def client(**options: Any) -> WasslyClient:
    return WasslyClient(**{"apikey": "the-apikey", "token": "the-token", **options})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"apikey": ""}, "^apikey: missing"),
        ({"apikey": "a\nb"}, "^apikey: holds a line break"),
        ({"apikey": " a"}, "^apikey: holds"),
        ({"apikey": "schlüssel"}, "^apikey: holds"),
        ({"token": "a\r\nX: y"}, "^token: holds"),
        ({"token": None}, "^login and password: missing"),
        ({"token": None, "email": "a@example.com"}, "^password: missing"),
        ({"token": None, "password": "p"}, "^login: missing"),
        ({"token": "", "email": "", "password": ""}, "^login and password: missing"),
        ({"base_url": "www.wassly.com"}, "^host: .* is no URL"),
        ({"base_url": "ftp://www.wassly.com"}, "^host: .* is no URL"),
        ({"base_url": "https://"}, "^host: .* is no URL"),
        ({"base_url": "https://[::1"}, "^host: .* is no URL"),
        ({"base_url": "https://a:port"}, "^host: .* is no URL"),
        ({"base_url": "https://a b"}, "^host: .* is no URL"),
        ({"base_url": ""}, "^host: .* is no URL"),
        ({"base_url": "https://user:secret@a"}, "^host: holds credentials"),
        ({"base_url": "https://a/?x=1"}, "^host: holds credentials, a query"),
        ({"base_url": "http://www.wassly.com"}, "^host: .*unencrypted.*allow_http"),
        ({"base_url": "http://10.0.0.1"}, "^host: .*unencrypted"),
        ({"base_url": "http://127.0.0.1.example.com"}, "^host: .*unencrypted"),
        ({"verify": "/no/such/bundle.pem"}, "^verify: no such CA bundle"),
        ({"proxies": {"https": "http://user:secret@[bad"}}, "^proxies: "),
        ({"default_region": "Germany"}, "^default_region: "),
        ({"allowed_recipients": "+491701234567"}, "^allowed_recipients: must be a list"),
        ({"allowed_recipients": ["0170 1234567"]}, "^allowed_recipients: .*no country code"),
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


def test_plain_http_can_be_allowed() -> None:
    client(base_url="http://wassly.internal", allow_http=True)


def test_without_verification_there_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    client(verify=False)
    assert "not verified" in caplog.text


def test_a_bundle_that_exists_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.touch()
    client(verify=str(bundle))
    assert caplog.records == []


@pytest.mark.parametrize("password", ["p", 'p"\\ä/', "\ud800", "p" * 10_000])
def test_any_password_is_taken_and_never_shown(password: str) -> None:
    made = client(email="a@example.com", password=password)
    assert repr(made) == "WasslyClient(base_url='https://www.wassly.com')"


def test_a_login_without_credentials_is_an_auth_error_before_any_call() -> None:
    with pytest.raises(WasslyAuthError, match="no login and password"):
        client(base_url="http://127.0.0.1:1").login()
