from __future__ import annotations

import io
import mimetypes
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_wassly.client import Attachment

_OFFICE = "application/vnd.openxmlformats-officedocument."
_OPEN = "application/vnd.oasis.opendocument."


@pytest.fixture(params=["", "application/x-of-this-machine xlsx docx pdf ogg m4a png zip csv txt unheard"])
def machine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose own table is empty, as in a slim image, or has other types."""
    (tmp_path / "mime.types").write_text(request.param)
    monkeypatch.setattr(mimetypes, "knownfiles", [str(tmp_path / "mime.types")])
    mimetypes.init()
    yield
    monkeypatch.undo()
    mimetypes.init()


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        ("doc", "application/msword"),
        ("docx", _OFFICE + "wordprocessingml.document"),
        ("xls", "application/vnd.ms-excel"),
        ("xlsx", _OFFICE + "spreadsheetml.sheet"),
        ("xlsm", "application/vnd.ms-excel.sheet.macroEnabled.12"),
        ("ppt", "application/vnd.ms-powerpoint"),
        ("pptx", _OFFICE + "presentationml.presentation"),
        ("odt", _OPEN + "text"),
        ("ods", _OPEN + "spreadsheet"),
        ("odp", _OPEN + "presentation"),
        ("rtf", "application/rtf"),
        ("pdf", "application/pdf"),
        ("epub", "application/epub+zip"),
        ("csv", "text/csv"),
        ("tsv", "text/tab-separated-values"),
        ("txt", "text/plain"),
        ("json", "application/json"),
        ("parquet", "application/vnd.apache.parquet"),
        ("ics", "text/calendar"),
        ("vcf", "text/vcard"),
        ("html", "text/html"),
        ("md", "text/markdown"),
        ("aac", "audio/aac"),
        ("amr", "audio/amr"),
        ("flac", "audio/flac"),
        ("m4a", "audio/mp4"),
        ("mp3", "audio/mpeg"),
        ("ogg", "audio/ogg"),
        ("oga", "audio/ogg"),
        ("opus", "audio/ogg"),
        ("wav", "audio/x-wav"),
        ("3gp", "video/3gpp"),
        ("avi", "video/x-msvideo"),
        ("mkv", "video/x-matroska"),
        ("mov", "video/quicktime"),
        ("mp4", "video/mp4"),
        ("webm", "video/webm"),
        ("avif", "image/avif"),
        ("bmp", "image/bmp"),
        ("gif", "image/gif"),
        ("heic", "image/heic"),
        ("jpeg", "image/jpeg"),
        ("jpg", "image/jpeg"),
        ("png", "image/png"),
        ("svg", "image/svg+xml"),
        ("tiff", "image/tiff"),
        ("webp", "image/webp"),
        ("7z", "application/x-7z-compressed"),
        ("gz", "application/gzip"),
        ("rar", "application/vnd.rar"),
        ("tar", "application/x-tar"),
        ("zip", "application/zip"),
        ("zst", "application/zstd"),
        ("unheard", "application/octet-stream"),
    ],
)
def test_the_type_is_the_same_on_every_machine(ending: str, expected: str) -> None:
    for name in (f"تقرير.{ending}", f"A.{ending.upper()}"):
        assert Attachment(name=name, size=1, opener=io.BytesIO).content_type == expected
