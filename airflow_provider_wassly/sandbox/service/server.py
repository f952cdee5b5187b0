"""uvicorn in a thread, with connections that can misbehave on request."""

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
    """A client's connection. The application gets it as ``scope["state"]["connection"]``."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Pass the connection to the application, in the ASGI state."""
        super().connection_made(transport)
        self.lost = asyncio.Event()
        self.app_state = {**self.app_state, "connection": self}

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake everything that waits for the end of the connection."""
        super().connection_lost(exc)
        self.lost.set()

    def shutdown(self) -> None:
        """Close at once when the server stops: a call that hangs would never end."""
        self.transport.abort()

    async def wait_lost(self, seconds: float | None = None) -> None:
        """
        Wait until the client disconnects or the server stops.

        :param seconds: how long to wait at most. Default: no limit.
        """
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.lost.wait(), seconds)

    async def close_with_reset(self) -> None:
        """Close with a TCP reset, which a linger time of zero causes."""
        linger = struct.pack("ii", 1, 0)
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.transport.abort()
        await self.wait_lost()

    async def close(self) -> None:
        """Close normally, even if the answer is incomplete."""
        self.transport.close()
        await self.wait_lost()

    def close_soon(self, seconds: float) -> None:
        """Read no further request, and close after a delay during which the client still considers it open."""
        self.transport.pause_reading()
        self.loop.call_later(seconds, self.transport.close)


#: Bytes. By default Linux lets it grow to tens of MiB, enough to swallow what a fault leaves unread of a body.
RECEIVE_BUFFER = 2**18


def listen(host: str, port: int) -> socket.socket:
    """
    Open a listening socket.

    :param host: the address to listen on.
    :param port: the port; 0 for a free one.
    :raises OSError: when that fails; the text names the address and port.
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
    except UnicodeError as error:  # not a valid DNS name
        raise OSError(errno.EINVAL, f"cannot listen on {host} port {port}: {error}") from error
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listener


class Server:
    """
    Serves an application on a socket, in a thread.

    :param app: the ASGI application.
    :param listener: a listening socket; :meth:`stop` closes it.
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
                log_config=None,  # leave the logging of the user's test run alone
                timeout_keep_alive=75,  # nginx's default; a shorter one would close connections between two calls
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = threading.Thread(
            target=self._uvicorn.run, args=([listener],), name="wassly-sandbox", daemon=True
        )

    def start(self) -> None:
        """Start serving; return once the server is up."""
        self._thread.start()
        while not self._uvicorn.started:
            if not self._thread.is_alive():
                raise RuntimeError("the sandbox's server did not start; see its log")
            time.sleep(0.005)

    def stop(self) -> None:
        """Close all connections and release the port."""
        self._uvicorn.should_exit = True
        self._thread.join()
        self._listener.close()
