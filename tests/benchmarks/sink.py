"""A server that swallows request bodies as fast as it can and answers as Wassly does. Prints its port."""

from __future__ import annotations

import socket
import threading

ANSWER = b'{"success": true, "message": "ok", "data": {"message_type": "document", "conversation_id": 1}}'


def serve(connection: socket.socket) -> None:
    buffer = memoryview(bytearray(1 << 20))
    with connection:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (data := connection.recv(65536)):
                return
            head += data
            if b"100-continue" in head:
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        headers, _, rest = head.partition(b"\r\n\r\n")
        lines = {
            name.lower(): value for name, _, value in (line.partition(b": ") for line in headers.split(b"\r\n")[1:])
        }
        left = int(lines[b"content-length"]) - len(rest)
        while left > 0 and (count := connection.recv_into(buffer)):
            left -= count
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(ANSWER) + ANSWER)


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
