from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_wassly.hooks.wassly import WasslyHook
from airflow_provider_wassly.sandbox import Sandbox
from tests.integration.sandbox.wire import (
    BOUNDARY,
    CREDENTIALS,
    DEVICES,
    INSTANCE,
    LOGIN,
    NUMBER,
    SEND,
    Wire,
    eventually,
    form,
    part,
    speaks_ipv6,
)

ACCOUNT = {"email": "sandbox@example.com", "password": "sandbox-password"}
KEY = {"apikey": "sandbox-apikey", "Accept": "application/json"}
FORM = {**CREDENTIALS, "Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def send(box: Sandbox, *files: bytes, **fields: str) -> requests.Response:
    return requests.post(box.url + SEND, headers=FORM, data=form(*files, **fields), timeout=10)


# The documented answers


def test_login_answers_as_documented(box: Sandbox) -> None:
    answer = requests.post(box.url + LOGIN, json=ACCOUNT, headers=KEY)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert (body.keys(), body["success"], body["message"]) == (
        {"success", "message", "data"},
        True,
        "Login Successfully",
    )
    assert list(body["data"]) == [
        "id",
        "name",
        "role_id",
        "client_id",
        "phone",
        "email",
        "location",
        "profile_image",
        "openai_api_key",
        "token",
    ]
    assert body["data"]["phone"].startswith("+")
    assert body["data"]["email"] == ACCOUNT["email"]
    used = requests.get(box.url + DEVICES, headers=KEY | {"Authorization": f"Bearer {body['data']['token']}"})
    assert used.status_code == 200


def test_the_device_list_answers_as_documented(box: Sandbox) -> None:
    answer = requests.get(box.url + DEVICES, headers=CREDENTIALS)
    assert answer.status_code == 200
    body = answer.json()
    assert (body.keys(), body["success"]) == ({"success", "devices"}, True)
    (device,) = body["devices"]
    assert list(device) == ["id", "name", "status", "lastActive", "instance_id"]
    assert (device["status"], device["instance_id"]) == ("connected", INSTANCE)
    assert device["lastActive"].endswith("Z")


def test_a_message_is_answered_as_documented(box: Sandbox) -> None:
    answer = send(box, message="Hello")
    assert answer.status_code == 200
    assert answer.json() == {
        "success": True,
        "message": "Message sent successfully",
        "data": {"message_type": "text", "conversation_id": 1, "remaining_conversations": 999},
    }


# Authentication


@pytest.mark.parametrize("method_and_path", [("GET", DEVICES), ("POST", SEND)])
@pytest.mark.parametrize(
    ("missing", "given_instead"),
    [
        ("apikey", None),
        ("apikey", "wrong"),
        ("Authorization", None),
        ("Authorization", "Bearer wrong"),
        ("Authorization", "Bearer"),
        ("Authorization", "Basic sandbox-token"),
        ("Authorization", "sandbox-token"),
    ],
)
def test_without_apikey_and_token_it_is_401(
    box: Sandbox, method_and_path: tuple[str, str], missing: str, given_instead: str | None
) -> None:
    method, path = method_and_path
    headers = {name: value for name, value in FORM.items() if name != missing}
    if given_instead is not None:
        headers[missing] = given_instead
    answer = requests.request(method, box.url + path, headers=headers, data=form(message="Hello"))
    assert answer.status_code == 401
    assert answer.json()["message"]
    assert box.messages == []


def test_without_a_token_a_browser_is_sent_to_the_login_page(box: Sandbox) -> None:
    answer = requests.get(box.url + DEVICES, headers={"apikey": "sandbox-apikey"}, allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (302, "/login")
    followed = requests.get(box.url + DEVICES, headers={"apikey": "sandbox-apikey"})
    assert (followed.status_code, followed.headers["Content-Type"]) == (200, "text/html; charset=utf-8")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"not JSON", 400),
        (b"[]", 400),
        (b"[" * 100_000, 400),
        (b"{}", 400),
        (json.dumps({"email": "sandbox@example.com"}).encode(), 400),
        (json.dumps(ACCOUNT | {"email": "sandbox"}).encode(), 400),
        (json.dumps(ACCOUNT | {"password": ""}).encode(), 400),
        (json.dumps(ACCOUNT | {"password": 5}).encode(), 400),
        (json.dumps(ACCOUNT | {"password": "wrong"}).encode(), 401),
        (json.dumps(ACCOUNT | {"email": "other@example.com"}).encode(), 401),
    ],
)
def test_a_bad_login_is_refused_with_the_documented_status(box: Sandbox, body: bytes, status: int) -> None:
    answer = requests.post(box.url + LOGIN, data=body, headers=KEY)
    assert answer.status_code == status
    assert answer.json()["message"]
    assert box.logins == 0


