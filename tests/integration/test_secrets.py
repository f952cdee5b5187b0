"""A run with every kind of failure, followed by a search for secrets in everything that it left behind."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest

from airflow_provider_wassly.sandbox import Sandbox
from airflow_provider_wassly.sandbox.service.api import FAKE_OPENAI_API_KEY
from airflow_provider_wassly.sandbox.service.state import ServiceState
from tests.support.airflow_cli import AirflowCli

NUMBER = "+447700900123"
TEXT = "The text of the message is nobody's business"
APIKEY = "apikey/S3cret+one&two"
TOKEN = "token/S3cret=three"
PASSWORD = 'password"S3cret\\four/ü'
PROXY_PASSWORD = "proxy-S3cret-five"
WRONG = "wrong-S3cret-six"
SECRETS = (APIKEY, TOKEN, PASSWORD, PROXY_PASSWORD, WRONG, FAKE_OPENAI_API_KEY)


class Gossip(BaseHTTPRequestHandler):
    """A service that echoes everything it receives, as debug pages do. The first part of the path is the status."""

    def do_POST(self) -> None:
        status = int(self.path.split("/")[1])
        body = self.rfile.read(int(self.headers["Content-Length"])).decode(errors="replace")
        told = f"{self.path} {dict(self.headers)} {body}"
        as_json = json.dumps({"success": False, "message": told, "errors": {"apikey": [self.headers["apikey"]]}})
        answer = (as_json if status < 500 else f"<html>{told}</html>").encode()
        self.send_response(status)
        if status == 302:
            self.send_header("Location", f"http://127.0.0.1:9/{quote(self.headers['apikey'], safe='')}?{TOKEN}")
        self.send_header("Content-Type", "application/json" if status < 500 else "text/html")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_GET(self) -> None:
        self.send_response(500)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def gossip() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Gossip) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def spellings(secret: str) -> set[str]:
    """Return the encodings in which a secret could appear."""
    escaped = json.dumps(secret)[1:-1]
    return {
        secret,
        escaped,
        json.dumps(secret, ensure_ascii=False)[1:-1],
        escaped.replace("/", "\\/"),
        json.dumps(escaped)[1:-1],
        quote(secret),
        quote(secret, safe=""),
        repr(secret)[1:-1],
        base64.b64encode(secret.encode()).decode(),
        base64.b64encode(f"user:{secret}".encode()).decode(),
    }


FAULTS = (
    "http_500", "http_502_html", "http_413", "http_429", "unauthorized", "redirect_to_login", "rejected",
    "device_disconnected", "not_json", "truncated_json", "maintenance", "hang_after_accept", "reset_before_body",
    "reset_mid_body", "reset_after_body",
)  # fmt: skip
GOSSIP = (200, 302, 401, 404, 422, 429, 500, 503)


@pytest.fixture
def issued(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tokens that sandboxes issue from here on."""
    tokens: list[str] = []
    login = ServiceState.login

    def noting_login(store: ServiceState) -> str:
        tokens.append(login(store))
        return tokens[-1]

    monkeypatch.setattr(ServiceState, "login", noting_login)
    return tokens


