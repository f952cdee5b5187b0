"""uvicorn in a thread, on connections that can be made to misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
import threading
import time
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """A client's connection. The application finds it as ``scope["state"]["connection"]``."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Let the application see the connection, in the place that ASGI has for a server's state."""
        super().connection_made(transport)
        self.lost = asyncio.Event()
        self.app_state = {**self.app_state, "connection": self}

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake whoever waits for the end of the connection."""
        super().connection_lost(exc)
        self.lost.set()

    def shutdown(self) -> None:
        """End at once when the server stops: some of the calls would never come to an end by themselves."""
        self.transport.abort()

    async def wait_lost(self, seconds: float | None = None) -> None:
        """Wait until the client is gone or the server stops, or until the time is over."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.lost.wait(), seconds)

    async def reset(self) -> None:
        """End with a TCP reset: what closing means when the linger time is zero."""
        linger = struct.pack("ii", 1, 0)
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.transport.abort()
        await self.wait_lost()

    async def close(self) -> None:
        """End as after a whole answer, whatever was sent."""
        self.transport.close()
        await self.wait_lost()

    def close_soon(self, seconds: float) -> None:
        """Serve no further request, and close after a moment in which the client may still trust in it."""
        self.transport.pause_reading()
        self.loop.call_later(seconds, self.transport.close)


#: Bytes. Linux by itself lets it grow to tens of MiB, into which the rest of a body fits that a fault leaves unread.
RECEIVE_BUFFER = 2**18


def listen(host: str, port: int) -> socket.socket:
    """
    Open a listening socket.

    :param host: the address to listen on.
    :param port: the port, 0 for a free one.
    :raises OSError: with a text that names address and port.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            listener.bind(address)
            listener.listen(2048)
        except OSError:
            listener.close()
            raise
    except UnicodeError as error:  # no name that DNS could know
        raise OSError(errno.EINVAL, f"cannot listen on {host} port {port}: {error}") from error
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listener


class Server:
    """
    Serve an application on a socket, in a thread, until told to stop.

    :param app: the ASGI application.
    :param listener: a listening socket; it is closed in the end.
    """

    def __init__(self, app: Any, listener: socket.socket) -> None:
        self._listener = listener
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                loop="asyncio",
                lifespan="off",
                access_log=False,
                log_level="warning",
                log_config=None,  # in somebody's test run, their logging is theirs
                timeout_keep_alive=75,  # as nginx has it; less would close connections between two calls
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = threading.Thread(
            target=self._uvicorn.run, args=([listener],), name="wassly-sandbox", daemon=True
        )

    def start(self) -> None:
        """Begin to serve; returns when it does."""
        self._thread.start()
        while not self._uvicorn.started:
            if not self._thread.is_alive():
                raise RuntimeError("the sandbox's server did not start; its log says why")
            time.sleep(0.005)

    def stop(self) -> None:
        """End all connections and free the port."""
        self._uvicorn.should_exit = True
        self._thread.join()
        self._listener.close()
