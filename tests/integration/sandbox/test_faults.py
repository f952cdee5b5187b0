"""What each fault does on the wire, seen by a client that works with raw bytes."""

from __future__ import annotations

import json
import threading

import pytest
import requests

from airflow_provider_wassly.sandbox import FAULTS, Sandbox
from tests.integration.sandbox.wire import (
    BOUNDARY,
    CREDENTIALS,
    DEVICES,
    INSTANCE,
    LOGIN,
    NUMBER,
    SEND,
    Answer,
    Wire,
    eventually,
    form,
    part,
)

OTHER = "+4917099999"
LARGE = 64 * 2**20
"""More than any socket buffer takes."""


def exchange(box: Sandbox, *files: bytes, patience: float = 20, end_within: float = 0.03, **fields: str) -> Answer:
    """Make one send call on a separate connection."""
    body = form(*files, **({"message": "Hello"} | fields))
    with Wire(box.host, box.port) as wire:
        wire.begin_form(len(body), body)
        return wire.answer(patience, end_within)


def patience_with(fault: str) -> float:
    """Seconds to wait for an answer: few if none will come, otherwise enough for a loaded machine."""
    return 0.2 if fault.startswith("hang") else 20


def begin(box: Sandbox, length: int) -> Wire:
    """Start a send call; the body follows later."""
    wire = Wire(box.host, box.port)
    wire.begin_form(length)
    return wire


# Answers


@pytest.mark.parametrize(
    ("fault", "status", "content_type"),
    [
        ("http_500", 500, "application/json"),
        ("http_502_html", 502, "text/html; charset=utf-8"),
        ("http_413", 413, "text/html; charset=utf-8"),
        ("http_429", 429, "application/json"),
        ("unauthorized", 401, "application/json"),
        ("token_expired", 401, "application/json"),
        ("redirect_to_login", 302, "text/html; charset=utf-8"),
        ("rejected", 200, "application/json"),
        ("device_disconnected", 200, "application/json"),
        ("maintenance", 503, "application/json"),
    ],
)
def test_an_error_answer_is_whole_and_nothing_is_recorded(
    box: Sandbox, fault: str, status: int, content_type: str
) -> None:
    box.fail_next(fault)
    answer = exchange(box)
    assert (answer.status, answer.headers["Content-Type"], answer.end) == (status, content_type, "silent")
    assert len(answer.body) == int(answer.headers["Content-Length"]) > 0
    if content_type == "application/json":
        assert answer.json["message"]
        assert answer.json.get("success", False) is False
    assert (box.messages, box.conversations, box.faults) == ([], 1000, [])
    assert (box.calls[0].fault, box.calls[0].status) == (fault, status)
    assert box.calls[0].bytes_received == box.calls[0].content_length


@pytest.mark.parametrize("fault", ["http_429", "maintenance"])
@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        (None, "1"),
        ("30", "30"),
        ("Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 21 Oct 2026 07:28:00 GMT"),
        ("soon", "soon"),
        ("", None),
    ],
)
def test_retry_after_is_what_was_asked_for(box: Sandbox, fault: str, asked: str | None, sent: str | None) -> None:
    box.fail_next(fault, retry_after=asked)
    assert exchange(box).headers["Retry-After"] == sent


def test_a_redirect_leads_to_the_login_page(box: Sandbox) -> None:
    box.fail_next("redirect_to_login")
    assert exchange(box).headers["Location"] == "/login"


def test_after_token_expired_only_a_new_login_helps(box: Sandbox) -> None:
    box.fail_next("token_expired")
    assert [exchange(box).status for _ in range(2)] == [401, 401]
    assert [call.fault for call in box.calls] == ["token_expired", None]


def test_after_device_disconnected_the_device_list_says_so(box: Sandbox) -> None:
    box.fail_next("device_disconnected")
    assert INSTANCE in exchange(box).json["message"]
    assert [device.connected for device in box.devices] == [False]
    assert exchange(box).json["success"] is False


def test_a_device_that_nobody_knows_can_be_called_disconnected_too(box: Sandbox) -> None:
    box.fail_next("device_disconnected")
    assert exchange(box, instance_id="unknown").json["success"] is False


def test_not_json_is_a_page_with_status_200_and_the_message_is_recorded(box: Sandbox) -> None:
    box.fail_next("not_json")
    answer = exchange(box)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert answer.body.startswith(b"<html>")
    assert len(box.messages) == 1


