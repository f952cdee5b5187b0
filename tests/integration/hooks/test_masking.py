"""Secrets are registered with Airflow's masker, and not in what the package logs, raises or shows."""

from __future__ import annotations

import importlib
import io
import logging
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_wassly.client import WasslyError
from airflow_provider_wassly.hooks.wassly import WasslyHook
from airflow_provider_wassly.sandbox import Sandbox
from airflow_provider_wassly.sandbox.service.state import ServiceState

from .conftest import Connect

NUMBER = "+491701234567"
PROXY = "http://proxy-user:proxy%2Fs3cret@127.0.0.1:1"


def masked(text: str) -> str:
    """Return ``text`` as Airflow's task log would show it."""
    for module in ("airflow.sdk._shared.secrets_masker", "airflow.sdk.execution_time.secrets_masker"):
        try:
            return str(importlib.import_module(module).redact(text))
        except (ImportError, AttributeError):
            continue
    return str(importlib.import_module("airflow.utils.log.secrets_masker").redact(text))


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Return the output of a log handler without Airflow's masking, including libraries and debug lines."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield written
    root.setLevel(level)
    root.removeHandler(handler)


def test_airflow_masks_every_secret_of_the_connection(connect: Connect, box: Sandbox) -> None:
    hook = connect(
        {"apikey": "apikey-m4sk", "token": "token-m4sk", "proxies": {"http": PROXY, "https": "http://only-user@p:1"}},
        password="password-m4sk",
    )
    hook.get_conn()
    for secret in ("apikey-m4sk", "token-m4sk", "password-m4sk", "proxy%2Fs3cret", "proxy/s3cret", "only-user"):
        assert secret not in masked(f"before {secret} after")


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the tokens that the sandbox issued."""
    tokens: list[str] = []
    login = ServiceState.login

    def noting(store: ServiceState) -> str:
        tokens.append(login(store))
        return tokens[-1]

    monkeypatch.setattr(ServiceState, "login", noting)
    return tokens


def test_airflow_masks_a_fetched_token(connect: Connect, fetched: list[str]) -> None:
    connect().list_devices()
    (token,) = fetched
    # Not the whole text: on 2.11 the short secrets of other tests are masked in it too.
    assert token not in masked(f"before {token} after")


def everything_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + str(vars(error))


WAYS: list[tuple[str, dict[str, Any], dict[str, Any], str | None]] = [
    ("works", {}, {}, None),
    ("wrong apikey", {"apikey": "wr0ng-secret"}, {}, None),
    ("wrong password", {}, {"password": "wr0ng-secret"}, None),
    ("wrong token, login helps", {"token": "wr0ng-secret"}, {}, None),
    ("wrong token, no login", {"token": "wr0ng-secret"}, {"login": None, "password": None}, None),
    ("dead proxy", {"proxies": {"http": PROXY}}, {}, None),
    ("no server", {}, {"port": 1}, None),
    ("config", {"read_timeout": "soon"}, {}, None),
    ("config of the client", {"verify": "/nowhere"}, {}, None),
    ("apikey in the password", {"apikey": None}, {"login": None, "password": "wr0ng-secret"}, None),
    ("credentials in the host", {}, {"host": "http://me:wr0ng-secret@127.0.0.1", "schema": None}, None),
    ("proxy that is no URL", {"proxies": {"http": "http://me:wr0ng-secret@proxy:port"}}, {}, None),
    ("no JSON", {"proxies": '{"http": "http://me:wr0ng-secret@proxy"'}, {}, None),
    ("unknown key", {"tokn": "wr0ng-secret"}, {}, None),
    ("token with Bearer", {"token": "Bearer wr0ng-secret"}, {}, None),
    ("key of a proxy", {"proxies": {"me:wr0ng-secret@proxy": "http://p:1"}}, {}, None),
    ("white space", {}, {"password": "wr0ng-secret "}, None),
    *(
        (fault, {}, {}, fault)
        for fault in ("http_500", "http_429", "not_json", "redirect_to_login", "rejected", "reset_after_body")
    ),
]
SECRETS = ("sandbox-apikey", "sandbox-password", "sandbox-token", "wr0ng-secret", "s3cret")


@pytest.mark.parametrize(("extra", "fields", "fault"), [way[1:] for way in WAYS], ids=[way[0] for way in WAYS])
def test_no_secret_shows(
    connect: Connect,
    box: Sandbox,
    fetched: list[str],
    log: io.StringIO,
    extra: dict[str, Any],
    fields: dict[str, Any],
    fault: str | None,
) -> None:
    if fault:
        box.fail_next(fault, times=3)
    hook = connect(extra, **fields)
    shown = [repr(hook)]
    try:
        hook.send_message(NUMBER, "Hello")
    except WasslyError as error:
        shown.append(everything_of(error))
    # The parts of the hook that a debugger or an error reporter shows: its settings and its client.
    shown += [str(hook.test_connection()), repr(hook), repr(vars(hook))]
    for text in [*shown, log.getvalue()]:
        for secret in [*SECRETS, *fetched]:
            assert secret not in text


def test_the_test_above_would_see_a_secret(log: io.StringIO) -> None:
    logging.getLogger("airflow_provider_wassly").debug("sandbox-apikey")
    assert "sandbox-apikey" in log.getvalue()


def test_the_settings_show_no_secret(connect: Connect) -> None:
    hook: WasslyHook = connect({"token": "token-m4sk"})
    assert "instance_id='sandbox-instance'" in repr(hook.settings)
    for secret in ("sandbox-apikey", "token-m4sk", "sandbox-password"):
        assert secret not in repr(hook.settings)
