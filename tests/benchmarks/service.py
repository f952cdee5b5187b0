"""
A server that answers each request as Wassly does, after a delay. Prints its port.

Usage: ``python -m tests.benchmarks.service [SECONDS]``. It needs little CPU time, so that the client is measured.
Any GET returns the seconds between the first message and the last.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time

LATENCY = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0
LOGIN = b'{"success": true, "message": "ok", "data": {"token": "a-token"}}'
SENT = (
    b'{"success": true, "message": "ok", "data": '
    b'{"message_type": "text", "conversation_id": %d, "remaining_conversations": 1000000}}'
)

#: As many digits as for an account that has sent a lot, because a broadcast's record stores them.
conversation_ids = itertools.count(1_000_000)
arrivals: list[float] = []


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = next(
                (
                    int(line.partition(b":")[2])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length:")
                ),
                0,
            )
            await reader.readexactly(length)
            if head.startswith(b"GET"):
                answer = b"%.3f" % (arrivals[-1] - arrivals[0])
            elif b"/api/login" in head:
                answer = LOGIN
            else:
                arrivals.append(time.monotonic())
                await asyncio.sleep(LATENCY)
                answer = SENT % next(conversation_ids)
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer)
            )
            writer.write(answer)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
