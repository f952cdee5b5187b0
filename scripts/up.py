"""
Runs a complete Airflow with the example DAGs, and the sandbox for them to send to. Ctrl-C stops both.

Both store their data in ``.up``. ``PORT`` is the sandbox's port, ``AIRFLOW_PORT`` is Airflow's.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from types import FrameType

from own_airflow import ROOT, environment, port_from, start

from airflow_provider_wassly.sandbox import Sandbox

#: Read from the metadata, because importing Airflow takes seconds.
VERSION = version("apache-airflow")
HOME = ROOT / ".up" / f"airflow-{VERSION}"
LOG = HOME / "airflow.log"
IS_AIRFLOW_2 = VERSION.startswith("2.")
#: Seconds that Airflow may take to start, and to stop.
STARTS_WITHIN = 300
STOPS_WITHIN = 20


def settings(number: int) -> dict[str, str]:
    """Return the settings that make Airflow serve on this port, for this machine only."""
    url = f"http://127.0.0.1:{number}"
    # Airflow disables the test button on the connection page by default.
    common = {"AIRFLOW__CORE__TEST_CONNECTION": "Enabled"}
    if IS_AIRFLOW_2:
        return common | {
            "AIRFLOW__WEBSERVER__WEB_SERVER_HOST": "127.0.0.1",
            "AIRFLOW__WEBSERVER__WEB_SERVER_PORT": str(number),
            "AIRFLOW__WEBSERVER__BASE_URL": url,
        }
    return common | {
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(number),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        # No login: only this machine can reach it, and it holds no secrets.
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
    }


def is_up(url: str) -> bool:
    """Return whether Airflow answers, including the API that tasks need within seconds of starting."""
    path = "health" if IS_AIRFLOW_2 else "execution/health"
    with suppress(OSError), urllib.request.urlopen(f"{url}/{path}") as answer:
        return bool(answer.status == 200)
    return False


def run_airflow(box: Sandbox, number: int) -> None:
    """Run Airflow until it stops or the user stops it."""
    with LOG.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "standalone"],
            env=environment(HOME, box) | settings(number),
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            # A process group of its own, so that a Ctrl-C in the terminal reaches only this process.
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{number}"
        deadline = time.monotonic() + STARTS_WITHIN
        while not is_up(url):
            if process.poll() is not None or time.monotonic() > deadline:
                print(LOG.read_text(errors="replace")[-3000:], file=sys.stderr)
                raise SystemExit(f"Airflow did not start; the end of {LOG.relative_to(ROOT)} is above")
            time.sleep(0.5)
        print(f"Airflow: {url}/{login()}")
        print(f"Inbox:   {box.url}/")
        print("Trigger a DAG and watch its messages arrive in the inbox. Press Ctrl-C to stop.", flush=True)
        process.wait()
        raise SystemExit(f"Airflow has stopped; see {LOG.relative_to(ROOT)}")
    except KeyboardInterrupt:
        print("\nStopping …", flush=True)
    finally:
        end(process.pid)


def login() -> str:
    """Return the login details, or nothing if Airflow asks for none."""
    password = HOME / "standalone_admin_password.txt"
    return f" (user admin, password {password.read_text().strip()})" if password.exists() else ""


def end(group: int) -> None:
    """Stop all processes of a group, gracefully if possible."""
    deadline = time.monotonic() + STOPS_WITHIN
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        while time.monotonic() < deadline:
            with suppress(ChildProcessError):
                os.waitpid(group, os.WNOHANG)
            os.killpg(group, 0)
            time.sleep(0.2)
        os.killpg(group, signal.SIGKILL)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Treat SIGTERM like a Ctrl-C."""
    raise KeyboardInterrupt


def main() -> None:
    airflow_port = port_from("AIRFLOW_PORT", 8080)
    try:
        socket.create_server(("127.0.0.1", airflow_port)).close()
    except OSError as error:
        reason = f"Airflow cannot listen on port {airflow_port}: {error.strerror}"
        raise SystemExit(f"{reason}; choose another: make up AIRFLOW_PORT=8081") from None
    HOME.mkdir(parents=True, exist_ok=True)
    box = start(Sandbox(port=port_from("PORT", 8095), data_dir=Path(ROOT / ".up" / "inbox")), "make up")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        print("Starting Airflow …", flush=True)
        run_airflow(box, airflow_port)
    except KeyboardInterrupt:
        pass  # interrupted before Airflow was started
    finally:
        box.stop()


if __name__ == "__main__":
    main()
