"""Starts Chromium, for the tests of the inbox page and for its screenshots."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.webdriver import WebDriver

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


def programs() -> tuple[str, str] | None:
    """Return the paths of Chromium and its driver; ``None`` if one is missing."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


def options(profile: str, *flags: str) -> Options:
    """
    Return the options to start Chromium with.

    :param profile: a folder for its profile.
    :param flags: command-line flags in addition to :data:`FLAGS`.
    """
    from selenium import webdriver

    made = webdriver.ChromeOptions()
    for flag in (*FLAGS, *flags, f"--user-data-dir={profile}"):
        made.add_argument(flag)
    return made


def start(found: tuple[str, str], options: Options) -> WebDriver:
    """
    Start Chromium.

    :param found: the result of :func:`programs`.
    """
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options.binary_location, driver = found
    # Given the driver's path, selenium does not search for one online.
    return webdriver.Chrome(options=options, service=Service(driver))
