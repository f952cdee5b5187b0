from __future__ import annotations

import time

import pytest
import requests

from airflow_provider_wassly.client import (
    WasslyAuthError,
    WasslyDeviceDisconnected,
    WasslyOutcomeUnknown,
    WasslyRateLimited,
    WasslyRejected,
)
from airflow_provider_wassly.sandbox import FAULTS, Sandbox
from tests.browser.page import ANN, BEN, Page, send


def open_panel(page: Page) -> None:
    page.open()
    page.click("#chaos-button")
    page.wait(lambda: page.visible("#kinds li"))


def switch(page: Page, kind: str) -> None:
    button = page.find(f"[aria-labelledby=kind-{kind}]")
    before = button.get_attribute("aria-checked")
    page.js("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()
    page.wait(lambda: button.get_attribute("aria-checked") != before)


def test_all_failures_can_be_chosen_and_say_what_they_do(page: Page) -> None:
    open_panel(page)
    assert page.texts("#kinds code") == list(FAULTS)
    assert page.texts("#kinds .does") == [kind.does for kind in FAULTS.values()]


def test_a_switch_lets_the_next_call_fail(page: Page, box: Sandbox) -> None:
    open_panel(page)
    switch(page, "http_500")
    assert page.texts("#rules .details") == ["next send call"]
    assert page.text("#chaos-count") == "1"
    with pytest.raises(WasslyOutcomeUnknown):
        send(box, "Hello")
    page.wait(lambda: not page.visible("#rules li"))
    assert page.find("[aria-labelledby=kind-http_500]").get_attribute("aria-checked") == "false"
    send(box, "Hello")


def test_a_switch_can_be_for_several_calls_and_one_number(page: Page, box: Sandbox) -> None:
    open_panel(page)
    page.fill("#times", "2")
    page.fill("#to", ANN)
    switch(page, "rejected")
    send(box, "Hello", to=BEN)
    with pytest.raises(WasslyRejected):
        send(box, "Hello", to=ANN)
    page.wait(lambda: page.texts("#rules .details") == [f"next send call, only to {ANN}"])


def test_a_switch_can_be_for_a_share_of_the_calls_of_another_endpoint(page: Page, box: Sandbox) -> None:
    open_panel(page)
    page.fill("#share", "100")
    page.find("#endpoint").send_keys("Login")
    switch(page, "http_429")
    (rule,) = box.faults
    assert (rule.name, rule.share, rule.times, rule.endpoint) == ("http_429", 1.0, None, "login")
    for _ in range(2):
        assert requests.post(f"{box.url}/api/login", timeout=10).status_code == 429
    assert page.texts("#rules .details") == ["100% of login calls"]


def test_switching_off_removes_the_rule(page: Page, box: Sandbox) -> None:
    open_panel(page)
    switch(page, "http_429")
    with pytest.raises(WasslyRateLimited):
        send(box, "Hello")
    page.wait(lambda: not page.visible("#rules li"))
    switch(page, "http_429")
    switch(page, "http_429")
    assert box.faults == []
    send(box, "Hello")


def test_rules_are_removed_one_by_one_or_all(page: Page, box: Sandbox) -> None:
    for name in ("http_500", "http_429", "rejected"):
        box.fail_next(name)
    open_panel(page)
    page.wait(lambda: page.texts("#rules code") == ["http_500", "http_429", "rejected"])
    page.click("#rules li:nth-child(2) button")
    page.wait(lambda: page.texts("#rules code") == ["http_500", "rejected"])
    assert [fault.name for fault in box.faults] == ["http_500", "rejected"]
    page.click("#rules-clear")
    page.wait(lambda: not page.visible("#rules-section"))
    assert box.faults == []


def test_what_cannot_be_asked_for_says_why(page: Page) -> None:
    open_panel(page)
    page.fill("#to", ANN)
    early = page.find("[aria-labelledby=kind-reset_before_body]")
    assert not early.is_enabled()
    assert "Acts before the recipient is known" in page.text("#kinds li:has(#kind-reset_before_body)")
    page.fill("#to", " ")
    page.wait(early.is_enabled)


def test_an_error_of_the_api_is_shown(page: Page, box: Sandbox) -> None:
    open_panel(page)
    page.fill("#times", "0")
    page.click("[aria-labelledby=kind-http_500]")
    page.wait(lambda: "times" in page.text("#panel-error"))
    page.fill("#latency", "-1")
    page.click("#latency-form button")
    page.wait(lambda: "latency" in page.text("#panel-error"))
    page.fill("#latency", "0.1")
    page.click("#latency-form button")
    page.wait(lambda: not page.text("#panel-error"))
    assert (box.latency, box.faults) == (0.1, [])


def test_the_quota_can_be_set_and_topped_up(page: Page, box: Sandbox) -> None:
    open_panel(page)
    page.click("#quota-none")
    page.wait(lambda: page.text("#gauge-text") == "0")
    with pytest.raises(WasslyRejected):
        send(box, "Hello")
    for amount, remaining in ((10, 10), (100, 110)):
        page.click(f"[data-top-up='{amount}']")
        page.wait(lambda remaining=remaining: page.text("#gauge-text") == str(remaining))  # type: ignore[misc]
    page.fill("#quota", "42")
    page.click("#quota-form > .button")
    page.wait(lambda: page.text("#gauge-text") == "42")
    send(box, "Hello")
    assert box.conversations == 41


@pytest.mark.realtime
def test_latency_slows_the_next_call(page: Page, box: Sandbox) -> None:
    open_panel(page)
    page.fill("#latency", "0.7")
    page.click("#latency-form button")
    page.wait(lambda: page.text("#latency-fact") == "Latency 0.7 s")
    began = time.monotonic()
    send(box, "Hello")
    assert time.monotonic() - began >= 0.7


def test_a_device_is_disconnected_and_connected(page: Page, box: Sandbox) -> None:
    open_panel(page)
    page.click("#device-rows button")
    page.wait(lambda: page.text("#device-rows button") == "Connect")
    with pytest.raises(WasslyDeviceDisconnected):
        send(box, "Hello")
    page.click("#device-rows button")
    page.wait(lambda: page.text("#device-rows button") == "Disconnect")
    send(box, "Hello")


def test_tokens_expire(page: Page, box: Sandbox) -> None:
    open_panel(page)
    page.click("#tokens-expire")
    page.wait(lambda: page.text("#tokens-expire") == "Expired")
    with pytest.raises(WasslyAuthError):
        send(box, "Hello")


def test_deleting_and_resetting_need_a_second_click(page: Page, box: Sandbox) -> None:
    send(box, "Hello")
    box.fail_next("http_500")
    open_panel(page)
    page.click("#messages-delete")
    assert page.text("#messages-delete") == "Really delete?"
    assert len(box.messages) == 1
    page.click("#messages-delete")
    page.wait(lambda: page.visible("#welcome"))
    assert (box.messages, len(box.faults)) == ([], 1)
    page.click("#reset")
    page.click("#reset")
    page.wait(lambda: not page.visible("#rules li"))
    assert (box.faults, box.conversations) == ([], 1000)
