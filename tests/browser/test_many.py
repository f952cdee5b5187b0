"""Thousands of messages and contacts."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from airflow_provider_wassly.sandbox import Sandbox
from tests.browser.page import ANN, BEN, Page, send

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

IN_ONE_CHAT = 5000
CONTACTS = 5000
MOST_BUBBLES = 300
#: Seconds; an idle machine needs a tenth of it.
CEILING = 10


def post(url: str, pairs: list[tuple[str, str]]) -> None:
    """Send many messages over one connection."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    head = {
        "apikey": "sandbox-apikey",
        "Authorization": "Bearer sandbox-token",
        "Content-Type": "multipart/form-data; boundary=b",
    }
    for number, text in pairs:
        fields = {"contact_mobile_number": number, "instance_id": "sandbox-instance", "message": text}
        parts = [f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{fields[name]}\r\n' for name in fields]
        body = "".join(parts) + "--b--\r\n"
        connection.request("POST", "/api/whatsapp-web-send-message", body, head)
        answer = connection.getresponse()
        assert (answer.status, answer.read()[:15]) == (200, b'{"success": tru')
    connection.close()


def keep(box: Sandbox, number: str, text: str) -> None:
    """Store a message in the sandbox directly, which is faster than over HTTP."""
    box._store.accept(
        contact_mobile_number=number,
        contact_name=None,
        message=text,
        instance_id="sandbox-instance",
        document=None,
        media=None,
    )


@pytest.fixture(scope="module")
def many() -> Iterator[Sandbox]:
    """A sandbox with 10,000 messages: half in one chat, the other half to one contact each."""
    with Sandbox(conversations=10**6, max_messages=20_000) as box:
        for number in range(IN_ONE_CHAT):
            keep(box, ANN, f"Message {number}")
        for number in range(CONTACTS):
            keep(box, f"+4915{number:08}", f"To {number}")
        yield box


@pytest.fixture
def big(chromium: WebDriver, many: Sandbox) -> Iterator[Page]:
    """Its page. Tests must not send to the chat that other tests look at."""
    page = Page(chromium, many)
    yield page
    page.leave()


def bubbles(page: Page) -> int:
    return int(page.js("return document.querySelectorAll('.bubble').length"))


def rows(page: Page) -> int:
    return int(page.js("return document.querySelectorAll('#contact-list li').length"))


def newest_shown(page: Page) -> str:
    return str(page.js("return document.querySelector('#messages > li:last-child .text').innerText"))


def oldest_shown(page: Page) -> int:
    return int(page.js("return document.querySelector('#messages .text').innerText").split()[1])


@pytest.mark.realtime
def test_ten_thousand_messages_open_at_once(big: Page) -> None:
    began = time.monotonic()
    big.open(ANN)
    big.wait(lambda: newest_shown(big) == f"Message {IN_ONE_CHAT - 1}")
    assert time.monotonic() - began < CEILING
    assert (bubbles(big), rows(big)) == (50, 100)


def test_scrolling_up_loads_older_messages_and_keeps_the_place(big: Page) -> None:
    big.open(ANN)
    place = (
        "const log = document.getElementById('log').getBoundingClientRect();"
        "const top = (one) => one.getBoundingClientRect().top;"
        "const found = [...document.querySelectorAll('.bubble')].find((one) => top(one) > log.top);"
        "return [found.dataset.id, Math.round(top(found))]"
    )
    first = oldest_shown(big)
    big.js("document.getElementById('log').scrollTop = 400")
    before = big.js(place)
    big.wait(lambda: oldest_shown(big) < first)
    assert big.js(place) == before
    for _ in range(8):
        first = oldest_shown(big)
        big.js("document.getElementById('log').scrollTop = 0")
        big.wait(lambda first=first: oldest_shown(big) < first)  # type: ignore[misc]
    assert bubbles(big) <= MOST_BUBBLES
    # The newest ones were removed from the page; scrolling down loads them again.
    assert newest_shown(big) != f"Message {IN_ONE_CHAT - 1}"
    deadline = time.monotonic() + 20
    while newest_shown(big) != f"Message {IN_ONE_CHAT - 1}" and time.monotonic() < deadline:
        big.js("const log = document.getElementById('log'); log.scrollTop = log.scrollHeight")
        time.sleep(0.05)
    assert newest_shown(big) == f"Message {IN_ONE_CHAT - 1}"
    assert bubbles(big) <= MOST_BUBBLES


def test_scrolling_down_loads_more_contacts(big: Page) -> None:
    big.open()
    big.wait(lambda: rows(big) == 100)
    for wanted in (200, 300):
        big.js("const list = document.getElementById('contacts'); list.scrollTop = list.scrollHeight")
        big.wait(lambda wanted=wanted: rows(big) >= wanted)  # type: ignore[misc]
    names = big.names()
    assert len(set(names)) == len(names)


def test_a_chat_that_nobody_leaves_does_not_grow_without_end(big: Page) -> None:
    for number in range(IN_ONE_CHAT):
        keep(big.box, BEN, f"Message {number}")
    big.open(BEN)
    for start in range(0, 600, 120):
        post(big.box.url, [(BEN, f"Live {start + number}") for number in range(120)])
        big.wait(lambda start=start: newest_shown(big) == f"Live {start + 119}")  # type: ignore[misc]
    assert bubbles(big) <= MOST_BUBBLES
    # The others are still above.
    first = big.js("return document.querySelector('.bubble').dataset.id")
    big.js("document.getElementById('log').scrollTop = 0")
    big.wait(lambda: big.js("return document.querySelector('.bubble').dataset.id") != first)


def test_a_burst_to_many_new_contacts_shows_the_newest_first(big: Page) -> None:
    big.open()
    big.wait(lambda: rows(big) == 100)
    post(big.box.url, [(f"+3361{number:07}", "Burst") for number in range(250)])
    send(big.box, "The end", to="+33600000000", contact_name="Last")
    big.wait(lambda: big.names()[0] == "Last")
    big.wait(lambda: big.names()[1] == "+33610000249")
    big.js("document.getElementById('contacts').scrollTop = 0")
    expected = ["Last", *(f"+3361{number:07}" for number in reversed(range(250)))]
    while rows(big) < len(expected):
        count = rows(big)
        big.js("const list = document.getElementById('contacts'); list.scrollTop = list.scrollHeight")
        big.wait(lambda count=count: rows(big) > count)  # type: ignore[misc]
    assert big.names()[: len(expected)] == expected
