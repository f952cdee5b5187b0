from __future__ import annotations

import io
import struct
import time
import wave
import zlib
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_wassly.sandbox import Sandbox
from tests.browser.page import ANN, Keys, Page, attached, send


def png(width: int = 8, height: int = 6) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\x0f\x76\x6e" * width) * height
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def wav() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"\0\0" * 4000)
    return file.getvalue()


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20"><rect width="40" height="20"/></svg>'
GIF = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff!\xf9\x04\0\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;"


@pytest.mark.parametrize(
    ("name", "content", "width"), [("chart.png", png(), 8), ("chart.svg", SVG, 40), ("chart.gif", GIF, 1)]
)
def test_a_picture_is_shown(page: Page, box: Sandbox, name: str, content: bytes, width: int) -> None:
    send(box, "A chart", media=attached(name, content))
    page.open(ANN)
    page.wait(lambda: page.js("return document.querySelector('.media img').naturalWidth") == width)
    assert page.visible(".media img")
    assert name in page.text(".media figcaption")


def test_a_picture_can_be_enlarged(page: Page, box: Sandbox) -> None:
    send(box, media=attached("chart.png", png(900, 40)))
    page.open(ANN)
    page.click(".enlarge")
    page.wait(lambda: page.js("return document.querySelector('#viewer[open] img').clientWidth") >= 900)
    page.press(Keys.ESCAPE)
    page.wait(lambda: not page.visible("#viewer"))


def test_a_picture_that_is_none_is_a_card(page: Page, box: Sandbox) -> None:
    send(box, media=attached("broken.png", b"no picture", "image/png"))
    page.open(ANN)
    page.wait(lambda: page.visible(".card"))
    assert "broken.png" in page.text(".card")
    assert not page.visible(".media")


def test_sound_can_be_played(page: Page, box: Sandbox) -> None:
    send(box, media=attached("note.wav", wav()))
    page.open(ANN)
    page.wait(lambda: page.js("return document.querySelector('audio').duration") == 0.5)
    assert page.find("audio").get_attribute("controls")


def test_a_film_has_a_player(page: Page, box: Sandbox) -> None:
    # So large that it is not preloaded, so the page cannot know that it is not a valid file.
    send(box, media=attached("film.mp4", b"\0" * 2_000_001, "video/mp4"))
    page.open(ANN)
    film = page.wait(lambda: page.find("video"))
    assert film.get_attribute("controls")
    assert film.get_attribute("src") == f"{box.url}/sandbox/messages/{box.messages[0].id}/media"


@pytest.mark.parametrize(
    ("field", "name", "content_type"),
    [
        ("document", "report.pdf", "application/pdf"),
        ("document", "chart.png", "image/png"),
        ("media", "data.parquet", "application/vnd.apache.parquet"),
    ],
)
def test_anything_else_is_a_card_that_says_what_it_is(
    page: Page, box: Sandbox, field: str, name: str, content_type: str
) -> None:
    files: dict[str, Any] = {field: attached(name, b"x" * 1234, content_type)}
    send(box, "See the file", **files)
    page.open(ANN)
    assert page.text(".card .file-name") == name
    assert page.text(".card .details") == f"{content_type} · 1.2 kB"


def test_both_files_of_a_message_are_shown(page: Page, box: Sandbox) -> None:
    send(box, "Both", media=attached("chart.png", png()), document=attached("report.pdf", b"%PDF"))
    page.open(ANN)
    assert page.visible(".media img")
    assert page.text(".card .file-name") == "report.pdf"


@pytest.mark.parametrize("selector", [".card", ".media figcaption a"])
def test_a_file_is_downloaded_as_it_was_sent(page: Page, box: Sandbox, tmp_path: Path, selector: str) -> None:
    content = png()
    send(box, media=attached("تقرير.png", content), document=attached("تقرير.png", content))
    behavior = {"behavior": "allow", "downloadPath": str(tmp_path)}
    page.driver.execute_cdp_cmd("Browser.setDownloadBehavior", behavior)
    page.open(ANN)
    page.click(selector)
    target = tmp_path / "تقرير.png"
    page.wait(lambda: target.exists() and target.stat().st_size == len(content))
    assert target.read_bytes() == content


@pytest.mark.parametrize(
    ("name", "content_type", "content"),
    [
        ("page.html", "text/html", b"<script>fetch('/sandbox/messages', {method: 'DELETE'})</script>"),
        (
            "page.svg",
            "image/svg+xml",
            b"<svg xmlns='http://www.w3.org/2000/svg'>"
            b"<script>fetch('/sandbox/messages', {method: 'DELETE'})</script></svg>",
        ),
    ],
)
def test_a_file_with_a_script_does_nothing_when_it_is_opened(
    page: Page, box: Sandbox, tmp_path: Path, name: str, content_type: str, content: bytes
) -> None:
    send(box, "Look", document=attached(name, content, content_type), media=attached(name, content, content_type))
    behavior = {"behavior": "allow", "downloadPath": str(tmp_path)}
    page.driver.execute_cdp_cmd("Browser.setDownloadBehavior", behavior)
    page.open(ANN)
    page.js("location.href = arguments[0]", f"/sandbox/messages/{box.messages[0].id}/document")
    page.wait(lambda: (tmp_path / name).exists())
    time.sleep(0.3)  # long enough for a script to run
    assert len(box.messages) == 1
    assert page.bubbles() == ["Look"]