@pytest.mark.parametrize("record", [True, False])
def test_truncated_json_is_half_of_the_answer_and_says_so_in_its_length(box: Sandbox, record: bool) -> None:
    box.fail_next("truncated_json", record=record)
    answer = exchange(box)
    assert (answer.status, answer.end) == (200, "silent")
    assert len(answer.body) == int(answer.headers["Content-Length"])
    assert answer.body.startswith(b'{"success": true')
    with pytest.raises(ValueError, match="line 1"):
        json.loads(answer.body)
    assert len(box.messages) == record


@pytest.mark.parametrize("record", [True, False])
def test_short_body_is_half_of_what_its_length_announces_and_then_the_end(box: Sandbox, record: bool) -> None:
    box.fail_next("short_body", record=record)
    answer = exchange(box)
    assert (answer.status, answer.end) == (200, "closed")
    assert len(answer.body) == int(answer.headers["Content-Length"]) // 2
    assert len(box.messages) == record


def test_drops_attachment_accepts_the_message_without_its_file(box: Sandbox) -> None:
    box.fail_next("drops_attachment", times=2)
    for message in ("see attached", ""):
        answer = exchange(box, part("document", b"content", "a.pdf"), message=message)
        assert (answer.status, answer.json["success"], answer.json["data"]["message_type"]) == (200, True, "text")
    first, second = box.messages
    assert (first.message, first.document, first.message_type) == ("see attached", None, "text")
    assert (second.document, second.media) == (None, None)


def test_close_idle_answers_and_closes_a_moment_later_unannounced(box: Sandbox) -> None:
    box.fail_next("close_idle")
    answer = exchange(box, end_within=5)
    assert (answer.status, answer.json["success"], answer.end) == (200, True, "closed")
    assert answer.headers["Connection"] is None
    assert len(box.messages) == 1


@pytest.mark.parametrize("fault", [name for name, kind in FAULTS.items() if kind.reads == "all" and not kind.records])
def test_what_is_not_recorded_can_be_asked_to_be(box: Sandbox, fault: str) -> None:
    box.fail_next(fault, record=True)
    exchange(box)
    assert [message.message for message in box.messages] == ["Hello"]


@pytest.mark.parametrize("fault", [name for name, kind in FAULTS.items() if kind.records and not kind.answers_normally])
def test_what_is_recorded_can_be_asked_not_to_be(box: Sandbox, fault: str) -> None:
    box.fail_next(fault, record=False)
    exchange(box, patience=patience_with(fault))
    assert eventually(lambda: box.calls and box.calls[0].fault == fault)
    assert (box.messages, box.conversations) == ([], 1000)


def test_a_fault_records_no_message_that_would_have_been_refused(box: Sandbox) -> None:
    for fault, kind in FAULTS.items():
        if kind.records:
            box.fail_next(fault)
            exchange(box, message="", patience=patience_with(fault))
            assert eventually(lambda: not box.faults)
    assert box.messages == []


# Early answers


@pytest.mark.parametrize("fault", [name for name, kind in FAULTS.items() if kind.can_be_early])
def test_an_early_answer_comes_before_the_body_and_ends_the_connection(box: Sandbox, fault: str) -> None:
    box.fail_next(fault, early=True)
    with begin(box, 1000) as wire:
        answer = wire.answer(end_within=5)
    assert (answer.headers["Connection"], answer.end) == ("close", "closed")
    assert len(answer.body) == int(answer.headers["Content-Length"]) > 0
    assert (box.calls[0].bytes_received, box.calls[0].fault, box.messages) == (0, fault, [])


def test_an_early_answer_can_be_read_by_a_client_that_is_still_sending(box: Sandbox) -> None:
    box.fail_next("http_413", early=True)
    with begin(box, LARGE) as wire:
        with pytest.raises(ConnectionError):
            wire.takes_all(LARGE)
        assert wire.answer().status == 413


@pytest.mark.parametrize("fault", [name for name, kind in FAULTS.items() if kind.can_be_early])
def test_without_early_the_answer_waits_for_the_whole_body(box: Sandbox, fault: str) -> None:
    box.fail_next(fault)
    body = form(message="Hello")
    with begin(box, len(body)) as wire:
        wire.send(body[:-1])
        assert wire.answer(0.1) == Answer(b"", "silent")
        wire.send(body[-1:])
        assert wire.answer().status >= 200


# Silence


@pytest.mark.realtime
def test_hang_after_accept_records_the_message_and_never_answers(box: Sandbox) -> None:
    box.fail_next("hang_after_accept")
    body = form(message="Hello")
    with begin(box, len(body)) as wire:
        wire.send(body)
        assert eventually(lambda: box.messages)
        assert wire.answer(0.5) == Answer(b"", "silent")
        assert (len(box.messages), box.calls[0].finished_at) == (1, None)
    assert eventually(lambda: box.calls[0].finished_at)
    assert box.calls[0].status is None


