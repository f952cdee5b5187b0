"""The requests as a service sees them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import ssl
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airflow_provider_wassly import __version__
from airflow_provider_wassly.client import (
    Attachment,
    MessageParameters,
    SendReceipt,
    WasslyAttachmentError,
    WasslyAuthError,
    WasslyClient,
    WasslyError,
    WasslyRejected,
)
from airflow_provider_wassly.sandbox import Sandbox

from .conftest import Connect
from .servers import (
    INSTANCE,
    NUMBER,
    SUCCESS,
    SUCCESS_BODY,
    Behaviour,
    Peer,
    RawServer,
    Request,
    answer,
    replying,
)

Serve = Callable[[Behaviour], RawServer]


def test_the_send_request(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "report.csv.gz").write_bytes(b"zipped")
    (tmp_path / "chart.png").write_bytes(b"drawn")
    with RawServer() as server:
        connect(server.url + "/").send_message(
            contact_mobile_number="00 49 (170) 123-4567",
            instance_id=INSTANCE,
            message="Grüße,\r\n„Welt“ 🌍 \x00 --",
            contact_name=" Zoë ",
            document=tmp_path / "report.csv.gz",
            media=str(tmp_path / "chart.png"),
        )
        [request] = server.requests
        port = server.port
    assert (request.method, request.target) == ("POST", "/api/whatsapp-web-send-message")
    boundary = (request.header("Content-Type") or "").removeprefix("multipart/form-data; boundary=")
    assert dict(request.headers) == {
        "Host": f"127.0.0.1:{port}",
        "Accept": "application/json",
        "Accept-Encoding": "gzip, deflate",
        "User-Agent": f"airflow-provider-wassly/{__version__}",
        "Content-Type": f"multipart/form-data; boundary={boundary}",
        "Content-Length": str(len(request.body)),
        "apikey": "the-apikey",
        "Authorization": "Bearer the-token",
    }
    assert len(request.headers) == 8
    parts = [
        ('document"; filename="report.csv.gz', "application/gzip", b"zipped"),
        ('media"; filename="chart.png', "image/png", b"drawn"),
        ("message", None, "Grüße,\r\n„Welt“ 🌍 \x00 --".encode()),
        ("contact_name", None, "Zoë".encode()),
        ("contact_mobile_number", None, b"+491701234567"),
        ("instance_id", None, INSTANCE.encode()),
    ]
    expected = b""
    for name, content_type, content in parts:
        kind = f"Content-Type: {content_type}\r\n" if content_type else ""
        expected += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n{kind}\r\n'.encode()
        expected += content + b"\r\n"
    assert bytes(request.body) == expected + f"--{boundary}--\r\n".encode()


def test_a_text_without_a_name_has_three_fields(connect: Connect) -> None:
    with RawServer() as server:
        connect(server.url).send_message(
            contact_mobile_number=NUMBER, instance_id=f" {INSTANCE}\n", message="hi", contact_name="  "
        )
        [request] = server.requests
    assert re.findall(rb'name="(\w+)"', request.body) == [b"message", b"contact_mobile_number", b"instance_id"]


def test_the_login_and_the_device_list(connect: Connect) -> None:
    login = answer(200, json.dumps({"success": True, "data": {"token": "fetched", "openai_api_key": "sk"}}))
    with RawServer(replying(login)) as server:
        client = connect(server.url, token=None, email="a@example.com", password='p"ä')
        [device] = client.list_devices()
        first, second = server.requests
    assert device.is_connected
    assert device.instance_id == INSTANCE
    assert (first.method, first.target) == ("POST", "/api/login")
    assert json.loads(first.body) == {"email": "a@example.com", "password": 'p"ä'}
    assert first.header("Content-Type") == "application/json"
    assert first.header("apikey") == "the-apikey"
    assert first.header("Authorization") is None
    assert (second.method, second.target) == ("GET", "/api/whatsapp-web-devices")
    assert second.header("apikey") == "the-apikey"
    assert second.header("Authorization") == "Bearer fetched"
    assert second.length == 0


def test_cookies_are_not_kept(connect: Connect) -> None:
    with RawServer(replying(answer(200, SUCCESS_BODY, "Set-Cookie: session=1; Path=/"))) as server:
        client = connect(server.url)
        for _ in range(2):
            client.send_message(contact_mobile_number=NUMBER, instance_id=INSTANCE, message="hi")
        assert [request.header("Cookie") for request in server.requests] == [None, None]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int, connect: Connect) -> None:
    with RawServer() as stranger, RawServer() as server:
        server.behaviour = replying(answer(status, "", f"Location: {stranger.url}/api/whatsapp-web-send-message"))
        client = connect(server.url)
        with pytest.raises(WasslyRejected) as caught:
            client.send_message(contact_mobile_number=NUMBER, instance_id=INSTANCE, message="hi")
        assert f"{stranger.url}/api" in str(caught.value)
        assert stranger.connections == 0


@pytest.mark.parametrize("variable", ["NETRC", "HOME"])
def test_netrc_does_not_replace_the_token(
    variable: str, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: tuple[object, str]
) -> None:
    netrc = tmp_path / (".netrc" if variable == "HOME" else "other")
    netrc.write_text("machine localhost login stranger password secret\nmachine 127.0.0.1 login s password s\n")
    netrc.chmod(0o600)
    monkeypatch.setenv(variable, str(netrc if variable == "NETRC" else tmp_path))
    # As for a host other than loopback, for which the environment's proxies apply.
    monkeypatch.setattr("airflow_provider_wassly.client.client.is_loopback", lambda host: False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with RawServer() as server:
        client = connect(server.url, allow_http=True)
        client.send_message(contact_mobile_number=NUMBER, instance_id=INSTANCE, message="hi")
        assert server.requests[0].header("Authorization") == "Bearer the-token"


def test_a_proxy_of_the_environment_is_not_used_for_loopback(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer() as proxy, RawServer() as server:
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        for url in (server.url, server.url.replace("127.0.0.1", "localhost")):
            connect(url).send_message(contact_mobile_number=NUMBER, instance_id=INSTANCE, message="hi")
        assert len(server.sends) == 2
        assert proxy.connections == 0


def test_a_proxy_of_the_environment_is_used_for_other_hosts(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer() as proxy:
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.setenv("http_proxy", proxy.url)
        connect("http://wassly.example", allow_http=True).send_message(
            contact_mobile_number=NUMBER, instance_id=INSTANCE, message="hi"
        )
        assert proxy.sends[0].target == "http://wassly.example/api/whatsapp-web-send-message"


def test_a_proxy_of_the_connection_is_used(connect: Connect) -> None:
    with RawServer() as proxy:
        client = connect("http://wassly.example", allow_http=True, proxies={"http": proxy.url})
        client.send_message(contact_mobile_number=NUMBER, instance_id=INSTANCE, message="hi")
        assert len(proxy.sends) == 1


def test_through_a_tunnel_the_proxy_sees_no_secret(connect: Connect, trusted: tuple[ssl.SSLContext, str]) -> None:
    seen: list[Request] = []

    def tunnel(peer: Peer, request: Request) -> None:
        peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        inner = Peer(trusted[0].wrap_socket(peer.sock, server_side=True))
        seen.append(inner.read_head())
        inner.read_body(seen[-1])
        inner.send(SUCCESS)
        inner.drain()

    with RawServer(tunnel) as proxy:
        client = connect("https://localhost", proxies={"https": f"http://user:secret@127.0.0.1:{proxy.port}"})
        client.send_message(contact_mobile_number=NUMBER, instance_id=INSTANCE, message="hi")
        [request] = proxy.requests
        client.close()
    assert request.method == "CONNECT"
    assert request.header("Proxy-Authorization") is not None
    assert request.header("apikey") is None
    assert request.header("Authorization") is None
    assert seen[0].header("apikey") == "the-apikey"
    assert seen[0].header("Proxy-Authorization") is None


def test_many_threads_at_once(box: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "report.pdf"
    path.write_bytes(bytes(range(256)) * 4096)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with WasslyClient(
        apikey="sandbox-apikey", base_url=box.url, email="sandbox@example.com", password="sandbox-password"
    ) as client:

        def send(index: int) -> SendReceipt:
            return client.send_message(
                contact_mobile_number=f"+4917012345{index:02d}",
                instance_id="sandbox-instance",
                message=f"text {index}",
                document=path,
            )

        with ThreadPoolExecutor(16) as pool:
            receipts = list(pool.map(send, range(48)))
    assert len(receipts) == len(box.messages) == 48
    assert box.logins == 1
    for message in box.messages:
        assert message.message == f"text {int(message.contact_mobile_number[-2:])}"
        assert message.document is not None
        assert message.document.sha256 == digest


def test_twenty_threads_that_meet_a_401_together_log_in_once(box: Sandbox) -> None:
    with WasslyClient(
        apikey="sandbox-apikey", base_url=box.url, email="sandbox@example.com", password="sandbox-password"
    ) as client:
        client.list_devices()
        box.expire_tokens()
        box.latency = 0.1
        together = threading.Barrier(20)

        def call(_: int) -> int:
            together.wait()
            return len(client.list_devices())

        with ThreadPoolExecutor(20) as pool:
            assert list(pool.map(call, range(20))) == [1] * 20
    assert box.logins == 2


def test_clients_with_the_same_credentials_share_a_token_and_others_do_not(box: Sandbox) -> None:
    def client(password: str = "sandbox-password") -> WasslyClient:
        return WasslyClient(apikey="sandbox-apikey", base_url=box.url, email="sandbox@example.com", password=password)

    with client() as one, client() as two, client("another") as stranger:
        one.list_devices()
        two.list_devices()
        assert box.logins == 1
        with pytest.raises(WasslyAuthError):
            stranger.list_devices()


def test_a_token_that_was_rejected_once_is_tried_again_when_there_is_no_login(box: Sandbox) -> None:
    """Otherwise a temporary 401 would last as long as the process, which can be a triggerer."""
    box.fail_next("unauthorized", endpoint="devices")
    with WasslyClient(apikey="sandbox-apikey", base_url=box.url, token="sandbox-token") as client:
        with pytest.raises(WasslyAuthError, match="401"):
            client.list_devices()
        assert len(client.list_devices()) == 1


def test_a_rejected_token_of_the_connection_is_told_even_when_a_login_helps(
    box: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    fetched: list[str] = []
    with WasslyClient(
        apikey="sandbox-apikey",
        base_url=box.url,
        token="outdated-token",
        email="sandbox@example.com",
        password="sandbox-password",
        on_new_token=fetched.append,
    ) as client:
        for _ in range(2):
            client.send_message(contact_mobile_number=NUMBER, instance_id="sandbox-instance", message="hi")
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "Wassly rejected the token of the connection (HTTP 401); " in warnings[0]
    assert "outdated-token" not in caplog.text
    assert len(fetched) == box.logins == 1
    assert fetched[0] not in caplog.text


def test_a_login_that_does_not_help_ends_after_one_renewal(connect: Connect) -> None:
    def behave(peer: Peer, request: Request) -> None:
        peer.read_body(request)
        login = answer(200, json.dumps({"success": True, "data": {"token": f"fetched-{len(server.requests)}"}}))
        peer.send(login if request.target == "/api/login" else answer(401, "{}"))

    with RawServer() as server:
        server.behaviour = behave
        client = connect(server.url, email="a@example.com", password="p", max_attempts=3)
        with pytest.raises(WasslyAuthError):
            client.send_message(contact_mobile_number=NUMBER, instance_id=INSTANCE, message="hi")
        assert len(server.sends) == 2
        assert len(server.requests) == 3


# Attachments on their way.


class Watched:
    """A file that runs a callback once it has been read up to a point."""

    def __init__(self, path: Path, after: int, action: Callable[[], None]) -> None:
        self._stream = path.open("rb")
        self._after = after
        self._action: Callable[[], None] | None = action

    def read(self, size: int = -1, /) -> bytes:
        if self._action is not None and self._stream.tell() >= self._after:
            self._action()
            self._action = None
        return self._stream.read(size)

    def close(self) -> None:
        self._stream.close()


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def shrink(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(10)


def fail(path: Path) -> None:
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize("change", [grow, shrink, fail])
@pytest.mark.parametrize("size", [2**20, 5 * 2**20])
def test_a_file_that_changes_while_it_is_sent(
    change: Callable[[Path], None], size: int, box: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / "report.bin"
    path.write_bytes(b"x" * size)
    attachment = Attachment(name=path.name, size=size, opener=lambda: Watched(path, 1, lambda: change(path)))
    with WasslyClient(apikey="sandbox-apikey", base_url=box.url, token="sandbox-token") as client:
        with pytest.raises(WasslyAttachmentError, match=r"report\.bin"):
            client.send_message(
                contact_mobile_number=NUMBER, instance_id="sandbox-instance", message="hi", document=attachment
            )
        assert box.messages == []
        # The next message goes out as usual.
        client.send_message(contact_mobile_number=NUMBER, instance_id="sandbox-instance", message="next")
    assert [message.message for message in box.messages] == ["next"]


def test_each_attempt_reads_the_file_from_its_beginning(connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "report.txt"
    path.write_bytes(b"content")
    with RawServer(replying(answer(429, "{}", "Retry-After: 0"), SUCCESS)) as server:
        connect(server.url, max_attempts=2).send_message(
            contact_mobile_number=NUMBER, instance_id=INSTANCE, document=path
        )
        assert [b"\r\n\r\ncontent\r\n" in request.body for request in server.sends] == [True, True]


@pytest.mark.parametrize("answered", [SUCCESS, answer(500), answer(422, "{}")])
def test_files_are_closed_whatever_comes_of_it(answered: bytes, connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "report.txt"
    path.write_bytes(b"content")
    opened: list[Watched] = []

    def opener() -> Watched:
        opened.append(Watched(path, 10**9, lambda: None))
        return opened[-1]

    with RawServer(replying(answered)) as server, contextlib.suppress(WasslyError):
        connect(server.url).send_message(
            contact_mobile_number=NUMBER,
            instance_id=INSTANCE,
            document=Attachment(name="a", size=7, opener=opener),
            media=Attachment(name="b", size=7, opener=opener),
        )
    assert len(opened) == 2
    assert all(stream._stream.closed for stream in opened)


def test_the_progress_of_a_long_upload_is_logged(
    connect: Connect, large: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("airflow_provider_wassly.client.transport.multipart.PROGRESS_INTERVAL", 0.01)
    caplog.set_level(logging.INFO)
    with RawServer() as server:
        connect(server.url).send_message(contact_mobile_number=NUMBER, instance_id=INSTANCE, document=large)
    lines = [re.fullmatch(r"Uploaded (\S+) of 64\.0 MiB \((\d+) %\)", record.message) for record in caplog.records]
    percents = [int(line[2]) for line in lines if line]
    assert percents
    assert percents == sorted(percents)
    assert percents[-1] <= 100


UPLOAD = """
    import resource, sys
    from airflow_provider_wassly.client import WasslyClient
    url, path = sys.argv[1:]
    with WasslyClient(base_url=url, apikey="k", token="t") as client:
        client.send_message(contact_mobile_number="+491701234567", instance_id="i", document=path)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def sink(peer: Peer, request: Request) -> None:
        left = request.length
        while left > 0:
            left -= len(peer.receive())
        peer.send(SUCCESS)

    def peak_kib(size: int) -> int:
        path = tmp_path / "file.bin"
        with path.open("wb") as file:
            file.truncate(size)
        with RawServer(sink) as server:
            done = subprocess.run(
                [sys.executable, "-c", textwrap.dedent(UPLOAD), server.url, str(path)],
                check=True,
                capture_output=True,
                text=True,
                timeout=60,
            )
        return int(done.stdout)

    assert peak_kib(256 * 2**20) - peak_kib(1024) < 8 * 1024


