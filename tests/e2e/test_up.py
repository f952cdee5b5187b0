"""``make up``: a complete Airflow and the sandbox, until Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.play import SECONDS
from tests.support.airflow_server import IS_AIRFLOW_2, ReservedPort

ROOT = Path(__file__).parents[2]


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        content: bytes = answer.read()
        return content


def start(home: Path, ports: dict[str, int], *, stderr: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(home / "scripts" / "up.py")]
    environment = os.environ | {name: str(port) for name, port in ports.items()}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True)


class Up:
    def __init__(self, home: Path, airflow: ReservedPort, sandbox: ReservedPort) -> None:
        self.airflow, self.sandbox = airflow.url, sandbox.url
        ports = {"AIRFLOW_PORT": airflow.number, "PORT": sandbox.number}
        self.process = start(home, ports, stderr=subprocess.STDOUT)
        self.output = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line

    def wait_until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.2)

    def messages(self) -> list[Any]:
        messages: list[Any] = json.loads(get(f"{self.sandbox}/sandbox/messages"))["messages"]
        return messages

    def stop(self) -> int:
        """Press Ctrl-C; return the exit code."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(60)
        finally:
            self._reader.join(10)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A copy, so that the user's ``.up`` is not touched."""
    for folder in ("scripts", "example_dags"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


@pytest.fixture
def ports() -> Iterator[tuple[ReservedPort, ReservedPort]]:
    with closing(ReservedPort()) as one, closing(ReservedPort()) as other:
        yield one, other


@pytest.fixture
def up(home: Path, ports: tuple[ReservedPort, ReservedPort]) -> Iterator[Up]:
    up = Up(home, *ports)
    yield up
    if up.process.poll() is None:
        up.stop()


def test_both_are_there_until_ctrl_c(up: Up, home: Path) -> None:
    up.wait_until(lambda: "Press Ctrl-C to stop" in up.output)
    assert f"Airflow: {up.airflow}/" in up.output
    assert f"Inbox:   {up.sandbox}/" in up.output
    assert ("user admin, password" in up.output) == IS_AIRFLOW_2
    # The connection works: once a DAG is unpaused, its message arrives.
    up.wait_until(lambda: switch_on("wassly_daily_report", home))
    up.wait_until(up.messages)
    assert len(up.messages()) == 1
    assert up.stop() == 0, up.output
    for url in (up.airflow, up.sandbox):
        with pytest.raises(OSError, match="refused"):
            get(url)


def switch_on(dag_id: str, home: Path) -> bool:
    """Unpause a DAG, as the switch in Airflow's UI does; return whether Airflow already knows the DAG."""
    (path,) = home.glob(".up/airflow-*/airflow.db")
    with closing(sqlite3.connect(path, timeout=30)) as database, database:
        return database.execute("update dag set is_paused = false where dag_id = ?", (dag_id,)).rowcount == 1


def test_a_taken_port_is_named(home: Path, ports: tuple[ReservedPort, ReservedPort]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        free = {"PORT": ports[0].number, "AIRFLOW_PORT": ports[1].number}
        started = {name: start(home, free | {name: number}, stderr=subprocess.PIPE) for name in free}
        for name, process in started.items():
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 1
            (line,) = errors.splitlines()
            assert str(number) in line
            assert f"make up {name}=" in line