@pytest.mark.realtime
@pytest.mark.parametrize(("fault", "least"), [("hang_before_body", 0), ("hang_mid_body", LARGE // 2)])
def test_a_hang_leaves_the_rest_of_the_body_unread(box: Sandbox, fault: str, least: int) -> None:
    box.fail_next(fault)
    with begin(box, LARGE) as wire:
        assert not wire.takes_all(LARGE, patience=2)
        assert wire.answer(0.1) == Answer(b"", "silent")
        assert least <= box.calls[0].bytes_received <= least + 2**20
    assert box.messages == []


@pytest.mark.realtime
def test_what_a_hang_leaves_unread_does_not_vanish_into_the_buffers_of_the_system(box: Sandbox) -> None:
    size = 256 * 2**20
    box.fail_next("hang_mid_body")
    with begin(box, size) as wire:
        # Half is read, and Linux has at most 4 MiB on the way out.
        assert size // 2 < wire.taken_within(1, size) < size // 2 + 6 * 2**20


@pytest.mark.parametrize("fault", ["hang_before_body", "hang_mid_body"])
def test_a_hang_can_be_had_with_a_small_body_too(box: Sandbox, fault: str) -> None:
    box.fail_next(fault)
    assert exchange(box, patience=0.3) == Answer(b"", "silent")
    assert box.messages == []


# Resets: with nothing left unread, only SO_LINGER causes a reset, so these are not accidental


def test_reset_before_body_is_a_reset_after_the_headers(box: Sandbox) -> None:
    box.fail_next("reset_before_body")
    with begin(box, 1000) as wire:
        assert wire.answer() == Answer(b"", "reset")
    assert (box.calls[0].bytes_received, box.calls[0].status, box.messages) == (0, None, [])


def test_reset_mid_body_is_a_reset_after_half_of_the_body(box: Sandbox) -> None:
    box.fail_next("reset_mid_body")
    with begin(box, 100_000) as wire:
        wire.send(bytes(49_000))
        assert wire.answer(0.2) == Answer(b"", "silent")
        wire.send(bytes(1_000))
        assert wire.answer() == Answer(b"", "reset")
    assert (box.calls[0].bytes_received, box.calls[0].status, box.messages) == (50_000, None, [])


def test_reset_after_body_is_a_reset_after_the_message_was_recorded(box: Sandbox) -> None:
    box.fail_next("reset_after_body")
    body = form(message="Hello")
    with begin(box, len(body)) as wire:
        wire.send(body[:-1])
        assert wire.answer(0.2) == Answer(b"", "silent")
        assert box.messages == []
        wire.send(body[-1:])
        assert wire.answer() == Answer(b"", "reset")
    assert [message.message for message in box.messages] == ["Hello"]
    assert (box.calls[0].bytes_received, box.calls[0].status) == (len(body), None)


@pytest.mark.parametrize("fault", ["reset_before_body", "reset_mid_body"])
def test_a_reset_strikes_a_client_that_is_sending(box: Sandbox, fault: str) -> None:
    box.fail_next(fault)
    with begin(box, LARGE) as wire, pytest.raises((ConnectionResetError, BrokenPipeError)):
        wire.takes_all(LARGE)
    assert box.messages == []


def test_a_reset_ends_its_own_connection_only(box: Sandbox) -> None:
    body = form(message="slow")
    with begin(box, len(body)) as other:
        other.send(body[:10])
        assert eventually(lambda: box.calls)
        box.fail_next("reset_before_body")
        assert exchange(box).end == "reset"
        other.send(body[10:])
        assert other.answer().status == 200


# Which calls are affected


def test_as_many_calls_are_struck_as_were_asked_for(box: Sandbox) -> None:
    box.fail_next("http_500", times=2)
    assert [exchange(box).status for _ in range(3)] == [500, 500, 200]


def test_faults_strike_in_the_order_in_which_they_were_asked_for(box: Sandbox) -> None:
    box.fail_next("http_429")
    box.fail_next("reset_before_body")
    box.fail_next("http_500", times=2)
    box.fail_next("http_413", early=True)
    answers = [exchange(box) for _ in range(6)]
    assert [answer.raw[9:12] for answer in answers] == [b"429", b"", b"500", b"500", b"413", b"200"]
    assert [answer.end for answer in answers[:2]] == ["silent", "reset"]


def test_a_fault_for_a_recipient_strikes_nobody_else(box: Sandbox) -> None:
    box.fail_next("http_500", to=OTHER)
    assert [exchange(box).status, exchange(box, contact_mobile_number=OTHER).status] == [200, 500]
    assert exchange(box, contact_mobile_number=OTHER).status == 200


def test_the_older_of_two_faults_strikes_whether_it_names_the_recipient_or_not(box: Sandbox) -> None:
    box.fail_next("http_500", to=OTHER)
    box.fail_next("http_429", times=2)
    box.fail_next("http_413", to=NUMBER)
    numbers = [NUMBER, OTHER, OTHER, NUMBER, OTHER]
    assert [exchange(box, contact_mobile_number=number).status for number in numbers] == [429, 500, 429, 413, 200]


def test_a_fault_that_does_not_wait_for_the_recipient_overtakes_those_that_do(box: Sandbox) -> None:
    box.fail_next("http_500", to=NUMBER)
    box.fail_next("http_413", early=True)
    assert [exchange(box).raw[9:12] for _ in range(3)] == [b"413", b"500", b"200"]


def test_a_fault_strikes_the_endpoint_it_was_asked_for(box: Sandbox) -> None:
    box.fail_next("http_500", endpoint="login")
    box.fail_next("maintenance", endpoint="devices")
    box.fail_next("http_429")
    account = {"email": "sandbox@example.com", "password": "sandbox-password"}
    for statuses in ([429, 503, 500], [200, 200, 200]):
        assert statuses == [
            exchange(box).status,
            requests.get(box.url + DEVICES, headers=CREDENTIALS).status_code,
            requests.post(box.url + LOGIN, headers=CREDENTIALS, json=account).status_code,
        ]


@pytest.mark.parametrize("endpoint", ["login", "devices"])
@pytest.mark.parametrize("fault", [name for name, kind in FAULTS.items() if not kind.only_send])
def test_every_fault_that_is_not_about_messages_strikes_the_other_endpoints_too(
    box: Sandbox, endpoint: str, fault: str
) -> None:
    box.fail_next(fault, endpoint=endpoint)
    account = json.dumps({"email": "sandbox@example.com", "password": "sandbox-password"}).encode()
    start, body = (f"POST {LOGIN}", account) if endpoint == "login" else (f"GET {DEVICES}", b"")
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    headers = "".join(f"{name}: {value}\r\n" for name, value in CREDENTIALS.items())
    with Wire(box.host, box.port) as wire:
        wire.send(f"{start} HTTP/1.1\r\nHost: localhost\r\n{headers}{length}\r\n".encode() + body)
        answer = wire.answer(patience_with(fault))
    kind = FAULTS[fault]
    assert eventually(lambda: box.calls and box.calls[0].fault == fault)
    if fault.startswith(("hang", "reset")):
        assert answer == Answer(b"", "silent" if fault.startswith("hang") else "reset")
    if endpoint == "login":
        assert eventually(lambda: box.logins == kind.records)


def test_each_of_many_clients_at_once_uses_up_one_fault_at_most(box: Sandbox) -> None:
    box.fail_next("http_500", times=10)
    box.fail_next("http_429", times=10, to=NUMBER)
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(exchange(box).status)) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] * 10 + [429] * 10 + [500] * 10
    assert (len(box.messages), box.faults) == (10, [])


@pytest.mark.realtime
def test_latency_and_a_fault_go_together(box: Sandbox) -> None:
    box.latency = 1
    box.fail_next("http_500")
    with begin(box, len(form(message="a"))) as wire:
        wire.send(form(message="a"))
        assert wire.answer(0.1) == Answer(b"", "silent")
        assert wire.answer().status == 500


def test_a_client_that_sends_its_form_in_chunks_is_struck_in_mid_body_too(box: Sandbox) -> None:
    box.fail_next("reset_mid_body")
    with Wire(box.host, box.port) as wire:
        headers = "".join(f"{name}: {value}\r\n" for name, value in CREDENTIALS.items())
        kind = f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nTransfer-Encoding: chunked\r\n"
        wire.send(f"POST {SEND} HTTP/1.1\r\nHost: localhost\r\n{headers}{kind}\r\n".encode())
        assert wire.answer(0.1) == Answer(b"", "silent")
        wire.send(b"5\r\n--was\r\n")
        assert wire.answer() == Answer(b"", "reset")


def test_no_fault_writes_to_the_log(box: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    for fault in FAULTS:
        box.fail_next(fault)
        exchange(box, patience=patience_with(fault))
    assert eventually(lambda: all(call.finished_at for call in box.calls))
    assert [record.getMessage() for record in caplog.records if record.name.startswith("uvicorn")] == []