# Log output.


def test_a_dropped_file_is_told_loudly(box: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "report.pdf"
    path.write_bytes(b"%PDF")
    box.fail_next("drops_attachment")
    with WasslyClient(apikey="sandbox-apikey", base_url=box.url, token="sandbox-token") as client:
        receipt = client.send_message(
            contact_mobile_number=NUMBER, instance_id="sandbox-instance", message="hi", document=path
        )
    assert receipt.message_type == "text"
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "File DROPPED: " in record.getMessage()


def test_a_doubtful_number_is_a_warning_once_for_each_message(box: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    with WasslyClient(apikey="sandbox-apikey", base_url=box.url, token="sandbox-token") as client:
        client.prepare(MessageParameters("+44 07700 900123", "hi", instance_id="sandbox-instance"))
        assert caplog.records == []
        for number in ("+44 07700 900123", "+999 12345678", "+44 7700 900123"):
            client.send_message(contact_mobile_number=number, instance_id="sandbox-instance", message="hi")
    assert [message.contact_mobile_number for message in box.messages] == [
        "+447700900123", "+99912345678", "+447700900123",
    ]  # fmt: skip
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [warning.split(maxsplit=3)[2].rstrip(":,") for warning in warnings] == ["+44…0123", "+99…5678"]
    assert "900123" not in caplog.text


def test_a_list_of_doubtful_numbers_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WasslyClient, "_send_once", lambda *_: SendReceipt("text", 1, None))
    with WasslyClient(apikey="the-apikey", token="the-token") as client:
        message = client.prepare(MessageParameters("+44 07700 900123", "hi", instance_id="one"))
        for _ in range(5000):
            client.send(message)
    assert len(caplog.records) == 25
    assert caplog.messages[19].endswith("; from now on only every 1,000th such warning is logged")


def test_an_unknown_instance_names_those_that_there_are(box: Sandbox) -> None:
    with (
        WasslyClient(apikey="sandbox-apikey", base_url=box.url, token="sandbox-token") as client,
        pytest.raises(WasslyRejected, match=r"no instance other; its instances: sandbox-instance"),
    ):
        client.send_message(contact_mobile_number=NUMBER, instance_id="other", message="hi")


SECRETS = ["the-apikey", "the-password", "pröxy/secret", "pr%c3%b6xy%2fsecret", "the-fetched-token"]


@pytest.mark.parametrize("status", [200, 302, 401, 422, 429, 500, 503])
def test_no_secret_and_no_number_in_what_is_said_when_the_service_echoes_them(
    status: int, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    def behave(peer: Peer, request: Request) -> None:
        peer.read_body(request)
        if request.target == "/api/login":
            peer.send(answer(200, json.dumps({"success": True, "data": {"token": "the-fetched-token"}})))
            return
        echo = " ".join([*SECRETS, NUMBER])
        said = {"success": False, "message": echo, "errors": {echo: [echo]}, "data": [echo]}
        body = echo if status in {302, 500} else json.dumps(said)
        peer.send(answer(status, body, f"Location: /{'/'.join(SECRETS)}", f"Content-Type: text/{echo}"))

    with RawServer(behave) as server:
        client = connect(
            server.url,
            token=None,
            email="a@example.com",
            password="the-password",
            proxies={"https": "http://user:pr%c3%b6xy%2fsecret@127.0.0.1:9"},
        )
        with pytest.raises(WasslyError) as caught:
            client.send_message(contact_mobile_number=NUMBER, instance_id=INSTANCE, message="hi")
    error = caught.value
    shown = " ".join([str(error), error.summary, repr(error), repr(vars(error)), repr(client), caplog.text])
    for hidden in [*SECRETS, NUMBER[1:]]:
        assert hidden not in shown
    assert "+49…4567" in shown or status in {302, 429, 503}
