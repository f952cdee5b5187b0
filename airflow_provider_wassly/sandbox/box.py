"""The stand-in service as a Python object."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from airflow_provider_wassly.sandbox.service.changes import Changes
from airflow_provider_wassly.sandbox.service.faults import Fault, Faults
from airflow_provider_wassly.sandbox.service.hosts import is_loopback
from airflow_provider_wassly.sandbox.service.inbox import DEFAULT_MAX_MESSAGES, Inbox
from airflow_provider_wassly.sandbox.service.models import Call, Message, SandboxDevice
from airflow_provider_wassly.sandbox.service.state import ServiceState
from airflow_provider_wassly.sandbox.testing.assertions import ExpectedFile, ExpectedText, the_one_sent

if TYPE_CHECKING:
    from airflow_provider_wassly.sandbox.service.server import Server

WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Sandbox:
    """
    A local stand-in for the Wassly service: it accepts messages, sends none, and can simulate every known failure.

    .. code-block:: python

        with Sandbox() as box:
            os.environ["AIRFLOW_CONN_WASSLY_DEFAULT"] = box.connection
            ...
            assert [message.message for message in box.messages] == ["Hello"]

    :param host: the address to listen on. Default: this machine only.
    :param port: the port to listen on. Default: 0, which picks a free one.
    :param apikey: the API key to accept.
    :param token: a bearer token to accept until :meth:`expire_tokens`.
    :param email: the account's email address.
    :param password: the account's password.
    :param conversations: the initial quota; each message uses up one conversation. Default: 1000.
    :param devices: instance ids, or mappings with the keys of the API's device list (``id``, ``name``,
        ``status``, ``lastActive``, ``instance_id``). Default: one connected device, ``sandbox-instance``.
    :param data_dir: a folder to store messages and files in for the next start. Default: they are deleted when the
        sandbox stops.
    :param max_messages: how many messages to keep; each further one replaces the oldest. Default: 10,000.
    :param allow_remote: whether to allow a host that other machines can reach; anyone who reaches it can read all
        messages. Default: no.
    :raises ValueError: when a value is wrong.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        apikey: str = "sandbox-apikey",
        token: str = "sandbox-token",
        email: str = "sandbox@example.com",
        password: str = "sandbox-password",
        conversations: int = 1000,
        devices: Iterable[str | Mapping[str, str]] | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        max_messages: int = DEFAULT_MAX_MESSAGES,
        allow_remote: bool = False,
    ) -> None:
        for name, value in {"apikey": apikey, "token": token, "email": email, "password": password}.items():
            if not isinstance(value, str) or not value:
                raise ValueError(f"{name} must be a non-empty string, not {value!r}")
        if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
            raise ValueError(f"port must be a whole number from 0 to 65535, not {port!r}")
        if not (is_loopback(host) or allow_remote):
            raise ValueError(f"host: {host!r} would let other machines read all messages; see allow_remote")
        self._host, self._port = host, port
        self._apikey, self._email, self._password = apikey, email, password
        self._allow_remote = allow_remote
        devices = ["sandbox-instance"] if devices is None else devices
        if data_dir is not None and not os.fspath(data_dir):
            raise ValueError("data_dir must name a folder")
        changes = Changes()
        inbox = Inbox(Path(data_dir) if data_dir is not None else None, max_messages)
        self._store = ServiceState(inbox, changes, conversations=conversations, devices=devices, token=token)
        self._faults = Faults(changes)
        self._server: Server | None = None
        self._bound_port: int | None = None

    def start(self) -> Sandbox:
        """
        Start the server.

        :return: the sandbox itself.
        :raises ModuleNotFoundError: when the extra ``[sandbox]`` is not installed.
        :raises OSError: when the address is taken or not this machine's, or the data folder cannot be used.
        """
        try:
            # Imported here, so that without the extra the package still imports and can say what is missing.
            from airflow_provider_wassly.sandbox.app import create_app
            from airflow_provider_wassly.sandbox.service.api import Account
            from airflow_provider_wassly.sandbox.service.server import Server, listen
        except ModuleNotFoundError as missing:
            text = f"The sandbox needs {missing.name}: pip install 'airflow-provider-wassly[sandbox]'"
            raise ModuleNotFoundError(text, name=missing.name) from missing
        if self._server:
            raise RuntimeError("the sandbox is already running")
        listener = listen(self._host, self._port)
        try:
            self._store.inbox.open()
        except BaseException:
            listener.close()
            raise
        self._bound_port = listener.getsockname()[1]
        account = Account(self._apikey, self._email, self._password)
        app = create_app(self._store, self._faults, account, host=self._host, allow_remote=self._allow_remote)
        self._server = Server(app, listener)
        self._server.start()
        return self

    def stop(self) -> None:
        """
        Close all connections and release the port; without a data folder, delete the files too.

        The messages, calls and counters can still be read.
        """
        if self._server:
            self._server.stop()
            self._server = None
            self._store.inbox.close()

    def __enter__(self) -> Sandbox:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def host(self) -> str:
        """The address at which this machine reaches the sandbox."""
        return WILDCARDS.get(self._host, self._host)

    @property
    def port(self) -> int:
        """
        The port that the sandbox listens on.

        :raises RuntimeError: before the first start.
        """
        if self._bound_port is None:
            raise RuntimeError("the sandbox has no port until it is started")
        return self._bound_port

    @property
    def url(self) -> str:
        """The base URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def connection(self) -> str:
        """
        The Airflow connection as JSON, for ``AIRFLOW_CONN_…``.

        It has no token, so tasks log in.
        """
        extra = {"apikey": self._apikey}
        if self.devices:
            extra["instance_id"] = self.devices[0].instance_id
        return json.dumps(
            {
                "conn_type": "wassly",
                "host": self.host,
                "schema": "http",
                "port": self.port,
                "login": self._email,
                "password": self._password,
                "extra": extra,
            }
        )

    @property
    def messages(self) -> list[Message]:
        """The stored messages, oldest first."""
        return self._store.inbox.messages()

    @property
    def calls(self) -> list[Call]:
        """The last 10,000 API calls, oldest first."""
        return self._store.calls

    @property
    def logins(self) -> int:
        """How many logins succeeded."""
        return self._store.logins

    @property
    def conversations(self) -> int:
        """How many conversations remain. You can set it."""
        return self._store.conversations

    @conversations.setter
    def conversations(self, value: int) -> None:
        self._store.configure(conversations=value)

    @property
    def latency(self) -> float:
        """The delay before each API answer, in seconds. You can set it."""
        return self._store.latency

    @latency.setter
    def latency(self, value: float) -> None:
        self._store.configure(latency=value)

    @property
    def devices(self) -> list[SandboxDevice]:
        """The devices, with their current status."""
        return self._store.devices

    def connect_device(self, instance_id: str) -> None:
        """
        Connect a device.

        :param instance_id: the device's instance id.
        :raises ValueError: when there is no such device.
        """
        self._store.set_device_status(instance_id, "connected")

    def disconnect_device(self, instance_id: str) -> None:
        """
        Disconnect a device.

        :param instance_id: the device's instance id.
        :raises ValueError: when there is no such device.
        """
        self._store.set_device_status(instance_id, "disconnected")

    def expire_tokens(self) -> None:
        """Invalidate all tokens, including the initial one."""
        self._store.expire_tokens()

    def fail_next(
        self,
        name: str,
        times: int | None = None,
        to: str | None = None,
        endpoint: str = "send",
        record: bool | None = None,
        early: bool = False,
        retry_after: str | None = None,
        share: float | None = None,
    ) -> None:
        """
        Make the next calls to an endpoint, or a share of all calls, fail. The parameters are those of :class:`Fault`.

        .. code-block:: python

            box.fail_next("http_500")
            box.fail_next("http_429", times=3, retry_after="30")
            box.fail_next("hang_after_accept", share=0.1)

        Faults are used in the order in which they were added. One exception: a fault that acts before the body is read
        does not wait for an older one with a recipient or a ``share``.

        :raises ValueError: when a value is wrong or does not fit the fault.
        """
        self._faults.add(Fault(name, times, to, endpoint, record, early, retry_after, share))

    @property
    def faults(self) -> list[Fault]:
        """The active faults: those that can still affect a call."""
        return list(self._faults.pending.values())

    def clear_faults(self) -> None:
        """Remove all active faults."""
        self._faults.clear()

    def assert_sent(
        self,
        *,
        to: str | None = None,
        text: ExpectedText | None = None,
        document: ExpectedFile | None = None,
        media: ExpectedFile | None = None,
        contact_name: str | None = None,
        instance_id: str | None = None,
    ) -> Message:
        """
        Return the one accepted message that matches. A parameter that is ``None`` matches anything.

        .. code-block:: python

            box.assert_sent(to="+44 7700 900123", text=re.compile("invoice"), document="invoice.pdf")

        :param to: the recipient's number, with ``+`` or ``00`` and the country code, and any separators.
        :param text: the whole text, or a compiled pattern to find in it. ``""`` matches a message without text.
        :param document: its name (``str``), its content (``bytes``), or a file with the same name and content
            (``pathlib.Path``).
        :param media: the same for the media file.
        :param contact_name: the display name. ``""`` matches a message without one.
        :param instance_id: the sending instance.
        :raises AssertionError: when no message matches, or more than one does; the text shows the differences.
        """
        __tracebackhide__ = True
        return the_one_sent(
            self,
            to=to,
            text=text,
            document=document,
            media=media,
            contact_name=contact_name,
            instance_id=instance_id,
        )

    def reset(self) -> None:
        """Return to the initial state: no messages, calls or faults; devices, tokens and quota as at the start."""
        self._store.reset()
        self._faults.clear()
