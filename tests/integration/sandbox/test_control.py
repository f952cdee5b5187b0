from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_wassly.sandbox import FAULTS, Sandbox
from tests.integration.sandbox.wire import BOUNDARY, CREDENTIALS, INSTANCE, NUMBER, SEND, Wire, form, part

FORM = {**CREDENTIALS, "Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
SHA256_OF_CONTENT = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"


def send(box: Sandbox, *files: bytes, **fields: str) -> requests.Response:
    return requests.post(box.url + SEND, headers=FORM, data=form(*files, **fields), timeout=10)


def control(box: Sandbox, method: str, path: str, **more: Any) -> requests.Response:
    return requests.request(method, f"{box.url}/sandbox/{path}", timeout=10, **more)


# What each path does


def test_messages_are_listed_with_all_that_is_known_of_them(box: Sandbox) -> None:
    send(box, message="Hello", contact_name="ليلى")
    send(
        box,
        part("document", b"content", "تقرير.pdf", "application/pdf"),
        part("media", b"picture", "a.png", "image/png"),
    )
    answer = control(box, "GET", "messages")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    first, second = answer.json()["messages"]
    number = box.messages[0].id
    assert answer.json()["more"] is False
    assert first == {
        "id": number,
        "contact_mobile_number": NUMBER,
        "contact_name": "ليلى",
        "message": "Hello",
        "instance_id": INSTANCE,
        "message_type": "text",
        "conversation_id": 1,
        "received_at": box.messages[0].received_at.isoformat(),
        "document": None,
        "media": None,
    }
    assert second["document"] == {
        "name": "تقرير.pdf",
        "content_type": "application/pdf",
        "size": 7,
        "sha256": SHA256_OF_CONTENT,
        "url": f"/sandbox/messages/{number + 1}/document",
    }
    assert second["media"]["name"] == "a.png"
    assert control(box, "GET", f"messages/{number + 1}").json() == second


def test_messages_come_in_pages(box: Sandbox) -> None:
    for text in "abcde":
        send(box, message=text)
    start = box.messages[0].id - 1
    seen, more, after = "", True, start
    while more:
        page = control(box, "GET", f"messages?after={after}&limit=2").json()
        assert len(page["messages"]) <= 2
        seen += "".join(message["message"] for message in page["messages"])
        more, after = page["more"], page["messages"][-1]["id"]
    assert seen == "abcde"
    assert control(box, "GET", f"messages?after={after}").json() == {"messages": [], "more": False}


@pytest.mark.parametrize(
    "name", ["plain.txt", "تقرير.pdf", 'a"b.txt', "../../etc/passwd", "a;b=c.txt", "x" * 300, "%0d%0aX-Bad: 1.txt"]
)
def test_a_file_is_a_download_with_its_name(box: Sandbox, name: str) -> None:
    escaped = name.replace('"', '\\"')
    send(box, part("document", b"content", escaped, "text/html"))
    answer = control(box, "GET", f"messages/{box.messages[0].id}/document")
    assert (answer.status_code, answer.content) == (200, b"content")
    assert answer.headers["Content-Type"].startswith("text/html")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    disposition = answer.headers["Content-Disposition"]
    assert disposition.startswith("attachment; ")
    assert disposition.endswith((f"utf-8''{quote(name)}", f"utf-8''{quote(name, safe='')}", f'filename="{name}"'))


@pytest.mark.parametrize("content_type", ["nonsense", "text/html, evil", "a/b\tc", "text/html; charset=utf-8"])
def test_an_odd_type_is_downloaded_as_bytes(box: Sandbox, content_type: str) -> None:
    send(box, part("document", b"content", "a.txt", content_type))
    answer = control(box, "GET", f"messages/{box.messages[0].id}/document")
    assert answer.headers["Content-Type"] == "application/octet-stream"


def test_messages_can_be_deleted(box: Sandbox) -> None:
    send(box, part("document", b"content", "a.txt"))
    document = box.messages[0].document
    assert document is not None
    answer = control(box, "DELETE", "messages")
    assert (answer.status_code, answer.content) == (204, b"")
    assert (box.messages, document.path.exists(), box.conversations) == ([], False, 999)


def test_a_file_that_is_gone_is_404() -> None:
    box = Sandbox()
    with box:
        send(box, part("document", b"content", "a.txt"))
    with box:
        answer = control(box, "GET", f"messages/{box.messages[0].id}/document")
        assert answer.status_code == 404
        assert "document" in answer.json()["message"]


def test_calls_are_listed(box: Sandbox) -> None:
    box.fail_next("http_500")
    send(box, message="Hello")
    (call,) = control(box, "GET", "calls").json()["calls"]
    noted = box.calls[0]
    assert noted.finished_at is not None
    assert call == {
        "endpoint": "send",
        "content_length": len(form(message="Hello")),
        "started_at": noted.started_at.isoformat(),
        "bytes_received": len(form(message="Hello")),
        "status": 500,
        "fault": "http_500",
        "finished_at": noted.finished_at.isoformat(),
    }


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_can_be_asked_for(box: Sandbox, fault: str) -> None:
    answer = control(box, "POST", "faults", json={"name": fault, "times": 2})
    assert answer.status_code == 201
    fields = {"id", "name", "times", "to", "endpoint", "record", "early", "retry_after", "share"}
    assert answer.json().keys() == fields
    assert (answer.json()["name"], answer.json()["times"]) == (fault, 2)
    listed = control(box, "GET", "faults").json()
    assert listed["faults"] == [answer.json()]
    assert listed["kinds"][fault]["does"] == FAULTS[fault].does
    assert [(waiting.name, waiting.times) for waiting in box.faults] == [(fault, 2)]
    assert control(box, "DELETE", "faults").status_code == 204
    assert box.faults == []


def test_a_fault_takes_all_its_fields(box: Sandbox) -> None:
    given = {"name": "http_429", "times": 1, "to": NUMBER, "endpoint": "send", "record": True, "retry_after": "7"}
    assert control(box, "POST", "faults", json=given).status_code == 201
    assert send(box, message="a", contact_mobile_number="+4917000000").status_code == 200
    struck = send(box, message="b")
    assert (struck.status_code, struck.headers["Retry-After"]) == (429, "7")
    assert [message.message for message in box.messages] == ["a", "b"]
    assert control(box, "POST", "faults", json={"name": "http_413", "early": True}).status_code == 201
    assert send(box, message="c").status_code == 413


def test_one_fault_of_several_is_dropped(box: Sandbox) -> None:
    ids = [control(box, "POST", "faults", json={"name": "http_500", "times": n}).json()["id"] for n in (1, 2, 3)]
    assert control(box, "DELETE", f"faults/{ids[1]}").status_code == 204
    assert [fault.times for fault in box.faults] == [1, 3]
    for gone in (ids[1], 0, "x", "9" * 30):
        answer = control(box, "DELETE", f"faults/{gone}")
        assert (answer.status_code, str(gone) in answer.json()["message"]) == (404, True)
    assert [fault.times for fault in box.faults] == [1, 3]


def test_contacts_come_with_their_newest_message_in_pages(box: Sandbox) -> None:
    for text, last_digit in zip("abcdef", "123415", strict=True):
        send(box, message=text, contact_mobile_number=NUMBER[:-1] + last_digit, contact_name=text.upper())
    seen, more, query = [], True, ""
    while more:
        page = control(box, "GET", f"contacts?limit=2{query}").json()
        seen += page["contacts"]
        more, query = page["more"], f"&before={page['contacts'][-1]['last']['id']}"
    assert [(one["contact_mobile_number"][-1], one["messages"]) for one in seen] == [
        ("5", 1), ("1", 2), ("4", 1), ("3", 1), ("2", 1)
    ]  # fmt: skip
    assert [one["last"]["message"] for one in seen] == list("fedcb")
    assert [one["contact_name"] for one in seen] == list("FEDCB")


def test_a_chat_is_read_backwards_in_pages(box: Sandbox) -> None:
    for place in range(9):
        send(box, message=str(place), contact_mobile_number=NUMBER[:-1] + str(place % 2))
    seen: list[str] = []
    more, before = True, 10**15
    while more:
        answer = control(box, "GET", "messages", params={"number": NUMBER[:-1] + "0", "before": before, "limit": 2})
        page = answer.json()["messages"]
        seen = [message["message"] for message in page] + seen
        more, before = answer.json()["more"], page[0]["id"]
    assert seen == ["0", "2", "4", "6", "8"]
    nobody = control(box, "GET", "messages", params={"number": "+4900000000"})
    assert nobody.json() == {"messages": [], "more": False}


def test_state_is_shown_and_set(box: Sandbox) -> None:
    send(box, message="Hello")
    state = control(box, "GET", "state").json()
    device = box.devices[0].as_json()
    expected = {
        "latency": 0,
        "conversations": 999,
        "first_conversations": 1000,
        "messages": 1,
        "last_message": box.messages[0].id,
        "max_messages": 10_000,
        "calls": 1,
        "logins": 0,
        "devices": [device],
    }
    assert state == expected
    answer = control(box, "PATCH", "state", json={"latency": 0.01, "conversations": 3})
    assert answer.json() == expected | {"latency": 0.01, "conversations": 3}
    assert (box.latency, box.conversations) == (0.01, 3)
    assert control(box, "PATCH", "state", json={"latency": 0}).json()["conversations"] == 3


def test_devices_can_be_disconnected_and_connected(box: Sandbox) -> None:
    answer = control(box, "POST", f"devices/{INSTANCE}/disconnect")
    assert answer.json()["devices"][0]["status"] == "disconnected"
    assert not box.devices[0].connected
    assert control(box, "POST", f"devices/{INSTANCE}/connect").json()["devices"][0]["status"] == "connected"
    assert box.devices[0].connected


def test_tokens_can_be_expired(box: Sandbox) -> None:
    assert control(box, "POST", "tokens/expire").status_code == 204
    assert send(box, message="Hello").status_code == 401


def test_all_can_be_reset(box: Sandbox) -> None:
    send(box, message="Hello")
    box.fail_next("http_500")
    box.latency = 0.01
    assert control(box, "POST", "reset").json()["messages"] == 0
    assert (box.messages, box.calls, box.faults, box.latency, box.conversations) == ([], [], [], 0, 1000)


# Bad input


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "named"),
    [
        ("GET", "messages?after=x", "", 422, "after"),
        ("GET", "messages?after=-1", "", 422, "after"),
        ("GET", "messages?after=1.5", "", 422, "after"),
        ("GET", "messages?after=" + "9" * 5000, "", 422, "after"),
        ("GET", "messages?limit=0", "", 422, "limit"),
        ("GET", "messages?limit=1001", "", 422, "limit"),
        ("GET", "messages?limit=", "", 422, "limit"),
        ("GET", "messages?limit=٣", "", 422, "limit"),
        ("GET", "messages?before=x", "", 422, "before"),
        ("GET", "contacts?before=-1", "", 422, "before"),
        ("GET", "contacts?limit=0", "", 422, "limit"),
        ("GET", "messages/0", "", 404, "no message 0"),
        ("GET", "messages/" + "9" * 30, "", 404, "no message 9"),
        ("GET", "messages/x", "", 404, "no message x"),
        ("GET", "messages/0/document", "", 404, "no message 0"),
        ("POST", "faults", "", 400, "JSON object"),
        ("POST", "faults", "[]", 400, "JSON object"),
        ("POST", "faults", "{", 400, "JSON object"),
        ("POST", "faults", "{}", 422, "name is required"),
        ("POST", "faults", '{"name": "nonsense"}', 422, "name: unknown fault 'nonsense'"),
        ("POST", "faults", '{"name": null}', 422, "name"),
        ("POST", "faults", '{"name": "http_500", "time": 2}', 422, "'time'; choose from early, endpoint, name"),
        ("POST", "faults", '{"name": "http_500", "times": 0}', 422, "times"),
        ("POST", "faults", '{"name": "http_500", "times": 1.5}', 422, "times"),
        ("POST", "faults", '{"name": "http_500", "share": 0}', 422, "share"),
        ("POST", "faults", '{"name": "http_500", "share": 1.1}', 422, "share"),
        ("POST", "faults", '{"name": "http_500", "share": NaN}', 422, "share"),
        ("POST", "faults", '{"name": "http_500", "share": "0.5"}', 422, "share"),
        ("POST", "faults", '{"name": "http_500", "to": "0170"}', 422, "to"),
        ("POST", "faults", '{"name": "http_500", "endpoint": "x"}', 422, "endpoint"),
        ("POST", "faults", '{"name": "http_500", "record": 1}', 422, "record"),
        ("POST", "faults", '{"name": "http_500", "early": "no"}', 422, "early"),
        ("POST", "faults", '{"name": "http_429", "retry_after": 1}', 422, "retry_after"),
        ("PATCH", "state", "", 400, "JSON object"),
        ("PATCH", "state", '{"latency": -1}', 422, "latency"),
        ("PATCH", "state", '{"latency": 1e999}', 422, "latency"),
        ("PATCH", "state", '{"latency": NaN}', 422, "latency"),
        ("PATCH", "state", '{"latency": "1"}', 422, "latency"),
        ("PATCH", "state", '{"latency": null}', 422, "latency"),
        ("PATCH", "state", '{"conversations": null, "latency": 1}', 422, "conversations"),
        ("PATCH", "state", '{"conversations": -1}', 422, "conversations"),
        ("PATCH", "state", '{"conversations": 1.0}', 422, "conversations"),
        ("PATCH", "state", '{"conversations": 5, "latency": -1}', 422, "latency"),
        ("PATCH", "state", '{"messages": 0}', 422, "'messages'; choose from conversations, latency"),
        ("POST", "devices/unknown/connect", "", 404, "unknown"),
        ("POST", f"devices/{INSTANCE}/destroy", "", 404, "destroy"),
        ("PUT", "state", "{}", 405, "Method Not Allowed"),
        ("GET", "reset", "", 405, "Method Not Allowed"),
        ("GET", "nonsense", "", 404, "Not Found"),
        ("GET", "", "", 404, "Not Found"),
        ("GET", "state/", "", 404, "Not Found"),
    ],
)
def test_bad_input_is_named_and_changes_nothing(
    box: Sandbox, method: str, path: str, body: str, status: int, named: str
) -> None:
    before = control(box, "GET", "state").json()
    answer = control(box, method, path, data=body.encode())
    assert answer.status_code == status
    assert named in answer.json()["message"]
    assert control(box, "GET", "state").json() == before
    assert box.faults == []


