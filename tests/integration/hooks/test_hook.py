"""The hook against the sandbox."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import threading
from pathlib import Path

import pytest
from airflow.models.connection import Connection
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]

from airflow_provider_wassly.airflow_compat import object_storage
from airflow_provider_wassly.client import (
    Attachment,
    Device,
    MessageParameters,
    SendReceipt,
    WasslyAuthError,
    WasslyConfigError,
    WasslyDeviceDisconnected,
    WasslyError,
    WasslyInvalidMessage,
    WasslyOutcomeUnknown,
    WasslyRejected,
    WasslyUnavailable,
)
from airflow_provider_wassly.hooks.wassly import WasslyHook
from airflow_provider_wassly.sandbox import Sandbox
from tests.support.storages import attach

from .conftest import Connect

NUMBER = "+491701234567"


def test_a_text(wassly_default: Sandbox) -> None:
    receipt = WasslyHook().send_message(NUMBER, "Hello, مرحبا", contact_name="Ada")
    assert receipt == SendReceipt(
        message_type="text", conversation_id=receipt.conversation_id, remaining_conversations=999
    )
    (message,) = wassly_default.messages
    assert (message.contact_mobile_number, message.message, message.contact_name, message.instance_id) == (
        NUMBER,
        "Hello, مرحبا",
        "Ada",
        "sandbox-instance",
    )


def test_a_document_and_media_with_their_names(wassly_default: Sandbox, tmp_path: Path) -> None:
    content = b"%PDF" + bytes(range(256)) * 1000
    (tmp_path / "تقرير.pdf").write_bytes(content)
    (tmp_path / "x").write_bytes(b"\x89PNG")
    WasslyHook().send_message(NUMBER, document=tmp_path / "تقرير.pdf", media=str(tmp_path / "x"), media_name="logo.png")
    (message,) = wassly_default.messages
    assert message.document is not None
    assert message.media is not None
    assert (message.document.name, message.document.content_type, message.document.size) == (
        "تقرير.pdf",
        "application/pdf",
        len(content),
    )
    assert message.document.sha256 == hashlib.sha256(content).hexdigest()
    assert (message.media.name, message.media.content_type, message.media.size) == ("logo.png", "image/png", 4)


def test_files_of_an_object_storage_and_of_our_own_kind(connect: Connect, box: Sandbox) -> None:
    storage = MemoryFileSystem()
    attach("memory", None, storage)
    storage.store.clear()
    storage.pipe("/bucket/report.csv", b"a;b\n" * 100_000)
    hook = connect({"attachment_roots": "memory://bucket"})
    hook.send_message(NUMBER, document="memory://bucket/report.csv")
    hook.send_message(NUMBER, document=Attachment(name="own.csv", size=3, opener=lambda: io.BytesIO(b"a;b")))
    sent = [(file.name, file.sha256) for message in box.messages if (file := message.document)]
    assert sent == [
        ("report.csv", hashlib.sha256(b"a;b\n" * 100_000).hexdigest()),
        ("own.csv", hashlib.sha256(b"a;b").hexdigest()),
    ]


def test_the_instance_and_the_region_of_the_connection_and_of_the_call(connect: Connect, box: Sandbox) -> None:
    hook = connect({"instance_id": "nobody", "default_region": "DE"})
    hook.send_message("0170 1234567", "Hello", instance_id="sandbox-instance")
    assert box.messages[0].contact_mobile_number == NUMBER
    with pytest.raises(WasslyRejected, match="the account has no instance nobody; its instances: sandbox-instance"):
        hook.send_message(NUMBER, "Hello")
    assert len(box.messages) == 1


def test_where_no_instance_is_set_those_that_there_are_are_named_and_asked_for_once(
    connect: Connect, box: Sandbox
) -> None:
    hook = connect({"instance_id": None})
    for _ in range(3):
        with pytest.raises(WasslyInvalidMessage) as raised:
            hook.send_message(NUMBER, "Hello")
        assert str(raised.value) == (
            f"instance_id: not set. Set it in the extra of connection {hook.wassly_conn_id!r}, or in each task. "
            "The account's instances: sandbox-instance (connected)"
        )
    assert [call.endpoint for call in box.calls].count("devices") == 1
    box.fail_next("http_500", endpoint="devices", times=9)
    with pytest.raises(WasslyInvalidMessage, match=r"Wassly's device list shows the account's instances$"):
        connect({"instance_id": None}).send_message(NUMBER, "Hello")
    assert box.messages == []


def test_what_is_refused_makes_no_call(connect: Connect, box: Sandbox, tmp_path: Path) -> None:
    hook = connect({"allowed_recipients": ["+201012345678"], "attachment_roots": "/nowhere"})
    (tmp_path / "report.pdf").write_bytes(b"1")
    with pytest.raises(WasslyInvalidMessage, match=r"\+49…4567 is not in the connection's allowed_recipients"):
        hook.send_message(NUMBER, "Hello")
    with pytest.raises(WasslyInvalidMessage, match="is outside the connection's attachment_roots"):
        hook.send_message("+201012345678", document=tmp_path / "report.pdf")
    with pytest.raises(WasslyInvalidMessage, match="no such file"):
        connect().send_message(NUMBER, document=tmp_path / "missing.pdf")
    with pytest.raises(WasslyInvalidMessage, match="nothing to send"):
        connect().send_message(NUMBER, "  ")
    assert box.calls == []


def test_a_message_can_be_prepared_first(wassly_default: Sandbox) -> None:
    hook = WasslyHook()
    message = hook.prepare(MessageParameters(NUMBER, "Hello"))
    assert wassly_default.calls == []
    assert hook.send(message).message_type == "text"


def test_list_devices(wassly_default: Sandbox) -> None:
    (device,) = WasslyHook().list_devices()
    assert isinstance(device, Device)
    assert (device.instance_id, device.is_connected) == ("sandbox-instance", True)


@pytest.mark.realtime
def test_within_one_call_only_what_was_not_accepted_is_repeated(connect: Connect, box: Sandbox) -> None:
    box.fail_next("http_429", retry_after="0")
    connect().send_message(NUMBER, "one")
    assert [message.message for message in box.messages] == ["one"]
    box.fail_next("hang_after_accept")
    with pytest.raises(WasslyOutcomeUnknown):
        connect({"read_timeout": "0.3"}).send_message(NUMBER, "two")
    assert [message.message for message in box.messages] == ["one", "two"]


def test_a_disconnected_device(connect: Connect, box: Sandbox) -> None:
    box.disconnect_device("sandbox-instance")
    with pytest.raises(WasslyDeviceDisconnected, match="disconnected"):
        connect().send_message(NUMBER, "Hello")


@pytest.mark.realtime
def test_the_read_timeout_of_the_connection(connect: Connect, box: Sandbox) -> None:
    box.latency = 1
    with pytest.raises(WasslyUnavailable):
        connect({"read_timeout": "0.1"}).list_devices()


def test_a_given_token_is_used_first(connect: Connect, box: Sandbox) -> None:
    connect({"token": "sandbox-token"}).send_message(NUMBER, "Hello")
    connect({"token": "sandbox-token"}, login=None, password=None).send_message(NUMBER, "Hello")
    assert (len(box.messages), box.logins) == (2, 0)


def test_a_rejected_token_is_a_warning_even_when_the_login_helps(
    connect: Connect, box: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        connect({"token": "out-of-date"}).send_message(NUMBER, "Hello")
    said = "Wassly rejected the token of connection 'wassly_default' (HTTP 401); logging in instead. Renew or remove it"
    assert said in caplog.text
    assert "out-of-date" not in caplog.text
    assert (len(box.messages), box.logins) == (1, 1)


def test_a_rejected_token_without_a_login(connect: Connect, box: Sandbox) -> None:
    with pytest.raises(WasslyAuthError, match=r"HTTP 401.* \(connection 'wassly_default'\)"):
        connect({"token": "out-of-date"}, login=None, password=None).send_message(NUMBER, "Hello")
    assert box.messages == []


@pytest.mark.parametrize("call", ["list_devices", "send_message", "login"])
def test_an_auth_error_names_the_connection_once(connect: Connect, call: str) -> None:
    hook = connect(password="wrong")
    calls = {
        "list_devices": hook.list_devices,
        "send_message": lambda: hook.send_message(NUMBER, "Hello"),
        "login": hook.get_conn().login,
    }
    with pytest.raises(WasslyAuthError) as caught:
        calls[call]()
    assert caught.value.summary.count("connection 'wassly_default'") == 1


@pytest.mark.parametrize("password", ["sandbox-password ", "\tsandbox-password"])
def test_a_refused_password_that_may_be_pasted_with_white_space(connect: Connect, password: str) -> None:
    with pytest.raises(
        WasslyAuthError, match="; password starts or ends with white space: remove it unless it belongs to the password"
    ) as caught:
        connect(password=password).list_devices()
    assert "sandbox-password" not in caught.value.summary


def test_a_plus_in_a_uri_that_became_a_space_is_named_when_it_is_refused(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"wassly://me:pass-word@127.0.0.1:{box.port}/http?apikey=half+half&token=other+half"
    monkeypatch.setenv("AIRFLOW_CONN_WASSLY_DEFAULT", uri)
    with pytest.raises(WasslyAuthError) as caught:
        WasslyHook().list_devices()
    for name in ("apikey", "token"):
        assert f"; {name} contains a space (in a URI, write + as %2B)" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("token", '"secret-token"'),
        ("token", "Token secret-token"),
        ("apikey", "apikey: secret-key"),
        ("token", "Bearer"),
    ],
)
def test_a_secret_that_was_copied_with_more_is_named_when_it_is_refused(
    connect: Connect, name: str, value: str
) -> None:
    with pytest.raises(
        WasslyAuthError, match=f"; {name} seems to include quotes or a header name: remove them"
    ) as caught:
        connect({name: value}, **({"login": None, "password": None} if name == "token" else {})).list_devices()
    assert "secret" not in caught.value.summary


def test_a_token_that_only_begins_like_a_header_is_not_called_more_than_a_secret(connect: Connect) -> None:
    with pytest.raises(WasslyAuthError) as caught:
        connect({"token": "token-of-long-ago"}, login=None, password=None).list_devices()
    assert "seems to include" not in str(caught.value)


def test_a_line_break_after_the_password_is_none_of_it(connect: Connect) -> None:
    assert len(connect(password="sandbox-password\r\n").list_devices()) == 1


def test_an_api_at_the_end_of_the_base_url(connect: Connect, box: Sandbox) -> None:
    connect(host=f"{box.url}/api", schema=None, port=None).send_message(NUMBER, "Hello")
    assert len(box.messages) == 1


def test_a_host_that_is_not_wassly_is_not_about_the_credentials(connect: Connect, box: Sandbox) -> None:
    hook = connect(host=f"{box.url}/elsewhere", schema=None, port=None)
    with pytest.raises(
        WasslyRejected,
        match=r"HTTP 404, Wassly is not at .*/elsewhere/api/login; correct the connection's host, port or schema",
    ):
        hook.send_message(NUMBER, "Hello")


def test_what_the_libraries_below_reported_is_in_the_log_for_a_bug_report(
    connect: Connect, box: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "airflow_provider_wassly")
    box.fail_next("reset_after_body")
    with pytest.raises(WasslyOutcomeUnknown) as caught:
        connect({"token": "sandbox-token"}).send_message(NUMBER, "the-private-text")
    assert caught.value.__cause__ is None
    (trace,) = [record for record in caplog.records if "Traceback (most recent call last)" in record.getMessage()]
    assert trace.levelno == logging.DEBUG
    assert trace.getMessage().startswith("POST /api/whatsapp-web-send-message failed:\n")
    assert 'urllib3/connectionpool.py"' in trace.getMessage()
    assert "ConnectionResetError" in trace.getMessage()
    assert "the-private-text" not in caplog.text


@pytest.mark.parametrize("own_hooks", [False, True])
def test_many_threads_log_in_once(connect: Connect, box: Sandbox, own_hooks: bool) -> None:
    shared = connect()
    shared.get_conn()
    hooks = [WasslyHook() if own_hooks else shared for _ in range(20)]
    for hook in hooks:
        hook.get_conn()
    box.latency = 0.05
    barrier = threading.Barrier(20)

    def send(index: int) -> None:
        barrier.wait()
        hooks[index].send_message(NUMBER, str(index))

    for round_number in (1, 2):
        threads = [threading.Thread(target=send, args=(index,)) for index in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(box.messages), box.logins) == (20 * round_number, round_number)
        box.expire_tokens()


def test_connection_works(connect: Connect, box: Sandbox) -> None:
    assert connect().test_connection() == (True, "Connection works: 1 of 1 devices connected (sandbox-instance)")
    box.disconnect_device("sandbox-instance")
    said = "Connection works: 0 of 1 devices connected. sandbox-instance is disconnected"
    assert connect().test_connection() == (True, said)
    assert box.messages == []
    assert {call.endpoint for call in box.calls} == {"login", "devices"}


@pytest.mark.parametrize(
    ("instance", "said"),
    [
        ("nobody", "instance_id: the account has no instance 'nobody'; its instances: "),
        ("Sandbox-Instance", "instance_id: the account has no instance 'Sandbox-Instance'; its instances: "),
        (None, "instance_id: not set. Set it in the connection's extra, or in each task. The account's instances: "),
        (" ", "instance_id: not set. Set it in the connection's extra, or in each task. The account's instances: "),
    ],
)
def test_connection_names_the_instances_when_the_right_one_is_not_set(
    connect: Connect, box: Sandbox, monkeypatch: pytest.MonkeyPatch, instance: str | None, said: str
) -> None:
    assert connect({"instance_id": instance}).test_connection() == (False, f"{said}sandbox-instance (connected)")
    box.disconnect_device("sandbox-instance")
    assert connect({"instance_id": instance}).test_connection() == (False, f"{said}sandbox-instance (disconnected)")
    monkeypatch.setattr(WasslyHook, "list_devices", lambda hook: [])
    assert connect({"instance_id": instance}).test_connection() == (False, f"{said}none")


@pytest.mark.parametrize(
    ("extra", "fields", "reason"),
    [
        ({"apikey": "wrong"}, {}, "HTTP 401"),
        ({}, {"password": "wrong"}, "HTTP 401"),
        ({"token": "wrong"}, {"login": None, "password": None}, "HTTP 401"),
        ({"apikey": None}, {}, "Connection 'wassly_default', field apikey: missing in the extra"),
        ({"read_timeout": "soon"}, {}, "Connection 'wassly_default', field read_timeout: must be a number of seconds"),
        ({"apikey": "***"}, {}, "in place of a secret"),
        ({}, {"port": 1}, "onnection refused"),
        ({}, {"host": "wassly.example"}, "allow_http"),
    ],
)
def test_connection_says_what_is_wrong(
    connect: Connect, extra: dict[str, str], fields: dict[str, object], reason: str
) -> None:
    works, text = connect(extra, **fields).test_connection()
    assert not works
    assert reason in text
    assert "\n" not in text


@pytest.mark.parametrize("fault", ["http_500", "not_json", "truncated_json", "redirect_to_login", "reset_before_body"])
def test_connection_never_raises(connect: Connect, box: Sandbox, fault: str) -> None:
    box.fail_next(fault, times=3, endpoint="devices")
    works, text = connect().test_connection()
    assert not works
    assert text


def test_airflow_tests_a_connection_of_this_type(connect: Connect) -> None:
    connect()
    found = Connection(conn_id="wassly_default", conn_type="wassly")
    result = found.test_connection()  # type: ignore[no-untyped-call]
    assert result == (True, "Connection works: 1 of 1 devices connected (sandbox-instance)")


def test_the_connection_as_a_uri(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    values = json.loads(box.connection)
    query = "&".join(f"{name}={value}" for name, value in values["extra"].items())
    by_hand = f"wassly://sandbox%40example.com:sandbox-password@127.0.0.1:{box.port}/http?{query}&read_timeout=5"
    by_airflow = Connection(
        conn_id="any",
        conn_type="wassly",
        host=box.url,
        login=values["login"],
        password=values["password"],
        extra=json.dumps(values["extra"] | {"allowed_recipients": [NUMBER]}),
    ).get_uri()
    for uri in (by_hand, by_airflow):
        monkeypatch.setenv("AIRFLOW_CONN_WASSLY_DEFAULT", uri)
        WasslyHook().send_message(NUMBER, "Hello")
    assert len(box.messages) == 2


def test_a_path_object(wassly_default: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "a%20b.txt").write_bytes(b"12345")
    WasslyHook().send_message(NUMBER, document=object_storage.object_storage_path(f"file://{tmp_path}/a%20b.txt", None))
    (message,) = wassly_default.messages
    assert message.document is not None
    assert (message.document.name, message.document.bytes) == ("a%20b.txt", b"12345")


def test_a_connection_that_does_not_exist_is_a_config_error_that_names_it() -> None:
    with pytest.raises(WasslyConfigError, match="There is no connection 'no_such'; create it"):
        WasslyHook("no_such").list_devices()


def test_the_message_is_not_logged(wassly_default: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for fault in (None, "rejected", "http_500"):
        if fault:
            wassly_default.fail_next(fault)
        with contextlib.suppress(WasslyError):
            WasslyHook().send_message(NUMBER, "the-private-text", contact_name="the-name")
    ours = "\n".join(record.getMessage() for record in caplog.records if "airflow_provider_wassly" in record.name)
    assert f"{NUMBER[:3]}…{NUMBER[-4:]}" in ours
    for private in ("the-private-text", "the-name", NUMBER):
        assert private not in ours
