from __future__ import annotations

import io
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_wassly.client import Attachment, WasslyAttachmentError, WasslyInvalidMessage
from airflow_provider_wassly.client.attachments import AttachmentReader, display_name


def of(path: Path | str) -> Attachment:
    return Attachment.from_path(path, parameter="document")


def named(name: str) -> Attachment:
    return Attachment(name=name, size=1, opener=io.BytesIO)


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "تقرير.pdf"
    path.write_bytes(b"0123456789")
    return path


def test_name_type_and_size_come_from_the_file(report: Path) -> None:
    attachment = of(report)
    assert (attachment.name, attachment.content_type, attachment.size) == ("تقرير.pdf", "application/pdf", 10)


def test_a_link_is_read_where_it_points_and_keeps_its_name(report: Path) -> None:
    link = report.parent / "latest.pdf"
    link.symlink_to(report)
    assert (of(link).name, of(link).size) == ("latest.pdf", 10)


def test_another_name_decides_the_type(report: Path) -> None:
    attachment = Attachment.from_path(report, name="photo.JPG", parameter="media")
    assert (attachment.name, attachment.content_type) == ("photo.JPG", "image/jpeg")


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("a.csv", "text/csv"),
        ("a.csv.gz", "application/gzip"),
        ("a.tar.bz2", "application/x-bzip2"),
        ("a.txt.xz", "application/x-xz"),
        ("a.png", "image/png"),
        ("a.mp4", "video/mp4"),
        ("a.mp3", "audio/mpeg"),
        ("a.unheard-of", "application/octet-stream"),
        ("no extension", "application/octet-stream"),
        ("تقرير.csv", "text/csv"),
        ("A.PDF", "application/pdf"),
        ("Re: report #5?.pdf", "application/pdf"),
        ("data:text/html,.pdf", "application/pdf"),
        (".pdf", "application/octet-stream"),
    ],
)
def test_the_type_follows_the_name(name: str, content_type: str) -> None:
    assert named(name).content_type == content_type


@pytest.mark.parametrize(
    ("name", "path", "expected"),
    [
        ("Invoice", "/x/1.pdf", "Invoice.pdf"),
        ("Invoice.", "/x/1.pdf", "Invoice.pdf"),
        ("Invoice No. 5", "/x/1.pdf", "Invoice No. 5.pdf"),
        ("Report v1.2", "/x/1.xlsx", "Report v1.2.xlsx"),
        ("Dr. Smith", "/x/1.docx", "Dr. Smith.docx"),
        ("فاتورة", "/x/1.pdf", "فاتورة.pdf"),
        ("Invoice.PDF", "/x/1.pdf", "Invoice.PDF"),
        ("photo.JPG", "/x/1.pdf", "photo.JPG"),
        ("Backup", "/x/1.tar.gz", "Backup.tar.gz"),
        ("Orders", "/x/1.2024.gz", "Orders.gz"),
        ("a/b", "/x/1.pdf", "a_b.pdf"),
        ("...", "/x/1.pdf", "file.pdf"),
        ("Drawing", "/x/1.unheard", "Drawing.unheard"),
        ("Drawing.unheard", "/x/1.UNHEARD", "Drawing.unheard"),
        ("Invoice", "/x/1", "Invoice"),
        ("Invoice", "/x.pdf/1", "Invoice"),
        ("Invoice", "/x/export 1.2", "Invoice"),
        ("Invoice", "/x/Dr. No", "Invoice"),
        ("Invoice", "/x/.pdf", "Invoice"),
    ],
)
def test_a_name_without_a_known_extension_gets_the_files(name: str, path: str, expected: str) -> None:
    assert display_name(name, path) == expected


@pytest.mark.parametrize(
    "content_type", ["text/plain\r\nX-Injected: 1", "text/plain; charset=\n", "text/ä", "\x00", "pdf"]
)
def test_a_type_that_no_header_can_carry_is_refused(content_type: str) -> None:
    with pytest.raises(WasslyInvalidMessage, match="content_type"):
        Attachment(name="a", size=1, opener=io.BytesIO, content_type=content_type)


