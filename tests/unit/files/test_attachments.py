"""Which files may be attached, and their names."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_wassly.airflow_compat import object_storage
from airflow_provider_wassly.client import Attachment, MessageParameters, WasslyInvalidMessage
from airflow_provider_wassly.files.attachments import resolve_attachment
from tests.support.hook import MakeHook
from tests.support.storages import Restricted, attach

XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


class Storage(MemoryFileSystem):  # type: ignore[misc]
    """A separate memory file system, which shows whether the right one was used."""

    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.store: dict[str, Any] = {}
        self.pseudo_dirs = [""]


@pytest.fixture
def storage() -> Iterator[Any]:
    """Return the memory file system of this process, empty."""
    found = MemoryFileSystem()
    attach("memory", None, found)
    found.store.clear()
    yield found
    found.store.clear()


def content(attachment: Attachment) -> bytes:
    stream = attachment.opener()
    try:
        return stream.read()
    finally:
        stream.close()


def refusal(location: Any, **kwargs: Any) -> str:
    with pytest.raises(WasslyInvalidMessage) as raised:
        resolve_attachment(location, parameter="document", **kwargs)
    assert raised.value.field == "document"
    assert str(raised.value).startswith("document: ")
    return str(raised.value)


def resolved(location: Any, **kwargs: Any) -> Attachment:
    return resolve_attachment(location, parameter="document", **kwargs)


@pytest.mark.parametrize("name", ["report.pdf", "a b.pdf", "a%20b.pdf", "تقرير.pdf", "50%.pdf", "a#b?.pdf", "~x.pdf"])
def test_a_local_file_in_every_form(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"12345")
    forms = [
        str(path),
        path,
        os.fsencode(path),
        path.as_uri(),
        path.as_uri().replace("file:", "FILE:"),
        path.as_uri().replace("///", "//localhost/"),
        path.as_uri().encode(),
        object_storage.object_storage_path(f"file://{tmp_path}", None) / name,
    ]
    for form in forms:
        found = resolved(form)
        assert (found.name, found.size, found.content_type) == (name, 5, "application/pdf")
        assert content(found) == b"12345"


@pytest.mark.parametrize("name", ["a b.pdf", "تقرير.pdf", "50%.pdf", "a#b?.pdf"])
def test_a_file_uri_with_characters_that_should_be_encoded(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"12345")
    assert content(resolved(f"file://{tmp_path}/{name}")) == b"12345"


def test_a_file_uri_is_decoded_and_the_name_in_a_path_object_is_not(tmp_path: Path) -> None:
    (tmp_path / "a b.txt").write_bytes(b"plain")
    (tmp_path / "a%20b.txt").write_bytes(b"percent")
    uri = f"file://{tmp_path}/a%20b.txt"
    assert content(resolved(uri)) == b"plain"
    assert content(resolved(object_storage.object_storage_path(uri, None))) == b"percent"
    assert content(resolved(uri.replace("%", "%25"))) == b"percent"


@pytest.mark.parametrize("start", ["file:", "file://", "file://localhost", "FILE:"])
def test_the_ways_to_write_a_file_uri(tmp_path: Path, start: str) -> None:
    (tmp_path / "a b.pdf").write_bytes(b"content")
    assert content(resolved(f"{start}{tmp_path}/a%20b.pdf")) == b"content"


def test_a_file_uri_of_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.pdf"))
    path.write_bytes(b"12345")
    assert content(resolved(path.as_uri())) == b"12345"


@pytest.mark.parametrize("roots", [None, ["s3://bucket"]])
@pytest.mark.parametrize("scheme", ["http", "https", "HTTPS"])
@pytest.mark.parametrize("user", ["", "user:password@"])
def test_a_web_address_is_refused_and_shows_none_of_its_secrets(roots: Any, scheme: str, user: str) -> None:
    assert refusal(f"{scheme}://{user}example.com/key/report.pdf?X-Amz-Signature=abc", roots=roots) == (
        f"document: {scheme}://example.com/… is a web address; download the file in an earlier task and give its path"
    )


def test_a_path_object_of_a_web_address_is_refused() -> None:
    text = refusal(object_storage.object_storage_path("https://example.com/key/report.pdf?signature=abc", None))
    # Airflow 2.11 and 3.0 write it as https://https://…
    assert re.fullmatch(r"document: https://\S+/… is a web address; download the file .*", text)
    assert "key" not in text


def test_the_name_can_be_given(tmp_path: Path, storage: Any) -> None:
    (tmp_path / "x.bin").write_bytes(b"1")
    storage.pipe("/bucket/x.bin", b"1")
    for location in (tmp_path / "x.bin", "memory://bucket/x.bin"):
        found = resolved(location, name="فاتورة.pdf")
        assert (found.name, found.content_type) == ("فاتورة.pdf", "application/pdf")


def test_a_name_without_the_extension_gets_it(tmp_path: Path, storage: Any) -> None:
    (tmp_path / "x.XLSX").write_bytes(b"1")
    storage.pipe("/bucket/x.XLSX", b"1")
    for location in (tmp_path / "x.XLSX", "memory://bucket/x.XLSX"):
        found = resolved(location, name="فاتورة ٥")
        assert (found.name, found.content_type) == ("فاتورة ٥.XLSX", XLSX)
        assert resolved(location, name="").name == "x.XLSX"


def test_the_name_of_a_link_counts_and_not_of_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "x.pdf").write_bytes(b"1")
    for link in ("latest", "march.ods"):
        (tmp_path / link).symlink_to(tmp_path / "x.pdf")
    for roots in (None, [str(tmp_path)]):
        assert resolved(tmp_path / "latest", roots=roots).name == "latest"
        assert resolved(tmp_path / "march.ods", roots=roots).name == "march.ods"
        assert resolved(tmp_path / "march.ods", roots=roots, name="March").name == "March.ods"


def test_the_type_can_be_given(tmp_path: Path, storage: Any, hook: MakeHook) -> None:
    (tmp_path / "x.bin").write_bytes(b"1")
    storage.pipe("/bucket/x.bin", b"1")
    for location in (tmp_path / "x.bin", "memory://bucket/x.bin"):
        assert resolved(location, content_type=" text/csv; charset=utf-8 ").content_type == "text/csv; charset=utf-8"
        assert resolved(location, content_type="", name="a.csv").content_type == "text/csv"
        parameters = MessageParameters(
            "+491701234567",
            document=location,
            document_content_type="application/pdf",
            media=location,
            media_name="a.ogg",
            media_content_type="audio/ogg; codecs=opus",
        )
        message = hook().prepare(parameters)
        assert {name: file.content_type for name, file in message.files.items()} == {
            "document": "application/pdf",
            "media": "audio/ogg; codecs=opus",
        }


@pytest.mark.parametrize("value", ["pdf", "application/", "a/b\r\nX: 1", "text/ä", "a b/c", 5])
def test_a_type_that_is_none(tmp_path: Path, value: Any) -> None:
    (tmp_path / "x.bin").write_bytes(b"1")
    with pytest.raises(WasslyInvalidMessage, match=r"is not a MIME type such as|must be text, not int") as raised:
        resolved(tmp_path / "x.bin", content_type=value)
    assert raised.value.field == "document_content_type"


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"1")
    with pytest.raises(WasslyInvalidMessage, match="must be text, not int") as raised:
        resolved(tmp_path / "x.bin", name=5)
    assert raised.value.field == "document_name"


def test_wrong_local_paths(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    assert refusal(tmp_path / "missing.pdf") == f"document: no such file: {tmp_path}/missing.pdf"
    assert refusal("missing.pdf") == f"document: no such file: missing.pdf (in the working directory, {os.getcwd()})"
    assert "no such file" in refusal(f"file://{tmp_path}/missing.pdf")
    assert "no such file" in refusal(tmp_path / "dangling")
    assert "is a folder, not a file" in refusal(tmp_path)
    assert "is a folder, not a file" in refusal(str(tmp_path) + "/")
    assert "is a device, pipe or socket" in refusal(tmp_path / "fifo")
    assert "is a device, pipe or socket" in refusal("/dev/zero")
    assert "cannot be read" in refusal("/tmp/null\0byte")
    assert "cannot be read" in refusal("file:///tmp/null%00byte")
    assert "is outside the connection's attachment_roots" in refusal("/tmp/null\0byte", roots=["/tmp"])


@pytest.mark.parametrize("location", ["", "  ", b""])
def test_an_empty_path(location: Any) -> None:
    assert "omit the parameter to send no file" in refusal(location)


@pytest.mark.parametrize("location", [5, ["a.pdf"], {"path": "a.pdf"}, True])
def test_something_that_is_no_path(location: Any) -> None:
    assert f"must be a path, a URI or an ObjectStoragePath, not {type(location).__name__}" in refusal(location)


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret.pdf").write_bytes(b"1")

    def denied(path: Any, *args: Any, **kwargs: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    # Not through file permissions, because root, who may run the tests, ignores them.
    monkeypatch.setattr("builtins.open", denied)
    text = refusal(tmp_path / "secret.pdf")
    monkeypatch.undo()
    assert text == f"document: {tmp_path}/secret.pdf cannot be read: Permission denied"


def test_an_empty_file_is_found_and_refused_as_message(tmp_path: Path, hook: MakeHook) -> None:
    (tmp_path / "empty.csv").touch()
    assert hook().attachment(tmp_path / "empty.csv", parameter="media").size == 0
    with pytest.raises(WasslyInvalidMessage, match=r"media: empty.csv is empty \(0 bytes\)"):
        hook().prepare(MessageParameters("+491701234567", media=tmp_path / "empty.csv"))


@pytest.mark.parametrize("name", ["report.pdf", "a b.pdf", "a%20b.pdf", "تقرير.pdf"])
def test_a_file_in_an_object_storage(storage: Any, name: str) -> None:
    storage.pipe(f"/bucket/sub/{name}", b"12345")
    for location in (
        f"memory://bucket/sub/{name}",
        object_storage.object_storage_path("memory://bucket/sub", None) / name,
    ):
        found = resolved(location)
        assert (found.name, found.size, found.content_type) == (name, 5, "application/pdf")
        assert content(found) == b"12345"


def test_wrong_uris(storage: Any) -> None:
    storage.pipe("/bucket/sub/report.pdf", b"12345")
    storage.pipe("/bucket/sub/empty.pdf", b"")
    assert refusal("memory://bucket/missing.pdf") == "document: no such file: memory://bucket/missing.pdf"
    assert refusal("memory://other/report.pdf") == "document: no such file: memory://other/report.pdf"
    assert refusal("memory://bucket/sub") == "document: memory://bucket/sub is a folder, not a file"
    assert "nosuch://bucket/x cannot be read: " in refusal("nosuch://bucket/x")
    assert resolved("memory://bucket/sub/empty.pdf").size == 0


def test_a_storage_that_fails_is_named_with_its_reason() -> None:
    assert refusal(_Denied("memory://bucket/report.pdf")) == (
        "document: memory://bucket/report.pdf cannot be read: PermissionError: Access Denied "
        "(some storages also answer this when the file is missing)"
    )


def test_the_right_to_read_is_enough() -> None:
    attach("memory", "only_to_read", Restricted("rb", {"bucket/report.pdf": b"12345"}))
    found = resolved("memory://bucket/report.pdf", conn_id="only_to_read")
    assert (found.size, content(found)) == (5, b"12345")


class _Denied:
    """Behaves like Airflow's path object when the storage refuses; versions differ in which call fails first."""

    protocol = "memory"
    name = "report.pdf"

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def __str__(self) -> str:
        return self._uri

    def is_dir(self) -> bool:
        raise AssertionError("one look is enough")

    def stat(self) -> Any:
        raise PermissionError("Access Denied")


