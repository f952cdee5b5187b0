"""
A demo for a fresh clone: a DAG sends a report over WhatsApp, here to the sandbox.

It runs ``wassly_daily_report`` in a real Airflow with a home of its own in ``.demo``, and shows what the recipient
received. The exit code is 0 if that is what the task sent. With ``KEEP=1``, in a terminal, the sandbox keeps running
until Ctrl-C, so that you can look at its inbox.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from contextlib import suppress

from own_airflow import ROOT, environment, port_from, start

from airflow_provider_wassly.sandbox import Message, Sandbox

HOME = ROOT / ".demo"
LOG = HOME / "demo.log"
DAG_ID = "wassly_daily_report"
LOGICAL_DATE = "2026-11-24T06:00:00+00:00"


def airflow(box: Sandbox, *arguments: str) -> None:
    """Run an ``airflow`` command; if it fails, print its output and exit."""
    command = [sys.executable, "-m", "airflow", *arguments]
    with LOG.open("a") as log:
        done = subprocess.run(command, env=environment(HOME, box), cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    if done.returncode:
        print(LOG.read_text(), file=sys.stderr)
        raise SystemExit(f"airflow {' '.join(arguments)} failed; its output is above")


def show(message: Message) -> None:
    """Print a message as the recipient would see it."""
    print(f"\n  To {message.contact_mobile_number}")
    for line in (message.message or "").splitlines():
        print(f"  │ {line}")
    if message.document:
        first_lines = message.document.bytes.decode().splitlines()[:3]
        print(f"  │ 📎 {message.document.name} ({message.document.content_type}, {message.document.size} bytes)")
        for line in first_lines:
            print(f"  │    {line}")
        print("  │    …")


def main() -> None:
    sandbox = Sandbox(port=port_from("PORT", 0))
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir()
    start(sandbox, "make demo")
    try:
        print(f"Started the sandbox, a stand-in for Wassly: {sandbox.url}")
        print("Setting up a separate Airflow in .demo …")
        airflow(sandbox, "db", "migrate")
        print(f"Running the DAG {DAG_ID} for 2026-11-23 …")
        airflow(sandbox, "dags", "test", DAG_ID, LOGICAL_DATE)
        messages = sandbox.messages
        for message in messages:
            show(message)
        check(messages)
        if os.environ.get("KEEP") and sys.stdout.isatty():
            print(f"\nInbox: {sandbox.url}/ (Ctrl-C to stop)")
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
    finally:
        sandbox.stop()


def check(messages: list[Message]) -> None:
    """Exit with an error unless these are the messages that the DAG sent."""
    written = sorted((HOME / "wassly_reports").glob("*.csv"))
    if len(messages) != 1 or len(written) != 1 or messages[0].document is None:
        raise SystemExit(f"Expected one message with one report, got {messages}; see {LOG}")
    if messages[0].document.size != written[0].stat().st_size:
        raise SystemExit(f"The received report differs in size from the written one; see {LOG}")
    print(f"\nOne message arrived, with the complete report. Airflow's output: {LOG.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
