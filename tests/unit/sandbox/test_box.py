from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_wassly.sandbox import FAULTS, Sandbox


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost", "LOCALHOST"])
def test_a_loopback_host_needs_no_permission(host: str) -> None:
    assert Sandbox(host).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "sandbox", "localhost.example.com", ""])
def test_another_host_needs_permission(host: str) -> None:
    with pytest.raises(ValueError, match=r"^host: .*allow_remote"):
        Sandbox(host)
    Sandbox(host, allow_remote=True)


@pytest.mark.parametrize("name", ["apikey", "token", "email", "password"])
@pytest.mark.parametrize("value", ["", None, 5])
def test_credentials_are_texts_with_something_in_them(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be a non-empty string"):
        Sandbox(**{name: value})


@pytest.mark.parametrize("port", [-1, 65536, 70000, "8095", True])
def test_a_wrong_port_is_refused(port: Any) -> None:
    with pytest.raises(ValueError, match="port must be a whole number from 0 to 65535"):
        Sandbox(port=port)


@pytest.mark.parametrize("conversations", [-1, 1.5, "5", True, None])
def test_a_wrong_quota_is_refused(conversations: Any) -> None:
    with pytest.raises(ValueError, match="conversations must be an integer of 0 or more"):
        Sandbox(conversations=conversations)


@pytest.mark.parametrize(
    ("devices", "reason"),
    [
        ("sandbox-instance", " must be a list, not 'sandbox-instance'"),
        ([5], ": each must be an instance id or a mapping, not 5"),
        ([""], ": each needs an instance_id"),
        ([{"name": "Phone"}], ": each needs an instance_id"),
        ([{"instance_id": 5}], ": 'instance_id' must be a string, not 5"),
        ([{"instance_id": "a", "status": None}], ": 'status' must be a string, not None"),
        ([{"instance_id": "a", "last_active": "now"}], ": unknown key 'last_active'"),
        (["a", "a"], ": two have the same instance_id"),
    ],
)
def test_wrong_devices_are_refused(devices: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^devices{reason}$"):
        Sandbox(devices=devices)


def test_devices_are_what_was_given() -> None:
    box = Sandbox(devices=["first", {"instance_id": "second", "id": "7", "name": "Phone", "status": "disconnected"}])
    assert [device.instance_id for device in box.devices] == ["first", "second"]
    assert [device.connected for device in box.devices] == [True, False]
    assert box.devices[1].as_json() == {
        "id": "7",
        "name": "Phone",
        "status": "disconnected",
        "lastActive": box.devices[1].last_active,
        "instance_id": "second",
    }
    box.disconnect_device("first")
    box.connect_device("second")
    assert [device.connected for device in box.devices] == [False, True]
    with pytest.raises(ValueError, match="unknown device 'third'; known devices: first, second"):
        box.connect_device("third")


def test_there_is_no_port_before_the_start() -> None:
    with pytest.raises(RuntimeError, match="no port until it is started"):
        json.loads(Sandbox().connection)


def test_what_can_be_set_is_checked() -> None:
    box = Sandbox()
    box.latency, box.conversations = 0.2, 7
    with pytest.raises(ValueError, match="latency must be a number of seconds"):
        box.latency = -1
    with pytest.raises(ValueError, match="latency must be a number of seconds"):
        box.latency = float("nan")
    with pytest.raises(ValueError, match="conversations must be an integer of 0 or more"):
        box.conversations = -1
    assert (box.latency, box.conversations) == (0.2, 7)


def test_reset_is_as_at_the_start() -> None:
    box = Sandbox(conversations=5)
    box.latency, box.conversations = 1, 0
    box.disconnect_device("sandbox-instance")
    box.fail_next("http_500")
    box.reset()
    assert (box.latency, box.conversations, box.faults) == (0, 5, [])
    assert box.devices[0].connected


def test_every_fault_that_is_promised_is_there() -> None:
    assert FAULTS.keys() >= {
        "http_500",
        "http_502_html",
        "http_429",
        "unauthorized",
        "token_expired",
        "redirect_to_login",
        "rejected",
        "device_disconnected",
        "not_json",
        "truncated_json",
        "drops_attachment",
        "maintenance",
        "hang_after_accept",
        "reset_before_body",
        "reset_mid_body",
        "reset_after_body",
    }


def test_faults_wait_in_the_order_in_which_they_were_asked_for() -> None:
    box = Sandbox()
    for name in FAULTS:
        box.fail_next(name, times=2)
    assert [(fault.name, fault.times) for fault in box.faults] == [(name, 2) for name in FAULTS]
    box.clear_faults()
    assert box.faults == []


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"name": "nonsense"}, "name: unknown fault 'nonsense'; choose from http_500, "),
        ({"name": ["http_500"]}, "name: unknown fault"),
        ({"name": "http_500", "times": 0}, "times must be"),
        ({"name": "http_500", "times": "2"}, "times must be"),
        ({"name": "http_500", "times": True}, "times must be"),
        ({"name": "http_500", "endpoint": "logout"}, "endpoint must be one of login, devices, send"),
        ({"name": "http_500", "endpoint": []}, "endpoint must be one of"),
        ({"name": "drops_attachment", "endpoint": "login"}, "endpoint: drops_attachment applies only to the send"),
        ({"name": "http_500", "early": 1}, "early must be"),
        ({"name": "rejected", "early": True}, "early: rejected cannot answer before"),
        ({"name": "http_500", "to": "01701234567"}, r"to must be a \+ followed by 8 to 15 digits"),
        ({"name": "http_500", "to": 49}, r"to must be a \+ followed by 8 to 15 digits"),
        ({"name": "http_500", "to": "+491701234567\n"}, r"to must be a \+ followed by 8 to 15 digits"),
        ({"name": "http_500", "to": "+491701234567", "endpoint": "login"}, "to: calls to the login endpoint"),
        ({"name": "http_500", "to": "+491701234567", "early": True}, "to: http_500 with early acts before"),
        ({"name": "reset_mid_body", "to": "+491701234567"}, "to: reset_mid_body acts before"),
        ({"name": "http_500", "record": "yes"}, "record must be"),
        ({"name": "reset_before_body", "record": True}, "record: reset_before_body acts before"),
        ({"name": "http_500", "early": True, "record": True}, "record: http_500 acts before"),
        ({"name": "drops_attachment", "record": False}, "record: drops_attachment answers normally"),
        ({"name": "http_500", "retry_after": "5"}, "retry_after: http_500 does not send this header"),
        ({"name": "http_429", "retry_after": 5}, "retry_after must be"),
        ({"name": "http_429", "retry_after": "1\r\nX: y"}, "retry_after must be"),
    ],
)
def test_a_wrong_fault_is_refused_with_the_name_of_the_field(wrong: dict[str, Any], reason: str) -> None:
    box = Sandbox()
    with pytest.raises(ValueError, match=f"^{reason}"):
        box.fail_next(**wrong)
    assert box.faults == []
