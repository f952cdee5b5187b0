"""The page on a phone, in dark mode and by keyboard; and what it must not do."""

from __future__ import annotations

from airflow_provider_wassly.sandbox import Sandbox
from tests.browser.page import ANN, BEN, Keys, Page, attached, send
from tests.browser.test_attachments import png


def fill(box: Sandbox) -> None:
    send(box, "word " * 60 + "x" * 300, contact_name="A very long name " * 10)
    send(box, media=attached("a_very_long_name_" * 10 + ".png", png(2000, 100)))
    send(box, "`code` https://example.com/" + "path/" * 60, to=BEN, document=attached("report.pdf", b"%PDF"))


def is_too_wide(page: Page) -> bool:
    script = "const page = document.scrollingElement; return page.scrollWidth > page.clientWidth"
    inside = (
        "return ['log', 'contacts', 'panel-body'].some((id) => {"
        "const part = document.getElementById(id); return part.scrollWidth > part.clientWidth })"
    )
    return bool(page.js(script)) or bool(page.js(inside))


def test_on_a_phone_the_list_comes_first_and_then_the_chat(page: Page, box: Sandbox) -> None:
    fill(box)
    page.resize(360, 740)
    page.open()
    page.wait(lambda: len(page.visible("#contact-list a")) == 2)
    assert not page.visible("#chat")
    assert not is_too_wide(page)
    page.click(f"#contact-list a[href='#{ANN}']")
    page.wait(lambda: len(page.visible(".bubble")) == 2)
    assert not page.visible("#contacts")
    assert not is_too_wide(page)
    page.click("#back")
    page.wait(lambda: page.visible("#contact-list a"))
    assert not page.visible("#chat")
    page.click("#chaos-button")
    page.wait(lambda: page.visible("#kinds li"))
    assert page.find("#panel").rect["width"] == 360
    assert not is_too_wide(page)


def test_dark_is_dark(page: Page, box: Sandbox) -> None:
    fill(box)
    page.open(ANN)
    brightness = (
        "const [r, g, b] = getComputedStyle(document.querySelector(arguments[0])).getPropertyValue(arguments[1])"
        ".match(/\\d+/g).map(Number); return (r + g + b) / 3"
    )
    light = {part: page.js(brightness, part, "background-color") for part in ("html", ".chat", ".bubble", ".panel")}
    page.prefer(prefers_color_scheme="dark")
    dark = {part: page.js(brightness, part, "background-color") for part in light}
    assert all(value > 180 for value in light.values()), light
    assert all(value < 80 for value in dark.values()), dark
    assert page.js(brightness, ".bubble .text", "color") > 200


def test_contacts_are_reached_and_opened_by_keyboard(page: Page, box: Sandbox) -> None:
    for number, name in ((ANN, "Ann"), (BEN, "Ben"), ("+447700900789", "Cem")):
        send(box, f"To {name}", to=number, contact_name=name)
    page.open()
    page.wait(lambda: page.names() == ["Cem", "Ben", "Ann"])

    def focused() -> str:
        return str(
            page.js("return document.activeElement.querySelector('.name')?.innerText ?? document.activeElement.id")
        )

    page.press(Keys.TAB)
    assert focused() == "chaos-button"
    page.press(Keys.TAB)
    assert focused() == "Cem"
    assert page.js("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert focused() == "Ann"
    page.press(Keys.ARROW_UP)
    assert focused() == "Ben"
    send(box, "Again to Ben", to=BEN, contact_name="Ben")  # which moves the focused row
    page.wait(lambda: page.names() == ["Ben", "Cem", "Ann"])
    assert focused() == "Ben"
    page.press(Keys.END)
    assert focused() == "Ann"
    page.press(Keys.ENTER)
    page.wait(lambda: page.bubbles() == ["To Ann"])
    assert page.text("#contact-list a[aria-current] .name") == "Ann"
    page.press(Keys.TAB)
    assert focused() == "log"


def test_the_panel_is_used_by_keyboard(page: Page, box: Sandbox) -> None:
    page.open()
    page.press(Keys.TAB, Keys.ENTER)
    page.wait(lambda: page.visible("#kinds li"))
    assert page.js("return document.activeElement.id") == "panel-title"
    page.js("document.querySelector('[aria-labelledby=kind-rejected]').focus()")
    page.press(Keys.SPACE)
    page.wait(lambda: [fault.name for fault in box.faults] == ["rejected"])
    page.press(Keys.ESCAPE)
    assert not page.visible("#panel")
    assert page.js("return document.activeElement.id") == "chaos-button"
    assert page.find("#chaos-button").get_attribute("aria-expanded") == "false"


def test_new_messages_are_announced(page: Page) -> None:
    with Sandbox() as box:  # which never received a message
        page.box = box
        page.open()
        send(box, "Hello", contact_name="Ann")
        page.wait(lambda: page.js("return document.getElementById('announcer').textContent") == "New message to Ann")
        page.leave()


def test_every_control_has_a_name(page: Page, box: Sandbox) -> None:
    fill(box)
    box.fail_next("http_500")
    page.open(ANN)
    page.click("#chaos-button")
    page.wait(lambda: page.visible("#rules li"))
    for control in page.visible("a, button, input, select, meter, video, audio"):
        assert control.accessible_name, control.get_attribute("outerHTML")


def test_the_page_asks_nobody_but_the_sandbox_and_gives_no_cause_for_complaint(page: Page, box: Sandbox) -> None:
    fill(box)
    page.open(ANN)
    page.click("#chaos-button")
    page.wait(lambda: page.visible("#kinds li"))
    page.wait(lambda: page.js("return [...document.images].every((image) => image.complete)"))
    asked = page.js("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert len(asked) > 10
    assert [url for url in asked if not url.startswith(f"{box.url}/")] == []
    assert page.complaints() == []
