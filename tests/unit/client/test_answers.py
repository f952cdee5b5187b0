from __future__ import annotations

import datetime
import email.utils
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from airflow_provider_wassly.client import (
    Device,
    SendReceipt,
    WasslyAuthError,
    WasslyError,
    WasslyOutcomeUnknown,
    WasslyRateLimited,
    WasslyRejected,
    WasslyUnavailable,
)
from airflow_provider_wassly.client._answers import Answer, read_devices, read_receipt, read_token

URL = "https://www.wassly.com/api/whatsapp-web-send-message"


def answer(
    status: int = 200, body: bytes | str | Any = b"", headers: dict[str, str] | None = None, whole: bool = True
) -> Answer:
    if isinstance(body, str):
        body = body.encode()
    elif not isinstance(body, bytes):
        body = json.dumps(body).encode()
    return Answer(status, CaseInsensitiveDict(headers or {}), body, URL, whole, lambda text: text)


def receipt(data: Any, **more: Any) -> SendReceipt:
    return read_receipt(answer(body={"success": True, "message": "Message sent successfully", "data": data, **more}))


def test_the_documented_answer() -> None:
    data = {"message_type": "media", "conversation_id": 2, "remaining_conversations": 40969}
    assert receipt(data) == SendReceipt("media", 2, 40969)


def test_numbers_as_texts_and_more_fields() -> None:
    data = {"message_type": "text", "conversation_id": " 2 ", "remaining_conversations": "40969", "new": [1]}
    assert receipt(data, more={"x": 1}) == SendReceipt("text", 2, 40969)


@pytest.mark.parametrize(
    ("value", "read"),
    [(5.0, 5), ("-3", -3), (0, 0), (None, None), (True, None), (5.5, None), ("many", None), ([], None), ({}, None)],
)
def test_a_remaining_quota_that_is_no_number_is_none(value: Any, read: int | None) -> None:
    assert receipt({"remaining_conversations": value}).remaining_conversations == read


def test_a_conversation_can_have_a_textual_id() -> None:
    assert receipt({"conversation_id": "c0ffee"}).conversation_id == "c0ffee"


@pytest.mark.parametrize("data", [None, [], "text", 5, [{"message_type": "text"}]])
def test_success_without_the_documented_data_was_accepted_all_the_same(data: Any) -> None:
    assert receipt(data) == SendReceipt(None, None, None)


@pytest.mark.parametrize("success", [True, 1, 1.0, "true", "True", " TRUE ", "1"])
def test_the_true_of_php(success: Any) -> None:
    assert read_receipt(answer(body={"success": success})) == SendReceipt(None, None, None)


@pytest.mark.parametrize("success", [False, 0, 0.0, "false", "0"])
def test_the_false_of_php(success: Any) -> None:
    with pytest.raises(WasslyRejected, match=r"success: false.*No quota") as caught:
        read_receipt(answer(body={"success": success, "message": "No quota"}))
    assert (caught.value.status, caught.value.reason, caught.value.may_pass) == (200, "No quota", True)


@pytest.mark.parametrize("success", [None, "", "perhaps", 2, -1, [], {}, [True], "null"])
def test_a_success_that_is_neither_is_unknown(success: Any) -> None:
    with pytest.raises(WasslyOutcomeUnknown):
        read_receipt(answer(body={"success": success}))


def test_a_success_that_came_before_the_request_was_whole_is_not_believed() -> None:
    with pytest.raises(WasslyOutcomeUnknown):
        read_receipt(answer(body={"success": True}, whole=False))


@pytest.mark.parametrize("status", [408, 460, 499, 500, 502, 503, 504, 302, 600])
def test_the_same_status_is_a_no_while_the_request_is_not_whole(status: int) -> None:
    with pytest.raises(WasslyOutcomeUnknown):
        read_receipt(answer(status))
    with pytest.raises(WasslyUnavailable):
        read_receipt(answer(status, whole=False))


def test_the_reasons_of_a_rejection() -> None:
    said = {"message": "The given data\nwas invalid.", "errors": {"instance_id": ["is invalid", "is gone"], "b": "x"}}
    with pytest.raises(WasslyRejected) as caught:
        read_receipt(answer(422, said))
    error = caught.value
    assert error.reason == "The given data was invalid."
    assert error.errors == {"instance_id": ["is invalid", "is gone"], "b": ["x"]}
    assert "instance_id: is invalid is gone" in str(error)
    assert not error.may_pass


def test_a_rejection_shows_the_page_that_came_instead_of_json() -> None:
    page = "<html>\n<h1>413 Too Large</h1>" + "x" * 9999
    with pytest.raises(WasslyRejected, match="413 Too Large") as caught:
        read_receipt(answer(413, page, {"Content-Type": "text/html"}))
    assert len(str(caught.value)) < 300


def test_what_the_service_says_is_one_line_of_whole_characters() -> None:
    with pytest.raises(WasslyRejected) as caught:
        read_receipt(answer(422, b'{"message": "a\\ud83d b\\u2028c\\u0000d", "errors": {"x\\ud800": ["\\ud800"]}}'))
    assert caught.value.reason == "a b c d"
    caught.value.summary.encode()
    repr(caught.value.errors).encode()


