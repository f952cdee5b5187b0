"""
A Chromium for the tests of the inbox page.

On Debian: ``apt-get install chromium chromium-driver fonts-noto-core``, and ``pip install selenium``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

import pytest

from airflow_provider_wassly.sandbox import Sandbox

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

    from tests.browser.page import Page

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def _missing(what: str) -> NoReturn:
    """Skip; but where all is meant to be there, fail."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is missing", pytrace=False)
    pytest.skip(f"{what} is missing")


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    """One browser for all tests."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        _missing("Chromium or chromedriver (apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # With the path of the driver, selenium looks for none on the net.
    browser = webdriver.Chrome(options=options, service=Service(driver))
    yield browser
    browser.quit()


@pytest.fixture(scope="session")
def shared() -> Iterator[Sandbox]:
    """One sandbox for all tests."""
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def box(shared: Sandbox) -> Sandbox:
    """The sandbox as at the start."""
    shared.reset()
    return shared


@pytest.fixture
def page(chromium: WebDriver, box: Sandbox) -> Iterator[Page]:
    """The page of a fresh sandbox in a desktop window; not opened yet."""
    from tests.browser.page import Page

    page = Page(chromium, box)
    page.complaints()
    yield page
    broken = [text for text in page.complaints() if "Content Security Policy" in text or "Uncaught" in text]
    page.leave()  # or it would see, and complain of, what happens to the sandbox before the next test
    assert broken == []
