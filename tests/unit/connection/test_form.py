"""The connection form, as each version of Airflow builds it."""

from __future__ import annotations

import html
import importlib
import json
import re
from typing import Any

import pytest
from airflow import __version__ as airflow_version
from airflow.providers_manager import ProvidersManager

from airflow_provider_wassly.connection.fields import EXTRA_FIELDS
from airflow_provider_wassly.connection.settings import ConnectionSettings
from airflow_provider_wassly.connection.values import SECRET_UNCHANGED
from airflow_provider_wassly.hooks.wassly import WasslyHook

SECRETS = {"apikey", "token", "proxies"}
# Up to 3.1, Airflow asks the hook for the form, and only 2.11 includes the libraries for that.
HAS_WIDGETS = airflow_version.startswith("2.")
only_airflow_2 = pytest.mark.skipif(not HAS_WIDGETS, reason="the form of Airflow 2.11")
reads_a_form = pytest.mark.skipif(
    airflow_version.startswith(("3.0", "3.1")), reason="without Flask-AppBuilder these versions list no form"
)


@pytest.fixture
def airflow() -> ProvidersManager:
    """Return what Airflow read from the installed providers."""
    return ProvidersManager()  # type: ignore[no-untyped-call]


@reads_a_form
def test_airflow_knows_every_field_and_which_are_secret(airflow: ProvidersManager) -> None:
    widgets = airflow.connection_form_widgets
    found = {
        name.removeprefix("extra__wassly__"): widget.is_sensitive
        for name, widget in widgets.items()
        if name.startswith("extra__wassly__")
    }
    assert found == {name: name in SECRETS for name in EXTRA_FIELDS}


@reads_a_form
def test_airflow_takes_labels_and_placeholders(airflow: ProvidersManager) -> None:
    behaviour = airflow.field_behaviours["wassly"]
    assert behaviour["relabeling"]["host"] == "Base URL"
    assert behaviour["relabeling"]["login"] == "Email"
    assert "not the API key" in behaviour["placeholders"]["password"]
    assert behaviour["placeholders"]["extra__wassly__default_region"] == "DE"


@reads_a_form
def test_airflow_has_what_is_required_first_and_what_is_advanced_last(airflow: ProvidersManager) -> None:
    names = [name.removeprefix("extra__wassly__") for name in airflow.connection_form_widgets if "__wassly__" in name]
    assert names == list(EXTRA_FIELDS)
    assert names[0] == "apikey"
    advanced = [EXTRA_FIELDS[name].advanced for name in names]
    assert advanced == sorted(advanced)


@only_airflow_2
def test_the_labels_say_what_is_advanced() -> None:
    labels = {field.name: str(field.label.text) for field in form({})}
    for name, field in EXTRA_FIELDS.items():
        assert labels[name] == (f"{field.label} (advanced)" if field.advanced else field.label)


def test_each_field_has_a_label_and_a_help_text() -> None:
    for field in EXTRA_FIELDS.values():
        assert field.label
        assert field.description.endswith(".")


def test_the_connection_type_belongs_to_the_hook(airflow: ProvidersManager) -> None:
    hook = airflow.hooks["wassly"]
    assert hook is not None
    assert (hook.hook_name, hook.connection_id_attribute_name) == ("Wassly", "wassly_conn_id")
    assert hook.connection_testable


def form(saved: dict[str, Any]) -> Any:
    """Return Airflow 2.11's form for a saved extra, filled in as its edit page does."""
    from wtforms import Form

    kind = type("ConnectionForm", (Form,), WasslyHook.get_connection_form_widgets())
    found = kind()
    for name, value in saved.items():
        if value:
            found[name].data = value
    return found


@only_airflow_2
@pytest.mark.parametrize("name", sorted(SECRETS))
def test_a_saved_secret_comes_back_as_unchanged_and_is_not_shown(name: str) -> None:
    assert importlib.import_module("airflow.www.views").SENSITIVE_FIELD_PLACEHOLDER == SECRET_UNCHANGED
    page = str(form({name: "the-secret"})[name]())
    assert f'value="{SECRET_UNCHANGED}"' in page
    assert "the-secret" not in page
    assert 'type="password"' in page
    assert 'value=""' in str(form({})[name]())


@only_airflow_2
@pytest.mark.parametrize(
    ("extra", "name", "meaning"),
    [
        ({"allowed_recipients": ["+491701234567", "+201012345678"]}, "allowed_recipients", None),
        ({"attachment_roots": ["/data, all", "s3://b"]}, "attachment_roots", None),
        ({"record_quota": "false"}, "record_quota", False),
        ({}, "record_quota", True),
        ({"connect_timeout": 2.5}, "connect_timeout", None),
        ({"max_attachment_bytes": 1000}, "max_attachment_bytes", None),
    ],
)
def test_what_the_edit_page_sends_back_means_what_was_saved(extra: dict[str, Any], name: str, meaning: Any) -> None:
    value = re.search(r'value="([^"]*)"', str(form(extra)[name]()))
    assert value is not None

    class Stored:
        conn_id, conn_type, login, password = "any", "wassly", "a@b.c", "pass-word"
        host, schema, port = None, None, None
        extra = ""

    stored: Any = Stored()
    stored.extra = json.dumps({"apikey": "key", name: html.unescape(value[1])})
    found = ConnectionSettings.of(stored)
    read = found.client[name] if name in found.client else getattr(found, name)
    assert read == (extra[name] if meaning is None else meaning)
