"""The connection, field by field."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlencode

import airflow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_wassly.airflow_compat import variables
from airflow_provider_wassly.client import WasslyClient, WasslyConfigError
from airflow_provider_wassly.connection.fields import EXTRA_FIELDS
from airflow_provider_wassly.connection.settings import ConnectionSettings
from airflow_provider_wassly.hooks.wassly import WasslyHook
from tests.support.hook import MakeHook

#: A field of the extra, its value as JSON and as text, and what both mean.
VALUES: list[tuple[str, Any, str, Any]] = [
    ("apikey", "key-1", " key-1 ", "key-1"),
    ("token", "token-1", "token-1", "token-1"),
    ("token", "Bearer token-1", " bearer token-1\n", "token-1"),
    ("instance_id", "abc", "abc", "abc"),
    ("instance_id", 123, "123", "123"),
    ("default_region", "DE", "DE", "DE"),
    ("attachment_roots", ["/data", "s3://b/x"], "/data, s3://b/x", ["/data", "s3://b/x"]),
    ("attachment_roots", ["/data", "s3://b/x"], '["/data", "s3://b/x"]', ["/data", "s3://b/x"]),
    ("attachment_roots", ["/a,b"], "['/a,b']", ["/a,b"]),
    ("attachment_roots", [], "[]", []),
    ("allowed_recipients", ["+491701234567"], "+491701234567", ["+491701234567"]),
    ("allowed_recipients", ["+491701234567", "+201012345678"], "+491701234567\n+201012345678\n", None),
    ("connect_timeout", 2.5, "2.5", 2.5),
    ("read_timeout", 30, "30", 30.0),
    ("verify", True, "true", True),
    ("verify", False, "False", False),
    ("verify", "/etc", "/etc", "/etc"),
    ("proxies", {"https": "http://p:1"}, '{"https": "http://p:1"}', {"https": "http://p:1"}),
    ("max_attachment_bytes", 1000, "1000", 1000),
    ("max_attachment_bytes", 1000, "1_000", 1000),
    ("record_quota", False, "no", False),
    ("record_quota", True, "y", True),
    ("share_token", True, "yes", True),
    ("share_token", False, "false", False),
    ("allow_http", True, "1", True),
    ("allow_http", False, "off", False),
]


@pytest.fixture(autouse=True)
def outside_of_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """On 2.11, every process is taken for a task."""
    monkeypatch.setattr(variables, "can_reach_airflow", lambda: False)


def read(hook: WasslyHook, name: str) -> Any:
    hook.get_conn()
    found = hook.settings
    return found.client.get(name) if name not in ConnectionSettings.__annotations__ else getattr(found, name)


def test_the_table_is_whole() -> None:
    assert {name for name, *_ in VALUES} == set(EXTRA_FIELDS)


@pytest.mark.parametrize(("name", "value", "text", "meaning"), VALUES)
def test_a_value_means_the_same_as_json_and_as_text(
    hook: MakeHook, name: str, value: Any, text: str, meaning: Any
) -> None:
    assert read(hook({name: value}), name) == (value if meaning is None else meaning)
    assert read(hook({name: text}), name) == (value if meaning is None else meaning)


@pytest.mark.parametrize(("name", "value", "text", "meaning"), [row for row in VALUES if row[0] != "apikey"])
def test_the_same_in_a_uri(monkeypatch: pytest.MonkeyPatch, name: str, value: Any, text: str, meaning: Any) -> None:
    query = urlencode({"apikey": "key", name: text})
    monkeypatch.setenv("AIRFLOW_CONN_WASSLY_TEST", f"wassly://{quote('me@example.com')}:p%40ss@wassly.example/?{query}")
    found = WasslyHook("wassly_test")
    assert read(found, name) == (value if meaning is None else meaning)
    assert found.settings.client["email"] == "me@example.com"
    assert found.settings.client["password"] == "p@ss"
    assert found.get_conn().base_url == "https://wassly.example"


@pytest.mark.parametrize("empty", [None, "", "  "])
@pytest.mark.parametrize("name", sorted(set(EXTRA_FIELDS) - {"apikey"}))
def test_a_field_left_empty_in_the_form_is_its_default(hook: MakeHook, name: str, empty: str | None) -> None:
    extra = '{"apikey": "the-api-key", "%s": %s}' % (name, "null" if empty is None else f'"{empty}"')  # noqa: UP031
    assert hook(extra).settings == hook('{"apikey": "the-api-key"}').settings


def test_defaults(hook: MakeHook) -> None:
    found = hook()
    assert found.get_conn().base_url == "https://www.wassly.com"
    assert found.get_conn().default_region is None
    assert found.get_conn().allowed_recipients is None
    assert found.settings.attachment_roots is None
    assert found.settings.max_attachment_bytes is None
    assert found.settings.record_quota is True
    assert found.settings.share_token is False
    assert not {"verify", "proxies", "connect_timeout", "read_timeout", "allow_http"} & set(found.settings.client)


WRONG: list[tuple[str, Any, str]] = [
    ("apikey", None, "missing in the extra"),
    ("apikey", ["x"], "must be text"),
    ("apikey", "two\nlines", "line break"),
    ("token", 1.5, "must be text"),
    ("token", "ключ", "ASCII"),
    ("instance_id", True, "must be text"),
    ("default_region", "Germany", "two-letter"),
    ("default_region", "XX", "two-letter"),
    ("attachment_roots", {"a": 1}, "list of texts"),
    ("attachment_roots", "[/data]", "JSON"),
    ("attachment_roots", [1], "list of texts"),
    ("allowed_recipients", [491701234567], "list of texts"),
    ("allowed_recipients", ["0170"], "country code"),
    ("connect_timeout", 0, "above 0"),
    ("connect_timeout", "10s", "number of seconds"),
    ("read_timeout", -1, "above 0"),
    ("read_timeout", "nan", "number of seconds"),
    ("read_timeout", True, "number of seconds"),
    ("verify", "/no/such/bundle.pem", "no such CA bundle: /no/such/bundle.pem"),
    ("verify", ["x"], "must be text"),
    ("proxies", "http://proxy:3128", "JSON"),
    ("proxies", ["http://proxy:3128"], "JSON object"),
    ("proxies", {"https": 3128}, "JSON object"),
    ("proxies", {"https": "http://[proxy"}, "'https' is not a URL"),
    ("proxies", "http://proxy:3128", 'must be a JSON object such as {"https": "http://proxy:3128"}'),
    ("proxies", {"https": "http://proxy:port"}, "'https' is not a URL"),
    ("proxies", {"https_proxy": "http://proxy:3128"}, "the key 'https_proxy' has no effect; did you mean 'https'?"),
    ("proxies", {"http": "http://proxy:3128"}, "no key applies to https://www.wassly.com"),
    ("max_attachment_bytes", "10 MB", "whole number above 0"),
    ("max_attachment_bytes", 0, "above 0"),
    ("max_attachment_bytes", True, "whole number"),
    ("record_quota", "maybe", "true or false"),
    ("share_token", "always", "true or false"),
    ("allow_http", 2, "true or false"),
]


def error_of(hook: WasslyHook) -> str:
    with pytest.raises(WasslyConfigError) as raised:
        hook.get_conn()
    return str(raised.value)


@pytest.mark.parametrize(("name", "value", "reason"), WRONG)
def test_a_wrong_value_is_an_error_that_names_connection_field_and_fix(
    hook: MakeHook, name: str, value: Any, reason: str
) -> None:
    text = error_of(hook({name: value}))
    assert text.startswith(f"Connection 'wassly_test', field {name}: ")
    assert text.count("Connection") == 1
    assert reason in text


def test_every_field_has_a_wrong_value_here() -> None:
    assert {name for name, *_ in WRONG} == set(EXTRA_FIELDS)


class Stored:
    """A connection as stored in a secrets backend, without the checks that some versions' own class makes."""

    conn_id = "any"
    conn_type: str | None = None
    login: str | None = "me@example.com"
    password: str | None = "pass-word"

    def __init__(self, extra: str, host: str | None = None, schema: str | None = None, port: int | None = None) -> None:
        self.extra: str | None = extra
        self.host, self.schema, self.port = host, schema, port


@pytest.mark.parametrize("extra", ['{"apikey": "key"}', "{}", "no json"])
@pytest.mark.parametrize("kind", ["http", "https", "generic"])
def test_a_connection_of_another_type_is_an_error(kind: str, extra: str) -> None:
    stored = Stored(extra)
    stored.conn_type = kind
    with pytest.raises(WasslyConfigError, match=f"Connection 'any', field conn_type: must be 'wassly', not '{kind}'"):
        ConnectionSettings.of(stored)


@pytest.mark.parametrize("kind", [None, "", "wassly", "Wassly", " wassly "])
def test_a_connection_of_this_type_or_of_none(kind: str | None) -> None:
    stored = Stored('{"apikey": "key"}')
    stored.conn_type = kind
    assert ConnectionSettings.of(stored).client["apikey"] == "key"


def test_a_uri_that_begins_with_the_address_is_of_another_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WASSLY_TEST", "https://me:pass-word@www.wassly.com/?apikey=k")
    assert "field conn_type: must be 'wassly', not 'https'; a URI starts with wassly://" in error_of(
        WasslyHook("wassly_test")
    )


@pytest.mark.parametrize(
    "uri", ["wassly://me:pass-word@www.wassly.com/api?apikey=k", "wassly://https://me:p@www.wassly.com/api?apikey=k"]
)
def test_a_path_in_a_uri_that_became_the_schema_is_named(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WASSLY_TEST", uri)
    text = error_of(WasslyHook("wassly_test"))
    assert "field schema: must be https, http or empty, not 'api'. In a URI the schema follows the host" in text
    advised = text.partition("as in ")[2].replace("wassly://", "wassly://me:pass-word@")
    monkeypatch.setenv("AIRFLOW_CONN_WASSLY_TEST", f"{advised}?apikey=key")
    assert WasslyHook("wassly_test").get_conn().base_url == "https://gateway.example/path"


def test_white_space_around_what_was_pasted(hook: MakeHook) -> None:
    found = hook(
        {
            "apikey": " key-1\n",
            "token": "\ttoken-1 ",
            "instance_id": "one \n",
            "verify": " true ",
            "default_region": "de ",
        },
        login=" me@example.com ",
        password="pass-word\r\n",
        host=" wassly.example\n",
        schema=" https ",
    )
    assert found.get_conn().base_url == "https://wassly.example"
    assert found.settings.instance_id == "one"
    assert found.settings.client["verify"] is True
    read = {name: found.settings.client[name] for name in ("apikey", "token", "email", "password")}
    assert read == {"apikey": "key-1", "token": "token-1", "email": "me@example.com", "password": "pass-word"}


def test_a_space_may_be_part_of_a_password(hook: MakeHook) -> None:
    assert hook(password=" pass word ").settings.client["password"] == " pass word "


def test_a_connection_that_airflow_cannot_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("wassly://me:pass/word@?apikey=k", '{"conn_type": "wassly"'):
        monkeypatch.setenv("AIRFLOW_CONN_WASSLY_TEST", text)
        error = error_of(WasslyHook("wassly_test"))
        assert (
            "connection 'wassly_test': Airflow cannot read AIRFLOW_CONN_WASSLY_TEST. Write it as JSON, or as a URI"
            in error
        )


@pytest.mark.parametrize(
    ("inside", "why"), [(True, ""), (False, "Outside a task, Airflow 3 looks for connections only in")]
)
def test_a_connection_that_does_not_exist(monkeypatch: pytest.MonkeyPatch, inside: bool, why: str) -> None:
    monkeypatch.setattr(variables, "reads_saved_connections", lambda: inside)
    error = error_of(WasslyHook("no_such"))
    assert error.startswith("There is no connection 'no_such'; create it (type Wassly) or set wassly_conn_id")
    assert why in error
    assert ("AIRFLOW_CONN_NO_SUCH" in error) is not inside


def test_where_a_saved_connection_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found in tasks and in Airflow's servers; elsewhere only on versions that read the database from everywhere."""
    version = tuple(map(int, airflow.__version__.split(".")[:2]))
    assert variables.reads_saved_connections() is (version < (3, 1))
    monkeypatch.setitem(sys.modules, "airflow.sdk.execution_time.task_runner", SimpleNamespace(SUPERVISOR_COMMS=1))
    assert variables.reads_saved_connections()
    monkeypatch.setitem(sys.modules, "airflow.sdk.execution_time.task_runner", SimpleNamespace())
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    assert variables.reads_saved_connections()


@pytest.mark.parametrize("extra", ["not json", "[1]", '"text"'])
def test_an_extra_that_is_no_json_object(extra: str) -> None:
    with pytest.raises(WasslyConfigError, match=r"Connection 'any', field extra: .*JSON"):
        ConnectionSettings.of(Stored(extra))


@pytest.mark.parametrize("mask", ["***", " *** ", "*****", "RATHER_LONG_SENSITIVE_FIELD_PLACEHOLDER"])
@pytest.mark.parametrize("name", ["apikey", "token", "password", "proxies"])
def test_a_saved_mask_is_named_as_such(hook: MakeHook, name: str, mask: str) -> None:
    found = hook(password=mask) if name == "password" else hook({name: mask})
    text = error_of(found)
    assert f"field {name}: " in text
    assert "in place of a secret; enter the secret itself again" in text


def test_a_masked_proxy_is_named_as_such(hook: MakeHook) -> None:
    assert "field proxies: this is only the mask that Airflow shows" in error_of(hook({"proxies": {"https": "***"}}))


@pytest.mark.parametrize("name", ["api_key", "apiKey", "api-key", "key", "extra__wassly__apikey"])
def test_a_misspelt_apikey_is_named(hook: MakeHook, name: str) -> None:
    assert f"field apikey: missing in the extra; rename {name!r} to 'apikey'" in error_of(
        hook({"apikey": None, name: "x"})
    )


def test_an_apikey_in_the_password_is_named(hook: MakeHook) -> None:
    text = error_of(hook({"apikey": None}, login=None, password="s3cret-key"))
    assert "If the field password holds the API key (login is empty), move it to the extra field 'apikey'" in text
    assert "s3cret-key" not in text


@pytest.mark.parametrize(
    ("login", "password", "missing"), [("", "", "login and password"), ("a@b.c", "", "password"), ("", "x", "login")]
)
def test_without_a_token_login_and_password_are_needed(hook: MakeHook, login: str, password: str, missing: str) -> None:
    assert f"field {missing}: missing" in error_of(hook(login=login, password=password))
    hook({"token": "t"}, login=login, password=password).get_conn()


def test_an_unknown_key_is_a_warning_with_the_nearest_name(hook: MakeHook, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        hook({"instanceid": "s3cret-value", "colour": "red", "extra__wassly__token": ""}).get_conn()
    ours = [record for record in caplog.records if record.name.startswith("airflow_provider_wassly")]
    warnings = [record.getMessage() for record in ours if record.levelno == logging.WARNING]
    assert warnings == [
        "Ignoring the unknown extra field 'instanceid' of connection 'wassly_test'; did you mean instance_id?",
        "Ignoring the unknown extra field 'colour' of connection 'wassly_test'",
    ]


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({}, "https://www.wassly.com"),
        ({"host": "wassly.example"}, "https://wassly.example"),
        ({"host": " wassly.example/ "}, "https://wassly.example"),
        ({"host": "https://wassly.example/api"}, "https://wassly.example"),
        ({"host": "wassly.example/api/", "port": 8443}, "https://wassly.example:8443"),
        ({"host": "wassly.example", "port": 8443}, "https://wassly.example:8443"),
        ({"host": "wassly.example:8443"}, "https://wassly.example:8443"),
        ({"host": "wassly.example:8443", "port": 8443}, "https://wassly.example:8443"),
        ({"host": "wassly.example", "schema": "HTTPS"}, "https://wassly.example"),
        ({"host": "https://wassly.example/behind/a/path/"}, "https://wassly.example/behind/a/path"),
        ({"host": "https://wassly.example", "port": 8443, "schema": "https"}, "https://wassly.example:8443"),
        ({"schema": "https"}, "https://www.wassly.com"),
        ({"port": 443}, "https://www.wassly.com:443"),
        ({"host": "2001:db8::1"}, "https://[2001:db8::1]"),
        ({"host": "[2001:db8::1]", "port": 8443}, "https://[2001:db8::1]:8443"),
        ({"host": "::1", "schema": "http", "port": 8095}, "http://[::1]:8095"),
        ({"host": "127.0.0.1", "schema": "http"}, "http://127.0.0.1"),
        ({"host": "127.9.9.9", "schema": "http"}, "http://127.9.9.9"),
        ({"host": "http://localhost:8095"}, "http://localhost:8095"),
        ({"host": "http://wassly.example", "extra": {"apikey": "k", "allow_http": "true"}}, "http://wassly.example"),
    ],
)
def test_base_url(hook: MakeHook, fields: dict[str, Any], url: str) -> None:
    assert hook(**fields).get_conn().base_url == url


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"host": "wassly.example", "schema": "http"}, "host", "allow_http"),
        ({"host": "http://10.0.0.1"}, "host", "unencrypted"),
        ({"host": "http://localhost.example"}, "host", "unencrypted"),
        ({"host": "ftp://wassly.example"}, "host", "is not a URL such as"),
        ({"host": "http://localhost", "schema": "https"}, "schema", "contradicts the host"),
        ({"host": "wassly.example", "schema": "prod"}, "schema", "must be https, http or empty, not 'prod'"),
        ({"host": "wassly.example:1", "port": 2}, "port", "contradicts the host"),
        ({"host": "wassly.example", "port": 65536}, "port", "between 1 and 65535"),
        ({"host": "wassly.example:port"}, "host", "is not a URL"),
        ({"host": "https:/wassly.example"}, "host", "write :// after http or https"),
        ({"host": "http//wassly.example"}, "host", "write :// after http or https"),
        ({"host": "https://[::1"}, "host", "is not a URL"),
        ({"host": "was sly.example"}, "host", "is not a URL"),
        ({"host": "https://wassly.example/?a=b"}, "host", "query"),
        ({"host": "https://me:s3cret@wassly.example"}, "host", "credentials"),
        ({"host": "ftp://me:s3cret@wassly.example"}, "host", "credentials"),
        ({"host": "me:s3cret@wassly.example:1", "port": 2}, "host", "credentials"),
    ],
)
def test_a_wrong_base_url(hook: MakeHook, fields: dict[str, Any], field: str, reason: str) -> None:
    text = error_of(hook(**fields))
    assert text.startswith(f"Connection 'wassly_test', field {field}: ")
    assert reason in text
    assert "s3cret" not in text


