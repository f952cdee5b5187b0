from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from airflow_provider_wassly.sandbox import Sandbox
from tests.browser.page import ANN, Page, attached, send

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

LINK = '<a href="{0}" target="_blank" rel="noopener noreferrer" dir="ltr">{0}</a>'

FORMATS = {
    "plain": "<p>plain</p>",
    "*bold*": "<p><strong>bold</strong></p>",
    "_italic_ text": "<p><em>italic</em> text</p>",
    "some ~strike~.": "<p>some <s>strike</s>.</p>",
    "*two words* and *more*": "<p><strong>two words</strong> and <strong>more</strong></p>",
    "*_both_*": "<p><strong><em>both</em></strong></p>",
    "_a *b ~c~* d_": "<p><em>a <strong>b <s>c</s></strong> d</em></p>",
    "(*in brackets*)": "<p>(<strong>in brackets</strong>)</p>",
    # What only looks like formatting
    "snake_case_name": "<p>snake_case_name</p>",
    "2*3*4 and 5 * 6 * 7": "<p>2*3*4 and 5 * 6 * 7</p>",
    "*open": "<p>*open</p>",
    "* spaced *x": "<ul><li>spaced *x</li></ul>",
    "*not\nacross*": "<p>*not</p><p>across*</p>",
    "~a~b": "<p>~a~b</p>",
    "**": "<p>**</p>",
    # Code
    "a `x_y_z *b*` c": "<p>a <code>x_y_z *b*</code> c</p>",
    "*`bold code`*": "<p><strong><code>bold code</code></strong></p>",
    "```\na = 1\n  *b*\n```\nafter": '<p><code class="block">a = 1\n  *b*\n</code></p><p>after</p>',
    "see ```ls -l``` there": '<p>see <code class="block">ls -l</code> there</p>',
    # Blocks
    "- a\n- *b*": "<ul><li>a</li><li><strong>b</strong></li></ul>",
    "* a\n* b\nc": "<ul><li>a</li><li>b</li></ul><p>c</p>",
    "1. a\n2. b": '<ol><li value="1">a</li><li value="2">b</li></ol>',
    "7. seven": '<ol><li value="7">seven</li></ol>',
    "2026.5 is no list": "<p>2026.5 is no list</p>",
    "> a\n> _b_\nc": "<blockquote><p>a</p><p><em>b</em></p></blockquote><p>c</p>",
    "-a": "<p>-a</p>",
    "one\n\nthree": "<p>one</p><p><br></p><p>three</p>",
    # Links
    "https://example.com/a_b_c": f"<p>{LINK.format('https://example.com/a_b_c')}</p>",
    "*see http://example.com/x.*": f"<p><strong>see {LINK.format('http://example.com/x')}.</strong></p>",
    "(https://example.com/a(b))": f"<p>({LINK.format('https://example.com/a(b)')})</p>",
    "javascript:alert(1) ftp://example.com": "<p>javascript:alert(1) ftp://example.com</p>",
    "<b>no</b> &amp;": "<p>&lt;b&gt;no&lt;/b&gt; &amp;amp;</p>",
}


@pytest.fixture(scope="module")
def box_of_texts() -> Iterator[Sandbox]:
    with Sandbox() as box:
        send(box, "first")
        yield box


@pytest.fixture
def chat(chromium: WebDriver, box_of_texts: Sandbox) -> Page:
    """A chat that receives all of the texts and stays open throughout."""
    page = Page(chromium, box_of_texts)
    if not chromium.current_url.startswith(box_of_texts.url):
        page.open(ANN)
    return page


@pytest.mark.parametrize("text", FORMATS)
def test_texts_look_as_in_whatsapp(chat: Page, text: str) -> None:
    send(chat.box, text)
    newest = f".bubble[data-id='{chat.box.messages[-1].id}'] .text"
    shown = str(chat.wait(lambda: chat.find(newest).get_attribute("innerHTML")))
    assert shown.replace(' dir="auto"', "") == FORMATS[text]


@pytest.mark.realtime
def test_a_text_of_marks_without_end_does_not_hold_up_the_page(chat: Page) -> None:
    text = "*a _b ~c `" + "*a _b ~c " * 20_000
    began = time.monotonic()
    send(chat.box, text)
    newest = f".bubble[data-id='{chat.box.messages[-1].id}']"
    chat.wait(lambda: chat.find(newest))
    chat.find(f"{newest} .text button").click()
    chat.wait(
        lambda: len(chat.js("return document.querySelector(arguments[0]).textContent", f"{newest} .text")) == len(text)
    )
    assert time.monotonic() - began < 10  # a second, unless the time is quadratic


def test_markup_stays_text_wherever_it_stands(page: Page, box: Sandbox) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    send(
        box,
        f'{evil}\n> {evil}\n- {evil}\n`{evil}`\nhttps://example.com/"onclick=alert(3)',
        contact_name=evil,
        document=attached(f"{evil}.pdf", b"%PDF"),
        media=attached(f"{evil}.png", b"no picture", "image/png"),
    )
    page.open(ANN)
    page.click("#chaos-button")
    page.wait(lambda: page.visible("#kinds li"))
    page.wait(lambda: len(page.visible(".card")) == 2)
    assert page.js("return document.querySelectorAll('script').length") == 1
    assert page.js("return document.querySelectorAll('img[src=x], [onerror], [onclick]').length") == 0
    assert page.text("#chat-name") == evil
    assert page.names() == [evil]
    assert page.texts(".card .file-name")[1].startswith("<img src=x onerror=alert(1)><script>")
    assert page.text(".bubble .text p").startswith(evil)


def test_arabic_reads_from_right_to_left(page: Page, box: Sandbox) -> None:
    send(box, "مرحبا *ليلى*\nplain English, and a long line of it", contact_name="ليلى حسن")
    page.open(ANN)
    arabic, english = page.find_all(".bubble .text p")
    assert (arabic.value_of_css_property("direction"), english.value_of_css_property("direction")) == ("rtl", "ltr")
    bold = page.find(".bubble strong")
    box_of_line, box_of_bold = arabic.rect, bold.rect
    # The line starts at the right: the first word is there, and the second, bold one to its left.
    line_end = page.js(
        "const range = document.createRange(); range.selectNodeContents(arguments[0]);"
        "return range.getBoundingClientRect().right",
        arabic,
    )
    assert line_end == pytest.approx(box_of_line["x"] + box_of_line["width"], abs=2)
    assert box_of_bold["x"] + box_of_bold["width"] < line_end - 5
    assert page.find("#contact-list .name").value_of_css_property("direction") == "rtl"
