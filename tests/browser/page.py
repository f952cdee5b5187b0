"""The inbox page as its user sees it, and helpers that send messages to it."""

from __future__ import annotations

import os
from collections.abc import Callable
from io import BytesIO
from typing import Any, TypeVar

import pytest

from airflow_provider_wassly.client import Attachment, WasslyClient
from airflow_provider_wassly.sandbox import Sandbox

try:
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
    from selenium.webdriver.chrome.webdriver import WebDriver
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.remote.webelement import WebElement
    from selenium.webdriver.support.ui import WebDriverWait
except ModuleNotFoundError:
    # Only this module imports selenium, so without it all of these tests are skipped.
    if os.environ.get("CI"):
        raise
    pytest.skip("selenium is missing (pip install selenium)", allow_module_level=True)

__all__ = ["ANN", "BEN", "Keys", "Page", "attached", "send"]

T = TypeVar("T")

ANN = "+447700900123"
BEN = "+447700900456"
#: Seconds that the page may take to show something; long enough for a loaded machine.
PATIENCE = 20


def send(box: Sandbox, message: str | None = None, to: str = ANN, **more: Any) -> None:
    """Send a message as a pipeline does."""
    account = {"apikey": "sandbox-apikey", "base_url": box.url, "token": "sandbox-token", "max_attempts": 1}
    with WasslyClient(**account) as client:  # type: ignore[arg-type]
        client.send_message(contact_mobile_number=to, instance_id="sandbox-instance", message=message, **more)


def attached(name: str, content: bytes, content_type: str = "") -> Attachment:
    return Attachment(name, len(content), lambda: BytesIO(content), content_type)


class Page:
    """
    The page in a browser, in a desktop window.

    :param driver: the browser.
    :param box: the sandbox that serves the page.
    """

    def __init__(self, driver: WebDriver, box: Sandbox) -> None:
        self.driver = driver
        self.box = box
        self.resize(1200, 760)
        self.prefer(prefers_color_scheme="light")

    def open(self, chat: str = "") -> None:
        """Load the page; with a number, at its chat."""
        self.leave()
        self.driver.get(f"{self.box.url}/#{chat}")
        # The state has come, and with it what it asks for.
        self.wait(
            lambda: self.js(
                "return document.querySelector('#gauge-text').innerText"
                " && document.querySelector('#choose:not([hidden]), #welcome:not([hidden]), .bubble')"
            )
        )

    def leave(self) -> None:
        """Leave the page. Otherwise, opening another chat's URL would not load a new page."""
        self.driver.get("about:blank")

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, what: Callable[[], T]) -> T:
        """Wait until something is true, and return it."""
        ignored = (StaleElementReferenceException, NoSuchElementException)
        wait = WebDriverWait(self.driver, PATIENCE, poll_frequency=0.02, ignored_exceptions=ignored)
        return wait.until(lambda _: what())

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def find_all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def visible(self, selector: str) -> list[WebElement]:
        return [found for found in self.find_all(selector) if found.is_displayed()]

    def text(self, selector: str) -> str:
        return self.find(selector).text

    def texts(self, selector: str) -> list[str]:
        # Not the rendered text: elements scrolled out of view are not rendered.
        found: list[str] = self.js(
            "return [...document.querySelectorAll(arguments[0])].map((found) => found.textContent)", selector
        )
        return found

    def bubbles(self) -> list[str]:
        """The texts of the messages in the open chat."""
        return self.texts(".bubble .text")

    def names(self) -> list[str]:
        """The contacts, from the top."""
        return self.texts("#contact-list .name")

    def click(self, selector: str) -> None:
        def clicked() -> bool:
            found = self.visible(selector)
            if found:
                found[0].click()
            return bool(found)

        # Find and click in one script: the page may redraw the element in between.
        self.wait(clicked)

    def press(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def fill(self, selector: str, value: str) -> None:
        field = self.find(selector)
        field.clear()
        field.send_keys(value)

    def resize(self, width: int, height: int) -> None:
        """Set the size of the page, without the window's frame."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, **features: str) -> None:
        """Set media features; write ``_`` for ``-``."""
        values = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": values})

    def complaints(self) -> list[str]:
        """Return the browser's warnings and errors since the last call."""
        log = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in log if entry["level"] == "SEVERE"]