def test_a_message_without_a_file_has_none_to_download(box: Sandbox) -> None:
    send(box, message="Hello")
    for field in ("document", "media", "path", "message"):
        answer = control(box, "GET", f"messages/{box.messages[0].id}/{field}")
        assert answer.status_code == 404
        assert f"has no {field}" in answer.json()["message"]


@pytest.mark.parametrize("depth", [*range(940, 1000), 100_000])
def test_json_of_any_depth_is_bad_input(box: Sandbox, depth: int) -> None:
    nested = "[" * depth + "]" * depth
    assert control(box, "PATCH", "state", data=f'{{"latency": {nested}}}').status_code in {400, 422}
    assert control(box, "POST", "faults", data=f'{{"name": "http_500", "times": {nested}}}').status_code in {400, 422}


@pytest.mark.parametrize(
    "target",
    [
        "/sandbox/messages/1/../../../../etc/passwd",
        "/sandbox/messages/{id}/../../../../../etc/passwd",
        "/sandbox/messages/{id}/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/sandbox/messages/{id}/..",
        "/sandbox/messages/{id}/document/../../../../../etc/passwd",
        "/sandbox/messages/{id}/document%00",
        "/sandbox/messages/..%2f..%2f..%2fetc%2fpasswd/document",
        "/sandbox/../../../etc/passwd",
        "/../../../etc/passwd",
        "//etc/passwd",
    ],
)
def test_no_path_leads_to_other_files(box: Sandbox, target: str) -> None:
    send(box, part("document", b"content", "../../../../etc/passwd"))
    with Wire(box.host, box.port) as wire:
        wire.send(f"GET {target.format(id=box.messages[0].id)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        answer = wire.answer()
    assert answer.status == 404
    assert b"root:" not in answer.raw


# Access


def asked_as(box: Sandbox, host: str, *headers: str) -> int:
    """Ask for a reset with these headers; return the status."""
    with Wire(box.host, box.port) as wire:
        lines = [f"POST /sandbox/reset HTTP/1.1\r\nHost: {host}", *headers, "Content-Length: 0", "", ""]
        wire.send("\r\n".join(lines).encode())
        return wire.answer().status


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:{port}", "127.0.0.1:{port}", "[::1]:{port}", "127.0.0.1:1"])
def test_this_machine_may_use_it_by_every_name_of_its_own(box: Sandbox, host: str) -> None:
    assert asked_as(box, host.format(port=box.port)) == 200
    assert asked_as(box, host.format(port=box.port), f"Origin: http://{host.format(port=box.port)}") == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example:{port}",
        "10.0.0.1",
        "",
        "[",
        "[::1",
        "localhost@evil.example",
    ],
)
def test_another_name_that_leads_here_may_not(box: Sandbox, host: str) -> None:
    send(box, message="Hello")
    assert asked_as(box, host.format(port=box.port)) == 403
    assert len(box.messages) == 1


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "", "http://localhost:1", "https://127.0.0.1", "file://"]
)
def test_a_page_of_another_origin_may_not(box: Sandbox, origin: str) -> None:
    send(box, message="Hello")
    assert asked_as(box, f"127.0.0.1:{box.port}", f"Origin: {origin}") == 403
    assert len(box.messages) == 1


