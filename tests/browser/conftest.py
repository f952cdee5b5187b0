"""
A Chromium for the tests of the inbox page.

On Debian: ``apt-get install chromium chromium-driver fonts-noto-core``, and ``pip install selenium``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

import pytest

from airflow_provider_wassly.sandbox import Sandbox
from tests.browser import chromium as browsers

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

    from tests.browser.page import Page


def _missing(what: str) -> NoReturn:
    """Skip the test; in CI, where nothing may be missing, fail it."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is missing", pytrace=False)
    pytest.skip(f"{what} is missing")


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    """One browser for all tests."""
    found = browsers.programs()
    if found is None:
        _missing("Chromium or chromedriver (apt-get install chromium chromium-driver)")
    options = browsers.options(str(tmp_path_factory.mktemp("chromium")))
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = browsers.start(found, options)
    yield browser
    browser.quit()


@pytest.fixture(scope="session")
def shared() -> Iterator[Sandbox]:
    """One sandbox for all tests."""
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def box(shared: Sandbox) -> Sandbox:
    """The sandbox in its initial state."""
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
    page.leave()  # otherwise it would report what happens to the sandbox between the tests
    assert broken == []