def test_no_secret_is_left_anywhere(tmp_path: Path, gossip: str, issued: list[str]) -> None:
    right = {"conn_type": "wassly", "schema": "http", "login": "sandbox@example.com", "password": PASSWORD}
    extra = {"apikey": APIKEY, "instance_id": "sandbox-instance"}
    boxes = {name: Sandbox(apikey=APIKEY, token=TOKEN, password=PASSWORD).start() for name in ("ok", *FAULTS)}
    connections: dict[str, dict[str, object]] = {
        name: {**right, "host": box.url, "extra": extra} for name, box in boxes.items()
    }
    connections["hang_after_accept"]["extra"] = {**extra, "read_timeout": 0.3}
    for name in FAULTS:
        # As many times as the client tries, with a wait that it does not accept, so that it ends soon.
        boxes[name].fail_next(name, times=3, retry_after="120" if name in ("http_429", "maintenance") else None)
    here = {**right, "host": boxes["ok"].url}
    connections |= {
        f"gossip_{status}": {**right, "host": f"{gossip}/{status}", "extra": {**extra, "token": TOKEN}}
        for status in GOSSIP
    }
    connections |= {
        "gossip_login": {**right, "host": f"{gossip}/422", "extra": extra},
        "wrong_apikey": {**here, "extra": {**extra, "apikey": WRONG}},
        "wrong_password": {**here, "password": WRONG, "extra": extra},
        "rejected_token": {**here, "extra": {**extra, "token": WRONG}},
        "rejected_token_alone": {**here, "login": "", "password": "", "extra": {**extra, "token": WRONG}},
        "refused": {**right, "host": "http://127.0.0.1:9", "extra": extra},
        "proxy": {
            **right,
            "host": "wassly.invalid",
            "schema": "https",
            "extra": {**extra, "proxies": {"https": f"http://user:{PROXY_PASSWORD}@127.0.0.1:9"}},
        },
        "key_in_password": {"conn_type": "wassly", "host": boxes["ok"].url, "password": APIKEY},
        "key_beyond_ascii": {**here, "extra": {**extra, "apikey": f"{APIKEY}ü"}},
        "token_of_wrong_type": {**here, "extra": {**extra, "token": [TOKEN]}},
        "secrets_in_host": {**right, "host": f"https://user:{WRONG}@wassly.invalid", "extra": extra},
        "extra_is_no_json": {**here, "extra": json.dumps(extra)[:-1]},
    }  # fmt: skip
    home = tmp_path / "airflow"
    home.mkdir()
    airflow = AirflowCli(
        home,
        {f"AIRFLOW_CONN_{name.upper()}": json.dumps(connection) for name, connection in connections.items()},
    )
    (airflow.dags / "failing.py").write_text(
        f"""
from datetime import datetime, timezone
import tenacity
from airflow_provider_wassly.client import client
from airflow_provider_wassly.operators.send_message import WasslySendMessageOperator
try:
    from airflow.sdk import DAG
except ImportError:
    from airflow.models.dag import DAG

client._BACKOFF = tenacity.wait_none()  # that it waits between attempts is of no interest here

with DAG("failing", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)) as dag:
    for name in {list(connections)!r}:
        WasslySendMessageOperator(
            task_id=name, wassly_conn_id=name, contact_mobile_number={NUMBER!r}, message={TEXT!r}
        )
    for name, arguments in {{
        "bad_number": {{"contact_mobile_number": "0170", "message": "x"}},
        "no_file": {{"contact_mobile_number": {NUMBER!r}, "document": "/no/such/file"}},
        "nothing": {{"contact_mobile_number": {NUMBER!r}, "message": " "}},
    }}.items():
        WasslySendMessageOperator(task_id=name, wassly_conn_id="ok", **arguments)
"""
    )
    try:
        output = airflow.test_dag("failing")
    finally:
        for box in boxes.values():
            box.stop()

    states = airflow.states("failing")
    assert {name for name, state in states.items() if state == "success"} == {"ok", "rejected_token"}, output
    assert {state for name, state in states.items() if name not in ("ok", "rejected_token")} == {"failed"}
    assert set(states) == {*connections, "bad_number", "no_file", "nothing"}

    assert len(issued) > len(FAULTS)
    left = {"output": output.encode()} | {
        str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()
    }
    assert "airflow.db" in left
    del left["dags/failing.py"]
    for secret in (*SECRETS, *issued):
        for spelling in spellings(secret):
            for where, content in left.items():
                assert spelling.encode() not in content, (spelling, where)
    # They are part of the DAG itself, and so of what Airflow stores, but must not be in any log.
    assert NUMBER not in output
    assert NUMBER[1:] not in output
    assert TEXT not in output
