"""
A server that discards request bodies as fast as it can and answers as Wassly does. Prints its port.

Usage: ``python -m tests.benchmarks.sink [FOLDER]``. With a folder it uses TLS, and writes ``certificate.pem`` there.
"""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from pathlib import Path

from tests.integration.client.servers import certificate

ANSWER = b'{"success": true, "message": "ok", "data": {"message_type": "document", "conversation_id": 1}}'


def serve(connection: socket.socket, tls: ssl.SSLContext | None) -> None:
    buffer = memoryview(bytearray(1 << 20))
    with tls.wrap_socket(connection, server_side=True) if tls else connection as peer:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (data := peer.recv(65536)):
                return
            head += data
            if b"100-continue" in head:
                peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        headers, _, rest = head.partition(b"\r\n\r\n")
        lines = {
            name.lower(): value for name, _, value in (line.partition(b": ") for line in headers.split(b"\r\n")[1:])
        }
        left = int(lines[b"content-length"]) - len(rest)
        while left > 0 and (count := peer.recv_into(buffer)):
            left -= count
        peer.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(ANSWER) + ANSWER)


def main(tls: ssl.SSLContext | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            threading.Thread(target=serve, args=(server.accept()[0], tls), daemon=True).start()


if __name__ == "__main__":
    main(certificate(Path(sys.argv[1]), "127.0.0.1")[0] if len(sys.argv) > 1 else None)