def test_a_login_needs_the_apikey(box: Sandbox) -> None:
    assert requests.post(box.url + LOGIN, json=ACCOUNT).status_code == 401


def test_expired_tokens_are_refused_and_a_new_login_helps(box: Sandbox) -> None:
    def with_token(token: str) -> int:
        return requests.get(box.url + DEVICES, headers=KEY | {"Authorization": f"Bearer {token}"}).status_code

    first = requests.post(box.url + LOGIN, json=ACCOUNT, headers=KEY).json()["data"]["token"]
    assert (with_token("sandbox-token"), with_token(first)) == (200, 200)
    box.expire_tokens()
    assert (with_token("sandbox-token"), with_token(first)) == (401, 401)
    second = requests.post(box.url + LOGIN, json=ACCOUNT, headers=KEY).json()["data"]["token"]
    assert (with_token(second), box.logins) == (200, 2)


@pytest.mark.parametrize(("method", "path"), [("GET", LOGIN), ("GET", SEND), ("POST", DEVICES), ("PUT", SEND)])
def test_another_method_is_405(box: Sandbox, method: str, path: str) -> None:
    assert requests.request(method, box.url + path, headers=CREDENTIALS).status_code == 405


# The fields of a message


@pytest.mark.parametrize(
    ("files", "fields", "wrong"),
    [
        ([], {}, "message"),
        ([], {"message": ""}, "message"),
        ([], {"message": "a", "contact_mobile_number": ""}, "contact_mobile_number"),
        ([], {"message": "a", "contact_mobile_number": "491701234567"}, "contact_mobile_number"),
        ([], {"message": "a", "contact_mobile_number": "+49 170 1234567"}, "contact_mobile_number"),
        ([], {"message": "a", "contact_mobile_number": "+1234567"}, "contact_mobile_number"),
        ([], {"message": "a", "contact_mobile_number": "+1234567890123456"}, "contact_mobile_number"),
        ([], {"message": "a", "contact_mobile_number": "+٤٩١٧٠١٢٣٤٥٦٧"}, "contact_mobile_number"),
        ([], {"message": "a", "instance_id": ""}, "instance_id"),
        ([], {"message": "a", "instance_id": "unknown"}, "instance_id"),
        ([], {"message": "a", "document": "a text"}, "document"),
        ([], {"message": "a", "media": "a text"}, "media"),
        ([part("document", b"", "empty.pdf")], {"message": "a"}, "document"),
        ([part("document", b"a", "")], {"message": "a"}, "document"),
        ([part("media", b"", "empty.png")], {}, "media"),
        ([part("message", b"a", "message.txt")], {}, "message"),
        ([part("contact_name", b"a", "name.txt")], {"message": "a"}, "contact_name"),
    ],
)
def test_a_wrong_field_is_named(box: Sandbox, files: list[bytes], fields: dict[str, str], wrong: str) -> None:
    answer = send(box, *files, **fields)
    assert answer.status_code == 422
    body = answer.json()
    assert body["success"] is False
    assert list(body["errors"]) == [wrong]
    assert body["errors"][wrong] == [body["message"]]
    assert wrong in body["message"]
    assert (box.messages, box.conversations) == ([], 1000)


@pytest.mark.parametrize("absent", ["contact_mobile_number", "instance_id"])
def test_a_required_field_that_is_absent_is_named(box: Sandbox, absent: str) -> None:
    body = form(message="a").replace(f'name="{absent}"'.encode(), b'name="other"')
    answer = requests.post(box.url + SEND, headers=FORM, data=body)
    assert (answer.status_code, list(answer.json()["errors"])) == (422, [absent])


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", json.dumps({"message": "a"}).encode()),
        ("application/x-www-form-urlencoded", b"message=a"),
        ("multipart/form-data", form(message="a")),
        ("multipart/form-data; boundary=other", form(message="a")),
        (f"multipart/form-data; boundary={BOUNDARY}", b"nonsense"),
    ],
)
def test_another_body_than_a_form_is_400(box: Sandbox, content_type: str, body: bytes) -> None:
    answer = requests.post(box.url + SEND, headers=CREDENTIALS | {"Content-Type": content_type}, data=body)
    assert answer.status_code == 400
    assert "multipart/form-data" in answer.json()["message"]


