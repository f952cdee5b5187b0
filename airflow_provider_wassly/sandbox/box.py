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
    A local stand-in for the Wassly service: takes messages, sends none, and can fail in every known way.

    .. code-block:: python

        with Sandbox() as box:
            os.environ["AIRFLOW_CONN_WASSLY_DEFAULT"] = box.connection
            ...
            assert [message.message for message in box.messages] == ["Hello"]

    :param host: the address to listen on.
    :param port: the port to listen on, 0 for a free one.
    :param apikey: the API key that is right.
    :param token: a bearer token that is valid until :meth:`expire_tokens`.
    :param email: the account's email address.
    :param password: the account's password.
    :param conversations: how many messages may be sent.
    :param devices: instance ids, or mappings with the keys of the API's device list (``id``, ``name``,
        ``status``, ``lastActive``, ``instance_id``). Default: one connected device ``sandbox-instance``.
    :param data_dir: a folder that keeps messages and files for the next start; without it they go when it stops.
    :param max_messages: how many messages are kept; a further one takes the place of the oldest.
    :param allow_remote: permit a host that other machines can reach; who reaches it can read all messages.
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
                raise ValueError(f"{name} must be a text that is not empty, not {value!r}")
        if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
            raise ValueError(f"port must be a whole number from 0 to 65535, not {port!r}")
        if not (is_loopback(host) or allow_remote):
            raise ValueError(f"host: other machines can reach {host!r}, and read all; see allow_remote")
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
        Begin to serve.

        :return: the sandbox itself.
        :raises ModuleNotFoundError: when what the extra ``[sandbox]`` installs is missing.
        :raises OSError: when the address is taken or not this machine's, or the data folder cannot be used.
        """
        try:
            # Here, because the package must be importable without them: to say what is missing, for one.
            from airflow_provider_wassly.sandbox.app import create_app
            from airflow_provider_wassly.sandbox.service.api import Account
            from airflow_provider_wassly.sandbox.service.server import Server, listen
        except ModuleNotFoundError as missing:
            text = f"The sandbox needs {missing.name}: pip install 'airflow-provider-wassly[sandbox]'"
            raise ModuleNotFoundError(text, name=missing.name) from missing
        if self._server:
            raise RuntimeError("the sandbox is running already")
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
        """End all connections, free the port and, without a data folder, remove the files. The rest stays readable."""
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
        """The address by which this machine reaches the sandbox."""
        return WILDCARDS.get(self._host, self._host)

    @property
    def port(self) -> int:
        """
        The port that it listens on.

        :raises RuntimeError: before the first start.
        """
        if self._bound_port is None:
            raise RuntimeError("the sandbox has no port before it is started")
        return self._bound_port

    @property
    def url(self) -> str:
        """The base URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def connection(self) -> str:
        """
        The Airflow connection as JSON, as ``AIRFLOW_CONN_…`` takes it.

        It has no token, so that the login is used.
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
        """The messages that were accepted and are kept, oldest first."""
        return self._store.inbox.messages()

    @property
    def calls(self) -> list[Call]:
        """The calls of the API, oldest first: the last 10,000."""
        return self._store.calls

    @property
    def logins(self) -> int:
        """How many logins succeeded."""
        return self._store.logins

    @property
    def conversations(self) -> int:
        """How many conversations remain; can be set."""
        return self._store.conversations

    @conversations.setter
    def conversations(self, value: int) -> None:
        self._store.configure(conversations=value)

    @property
    def latency(self) -> float:
        """Seconds that pass before each answer of the API; can be set."""
        return self._store.latency

    @latency.setter
    def latency(self, value: float) -> None:
        self._store.configure(latency=value)

    @property
    def devices(self) -> list[SandboxDevice]:
        """The devices as they are now."""
        return self._store.devices

    def connect_device(self, instance_id: str) -> None:
        """
        Let a device be connected.

        :raises ValueError: when there is no such device.
        """
        self._store.set_device_status(instance_id, "connected")

    def disconnect_device(self, instance_id: str) -> None:
        """
        Let a device be disconnected.

        :raises ValueError: when there is no such device.
        """
        self._store.set_device_status(instance_id, "disconnected")

    def expire_tokens(self) -> None:
        """Make all tokens invalid, the one that was given too."""
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
        Let the next calls of an endpoint, or a share of all, fail; the parameters are those of :class:`Fault`.

        Faults strike in the order in which they were asked for, but for this: one that strikes before the
        body was read cannot wait for one that names a recipient or has a ``share``.

        :raises ValueError: when a value is wrong or does not go with the fault.
        """
        self._faults.add(Fault(name, times, to, endpoint, record, early, retry_after, share))

    @property
    def faults(self) -> list[Fault]:
        """The faults that wait to strike."""
        return list(self._faults.pending.values())

    def clear_faults(self) -> None:
        """Drop the faults that wait to strike."""
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
        Return the one accepted message that is as described. What is ``None`` may be anything.

        :param to: the recipient's number, with ``+`` or ``00`` and country code, and any separators.
        :param text: the whole text, or a compiled pattern that is found in it. ``""``: no text.
        :param document: a name (``str``), a content (``bytes``), or a file of this name and content (``Path``).
        :param media: likewise.
        :param contact_name: the display name. ``""``: none.
        :param instance_id: the sender.
        :raises AssertionError: when no message is so, or more than one; the text shows what differs.
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
        """Be as at the start: no messages, calls or faults, devices and quota as they were given."""
        self._store.reset()
        self._faults.clear()