@pytest.mark.parametrize("in_uri", [False, True])
def test_the_connection_of_the_storage(in_uri: bool) -> None:
    mine = Storage()
    mine.pipe("/bucket/report.pdf", b"mine")
    conn_id = f"my_storage_{in_uri}"
    attach("memory", conn_id, mine)
    found = (
        resolved(f"memory://{conn_id}@bucket/report.pdf")
        if in_uri
        else resolved("memory://bucket/report.pdf", conn_id=conn_id)
    )
    assert (found.name, content(found)) == ("report.pdf", b"mine")


def test_the_largest_size(tmp_path: Path, storage: Any, hook: MakeHook) -> None:
    (tmp_path / "report.pdf").write_bytes(b"12345")
    storage.pipe("/bucket/report.pdf", b"12345")
    for location in (tmp_path / "report.pdf", "memory://bucket/report.pdf"):
        assert hook({"max_attachment_bytes": 5}).attachment(location, parameter="document").size == 5
        with pytest.raises(WasslyInvalidMessage, match=r"report.pdf has 5 bytes; .* max_attachment_bytes is 4"):
            hook({"max_attachment_bytes": "4"}).attachment(location, parameter="document")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a folder with an allowed and a forbidden part."""
    for folder in ("allowed/sub", "allowed-too", "forbidden"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "f.txt").write_bytes(b"1")
    (tmp_path / "allowed" / "link-out").symlink_to(tmp_path / "forbidden" / "f.txt")
    (tmp_path / "allowed" / "folder-out").symlink_to(tmp_path / "forbidden")
    (tmp_path / "forbidden" / "link-in").symlink_to(tmp_path / "allowed" / "sub" / "f.txt")
    (tmp_path / "root-link").symlink_to(tmp_path / "allowed")
    return tmp_path


@pytest.mark.parametrize(
    "path", ["allowed/sub/f.txt", "allowed/sub/../sub/f.txt", "forbidden/../allowed/sub/f.txt", "forbidden/link-in"]
)
@pytest.mark.parametrize(
    "root", ["{}/allowed", "{}/allowed/", "file://{}/allowed", "{}/root-link", "{}/forbidden/../allowed"]
)
def test_a_local_file_inside_the_roots(hook: MakeHook, tree: Path, root: str, path: str) -> None:
    found = hook({"attachment_roots": ["s3://bucket", root.format(tree)]})
    for form in (f"{tree}/{path}", f"file://{tree}/{path}", f"file://{tree}/{path}".replace("..", "%2e%2E")):
        attachment = found.attachment(form, parameter="document")
        assert attachment.name == Path(path).name
        assert content(attachment) == b"1"


@pytest.mark.parametrize(
    "path",
    [
        "forbidden/f.txt",
        "allowed/../forbidden/f.txt",
        "allowed/sub/../../forbidden/f.txt",
        "allowed/link-out",
        "allowed/folder-out/f.txt",
        "allowed-too/f.txt",
        "allowed/../allowed-too/f.txt",
        "forbidden/missing.txt",
    ],
)
def test_a_local_file_outside_of_the_roots(hook: MakeHook, tree: Path, path: str) -> None:
    found = hook({"attachment_roots": [f"{tree}/allowed"]})
    for form in (f"{tree}/{path}", f"file://{tree}/{path.replace('..', '%2e%2e')}", tree / path):
        with pytest.raises(WasslyInvalidMessage, match="is outside the connection's attachment_roots"):
            found.attachment(form, parameter="document")


def test_a_root_as_file_uri(hook: MakeHook, tmp_path: Path) -> None:
    for folder in ("my ملفات", "others"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "f.txt").write_bytes(b"1")
    found = hook({"attachment_roots": [(tmp_path / "my ملفات").as_uri()]})
    inside = tmp_path / "my ملفات" / "f.txt"
    for form in (inside, inside.as_uri()):
        assert found.attachment(form, parameter="document").size == 1
    with pytest.raises(WasslyInvalidMessage, match="outside"):
        found.attachment((tmp_path / "others" / "f.txt").as_uri(), parameter="document")


def test_a_relative_path_is_taken_from_the_working_folder(
    hook: MakeHook, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = hook({"attachment_roots": f"{tree}/allowed"})
    monkeypatch.chdir(tree / "allowed" / "sub")
    assert found.attachment("f.txt", parameter="document").size == 1
    with pytest.raises(WasslyInvalidMessage, match="outside"):
        found.attachment("../../forbidden/f.txt", parameter="document")


def test_an_empty_list_of_roots_allows_nothing(hook: MakeHook, tree: Path, storage: Any) -> None:
    storage.pipe("/bucket/f.txt", b"1")
    for location in (tree / "allowed/sub/f.txt", "memory://bucket/f.txt"):
        with pytest.raises(WasslyInvalidMessage, match="outside"):
            hook({"attachment_roots": []}).attachment(location, parameter="document")


def test_a_link_that_is_turned_after_the_check_is_not_followed(hook: MakeHook, tree: Path) -> None:
    link = tree / "allowed" / "link"
    link.symlink_to(tree / "allowed" / "sub" / "f.txt")
    attachment = hook({"attachment_roots": f"{tree}/allowed"}).attachment(link, parameter="document")
    (tree / "forbidden" / "f.txt").write_bytes(b"secret")
    link.unlink()
    link.symlink_to(tree / "forbidden" / "f.txt")
    assert content(attachment) == b"1"


@pytest.mark.parametrize(
    "root", ["memory://bucket/allowed", "memory://bucket/allowed/", "MEMORY://conn@bucket/allowed"]
)
def test_uris_inside_the_roots(hook: MakeHook, storage: Any, root: str) -> None:
    storage.pipe("/bucket/allowed/sub/f 100%.txt", b"1")
    folder = object_storage.object_storage_path("memory://bucket/allowed", None)
    # Airflow 2.11 writes the object as memory:///bucket/…
    found = hook({"attachment_roots": ["/data", root, str(folder)]})
    for location in (
        "memory://bucket/allowed/sub/f 100%.txt",
        folder / "sub" / "f 100%.txt",
    ):
        assert content(found.attachment(location, parameter="document")) == b"1"


OUTSIDE = [
    "memory://bucket/forbidden/f.txt",
    "memory://bucket/f.txt",
    "memory://other/allowed/f.txt",
    "memory://bucket/allowed-too/f.txt",
    "memory://bucket/allowedf.txt",
    "memory://bucket/allowed/../forbidden/f.txt",
    "memory://bucket/allowed/%2e%2e/forbidden/f.txt",
    "memory://bucket/allowed/%2E./forbidden/f.txt",
    "memory://bucket/allowed/.%252e/forbidden/f.txt",
    "memory://bucket/allowed%2F..%2Fforbidden/f.txt",
    "memory://bucket/allowed/sub%2f..%2f..%2fforbidden/f.txt",
    "memory://bucket/allowed/.\t./forbidden/f.txt",
    "memory://bucket/allowed/sub?/../../forbidden/../../f.txt",
    "memory://bucket/allowed/sub#/../../../f.txt",
    # For a storage that takes names literally, this name is outside the folder.
    "memory://bucket/x/../allowed/f.txt",
    "memory://bucket/allowed%2ff.txt",
    "memory://bucket//allowed/f.txt",
    "memory://conn@other/allowed/f.txt",
    "memory://bucket@other/allowed/f.txt",
    "memory://bucket/allowed/f.txt::file:///etc/passwd",
    "memory2://bucket/allowed/f.txt",
    "memory:/bucket/allowed/f.txt",
    "bucket/allowed/f.txt",
    "/bucket/allowed/f.txt",
    "file:///bucket/allowed/f.txt",
]


@pytest.mark.parametrize("location", OUTSIDE)
def test_uris_outside_of_the_roots(hook: MakeHook, storage: Any, location: str) -> None:
    with pytest.raises(WasslyInvalidMessage, match="is outside the connection's attachment_roots"):
        hook({"attachment_roots": "memory://bucket/allowed"}).attachment(location, parameter="document")


def test_a_path_object_is_held_to_the_roots_too(hook: MakeHook, storage: Any) -> None:
    storage.pipe("/bucket/forbidden/f.txt", b"1")
    location = object_storage.object_storage_path("memory://bucket/forbidden/f.txt", None)
    with pytest.raises(WasslyInvalidMessage, match="outside"):
        hook({"attachment_roots": "memory://bucket/allowed"}).attachment(location, parameter="document")


def test_a_root_without_a_path_is_the_whole_bucket(hook: MakeHook, storage: Any) -> None:
    storage.pipe("/bucket/f.txt", b"1")
    storage.pipe("/bucket2/f.txt", b"1")
    found = hook({"attachment_roots": "memory://bucket"})
    assert found.attachment("memory://bucket/f.txt", parameter="document").size == 1
    with pytest.raises(WasslyInvalidMessage, match="outside"):
        found.attachment("memory://bucket2/f.txt", parameter="document")


@given(
    st.lists(st.sampled_from(["a", "sub", "..", ".", "%2e%2e", "%2E.", "", "x", "%2f", "%5c", "?", "#"]), max_size=8)
)
@settings(max_examples=300, deadline=None)
def test_no_spelling_leads_out_of_the_roots(parts: list[str]) -> None:
    class Anything:
        """A path object for which every file exists."""

        protocol = "s3"
        name = "f"

        def __init__(self, uri: str) -> None:
            self.uri = uri

        def __str__(self) -> str:
            return self.uri

        def stat(self) -> Any:
            return os.stat_result((0,) * 10)

    path = "/".join(["root", *parts, "f"])
    try:
        resolve_attachment(Anything(f"s3://bucket/{path}"), parameter="media", roots=["s3://bucket/root"])
    except WasslyInvalidMessage:
        return
    for read in (path, posixpath.normpath(path), posixpath.normpath(unquote(path)), unquote(unquote(path))):
        assert read.startswith("root/"), read