def test_unverified_tls_is_a_warning(hook: MakeHook, caplog: pytest.LogCaptureFixture) -> None:
    hook({"verify": "false"}).get_conn()
    said = "Not verifying TLS certificates of www.wassly.com (verify is false in connection 'wassly_test')"
    assert said in caplog.text


def test_nothing_can_be_sent_to_when_the_list_is_empty(hook: MakeHook) -> None:
    assert hook({"allowed_recipients": []}).get_conn().allowed_recipients == frozenset()
    assert hook({"allowed_recipients": " , "}).get_conn().allowed_recipients == frozenset()


def test_allowed_recipients_are_read_as_numbers_of_the_region(hook: MakeHook) -> None:
    found = hook({"default_region": "de", "allowed_recipients": "0170 1234567, 0049 170 7654321"}).get_conn()
    assert found.default_region == "DE"
    assert found.allowed_recipients == frozenset({"+491701234567", "+491707654321"})


@given(
    extra=st.dictionaries(
        st.sampled_from(sorted(EXTRA_FIELDS)),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=5,
        ),
    ),
    host=st.none() | st.text(max_size=20),
    schema=st.none() | st.text(max_size=6),
    port=st.none() | st.integers(),
)
@settings(max_examples=300, deadline=None)
def test_whatever_a_connection_holds_it_is_read_or_a_config_error(
    extra: dict[str, Any], host: str | None, schema: str | None, port: int | None
) -> None:
    stored = Stored(json.dumps({"apikey": "key"} | extra), host, schema, port)
    with contextlib.suppress(WasslyConfigError):
        WasslyClient(**ConnectionSettings.of(stored).client)
