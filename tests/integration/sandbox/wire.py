"""A client that controls every byte it sends and sees how the connection ends."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import socket
import time
from dataclasses import dataclass
from email.message import Message as Headers
from types import TracebackType
from typing import Any

LOGIN = "/api/login"
DEVICES = "/api/whatsapp-web-devices"
SEND = "/api/whatsapp-web-send-message"

NUMBER = "+491701234567"
INSTANCE = "sandbox-instance"
CREDENTIALS = {
    "apikey": "sandbox-apikey",
    "Authorization": "Bearer sandbox-token",
    "Accept": "application/json",
}
BOUNDARY = "wassly-test-boundary"


def part(name: str, content: bytes, filename: str | None = None, content_type: str | None = None) -> bytes:
    """Return one part of a form, in the layout that PHP, Python and Node read."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"'
    if filename is not None:
        head += f'; filename="{filename}"'
    if content_type is not None:
        head += f"\r\nContent-Type: {content_type}"
    return head.encode() + b"\r\n\r\n" + content + b"\r\n"


def form(*files: bytes, **fields: str) -> bytes:
    """Return a whole form, files first, with default recipient and instance."""
    texts = {"contact_mobile_number": NUMBER, "instance_id": INSTANCE, **fields}
    parts = [*files, *(part(name, text.encode()) for name, text in texts.items())]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


@dataclass
class Answer:
    """What was received until the connection ended or fell silent.

    :param end: ``closed`` (FIN), ``reset`` (RST) or ``silent``.
    """

    raw: bytes
    end: str

    @property
    def status(self) -> int:
        return int(self.raw.split(b" ", 2)[1])

    @property
    def headers(self) -> Headers:
        return http.client.parse_headers(io.BytesIO(self.raw.partition(b"\r\n")[2]))

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def whole(self) -> bool:
        """Whether everything that the headers announce has arrived."""
        return b"\r\n\r\n" in self.raw and len(self.body) >= int(self.headers["Content-Length"] or 0)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """A TCP connection to the sandbox.

    :param host: the sandbox's host.
    :param port: the sandbox's port.
    """

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), timeout=10)

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def begin_form(self, length: int, body: bytes = b"") -> None:
        """Send the headers of a send call together with the given part of the body."""
        headers = {
            "Host": "127.0.0.1",
            **CREDENTIALS,
            "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
            "Content-Length": str(length),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.send(f"POST {SEND} HTTP/1.1\r\n{lines}\r\n".encode() + body)

    def answer(self, patience: float = 20, end_within: float = 0.03) -> Answer:
        """
        Read until the connection ends or falls silent.

        :param patience: seconds to wait for each part of the answer.
        :param end_within: seconds to wait for the connection to end after the whole answer.
        """
        answer = Answer(b"", "silent")
        try:
            while True:
                self.socket.settimeout(end_within if answer.whole else patience)
                piece = self.socket.recv(65536)
                if not piece:
                    answer.end = "closed"
                    return answer
                answer.raw += piece
        except TimeoutError:
            return answer
        except ConnectionResetError:
            answer.end = "reset"
            return answer

    def takes_all(self, size: int, patience: float = 10) -> bool:
        """Send this many bytes; return whether the other side took them without pausing for this many seconds."""
        block = bytes(65536)
        self.socket.settimeout(patience)
        try:
            for _ in range(size // len(block)):
                self.socket.sendall(block)
        except TimeoutError:
            return False
        return True

    def taken_within(self, patience: float, size: int) -> int:
        """Send at most so many bytes; return how many were taken until, for some seconds, no more were."""
        block, taken = bytes(512 * 1024), 0
        self.socket.settimeout(patience)
        with contextlib.suppress(TimeoutError):
            while taken < size:
                taken += self.socket.send(block)
        return taken


def speaks_ipv6() -> bool:
    """Whether this machine has ``::1``; many containers do not."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def eventually(condition: Any, seconds: float = 20) -> bool:
    """Wait until another thread makes a condition true."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
