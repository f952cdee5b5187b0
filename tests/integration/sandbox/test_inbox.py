"""What the sandbox stores, for how long, and the errors when it cannot."""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_wassly.sandbox import Sandbox
from tests.integration.sandbox.wire import BOUNDARY, CREDENTIALS, NUMBER, SEND, form, part
from tests.support.memory import in_own_process, traced

FORM = {**CREDENTIALS, "Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
COMMAND = [sys.executable, "-m", "airflow_provider_wassly.sandbox", "--port", "0"]


def send(url: str, *files: bytes, **fields: str) -> requests.Response:
    return requests.post(url + SEND, headers=FORM, data=form(*files, **fields), timeout=10)


def texts(box: Sandbox) -> list[str | None]:
    return [message.message for message in box.messages]


# A data folder


def test_messages_and_files_survive_a_restart(tmp_path: Path) -> None:
    with Sandbox(data_dir=tmp_path / "new" / "folder") as box:
        send(box.url, part("document", b"content", "تقرير.pdf", "application/pdf"), message="*Bonjour* 👋")
        before = box.messages
    with Sandbox(data_dir=str(tmp_path / "new" / "folder")) as box:
        assert box.messages == before
        document = box.messages[0].document
        assert document is not None
        assert document.bytes == b"content"
        send(box.url, part("document", b"more", "b.pdf"))
        send(box.url, message="Hi", contact_mobile_number="+4917000000")
        assert [message.id for message in box.messages] == [1, 2, 3]
        assert [message.conversation_id for message in box.messages] == [1, 1, 2]
        assert document.bytes == b"content"
        answer = requests.get(f"{box.url}/sandbox/messages/1/document", timeout=10)
        assert answer.content == b"content"


def test_a_folder_that_was_moved_is_whole(tmp_path: Path) -> None:
    with Sandbox(data_dir=tmp_path / "here") as box:
        send(box.url, part("media", b"picture", "a.png"))
    (tmp_path / "here").rename(tmp_path / "there")
    with Sandbox(data_dir=tmp_path / "there") as box:
        assert box.messages[0].media is not None
        assert box.messages[0].media.bytes == b"picture"


def test_what_was_deleted_does_not_come_back(tmp_path: Path) -> None:
    with Sandbox(data_dir=tmp_path) as box:
        send(box.url, part("media", b"picture", "a.png"))
        requests.delete(f"{box.url}/sandbox/messages", timeout=10)
        assert list((tmp_path / "files").iterdir()) == []
    with Sandbox(data_dir=tmp_path) as box:
        assert box.messages == []
        send(box.url, message="after")
        assert box.messages[0].id == 2  # ids are never reused


def test_messages_stay_readable_when_it_has_stopped(tmp_path: Path) -> None:
    for box in (Sandbox(), Sandbox(data_dir=tmp_path)):
        with box:
            send(box.url, message="Hello")
        assert texts(box) == ["Hello"]
        with box:
            send(box.url, message="again")
        assert texts(box) == ["Hello", "again"]


def test_an_odd_text_is_kept_as_it_is(tmp_path: Path) -> None:
    with Sandbox(data_dir=tmp_path) as box:
        requests.post(
            box.url + SEND,
            headers=FORM | {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}; charset=utf-7"},
            data=form(message="a+2AA-b"),
            timeout=10,
        )
        first = texts(box)
        assert len(first) == 1
    with Sandbox(data_dir=tmp_path) as box:
        assert texts(box) == first


def test_two_sandboxes_cannot_share_a_folder(tmp_path: Path) -> None:
    with Sandbox(data_dir=tmp_path) as box:
        other = Sandbox(data_dir=tmp_path)
        with pytest.raises(OSError, match=f"cannot use the data folder {tmp_path}: another sandbox is using it"):
            other.start()
        send(box.url, message="Hello")
        assert texts(box) == ["Hello"]
    with other:
        assert texts(other) == ["Hello"]


def broken(folder: Path) -> str:
    (folder / "inbox.sqlite3").write_bytes(b"not a database" * 100)
    return "inbox.sqlite3 is damaged (file is not a database); move it away, or use another folder"


def damaged(folder: Path) -> str:
    with Sandbox(data_dir=folder) as box:
        for _ in range(200):
            send(box.url, message="x" * 1000)
    content = bytearray((folder / "inbox.sqlite3").read_bytes())
    content[8192:65536] = b"\xff" * (65536 - 8192)
    (folder / "inbox.sqlite3").write_bytes(content)
    return "inbox.sqlite3 is damaged"


def newer(folder: Path) -> str:
    with Sandbox(data_dir=folder):
        pass
    with sqlite3.connect(folder / "inbox.sqlite3") as database:
        database.execute("PRAGMA user_version = 99")
    return "inbox.sqlite3 was written by another version of the sandbox"


def a_file(folder: Path) -> str:
    folder.rmdir()
    folder.write_text("")
    return "Not a directory"


@pytest.mark.parametrize("spoil", [broken, damaged, newer, a_file])
def test_a_folder_that_cannot_be_used_is_one_line_and_exit_1(tmp_path: Path, spoil: Any) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    reason = spoil(folder)
    done = subprocess.run([*COMMAND, "--data-dir", str(folder)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"cannot use the data folder {folder}: ")
    assert reason in line


def test_an_empty_name_is_no_folder() -> None:
    with pytest.raises(ValueError, match="data_dir must name a folder"):
        Sandbox(data_dir="")


# A full disk, simulated with a file size limit for the serving process only.


@contextmanager
def with_files_up_to(size: int, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    process = subprocess.Popen(
        [*COMMAND, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1], process
    finally:
        process.kill()
        process.wait()


def test_a_message_that_cannot_be_kept_is_not_accepted(tmp_path: Path) -> None:
    with with_files_up_to(200_000, "--data-dir", str(tmp_path)) as (url, process):
        assert send(url, part("document", b"x" * 100_000, "small.bin")).status_code == 200
        too_large = send(url, part("document", b"x" * 300_000, "large.bin"))
        assert too_large.status_code == 507
        assert "could not store the message" in too_large.json()["message"]
        statuses = [send(url, message="x" * 20_000).status_code for _ in range(20)]
        state = requests.get(f"{url}/sandbox/state", timeout=10).json()
        accepted = 1 + statuses.count(200)
        # At some point the database was full.
        assert set(statuses) == {200, 507}
        assert state["messages"] == accepted
        assert state["conversations"] == 1000 - accepted
        process.terminate()
        _, errors = process.communicate(timeout=10)
    assert "The sandbox could not store a message: " in errors
    assert len(list((tmp_path / "files").iterdir())) == 1
    with Sandbox(data_dir=tmp_path) as box:
        assert len(box.messages) == accepted


# The maximum number of messages


@pytest.mark.parametrize("where", ["temporary", "data folder"])
def test_the_oldest_make_room(where: str, tmp_path: Path) -> None:
    folder = tmp_path if where == "data folder" else None
    with Sandbox(max_messages=3, data_dir=folder) as box:
        files = []
        for place in range(5):
            assert send(box.url, part("document", b"content", "a.txt"), message=str(place)).status_code == 200
            document = box.messages[-1].document
            assert document is not None
            files.append(document.path)
        assert texts(box) == ["2", "3", "4"]
        assert [path.exists() for path in files] == [False, False, True, True, True]
        state = requests.get(f"{box.url}/sandbox/state", timeout=10).json()
        assert (state["messages"], state["max_messages"], state["conversations"]) == (3, 3, 995)


def test_a_folder_that_holds_more_is_cut_to_the_newest(tmp_path: Path) -> None:
    with Sandbox(data_dir=tmp_path) as box:
        for place in range(5):
            send(box.url, part("document", b"content", "a.txt"), message=str(place))
    with Sandbox(data_dir=tmp_path, max_messages=2) as box:
        assert texts(box) == ["3", "4"]
        assert len(list((tmp_path / "files").iterdir())) == 2


@pytest.mark.parametrize("value", [0, -1, 1.5, "5", True, None])
def test_a_wrong_number_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="max_messages must be a positive integer"):
        Sandbox(max_messages=value)


def test_an_inbox_of_ten_thousand_is_read_page_by_page() -> None:
    with Sandbox(conversations=20_000) as box:
        keep(box, 10_001)
        answer = requests.get(f"{box.url}/sandbox/contacts?limit=100", timeout=10)
        assert len(answer.json()["contacts"]) == 100
        assert answer.json()["more"]
        newest = requests.get(f"{box.url}/sandbox/messages?before={10**15}&limit=50", timeout=10)
        assert [message["message"] for message in newest.json()["messages"]] == [str(n) for n in range(9951, 10_001)]
        assert texts(box)[0] == "1"


def keep(box: Sandbox, number: int) -> None:
    """Store messages in the sandbox directly, which is faster than over HTTP."""
    for place in range(number):
        box._store.accept(
            contact_mobile_number=f"+49170{place % 2000:07}",
            contact_name=None,
            message=str(place),
            instance_id="sandbox-instance",
            document=None,
            media=None,
        )


# Events


class Listener:
    """Reads the events in a thread."""

    def __init__(self, url: str) -> None:
        self.events: list[dict[str, Any]] = []
        self._closed = False
        self._changed = threading.Condition()
        self.answer = requests.get(f"{url}/sandbox/events", stream=True, timeout=10)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for line in self.answer.iter_lines():
                if self._closed:
                    break
                if line.startswith(b"data: "):
                    with self._changed:
                        self.events.append(json.loads(line[6:]))
                        self._changed.notify_all()
        except requests.RequestException:
            pass  # the sandbox has stopped
        self.answer.close()

    def close_with(self, change: Callable[[], object]) -> None:
        """Stop the reading thread, by giving it something to read."""
        self._closed = True
        change()
        self._thread.join(10)

    def sees(self, **expected: Any) -> bool:
        """Wait for an event that meets the condition."""
        with self._changed:
            return self._changed.wait_for(
                lambda: any(expected.items() <= event.items() for event in self.events), timeout=10
            )


@pytest.fixture
def listener(box: Sandbox) -> Iterator[Listener]:
    listener = Listener(box.url)
    yield listener
    listener.close_with(box.reset)


def test_whatever_changes_is_told(box: Sandbox, listener: Listener) -> None:
    assert listener.answer.headers["Content-Type"].startswith("text/event-stream")
    assert listener.sees(messages=0, faults=0)
    send(box.url, message="Hello")
    assert listener.sees(messages=1, conversations=999, last_message=box.messages[0].id)
    box.conversations = 5
    assert listener.sees(conversations=5)
    box.fail_next("http_500")
    assert listener.sees(faults=1)
    box.clear_faults()
    box.disconnect_device("sandbox-instance")
    assert listener.sees(faults=0, devices=[box.devices[0].as_json()])
    box.latency = 0.01
    assert listener.sees(latency=0.01)
    box.reset()
    assert listener.sees(messages=0, latency=0.0, conversations=1000)


def test_many_changes_are_told_together(box: Sandbox, listener: Listener) -> None:
    assert listener.sees(messages=0)
    box.conversations = 100_000
    keep(box, 2000)
    assert listener.sees(messages=2000)
    assert len(listener.events) < 200


def test_who_listens_does_not_hold_up_the_stop() -> None:
    box = Sandbox().start()
    assert Listener(box.url).sees(messages=0)
    stop = threading.Thread(target=box.stop)
    stop.start()
    stop.join(10)
    assert not stop.is_alive()


# The page


def test_the_page_and_its_parts_come_with_a_strict_policy(box: Sandbox) -> None:
    page = requests.get(box.url, timeout=10)
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    for answer in (page, requests.get(f"{box.url}/page/style.css", timeout=10)):
        assert answer.status_code == 200
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("name", ["nothing.js", "..", "..%2fapi.py", "%2e%2e%2f%2e%2e%2fclient%2fclient.py", "", "%00"])
def test_the_page_has_no_other_parts(box: Sandbox, name: str) -> None:
    answer = requests.get(f"{box.url}/page/{name}", timeout=10)
    assert answer.status_code == 404 or answer.url == f"{box.url}/"


def test_the_page_is_for_this_machine_only(box: Sandbox) -> None:
    for path in ("", "/page/style.css"):
        assert requests.get(box.url + path, headers={"Host": "evil.example"}, timeout=10).status_code == 403


def test_what_was_sent_is_never_a_page(box: Sandbox) -> None:
    send(box.url, part("document", b"<script>alert(1)</script>", "a.html", "text/html"))
    answer = requests.get(f"{box.url}/sandbox/messages/{box.messages[0].id}/document", timeout=10)
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert answer.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"


# Faults with a share


def test_a_share_of_the_calls_fails(box: Sandbox) -> None:
    box.fail_next("http_429", share=0.5, to=NUMBER)
    statuses = [send(box.url, message="Hello").status_code for _ in range(100)]
    # The chance of fewer than 15 or more than 85 out of 100 is less than one in a billion.
    assert 15 < statuses.count(429) < 85
    assert send(box.url, message="Hello", contact_mobile_number="+4917000000").status_code == 200
    assert [fault.times for fault in box.faults] == [None]
    box.clear_faults()
    assert send(box.url, message="Hello").status_code == 200


def test_a_share_can_end_after_some_times(box: Sandbox) -> None:
    box.fail_next("maintenance", share=0.5, times=3, early=True)
    statuses = [send(box.url, message="Hello").status_code for _ in range(100)]
    assert statuses.count(503) == 3
    assert box.faults == []


def test_all_calls_can_fail_until_that_is_ended(box: Sandbox) -> None:
    box.fail_next("http_500", share=1)
    box.fail_next("http_429")
    assert {send(box.url, message="Hello").status_code for _ in range(5)} == {500}
    assert [fault.name for fault in box.faults] == ["http_500", "http_429"]


def test_the_folder_is_not_written_by_others_than_its_owner(tmp_path: Path) -> None:
    """Files are no more accessible than the user's umask allows."""
    old = os.umask(0o077)
    try:
        with Sandbox(data_dir=tmp_path / "data") as box:
            send(box.url, part("document", b"content", "a.txt"))
            document = box.messages[0].document
            assert document is not None
            assert document.path.stat().st_mode & 0o077 == 0
            assert (tmp_path / "data" / "inbox.sqlite3").stat().st_mode & 0o077 == 0
    finally:
        os.umask(old)


def test_messages_are_not_held_in_memory() -> None:
    def held() -> int:
        with Sandbox(conversations=20_000, max_messages=5_000) as box:
            keep(box, 100)
            with traced():
                keep(box, 10_000)
                memory, _ = tracemalloc.get_traced_memory()
            assert len(box.messages) == 5_000
            return memory

    assert in_own_process(held) < 200_000