def nested(depth: int) -> bytes:
    return b'{"success": false, "message": ' + b"[" * depth + b"]" * depth + b"}"


def test_any_depth_of_nesting_can_be_read() -> None:
    for depth in range(1, 1100):
        for field in (b'"message"', b'"errors"', b'"errors": {"x"'):
            body = nested(depth).replace(b'"message"', field)
            if field.endswith(b'{"x"'):
                body += b"}"
            with pytest.raises(WasslyError):
                read_receipt(answer(200, body))


@pytest.mark.parametrize(
    ("status", "location", "error"),
    [
        (302, "/login", WasslyAuthError),
        (302, "https://www.wassly.com/login?next=%2F", WasslyAuthError),
        (303, "https://www.wassly.com/en/sign-in", WasslyAuthError),
        (307, "https://auth.wassly.com/", WasslyAuthError),
        (301, "https://wassly.com/api/whatsapp-web-send-message", WasslyRejected),
        (302, "https://wassly.com/api/whatsapp-web-send-message/", WasslyRejected),
        (301, "/anywhere", WasslyRejected),
        (307, "/anywhere", WasslyRejected),
        (308, "/anywhere", WasslyRejected),
        (301, "http://[::1", WasslyRejected),
        (302, "/", WasslyOutcomeUnknown),
        (302, "/loginname", WasslyOutcomeUnknown),
        (302, "/dashboard?after=/login", WasslyOutcomeUnknown),
        (302, "http://[::1", WasslyOutcomeUnknown),
        (302, "", WasslyOutcomeUnknown),
        (303, "/messages/2", WasslyOutcomeUnknown),
        (304, "", WasslyOutcomeUnknown),
    ],
)
def test_redirects(status: int, location: str, error: type[WasslyError]) -> None:
    with pytest.raises(WasslyError) as caught:
        read_receipt(answer(status, "", {"Location": location} if location else {}))
    assert type(caught.value) is error
    assert "?" not in str(caught.value)
    if error is WasslyRejected:
        assert "not followed" in str(caught.value)


@pytest.mark.parametrize("secret", ["login", "whatsapp-web-send-message", "api"])
def test_a_redirect_is_judged_by_where_it_points_and_not_by_what_is_shown(secret: str) -> None:
    def judged(location: str) -> WasslyError:
        headers = CaseInsensitiveDict({"Location": location})
        with pytest.raises(WasslyError) as caught:
            read_receipt(Answer(302, headers, b"", URL, True, lambda text: text.replace(secret, "***")))
        return caught.value

    to_login = judged("https://www.wassly.com/login")
    assert type(to_login) is WasslyAuthError
    elsewhere = judged("https://wassly.com/api/whatsapp-web-send-message")
    assert type(elsewhere) is WasslyRejected
    assert secret not in f"{to_login}{elsewhere}".replace("login page", "").replace("not authenticated", "")


@pytest.mark.parametrize(
    ("location", "error"),
    [
        (f"https://www.wassly.com/{'x' * 300}/login", WasslyAuthError),
        # The part that is cut off shows that this is a different address.
        (f"https://{'x' * 160}/api/whatsapp-web-send-message/{'y' * 300}", WasslyOutcomeUnknown),
    ],
)
def test_a_redirect_is_judged_to_its_end(location: str, error: type[WasslyError]) -> None:
    with pytest.raises(WasslyError) as caught:
        read_receipt(answer(302, "", {"Location": location}))
    assert type(caught.value) is error
    assert len(str(caught.value)) < 300


# Retry-After.


@given(
    text=st.one_of(st.text(), st.datetimes(timezones=st.timezones()).map(lambda at: email.utils.format_datetime(at)))
)
@example("Fri, 31 Dec 9999 23:59:59 -2359")
@example("Mon, 01 Jan 0001 00:00:00 +2359")
@example("Wed, 21 Oct 2015 07:28:00 GMT")
@example("9" * 400)
def test_any_wait_is_seconds_or_none(text: str) -> None:
    seconds = answer(429, headers={"Retry-After": text}).retry_after
    assert seconds is None or 0 <= seconds < 1e12


def test_a_date_without_a_zone_is_utc() -> None:
    then = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=1)
    text = then.strftime("%a, %d %b %Y %H:%M:%S -0000")
    assert answer(429, headers={"Retry-After": text}).retry_after == pytest.approx(60, abs=5)


def test_a_429_says_how_long() -> None:
    with pytest.raises(WasslyRateLimited, match="try again in 7 s"):
        read_receipt(answer(429, headers={"Retry-After": "7"}))


# Login and device list.


def test_of_a_login_only_the_token_is_kept() -> None:
    data = {"id": 2, "openai_api_key": "sk-secret", "token": "the-token", "email": "a@example.com"}
    assert read_token(answer(body={"success": True, "data": data})) == "the-token"


