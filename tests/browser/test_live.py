from __future__ import annotations

import pytest
import requests

from airflow_provider_wassly.sandbox import Sandbox
from tests.browser.page import ANN, BEN, Page, attached, send
from tests.browser.test_attachments import png


def test_a_message_shows_up_without_a_reload(page: Page, box: Sandbox) -> None:
    page.open()
    page.js("window.isTheSame = true")
    send(box, "Hello *Ann*", contact_name="Ann")
    page.wait(lambda: page.names() == ["Ann"])
    assert page.text("#contact-list .preview") == "Hello Ann"
    page.click("#contact-list a")
    page.wait(lambda: page.bubbles() == ["Hello Ann"])
    send(box, "Again")
    page.wait(lambda: page.bubbles() == ["Hello Ann", "Again"])
    assert page.js("return window.isTheSame") is True


def test_the_contact_of_the_newest_message_is_on_top(page: Page, box: Sandbox) -> None:
    send(box, "1", contact_name="Ann")
    send(box, "2", to=BEN, contact_name="Ben")
    page.open()
    page.wait(lambda: page.names() == ["Ben", "Ann"])
    send(box, "3", contact_name="Ann")
    page.wait(lambda: page.names() == ["Ann", "Ben"])
    assert page.texts("#contact-list .count") == ["2", "1"]
    assert "new" in page.find("#contact-list a").get_attribute("class").split()  # type: ignore[union-attr]


def test_before_the_first_message_the_page_says_how_to_send_one(page: Page, box: Sandbox) -> None:
    page.open()
    assert page.visible("#welcome")
    assert box.url in page.text("#connection")
    assert "AIRFLOW_CONN_WASSLY_DEFAULT" in page.text("#connection")
    send(box, "Hello")
    page.wait(lambda: not page.visible("#welcome"))


def test_the_end_of_a_chat_stays_in_sight(page: Page, box: Sandbox) -> None:
    for number in range(30):
        send(box, f"Message {number}")
    page.open(ANN)
    page.wait(lambda: len(page.bubbles()) == 30)
    send(box, "The last one")
    page.wait(lambda: page.bubbles()[-1] == "The last one")
    page.wait(lambda: at_end(page))
    assert not page.visible("#newer")


def test_a_picture_that_is_loaded_later_leaves_the_end_in_sight(page: Page, box: Sandbox) -> None:
    for number in range(30):
        send(box, f"Message {number}")
    page.open(ANN)
    page.wait(lambda: len(page.bubbles()) == 30)
    send(box, media=attached("chart.png", png(400, 300)))
    page.wait(lambda: page.js("return document.querySelector('.media img')?.clientHeight > 200"))
    page.wait(lambda: at_end(page))


def test_who_reads_further_up_is_told_of_new_messages_and_not_moved(page: Page, box: Sandbox) -> None:
    for number in range(30):
        send(box, f"Message {number}")
    page.open(ANN)
    page.js("document.getElementById('log').scrollTop = 300")
    page.wait(lambda: page.visible("#newer"))
    send(box, "The last one")
    page.wait(lambda: page.text("#newer") == "1 new message")
    assert page.js("return document.getElementById('log').scrollTop") == 300
    page.click("#newer")
    page.wait(lambda: at_end(page))
    page.wait(lambda: not page.visible("#newer"))


def test_the_address_holds_the_open_chat(page: Page, box: Sandbox) -> None:
    send(box, "To Ann", contact_name="Ann")
    send(box, "To Ben", to=BEN, contact_name="Ben")
    page.open()
    page.wait(lambda: len(page.names()) == 2)
    page.find_all("#contact-list a")[1].click()
    page.wait(lambda: page.bubbles() == ["To Ann"])
    assert page.driver.current_url == f"{box.url}/#{ANN}"
    page.driver.refresh()
    page.wait(lambda: page.bubbles() == ["To Ann"])
    assert page.text("#chat-name") == "Ann"


@pytest.mark.parametrize("way", ["DELETE messages", "POST reset"])
def test_messages_that_were_deleted_go_from_the_page(page: Page, box: Sandbox, way: str) -> None:
    send(box, "Hello")
    page.open(ANN)
    page.wait(lambda: page.bubbles() == ["Hello"])
    method, path = way.split()
    requests.request(method, f"{box.url}/sandbox/{path}", timeout=10)
    page.wait(lambda: page.visible("#welcome") and not page.names())
    send(box, "A new start")
    page.wait(lambda: page.bubbles() == ["A new start"])


def test_the_page_says_that_the_sandbox_is_gone_and_goes_on_when_it_is_back(page: Page) -> None:
    with Sandbox() as first:
        page.box = first
        send(first, "Before")
        page.open(ANN)
        page.wait(lambda: page.bubbles() == ["Before"])
        assert not page.visible("#offline")
    page.wait(lambda: page.visible("#offline"))
    with Sandbox(port=first.port) as second:
        send(second, "After")
        page.wait(lambda: page.bubbles() == ["After"])
        assert not page.visible("#offline")
        page.driver.get("about:blank")


def test_quota_and_devices_are_those_of_now(page: Page, box: Sandbox) -> None:
    page.open()
    assert (page.text("#gauge-text"), page.texts("#devices li")) == ("1,000", ["Sandbox phone connected"])
    box.conversations = 7
    box.disconnect_device("sandbox-instance")
    page.wait(lambda: page.text("#gauge-text") == "7")
    page.wait(lambda: page.texts("#devices li") == ["Sandbox phone disconnected"])
    assert page.js("return document.getElementById('gauge').value") == 7


def at_end(page: Page) -> bool:
    gap = page.js(
        "const log = document.getElementById('log'); return log.scrollHeight - log.scrollTop - log.clientHeight"
    )
    return bool(gap < 2)