@given(name=st.text())
def test_a_name_can_be_a_file_name_on_the_other_side(name: str) -> None:
    made = named(name).name
    assert made.strip(". ")
    assert not set(made) & set("\\/\x00\r\n")
    assert not any(unicodedata.category(char) in {"Cc", "Cs"} for char in made)
    made.encode()


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WasslyInvalidMessage, match=r"document: no such file: .*missing\.pdf"):
        of(tmp_path / "missing.pdf")


def test_a_link_to_nowhere(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "missing")
    with pytest.raises(WasslyInvalidMessage, match="no such file"):
        of(tmp_path / "link")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(WasslyInvalidMessage, match="is a folder"):
        of(tmp_path)


def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WasslyInvalidMessage, match="device, pipe or socket"):
        of(tmp_path / "pipe")


def test_a_device() -> None:
    with pytest.raises(WasslyInvalidMessage, match="device, pipe or socket"):
        of(os.devnull)


def test_a_file_without_permission(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        # Root may read anything, so simulate the kernel's error.
        def refuse(*args: object, **kwargs: object) -> None:
            raise PermissionError(13, "Permission denied", str(report))

        monkeypatch.setattr("builtins.open", refuse)
    else:
        report.chmod(0)
    with pytest.raises(WasslyInvalidMessage, match="cannot be read: Permission denied"):
        of(report)


@pytest.mark.parametrize("path", ["a\x00b", "x" * 5000, "", "/etc/passwd/x", "\ud800"])
def test_a_path_that_is_none(path: str) -> None:
    with pytest.raises(WasslyInvalidMessage, match="document: "):
        of(path)


# Reading.


@given(steps=st.lists(st.integers(1, 12), min_size=12))
def test_whatever_the_steps_the_whole_content_is_given_once(steps: list[int]) -> None:
    reader = AttachmentReader(Attachment(name="a", size=10, opener=lambda: io.BytesIO(b"0123456789")))
    given_out = b""
    for step in steps:
        data = reader.read(step)
        assert len(data) <= step
        given_out += data
        assert reader.len == 10 - len(given_out)
    assert given_out == b"0123456789"
    assert reader.read() == b""
    reader.close()


@pytest.mark.parametrize("step", [1, 3, 10, 100, -1])
@pytest.mark.parametrize(("size", "reason"), [(9, "longer"), (11, "shorter"), (1, "longer"), (100, "shorter")])
def test_a_file_of_another_size_is_an_error_before_its_last_byte(
    report: Path, step: int, size: int, reason: str
) -> None:
    attachment = Attachment(name="report", size=size, opener=lambda: report.open("rb"))
    reader = AttachmentReader(attachment)
    given_out = b""

    def read_all() -> None:
        nonlocal given_out
        while len(given_out) < size:
            given_out += reader.read(step)

    with pytest.raises(WasslyAttachmentError, match=f"report has become {reason}"):
        read_all()
    assert len(given_out) < size
    reader.close()


def test_a_file_that_is_gone_by_now(report: Path) -> None:
    attachment = of(report)
    report.unlink()
    with pytest.raises(WasslyAttachmentError, match="can no longer be opened: No such file"):
        AttachmentReader(attachment)


class Broken:
    """A stream that returns the given chunks in turn."""

    def __init__(self, then: object) -> None:
        self._answers = [b"01234", then]

    def read(self, size: int = -1, /) -> bytes:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[return-value]

    def close(self) -> None:
        pass


@pytest.mark.parametrize("then", [OSError(5, "Input/output error"), ValueError("I/O on closed file"), None, 7])
def test_a_storage_that_fails(then: object) -> None:
    reader = AttachmentReader(Attachment(name="report", size=10, opener=lambda: Broken(then)))
    reader.read(5)
    with pytest.raises(WasslyAttachmentError, match="report can no longer be read: "):
        reader.read(5)