@pytest.mark.parametrize(
    "data", [None, [], {}, {"token": None}, {"token": ""}, {"token": 5}, {"token": "a\r\nb"}, {"token": "ä"}]
)
def test_a_login_without_a_usable_token_shows_nothing_of_its_answer(data: Any) -> None:
    if isinstance(data, dict):
        data = {**data, "openai_api_key": "sk-secret"}
    with pytest.raises(WasslyUnavailable) as caught:
        read_token(answer(body={"success": True, "data": data, "message": "sk-secret"}))
    assert "sk-secret" not in caught.value.summary


@pytest.mark.parametrize("status", [404, 405, 410])
@pytest.mark.parametrize("read", [read_token, read_devices])
def test_a_documented_call_that_is_not_there_is_about_the_address(read: Callable[[Answer], Any], status: int) -> None:
    with pytest.raises(WasslyRejected, match="correct the connection's host, port or schema") as caught:
        read(answer(status, {"message": "The route api/x could not be found."}))
    assert f"HTTP {status}, Wassly is not at {URL}" in str(caught.value)
    assert "The route api/x could not be found." in str(caught.value)
    assert not caught.value.may_pass


def test_a_redirect_of_the_login_to_another_address_is_about_the_address() -> None:
    with pytest.raises(WasslyRejected, match="correct the connection's host or schema"):
        read_token(answer(301, "", {"Location": "https://wassly.com/api/whatsapp-web-send-message"}))


def test_a_send_that_is_not_there_asks_for_the_host_unless_wassly_says_why() -> None:
    with pytest.raises(WasslyRejected, match=r"; check the connection's host$"):
        read_receipt(answer(404, "<html>Not Found</html>"))
    with pytest.raises(WasslyRejected) as caught:
        read_receipt(answer(404, {"message": "No such instance"}))
    assert "host" not in str(caught.value)


@pytest.mark.parametrize("status", [200, 400, 401, 403, 422])
def test_a_login_that_is_refused_is_an_auth_error(status: int) -> None:
    with pytest.raises(WasslyAuthError, match="Wrong password"):
        read_token(answer(status, {"success": False, "message": "Wrong password"}))


def test_the_documented_device_list() -> None:
    entry = {
        "id": "device_id_123",
        "name": "Chrome on Windows",
        "status": "connected",
        "lastActive": "2024-01-15T10:30:00Z",
        "instance_id": "14wdfwef",
    }
    [device] = read_devices(answer(body={"success": True, "devices": [entry]}))
    assert device == Device("device_id_123", "Chrome on Windows", "connected", "2024-01-15T10:30:00Z", "14wdfwef")
    assert device.is_connected


@pytest.mark.parametrize(
    ("status", "connected"),
    [
        ("connected", True),
        (" Connected ", True),
        ("disconnected", False),
        ("connecting", False),
        ("", False),
        (None, False),
    ],
)
def test_only_connected_is_connected(status: str | None, connected: bool) -> None:
    [device] = read_devices(answer(body={"success": True, "devices": [{"status": status}]}))
    assert device.is_connected is connected


def test_a_device_list_is_read_tolerantly() -> None:
    devices = read_devices(answer(body={"devices": [{"id": 7, "instance_id": 14, "name": None}, "nonsense", None]}))
    assert devices == [Device("7", None, None, None, "14")]


@pytest.mark.parametrize("body", [{}, {"devices": None}, {"devices": {"a": 1}}, {"data": []}, [], "<html>"])
def test_a_device_list_that_is_none(body: Any) -> None:
    with pytest.raises(WasslyUnavailable):
        read_devices(answer(body=body))


# Anything.

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                [
                    "success",
                    "message",
                    "data",
                    "errors",
                    "devices",
                    "token",
                    "conversation_id",
                    "message_type",
                    "remaining_conversations",
                    "status",
                    "instance_id",
                    "x",
                ]
            ),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=20,
)


@settings(max_examples=300)
@pytest.mark.parametrize("read", [read_receipt, read_devices, read_token])
@given(
    status=st.one_of(st.integers(100, 999), st.sampled_from([200, 200, 302, 401, 422, 429, 503])),
    body=st.one_of(st.binary(), JSON, JSON.map(lambda data: {"success": True, "data": data, "devices": [data]})),
    headers=st.dictionaries(st.sampled_from(["Location", "Retry-After", "Content-Type"]), st.text()),
    whole=st.booleans(),
)
def test_whatever_is_answered_it_is_read_or_one_of_the_errors(
    read: Callable[[Answer], Any], status: int, body: Any, headers: dict[str, str], whole: bool
) -> None:
    failed: WasslyError | None = None
    try:
        read(answer(status, body, headers, whole))
    except WasslyError as error:
        failed = error
    if failed is None:
        assert 200 <= status < 300
        assert whole or read is not read_receipt
        return
    pickle.loads(pickle.dumps(failed))
    failed.summary.encode()
    assert len(failed.summary.splitlines()) == 1
    if read is not read_receipt:
        assert failed.accepted is False
    elif failed.accepted is False and whole:
        assert 200 <= status < 500 or status == 503
