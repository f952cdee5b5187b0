"""Servers that do exactly what a test specifies, byte for byte, over plain HTTP or TLS."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NUMBER = "+491701234567"
INSTANCE = "14wdfwef-da6f-11f0-3314-32423432"


def answer(status: int, body: bytes | str = b"", *headers: str, length: int | None = None) -> bytes:
    """Return an HTTP answer; ``length`` announces a length other than the real one."""
    body = body.encode() if isinstance(body, str) else body
    lines = [
        f"HTTP/1.1 {status} Reason",
        f"Content-Length: {len(body) if length is None else length}",
        *([] if any(header.startswith("Content-Type") for header in headers) else ["Content-Type: application/json"]),
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


RECEIPT = {"message_type": "text", "conversation_id": 2, "remaining_conversations": 40969}
SUCCESS_BODY = json.dumps({"success": True, "message": "Message sent successfully", "data": RECEIPT})
SUCCESS = answer(200, SUCCESS_BODY)
DEVICES = answer(
    200,
    json.dumps(
        {"success": True, "devices": [{"id": "1", "name": "x", "status": "connected", "instance_id": INSTANCE}]}
    ),
)


class PeerGoneError(Exception):
    """The client closed its end."""


@dataclass
class Request:
    """What arrived of one request."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytearray = field(default_factory=bytearray)

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, f"{name} was sent {len(values)} times"
        return values[0] if values else None

    @property
    def length(self) -> int:
        return int(self.header("Content-Length") or 0)

    @property
    def is_valid(self) -> bool:
        """Whether the most lenient parser could accept what arrived as a complete send request."""
        return f'name="instance_id"\r\n\r\n{INSTANCE}'.encode() in self.body


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""

    def receive(self) -> bytes:
        data, self._buffer = self._buffer, b""
        try:
            data = data or self.sock.recv(65536)
        except OSError as error:
            raise PeerGoneError from error
        if not data:
            raise PeerGoneError
        return data

    def read_head(self) -> Request:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.receive()
        head, self._buffer = data.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = [re.split(r":\s*", line, maxsplit=1) for line in lines]
        return Request(method, target, [(name, value) for name, value in headers])

    def read_body(self, request: Request, size: int | None = None) -> None:
        """Read the body, or its first ``size`` bytes and what arrives with them."""
        wanted = request.length if size is None else size
        while len(request.body) < wanted:
            request.body += self.receive()

    def drain(self) -> None:
        """Keep reading until the client closes."""
        with contextlib.suppress(PeerGoneError):
            while True:
                self.receive()

    def send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self.sock.sendall(data)

    def close(self) -> None:
        """Close; if there is unread data in the socket, the kernel sends a reset."""
        self.sock.close()

    def end(self) -> None:
        """Announce the end of sending, as a server does that closes gracefully."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


#: Called with the head of each call (except the device list) read; ends the connection by raising or closing.
Behaviour = Callable[[Peer, Request], None]


class RawServer:
    """Listens on loopback; every connection is served in a thread by ``behaviour``, until it closes."""

    def __init__(self, behaviour: Behaviour | None = None, *, tls: ssl.SSLContext | None = None) -> None:
        self.behaviour = behaviour or replying(SUCCESS)
        self.requests: list[Request] = []
        self.connections = 0
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._open: list[socket.socket] = []
        self._serving: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def sends(self) -> list[Request]:
        return [request for request in self.requests if request.target.endswith("/api/whatsapp-web-send-message")]

    def __enter__(self) -> RawServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        # A blocked accept() does not notice close(), but shutdown().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        # Who still writes would write into a connection of the next test, if that got the same file descriptor.
        for thread in self._serving:
            thread.join(0.5)
        for sock in self._open:
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(sock)
            self._serving.append(threading.Thread(target=self._serve, args=(sock,), daemon=True))
            self._serving[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if self._tls:
                sock = self._tls.wrap_socket(sock, server_side=True)
                self._open.append(sock)
            peer = Peer(sock)
            while sock.fileno() >= 0:
                request = peer.read_head()
                self.requests.append(request)
                if request.target.endswith("/api/whatsapp-web-devices"):
                    peer.send(DEVICES)
                else:
                    self.behaviour(peer, request)
        except (PeerGoneError, OSError):
            sock.close()


def replying(*answers: bytes) -> Behaviour:
    """Read each whole request and send the answers in turn, repeating the last one."""
    left = list(answers)

    def behave(peer: Peer, request: Request) -> None:
        peer.read_body(request)
        peer.send(left.pop(0) if len(left) > 1 else left[0])

    return behave


def certificate(folder: Path, *names: str) -> tuple[ssl.SSLContext, str]:
    """Create a self-signed certificate; return the server's context and the path of the CA bundle."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "wassly test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    alternatives: list[x509.GeneralName] = []
    for name in names:
        try:
            alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            alternatives.append(x509.DNSName(name))
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path = folder / "key.pem"
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key_path)
    return context, str(path)