def test_a_message_is_kept_with_its_fields(box: Sandbox) -> None:
    send(box, message="مرحبا\n🙂", contact_name="ليلى")
    send(box, message="again", contact_mobile_number="+4917000000")
    send(box, message="third")
    first, second, third = box.messages
    assert (first.contact_mobile_number, first.contact_name, first.message) == (NUMBER, "ليلى", "مرحبا\n🙂")
    assert (first.instance_id, first.message_type, first.document, first.media) == (INSTANCE, "text", None, None)
    assert (second.contact_name, second.contact_mobile_number) == (None, "+4917000000")
    assert [message.id - first.id for message in box.messages] == [0, 1, 2]
    assert (first.conversation_id, second.conversation_id, third.conversation_id) == (1, 2, 1)
    assert first.received_at <= second.received_at


@pytest.mark.parametrize(
    ("fields", "message_type"), [(["document"], "document"), (["media"], "media"), (["document", "media"], "media")]
)
def test_attachments_are_kept_as_they_came(box: Sandbox, fields: list[str], message_type: str) -> None:
    content = random.Random(5).randbytes(3_000_000)
    files = [part(field, content + field.encode(), f"تقرير {field}.pdf", "application/pdf") for field in fields]
    assert send(box, *files).json()["data"]["message_type"] == message_type
    (message,) = box.messages
    assert (message.message, message.message_type) == (None, message_type)
    for field in ("document", "media"):
        kept = getattr(message, field)
        if field not in fields:
            assert kept is None
            continue
        expected = content + field.encode()
        assert (kept.field, kept.name, kept.content_type) == (field, f"تقرير {field}.pdf", "application/pdf")
        assert kept.size == len(expected)
        assert kept.sha256 == hashlib.sha256(expected).hexdigest()
        assert kept.bytes == expected


@pytest.mark.parametrize(
    "name", ["a b.pdf", "تقرير.pdf", "../../etc/passwd", "/etc/passwd", "..", "a;b.pdf", "%2e%2e%2f.pdf", "x" * 300]
)
def test_a_file_name_is_kept_and_leads_nowhere(box: Sandbox, name: str) -> None:
    assert send(box, part("document", b"content", name, "text/plain")).status_code == 200
    document = box.messages[0].document
    assert document is not None
    assert document.name == name
    assert document.path.parent.name.startswith("wassly-sandbox-")
    assert document.bytes == b"content"


def test_files_are_gone_when_the_sandbox_stops() -> None:
    with Sandbox() as box:
        send(box, part("document", b"content", "a.txt"))
        document = box.messages[0].document
        assert document is not None
        folder = document.path.parent
        assert folder.exists()
    assert not folder.exists()
    assert box.messages[0].document == document


# Quota and devices


def test_the_quota_counts_down_and_at_its_end_messages_are_rejected() -> None:
    with Sandbox(conversations=2) as box:
        answers = [send(box, message=str(number)).json() for number in range(3)]
        assert [answer["success"] for answer in answers] == [True, True, False]
        assert [answer["data"]["remaining_conversations"] for answer in answers[:2]] == [1, 0]
        assert "conversations" in answers[2]["message"]
        assert ([message.message for message in box.messages], box.conversations) == (["0", "1"], 0)
        box.conversations = 5
        assert send(box, message="more").json()["data"]["remaining_conversations"] == 4


def test_a_device_that_is_not_connected_sends_nothing(box: Sandbox) -> None:
    box.disconnect_device(INSTANCE)
    assert requests.get(box.url + DEVICES, headers=CREDENTIALS).json()["devices"][0]["status"] == "disconnected"
    answer = send(box, message="Hello")
    assert (answer.status_code, answer.json()["success"]) == (200, False)
    assert INSTANCE in answer.json()["message"]
    assert (box.messages, box.conversations) == ([], 1000)
    box.connect_device(INSTANCE)
    assert send(box, message="Hello").json()["success"] is True


# The Python API


IPV6 = pytest.param("::1", marks=pytest.mark.skipif(not speaks_ipv6(), reason="this machine has no ::1"))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", IPV6])
def test_its_connection_is_one_that_airflow_can_use(host: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    document = tmp_path / "تقرير.csv"
    document.write_text("a,b\n")
    with Sandbox(host, apikey="key; with %&?", password="p@ss:w/rd", devices=["one", "two"]) as box:
        monkeypatch.setenv("AIRFLOW_CONN_WASSLY_DEFAULT", box.connection)
        hook = WasslyHook()
        assert [device.instance_id for device in hook.list_devices()] == ["one", "two"]
        receipt = hook.send_message(contact_mobile_number=NUMBER, message="Hello", document=document)
        assert receipt.remaining_conversations == box.conversations == 999
        (message,) = box.messages
        assert (message.instance_id, message.message) == ("one", "Hello")
        assert message.document is not None
        assert (message.document.name, message.document.content_type) == ("تقرير.csv", "text/csv")
        assert [call.endpoint for call in box.calls] == ["login", "devices", "send"]


def test_a_call_is_noted_with_all_that_is_known_of_it(box: Sandbox) -> None:
    send(box, message="Hello")
    send(box, message="")
    first, second = box.calls
    assert (first.endpoint, first.status, first.fault) == ("send", 200, None)
    assert first.content_length == first.bytes_received == len(form(message="Hello"))
    assert first.finished_at is not None
    assert first.started_at <= first.finished_at <= second.started_at
    assert second.status == 422


@pytest.mark.realtime
def test_latency_passes_before_each_answer(box: Sandbox) -> None:
    box.latency = 1
    assert send(box, message="Hello").elapsed.total_seconds() >= 1
    assert requests.get(box.url + DEVICES, headers=CREDENTIALS).elapsed.total_seconds() >= 1
    box.latency = 0
    assert send(box, message="Hello").elapsed.total_seconds() < 1


def test_reset_forgets_all_that_happened(box: Sandbox) -> None:
    send(box, part("document", b"content", "a.txt"))
    document = box.messages[0].document
    assert document is not None
    box.expire_tokens()
    box.reset()
    assert (box.messages, box.calls, box.logins, box.conversations) == ([], [], 0, 1000)
    assert not document.path.exists()
    assert send(box, message="the first token is good again").json()["data"]["conversation_id"] == 1


def test_it_can_be_stopped_and_started_again() -> None:
    box = Sandbox()
    for _ in range(2):
        with box:
            assert send(box, message="Hello").status_code == 200
            with pytest.raises(RuntimeError, match="already running"):
                box.start()
        box.stop()
    assert len(box.messages) == 2


def test_two_sandboxes_know_nothing_of_each_other(box: Sandbox) -> None:
    with Sandbox(apikey="other") as other:
        send(box, message="Hello")
        assert send(other, message="Hello").status_code == 401
        assert (len(box.messages), other.messages) == (1, [])


def test_a_taken_port_is_named(box: Sandbox) -> None:
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {box.port}: "):
        Sandbox(port=box.port).start()


def test_it_stops_at_once_whatever_goes_on() -> None:
    box = Sandbox().start()
    assert box._server is not None
    box._server._uvicorn.config.timeout_graceful_shutdown = 60  # which is not needed
    box.fail_next("hang_after_accept")
    with Wire(box.host, box.port) as hanging, Wire(box.host, box.port) as sending:
        hanging.begin_form(len(form(message="a")))
        hanging.send(form(message="a"))
        sending.begin_form(10**9)
        sending.send(form())
        assert eventually(lambda: len(box.calls) == 2 and len(box.messages) == 1)
        stopping = threading.Thread(target=box.stop)
        stopping.start()
        stopping.join(30)
        assert not stopping.is_alive()
        assert hanging.answer().end in {"reset", "closed"}


# Unusual clients


def test_many_clients_at_once_lose_nothing_and_get_nothing_twice() -> None:
    clients, each = 32, 15
    content = random.Random(1).randbytes(200_000)

    def client(number: int) -> list[dict[str, Any]]:
        answers = []
        with requests.Session() as session:
            session.headers.update(FORM)
            for index in range(each):
                body = form(
                    part("document", content[index:], f"{number}-{index}.bin"),
                    message=f"{number}-{index}",
                    contact_mobile_number=f"+4917000{number:04}",
                )
                answers.append(session.post(box.url + SEND, data=body, timeout=30).json()["data"])
        return answers

    with Sandbox(conversations=clients * each) as box:
        with ThreadPoolExecutor(clients) as pool:
            answers = [answer for answers in pool.map(client, range(clients)) for answer in answers]
        assert box.conversations == 0
        assert sorted(answer["remaining_conversations"] for answer in answers) == list(range(clients * each))
        assert len({answer["conversation_id"] for answer in answers}) == clients
        assert [message.id for message in box.messages] == list(range(1, clients * each + 1))
        for message in box.messages:
            assert message.document is not None
            assert message.document.name == f"{message.message}.bin"
            index = int(message.document.name.partition("-")[2].partition(".")[0])
            assert message.document.sha256 == hashlib.sha256(content[index:]).hexdigest()


def test_a_form_that_comes_in_single_bytes_is_read(box: Sandbox) -> None:
    body = form(part("document", b"\r\n--wassly", "a.bin"), message="slow")
    with Wire(box.host, box.port) as wire:
        wire.begin_form(len(body))
        for position in range(len(body)):
            wire.send(body[position : position + 1])
        assert wire.answer().status == 200
    document = box.messages[0].document
    assert document is not None
    assert document.bytes == b"\r\n--wassly"


def test_a_client_that_goes_away_before_its_form_is_whole_has_sent_nothing(box: Sandbox) -> None:
    body = form(part("document", bytes(100_000), "a.bin"), message="half")
    for sent in (0, 1, 1000, len(body) // 2, len(body) - 1):
        with Wire(box.host, box.port) as wire:
            wire.begin_form(len(body))
            wire.send(body[:sent])
    assert eventually(lambda: len(box.calls) == 5 and all(call.finished_at for call in box.calls))
    assert [call.status for call in box.calls] == [None] * 5
    assert (box.messages, box.conversations) == ([], 1000)


def test_two_requests_that_come_at_once_are_answered_in_turn(box: Sandbox) -> None:
    with Wire(box.host, box.port) as wire:
        for text in ("first", "second"):
            wire.begin_form(len(form(message=text)))
            wire.send(form(message=text))
        answers = wire.answer().raw
        if answers.count(b"HTTP/1.1 ") == 1:
            answers += wire.answer().raw
        assert answers.count(b"HTTP/1.1 200 ") == 2
    assert [message.message for message in box.messages] == ["first", "second"]


BYTES = st.one_of(st.binary(max_size=40), st.text(max_size=20).map(lambda text: text.encode(errors="surrogatepass")))
CHARSETS = st.sampled_from(
    ["utf-8", "utf-16", "unicode_escape", "idna", "punycode", "hex", "rot13", "x", "undefined", "utf-7"]
)
QUOTED = BYTES.map(lambda value: value.replace(b"\r", b"").replace(b"\n", b""))


@st.composite
def strange_parts(draw: Callable[..., Any]) -> bytes:
    """Parts of a form with odd names, headers and content."""
    names = [b"message", b"contact_name", b"document", b"media", b"contact_mobile_number", b"instance_id"]
    parts = []
    for _ in range(draw(st.integers(1, 5))):
        head = b'Content-Disposition: form-data; name="' + draw(st.one_of(st.sampled_from(names), QUOTED)) + b'"'
        if draw(st.booleans()):
            head += b'; filename="' + draw(QUOTED) + b'"'
        if draw(st.booleans()):
            head += b"\r\nContent-Type: " + draw(st.one_of(st.just(b"text/html"), QUOTED))
        parts.append(b"--" + BOUNDARY.encode() + b"\r\n" + head + b"\r\n\r\n" + draw(BYTES) + b"\r\n")
    return b"".join(parts)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the codec unicode_escape
@settings(max_examples=300, deadline=None)
@given(
    parts=strange_parts(),
    rest=st.sampled_from([form(message="a"), form(), b"--", b""]),
    charset=st.sampled_from(["", "; charset=", "; charset*=", '; charset="']),
    name=CHARSETS,
)
def test_no_form_is_a_server_error(shared: Sandbox, parts: bytes, rest: bytes, charset: str, name: str) -> None:
    shared.reset()
    shared.conversations = 10
    content_type = FORM["Content-Type"] + charset + (name if charset else "")
    answer = requests.post(shared.url + SEND, headers=FORM | {"Content-Type": content_type}, data=parts + rest)
    assert answer.status_code in {200, 400, 422}
    answer.json()
    if answer.status_code == 200:
        shown = requests.get(f"{shared.url}/sandbox/messages/{shared.messages[-1].id}")
        assert shown.status_code == 200
        for field in ("document", "media"):
            if shown.json()[field]:
                download = requests.get(shared.url + shown.json()[field]["url"])
                assert (download.status_code, len(download.content)) == (200, shown.json()[field]["size"])
