"""The sandbox in a separate process, as used by a shell and by tests in other processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from airflow_provider_wassly.client import WasslyClient
from airflow_provider_wassly.client.transport.auth import Tokens
from airflow_provider_wassly.hooks.wassly import WasslyHook
from airflow_provider_wassly.sandbox import FAULTS, Sandbox
from tests.integration.sandbox.wire import BOUNDARY, CREDENTIALS, DEVICES, INSTANCE, NUMBER, SEND, form

COMMAND = [sys.executable, "-m", "airflow_provider_wassly.sandbox"]
FORM = {**CREDENTIALS, "Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
MIB = 2**20


class Running:
    """A sandbox in another process, with the lines that it printed when it started."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.lines = [process.stdout.readline().rstrip("\n") for _ in range(4)]
        self.url = self.lines[0].rpartition(" ")[2]

    def send(self, message: str, timeout: float = 10) -> requests.Response:
        body = form(message=message)
        return requests.post(self.url + SEND, headers=FORM, data=body, timeout=timeout, allow_redirects=False)

    def ask(self, method: str, path: str, body: object = None) -> requests.Response:
        return requests.request(method, f"{self.url}/sandbox/{path}", json=body, timeout=10)


@contextmanager
def running(*options: str) -> Iterator[Running]:
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield Running(process)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def other() -> Iterator[Running]:
    with running() as sandbox:
        yield sandbox


def test_it_says_where_it_listens_what_it_is_and_how_to_use_it(other: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    listens, where, warning, export = other.lines
    assert listens == f"The Wassly sandbox is listening on {other.url}"
    assert where == f"Open the inbox in a browser: {other.url}/"
    assert other.url.startswith("http://127.0.0.1:")
    assert "local use only" in warning
    # As a shell reads it:
    done = subprocess.run(
        ["sh", "-c", f'{export}; printf %s "$AIRFLOW_CONN_WASSLY_DEFAULT"'], capture_output=True, text=True, check=True
    )
    monkeypatch.setenv("AIRFLOW_CONN_WASSLY_DEFAULT", done.stdout)
    Tokens.forget_all()
    assert [device.instance_id for device in WasslyHook().list_devices()] == [INSTANCE]


def test_its_options_are_what_the_service_then_asks_for() -> None:
    login = ["--apikey", "k'1", "--token", "t2", "--email", "a@b.c", "--password", "p4"]
    options = [*login, "--conversations", "1", "--device", "one", "--device", "two"]
    with running(*options) as other:
        credentials = {"apikey": "k'1", "Authorization": "Bearer t2", "Accept": "application/json"}
        devices = requests.get(other.url + DEVICES, headers=credentials, timeout=10).json()["devices"]
        assert [device["instance_id"] for device in devices] == ["one", "two"]
        assert other.send("Hello").status_code == 401
        assert other.ask("GET", "state").json()["conversations"] == 1
        with WasslyClient(base_url=other.url, apikey="k'1", email="a@b.c", password="p4") as client:
            receipt = client.send_message(contact_mobile_number=NUMBER, instance_id="two", message="Hello")
        assert receipt.remaining_conversations == 0


def test_a_taken_port_is_one_line_and_exit_1(box: Sandbox) -> None:
    done = subprocess.run([*COMMAND, "--port", str(box.port)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"cannot listen on 127.0.0.1 port {box.port}: ")


def test_a_remote_host_is_served_when_that_is_permitted() -> None:
    with running("--host", "0.0.0.0", "--allow-remote") as other:
        assert other.url.startswith("http://127.0.0.1:")
        answer = requests.get(f"{other.url}/sandbox/state", headers={"Host": "sandbox:8095"}, timeout=10)
        assert answer.status_code == 200


@pytest.mark.realtime
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_exit_0_even_while_a_call_hangs(number: signal.Signals) -> None:
    with running() as other:
        other.ask("POST", "faults", {"name": "hang_after_accept"})
        with pytest.raises(requests.Timeout):
            other.send("hangs", timeout=0.2)
        other.ask("POST", "faults", {"name": "hang_before_body", "endpoint": "devices"})
        with requests.Session() as session, pytest.raises(requests.Timeout):
            session.get(other.url + DEVICES, headers=CREDENTIALS, timeout=0.2)
        other.process.send_signal(number)
        stdout, stderr = other.process.communicate(timeout=30)
        assert (other.process.returncode, stdout, stderr) == (0, "", "")


# What a client sees, where that is not an answer with status 200.
SEEN = {
    "http_500": "500",
    "http_502_html": "502",
    "http_413": "413",
    "http_429": "429",
    "unauthorized": "401",
    "token_expired": "401",
    "redirect_to_login": "302",
    "maintenance": "503",
    "short_body": "broken",
    "hang_after_accept": "silence",
    "hang_before_body": "silence",
    "hang_mid_body": "silence",
    "reset_before_body": "broken",
    "reset_mid_body": "broken",
    "reset_after_body": "broken",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_can_be_had_from_another_process(other: Running, fault: str) -> None:
    other.ask("POST", "reset")
    assert other.ask("POST", "faults", {"name": fault}).status_code == 201
    try:
        seen = str(other.send("Hello", timeout=0.3 if fault.startswith("hang") else 10).status_code)
    except requests.Timeout:
        seen = "silence"
    except requests.RequestException:
        seen = "broken"
    assert seen == SEEN.get(fault, "200")
    (call,) = other.ask("GET", "calls").json()["calls"]
    assert (call["endpoint"], call["fault"]) == ("send", fault)
    assert len(other.ask("GET", "messages").json()["messages"]) == FAULTS[fault].records
    assert other.ask("GET", "faults").json()["faults"] == []


def peak(process: subprocess.Popen[str]) -> int:
    """The most memory that a process ever had, in bytes."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the system does not tell")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of another process")
def test_a_large_file_goes_to_disk_and_not_to_memory(tmp_path: Path) -> None:
    large, small = tmp_path / "large.bin", tmp_path / "small.bin"
    small.write_bytes(bytes(4 * MIB))
    with large.open("wb") as file:
        file.truncate(300 * MIB)
    with running() as other, WasslyClient(base_url=other.url, apikey="sandbox-apikey", token="sandbox-token") as client:
        client.send_message(contact_mobile_number=NUMBER, instance_id=INSTANCE, document=small)
        before = peak(other.process)
        client.send_message(contact_mobile_number=NUMBER, instance_id=INSTANCE, document=large)
        message = other.ask("GET", "messages").json()["messages"][1]
        assert message["document"]["size"] == 300 * MIB
        with requests.get(other.url + message["document"]["url"], stream=True, timeout=10) as answer:
            assert sum(len(block) for block in answer.iter_content(MIB)) == 300 * MIB
        assert peak(other.process) - before < 16 * MIB


def test_files_are_removed_when_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with running() as other:
        assert [path.name.startswith("wassly-sandbox-") for path in tmp_path.iterdir()] == [True]
        other.process.terminate()
        assert other.process.wait(30) == 0
        assert list(tmp_path.iterdir()) == []


def test_files_are_removed_when_a_program_ends_without_having_stopped_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    program = "from airflow_provider_wassly.sandbox import Sandbox; box = Sandbox().start(); print(box.url)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []
