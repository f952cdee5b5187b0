"""``make up``: a whole Airflow and the sandbox, until Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.airflow_server import IS_AIRFLOW_2

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        content: bytes = answer.read()
        return content


class Up:
    def __init__(self, home: Path) -> None:
        self.airflow = f"http://127.0.0.1:{free_port()}"
        self.sandbox = f"http://127.0.0.1:{free_port()}"
        ports = {"AIRFLOW_PORT": self.airflow.rpartition(":")[2], "PORT": self.sandbox.rpartition(":")[2]}
        self.process = subprocess.Popen(
            [sys.executable, str(home / "scripts" / "up.py")],
            env=os.environ | ports,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line

    def wait_for(self, text: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.output:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.2)

    def stop(self) -> int:
        """Press Ctrl-C; return the exit code."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(60)
        finally:
            self._reader.join(10)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A copy, so that the user's own is not touched."""
    for folder in ("scripts", "example_dags"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


@pytest.fixture
def up(home: Path) -> Iterator[Up]:
    up = Up(home)
    yield up
    if up.process.poll() is None:
        up.stop()


def test_both_are_there_until_ctrl_c(up: Up, home: Path) -> None:
    up.wait_for("Ctrl-C stops all", 180)
    assert f"{up.airflow}/" in up.output
    assert f"The inbox: {up.sandbox}/" in up.output
    assert ("user admin, password" in up.output) == IS_AIRFLOW_2
    # The connection is in place: what a DAG sends arrives.
    (folder,) = (home / ".up").glob("airflow-*")
    environment = Path(f"/proc/{child_of(up.process.pid)}/environ").read_text().split("\0")
    variables = dict(entry.partition("=")[::2] for entry in environment if entry)
    assert variables["AIRFLOW_HOME"] == str(folder)
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "dags", "test", "wassly_daily_report", "2026-11-24T06:00:00+00:00"],
        env=variables,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(json.loads(get(f"{up.sandbox}/sandbox/messages"))["messages"]) == 1
    assert up.stop() == 0, up.output
    for url in (up.airflow, up.sandbox):
        with pytest.raises(OSError, match="refused"):
            get(url)


def test_a_taken_port_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = str(taken.getsockname()[1])
        for name in ("PORT", "AIRFLOW_PORT"):
            ports = {"PORT": str(free_port()), "AIRFLOW_PORT": str(free_port()), name: number}
            done = subprocess.run(
                [sys.executable, str(home / "scripts" / "up.py")],
                env=os.environ | ports,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 1
            (line,) = done.stderr.splitlines()
            assert number in line
            assert f"make up {name}=" in line


def child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