def test_with_allow_remote_other_names_may_and_other_origins_may_not() -> None:
    with Sandbox("0.0.0.0", allow_remote=True) as box:
        assert box.url == f"http://127.0.0.1:{box.port}"
        assert asked_as(box, "sandbox:8095") == 200
        assert asked_as(box, "sandbox:8095", "Origin: http://sandbox:8095") == 200
        assert asked_as(box, "sandbox:8095", "Origin: http://evil.example") == 403


# Anything else

WORDS = (
    "sandbox api page messages contacts faults state calls devices tokens expire reset connect document media login "
    "index.html 1 .."
)
SEGMENTS = st.one_of(
    st.sampled_from([*WORDS.split(), INSTANCE, "whatsapp-web-devices", "whatsapp-web-send-message"]),
    st.binary(max_size=8).map(quote),
)
PATHS = st.builds(
    "{}/{}{}".format,
    st.sampled_from(["", "/sandbox"]),
    st.lists(SEGMENTS, max_size=3).map("/".join),
    st.sampled_from(["", "/"]),
)
QUERIES = st.dictionaries(
    st.sampled_from(["after", "before", "limit", "number", "x"]),
    st.one_of(st.integers().map(str), st.binary().map(quote)),
)
NAMES = "name times share to endpoint record early retry_after latency conversations email password x"
LEAVES = [st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from([*FAULTS, "send"])]
VALUES = st.recursive(
    st.one_of(*LEAVES),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=5,
)
FIELDS = st.dictionaries(st.sampled_from(NAMES.split()), VALUES, max_size=4)
BODIES = st.one_of(
    FIELDS.map(lambda fields: json.dumps(fields).encode()),
    st.builds(lambda fields, name: json.dumps({**fields, "name": name}).encode(), FIELDS, st.sampled_from([*FAULTS])),
    st.binary(max_size=50),
)
HEADERS = st.dictionaries(
    st.sampled_from(["Host", "Origin", "Range", "If-Range", "Accept", "Content-Type", "Authorization", "apikey"]),
    st.one_of(
        st.sampled_from(["bytes=0-", "bytes=5-1,0-0", "multipart/form-data", "multipart/form-data; boundary=", "null"]),
        st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12),
    ),
    max_size=3,
)


@settings(max_examples=400, deadline=None)
@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS", "NONSENSE"]),
    path=PATHS,
    query=QUERIES,
    body=BODIES,
    headers=HEADERS,
)
def test_no_request_is_a_server_error(
    shared: Sandbox, method: str, path: str, query: dict[str, str], body: bytes, headers: dict[str, str]
) -> None:
    shared.reset()
    send(shared, part("document", b"content", "a.txt"))
    target = path + "?" + "&".join(f"{name}={value}" for name, value in query.items())
    lines = "".join(f"{name}: {value}\r\n" for name, value in ({"Host": "localhost", **CREDENTIALS} | headers).items())
    with Wire(shared.host, shared.port) as wire:
        start = f"{method} {target} HTTP/1.1\r\n{lines}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        wire.send(start.encode() + body)
        answer = wire.answer()
    assert 200 <= answer.status < 500
    if answer.status >= 400 and method != "HEAD" and "Range" not in headers:
        assert answer.json["message"]
