"""
What libraries do not publish and this package relies on is still as it was.

docs/private-names.md says where we use each name, and what a user loses without it. A name that a version of Airflow
does not have is not tested there.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import io
import os
import re
import socket
import tempfile
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import urllib3
from asgiref.sync import async_to_sync, sync_to_async
from cryptography.fernet import Fernet
from requests.adapters import HTTPAdapter
from requests.cookies import RequestsCookieJar
from requests_toolbelt import MultipartEncoder, MultipartEncoderMonitor
from urllib3.connection import HTTPConnection

from airflow_provider_wassly.airflow_compat import (
    bases,
    config,
    exceptions,
    masking,
    tasks,
    templates,
    variables,
    versions,
)
from airflow_provider_wassly.client.transport import exchange
from airflow_provider_wassly.operators.broadcast import WasslyBroadcastOperator
from airflow_provider_wassly.operators.send_message import WasslySendMessageOperator
from airflow_provider_wassly.sandbox.service import server as sandbox_server
from airflow_provider_wassly.triggers._looks import _THREADS

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2.11
    from airflow.models.dag import DAG  # type: ignore[no-redef]

PAGE = Path(__file__).parents[2] / "docs" / "private-names.md"

#: Names, and the parameters that are passed. "or": where the package finds it first.
ALWAYS = {
    "airflow.listeners:hookimpl": "",
    "airflow.sdk.configuration:conf or airflow.configuration:conf": "",
    "airflow.sdk.definitions.context:render_template_to_string or airflow.utils.helpers:render_template_to_string": (
        "template context"
    ),
    "airflow.sdk.definitions.xcom_arg:XComArg.apply_upstream_relationship "
    "or airflow.models.xcom_arg:XComArg.apply_upstream_relationship": "op arg",
    "airflow.sdk.definitions.xcom_arg:XComArg.iter_references or airflow.models.xcom_arg:XComArg.iter_references": "",
    "airflow.sdk.definitions.xcom_arg:XComArg.resolve or airflow.models.xcom_arg:XComArg.resolve": "",
    "airflow.sdk.listener:get_listener_manager or airflow.listeners.listener:get_listener_manager": "",
    "airflow.sdk.observability.stats:Stats.incr or airflow.stats:Stats.incr": "",
    "airflow.sdk.observability.stats:Stats.gauge or airflow.stats:Stats.gauge": "",
    **{
        " or ".join(f"{module}:{name}" for module in masking._MASKERS): parameters
        for name, parameters in {"_secrets_masker": "", "redact": "value", "SecretsMasker.add_mask": "secret"}.items()
    },
    **{
        f"airflow.sdk.exceptions:{name} or airflow.exceptions:{name}": ""
        for name in (
            "AirflowFailException",
            "AirflowNotFoundException",
            "AirflowSensorTimeout",
            "AirflowSkipException",
            "AirflowTaskTimeout",
            "TaskDeferralError",
        )
    },
    **{
        f"airflow.sdk:BaseOperator.{name} or airflow.models.baseoperator:BaseOperator.{name}": parameters
        for name, parameters in {
            "_BaseOperator__from_mapped": "",
            "_do_render_template_fields": "parent template_fields context jinja_env seen_oids",
            "get_flat_relative_ids": "upstream",
            "get_template_env": "",
            "render_template": "content context jinja_env seen_oids",
            "resume_execution": "next_method next_kwargs context",
        }.items()
    },
    "airflow.sdk:BaseSensorOperator.resume_execution or airflow.sensors.base:BaseSensorOperator.resume_execution": (
        "next_method next_kwargs context"
    ),
    "airflow.sdk:DAG.get_template_env or airflow.models.dag:DAG.get_template_env": "force_sandboxed",
    "airflow.sdk:ObjectStoragePath.fs or airflow.io.path:ObjectStoragePath.fs": "",
    "airflow.sdk:ObjectStoragePath.protocol or airflow.io.path:ObjectStoragePath.protocol": "",
    "asgiref.sync:sync_to_async": "thread_sensitive executor",
    "requests.adapters:HTTPAdapter.init_poolmanager": "connections maxsize block",
    "requests.adapters:HTTPAdapter.proxy_manager_for": "proxy",
    "requests.cookies:RequestsCookieJar.extract_cookies": "response request",
    **{
        f"requests.exceptions:{name}": ""
        for name in ("InvalidHeader", "InvalidProxyURL", "InvalidSchema", "InvalidURL", "MissingSchema")
    },
    "requests.sessions:Session.get_redirect_target": "resp",
    "requests.utils:get_environ_proxies": "url no_proxy",
    "requests.utils:select_proxy": "url proxies",
    "requests_toolbelt:MultipartEncoder._iter_fields": "",
    "uvicorn.protocols.http.h11_impl:H11Protocol.connection_lost": "exc",
    "uvicorn.protocols.http.h11_impl:H11Protocol.connection_made": "transport",
    "uvicorn.protocols.http.h11_impl:H11Protocol.shutdown": "",
    "uvicorn:Config": "http timeout_keep_alive timeout_graceful_shutdown",
    "uvicorn:Server.run": "sockets",
    "urllib3:HTTPConnectionPool.ConnectionCls": "",
    "urllib3:HTTPSConnectionPool.ConnectionCls": "",
    "urllib3.connection:HTTPConnection": "blocksize",
    "urllib3.connection:HTTPConnection.connect": "",
    "urllib3.connection:HTTPConnection.getresponse": "",
    "urllib3.connection:HTTPConnection.is_connected": "",
    "urllib3.connection:HTTPConnection.request": "",
}
AIRFLOW_2 = {
    "airflow.models.dagrun:DagRun.get_task_instances": "",
    "airflow.models.dagrun:DagRun.id": "",
    "airflow.models.taskinstance:TaskInstance.log_url": "",
    "airflow.models.taskinstance:TaskInstance.max_tries": "",
    "airflow.models.taskinstance:TaskInstance.pid": "",
    "airflow.models.variable:Variable.delete": "key",
    "airflow.models.variable:Variable.key": "",
    "airflow.models.variable:Variable.set": "key value description",
    "airflow.models.variable:Variable.val": "",
    "airflow.notifications.basenotifier:BaseNotifier.__call__": "",
    "airflow.notifications.basenotifier:BaseNotifier.get_template_env": "dag",
    "airflow.notifications.basenotifier:BaseNotifier.render_template_fields": "context jinja_env",
    "airflow.utils.context:KNOWN_CONTEXT_KEYS": "",
    "airflow.utils.session:create_session": "",
    "airflow.www.views:SENSITIVE_FIELD_PLACEHOLDER": "",
    "flask_appbuilder.fieldwidgets:BS3PasswordFieldWidget": "",
    "flask_appbuilder.fieldwidgets:BS3TextFieldWidget": "",
    "wtforms.widgets:PasswordInput": "hide_value",
}
AIRFLOW_3 = {
    "airflow.sdk:BaseNotifier.__call__": "",
    "airflow.sdk:BaseNotifier.get_template_env": "dag",
    "airflow.sdk:BaseNotifier.render_template_fields": "context jinja_env",
    "airflow.sdk.definitions.context:Context.__annotations__": "",
    "airflow.sdk.exceptions:AirflowRuntimeError": "error",
    "airflow.sdk.exceptions:ErrorType.VARIABLE_NOT_FOUND": "",
    "airflow.sdk.execution_time.comms:CommsDecoder.send": "msg",
    "airflow.sdk.execution_time.comms:DeleteVariable": "key",
    "airflow.sdk.execution_time.comms:ErrorResponse": "error",
    "airflow.sdk.execution_time.comms:GetVariable": "key",
    "airflow.sdk.execution_time.comms:PutVariable": "key value description",
    "airflow.sdk.execution_time.comms:VariableResult": "value",
    "airflow.sdk.execution_time.task_runner:RuntimeTaskInstance.get_task_states": ("dag_id map_index task_ids run_ids"),
}
FROM_3_1 = {
    "airflow.sdk:BaseNotifier.__await__": "",
    "airflow.sdk:BaseNotifier.async_notify": "context",
    "airflow.sdk.execution_time.task_runner:RuntimeTaskInstance.log_url": "",
}
FROM_3_3 = {
    "airflow.sdk.execution_time.context:NEVER_EXPIRE": "",
    "airflow.sdk.execution_time.context:TaskStateStoreAccessor.delete": "key",
    "airflow.sdk.execution_time.context:TaskStateStoreAccessor.get": "key default",
    "airflow.sdk.execution_time.context:TaskStateStoreAccessor.set": "key value retention",
}
NAMES = {
    **ALWAYS,
    **(AIRFLOW_2 if versions.IS_AIRFLOW_2 else AIRFLOW_3),
    **(FROM_3_1 if versions.VERSION >= (3, 1) else {}),
    **(FROM_3_3 if versions.VERSION >= (3, 3) else {}),
}


def find(name: str) -> Any:
    """Return what has a name such as ``module:Class.method``."""
    for place in name.split(" or "):
        module, _, path = place.partition(":")
        try:
            found = importlib.import_module(module)
            for part in filter(None, path.split(".")):
                found = getattr(found, part)
        except (ImportError, AttributeError):
            continue
        return found
    pytest.fail(f"{name} is gone; {PAGE.name} says what breaks without it", pytrace=False)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_there_and_takes_what_is_passed(name: str) -> None:
    found = find(name)
    if NAMES[name]:
        known = inspect.signature(found).parameters
        missing = [parameter for parameter in NAMES[name].split() if parameter not in known]
        assert not missing, f"{name} no longer takes {missing}; {PAGE.name} says what breaks without it"


def test_the_page_and_these_tests_name_the_same() -> None:
    page = PAGE.read_text()
    names = {**ALWAYS, **AIRFLOW_2, **AIRFLOW_3, **FROM_3_1, **FROM_3_3}
    words = set(re.findall(r"\w+", page))
    for name in names:
        last = name.rpartition(":")[2].split(".")
        assert set(last) <= words, f"{PAGE.name} does not name {name}"
    tests = re.findall(r"`(?:([\w/]+\.py)::)?(test_\w+)`", page)
    assert tests
    for path, test in tests:
        file = PAGE.parents[1] / "tests" / path if path else Path(__file__)
        assert f"def {test}(" in file.read_text(), f"{PAGE.name} names {test}, which is not in {file.name}"
    here = {name for name in globals() if name.startswith("test_")} - {"test_the_page_and_these_tests_name_the_same"}
    unnamed = here - {test for path, test in tests if not path}
    assert not unnamed, f"{PAGE.name} does not name {sorted(unnamed)}"


# http.client, urllib3 and requests: how a call travels.


class Socket:
    """What is called on a socket, in its order; it answers as soon as it is read."""

    def __init__(self, calls: list[Any], answer: bytes) -> None:
        self._calls = calls
        self._answer = answer

    def sendall(self, data: bytes) -> None:
        self._calls.append(("sendall", bytes(data)))

    def makefile(self, mode: str) -> io.BytesIO:
        self._calls.append(("makefile", mode))
        return io.BytesIO(self._answer)

    def settimeout(self, seconds: float | None) -> None:
        pass

    def close(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"of a socket http.client and urllib3 called only sendall and makefile; now it is {name}")


class Peer:
    """
    A service without a network, behind the same classes as the package's connections have.

    :param answer: to every request.
    """

    def __init__(self, answer: bytes) -> None:
        self.calls: list[Any] = []
        self.is_connected = True
        peer = self

        class Watched(HTTPConnection):
            @property
            def is_connected(self) -> bool:
                peer.calls.append("is_connected")
                return peer.is_connected

            def connect(self) -> None:
                peer.calls.append("connect")
                self.sock: Any = Socket(peer.calls, answer)

            def request(self, *args: Any, **kwargs: Any) -> None:
                peer.calls.append("request")
                super().request(*args, **kwargs)

            def getresponse(self) -> Any:
                peer.calls.append("getresponse")
                return super().getresponse()

        class Pool(urllib3.HTTPConnectionPool):
            ConnectionCls = Watched

        class Adapter(HTTPAdapter):
            def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
                super().init_poolmanager(*args, blocksize=8, **kwargs)
                self.poolmanager.pool_classes_by_scheme = {"http": Pool}

            def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
                peer.calls.append(("proxy_manager_for", proxy in self.proxy_manager))
                manager = super().proxy_manager_for(proxy, **kwargs)
                manager.pool_classes_by_scheme = {"http": Pool}
                return manager

        self.adapter = Adapter()

    def ask(self, session: requests.Session | None = None, **options: Any) -> requests.Response:
        session = session or requests.Session()
        session.trust_env = False
        session.mount("http://", self.adapter)
        try:
            answer = session.post("http://wassly.invalid/", allow_redirects=False, **options)
        finally:
            assert "connect" in self.calls, "urllib3 uses no pool_classes_by_scheme, or no ConnectionCls of a pool"
        return answer

    def named(self, *names: str) -> list[str]:
        """Return which of these were called, in their order."""
        calls = [call if isinstance(call, str) else call[0] for call in self.calls]
        return [call for call in calls if call in names]


class Body:
    """Notes when it is read; ``len`` is what is left of it, as requests and its toolbelt ask for it."""

    def __init__(self, calls: list[Any], content: bytes = b"0123456789abcdefghij") -> None:
        self._calls = calls
        self._stream = io.BytesIO(content)
        self.len = len(content)

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._calls.append(("read", data))
        self.len -= len(data)
        return data


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def test_urllib3_calls_the_methods_of_the_connection_class_that_a_pool_names() -> None:
    """``pool_classes_by_scheme``, ``ConnectionCls``, ``connect``, ``request``, ``getresponse`` and ``poolmanager``."""
    peer = Peer(OK)
    assert peer.ask().status_code == 200
    order = peer.named("connect", "request", "getresponse")
    assert order == ["request", "connect", "getresponse"], (
        f"urllib3 calls the methods of HTTPConnection in another order: {order}"
    )


def test_urllib3_asks_is_connected_before_it_uses_a_connection_again() -> None:
    peer = Peer(OK)
    session = requests.Session()
    for _ in range(2):
        peer.ask(session)
    assert peer.named("is_connected", "connect") == ["connect", "is_connected"], "urllib3 no longer asks is_connected"
    peer.is_connected = False
    peer.ask(session)
    assert peer.named("connect") == ["connect"] * 2, "urllib3 no longer heeds is_connected"


def test_urllib3_sends_each_block_of_a_body_before_it_reads_the_next() -> None:
    """``blocksize``, ``read`` of a body, and ``sendall`` of what is ``sock``."""
    peer = Peer(OK)
    peer.ask(data=Body(peer.calls))
    assert ("read", b"01234567") in peer.calls, "urllib3 no longer reads a body in blocks of blocksize"
    begin = peer.calls.index(("read", b"01234567"))
    blocks = [b"01234567", b"89abcdef", b"ghij"]
    expected: list[Any] = [call for block in blocks for call in (("read", block), ("sendall", block))]
    found = [call for call in peer.calls[begin:] if call not in (("read", b""), "getresponse")]
    assert found == [*expected, ("makefile", "rb")], "urllib3 no longer sends each block before it reads the next"
    headers = [call for call in peer.calls[:begin] if call[0] == "sendall"]
    assert headers, "urllib3 now reads a body before the headers have left"


def test_http_client_calls_nothing_else_to_write_and_read() -> None:
    peer = Peer(OK)
    peer.ask(data=Body(peer.calls))  # any other method raises AttributeError
    assert set(peer.named("sendall", "makefile")) == {"sendall", "makefile"}


def test_urllib3_reads_the_answer_after_a_broken_pipe() -> None:
    peer = Peer(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")

    class Broken(Body):
        def read(self, size: int = -1) -> bytes:
            raise BrokenPipeError

    try:
        status = peer.ask(data=Broken(peer.calls)).status_code
    except requests.RequestException as error:
        pytest.fail(f"urllib3 reads no answer after a BrokenPipeError: {error!r}")
    assert status == 413


def test_requests_takes_the_len_of_a_body_for_its_length() -> None:
    peer = Peer(OK)
    request = peer.ask(data=Body(peer.calls)).request
    assert request.headers.get("Content-Length") == "20", "requests no longer reads the attribute len of a body"


def test_requests_keeps_the_pools_of_proxies_in_proxy_manager() -> None:
    peer = Peer(OK)
    for _ in range(2):
        peer.ask(proxies={"http": "http://proxy.invalid:3128"})
    asked = [call for call in peer.calls if call[0] == "proxy_manager_for"]
    assert asked == [("proxy_manager_for", False), ("proxy_manager_for", True)], "HTTPAdapter.proxy_manager has changed"
    assert "getresponse" in peer.calls, "urllib3 ignores the pool_classes_by_scheme of a proxy"


def test_requests_asks_get_redirect_target_and_extract_cookies_of_a_session() -> None:
    """A session of ours overrides both."""
    peer = Peer(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")
    session = exchange._session(1, False)
    answer = peer.ask(session)
    assert answer.next is None, "requests no longer asks Session.get_redirect_target"
    assert not session.cookies, "requests no longer calls RequestsCookieJar.extract_cookies"
    plain = requests.Session()
    answer = peer.ask(plain)
    assert answer.next is not None, "nothing to override: requests looks at no redirect"
    assert isinstance(plain.cookies, RequestsCookieJar)
    assert plain.cookies, "nothing to override: requests keeps no cookies"


def test_requests_finds_the_proxy_for_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:3128")
    utils = requests.utils
    found = utils.get_environ_proxies("http://wassly.invalid", no_proxy=None)
    assert utils.select_proxy("http://wassly.invalid", found) == "http://proxy.invalid:3128", "select_proxy has changed"
    assert utils.get_environ_proxies("http://wassly.invalid", no_proxy="wassly.invalid") == {}, (
        "get_environ_proxies has changed"
    )


def test_urllib3_puts_the_object_before_the_text_of_an_error() -> None:
    """What ``reason`` of a ``MaxRetryError`` and ``__cause__`` hold, and how a text begins."""
    connection = HTTPConnection("wassly.invalid")
    pool = urllib3.HTTPConnectionPool("wassly.invalid")
    inner = urllib3.exceptions.NewConnectionError(connection, "refused")
    inner.__cause__ = ConnectionRefusedError(111, "Connection refused")
    error = requests.ConnectionError(urllib3.exceptions.MaxRetryError(pool, "/", inner))
    assert exchange._innermost_cause(error, 10.0) == "connection refused", (
        "urllib3 has changed the nesting of its errors"
    )
    broken = urllib3.exceptions.ProtocolError(f"{connection}: cut")
    assert exchange._innermost_cause(broken, 10.0) == "cut"
    assert str(inner).endswith(": refused"), "urllib3 has changed the text of its errors"


def test_requests_toolbelt_asks_iter_fields_for_the_parts_and_reads_them_by_len() -> None:
    asked: list[str] = []

    class Encoder(MultipartEncoder):  # type: ignore[misc]
        def _iter_fields(self) -> Iterator[Any]:
            asked.extend(name for name, _ in self.fields)
            for name, value in self.fields:
                yield urllib3.fields.RequestField(name, value[1], headers={"Content-Disposition": "as we say"})

    content = Body([], b"content")
    encoder = Encoder([("document", ("a.pdf", content, "text/plain"))])
    monitor = MultipartEncoderMonitor(encoder)
    body = monitor.read()
    assert asked == ["document"], "MultipartEncoder no longer takes its parts from _iter_fields"
    assert b"as we say" in body
    assert b"content" in body
    assert monitor.len == len(body) == monitor.bytes_read, "MultipartEncoderMonitor.len or bytes_read has changed"
    assert body.startswith(f"--{encoder.boundary_value}\r\n".encode())


# uvicorn and Starlette: the sandbox.


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket to serve on, without a network. Its path is short, as it has to be."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/socket")
        listener.listen()
        yield listener


def test_uvicorn_serves_with_the_protocol_that_it_is_given(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``app_state``, ``transport``, ``loop`` and ``shutdown`` of ``H11Protocol``, and when it stops to read."""
    seen: list[Any] = []
    stopped: list[Any] = []
    has_begun = threading.Event()
    shutdown = sandbox_server.Connection.shutdown

    def noted(connection: sandbox_server.Connection) -> None:
        stopped.append(connection)
        shutdown(connection)

    monkeypatch.setattr(sandbox_server.Connection, "shutdown", noted)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope.get("state", {}).get("connection"))
        has_begun.set()
        await seen[0].wait_lost()
        seen.append("lost")

    server = sandbox_server.Server(app, listener)
    server.start()
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(listener.getsockname())
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n")
            assert has_begun.wait(15), "uvicorn serves no request with an H11Protocol of ours"
            connection = seen[0]
            assert isinstance(connection, sandbox_server.Connection), "uvicorn passes no H11Protocol.app_state on"
            missing = [name for name in ("app_state", "transport", "loop") if not hasattr(connection, name)]
            assert not missing, f"H11Protocol no longer has {missing}"
            client.settimeout(0.5)
            taken = 0
            while taken < 64 * 2**20:
                try:
                    taken += client.send(bytes(2**20))
                except TimeoutError:
                    break
            assert taken < 64 * 2**20, "H11Protocol now reads on while the application does not call receive"
            server.stop()
            assert stopped == [connection], "uvicorn no longer calls H11Protocol.shutdown"
            assert seen[1:] == ["lost"]
    finally:
        server.stop()


def test_starlette_takes_objects_as_endpoints_and_shows_what_an_answer_holds() -> None:
    from starlette.applications import Starlette
    from starlette.datastructures import UploadFile
    from starlette.responses import Response
    from starlette.routing import Route

    class Endpoint:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    endpoint = Endpoint()
    assert Route("/", endpoint, methods=["POST"]).app is endpoint, "Route wraps objects that are applications"
    answer = Response("text", headers={"X-Name": "value"})
    assert (b"x-name", b"value") in answer.raw_headers, "Response.raw_headers has changed"
    assert bytes(answer.body) == b"text", "Response.body has changed"
    assert Starlette().router.redirect_slashes is True, "Router.redirect_slashes has changed"
    upload = UploadFile(io.BytesIO(b"x"), size=1, filename="a")
    assert (upload.file.read(), upload.size) == (b"x", 1), "UploadFile.file or UploadFile.size has changed"


# asgiref: the triggers.


def test_asgiref_runs_a_call_on_any_executor() -> None:
    names: list[str] = []

    async def loop() -> Any:
        return asyncio.get_running_loop()

    def look() -> Any:
        names.append(threading.current_thread().name)
        return async_to_sync(loop)()  # as Airflow 3 does when a trigger asks it for a connection

    async def run() -> bool:
        seen: Any = await sync_to_async(look, thread_sensitive=False, executor=_THREADS)()
        return seen is await loop()

    leads_back = asyncio.run(run())
    assert names == ["wassly-look"], "sync_to_async does not use its executor"
    assert leads_back, "async_to_sync does not find the event loop from a thread of sync_to_async's executor"


# Airflow: operators and templates.


class Rendering(WasslySendMessageOperator):
    """Notes what it is asked to render."""

    seen: list[tuple[Any, ...]]

    def render_template(self, *args: Any, **kwargs: Any) -> Any:
        self.seen.append((*args, *kwargs))
        return super().render_template(*args, **kwargs)


def dag() -> Any:
    return DAG("campaign", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc))


def test_airflow_renders_each_field_by_render_template() -> None:
    with dag():
        task = Rendering(task_id="send", contact_mobile_number="+44", message="{{ 1 + 1 }}")
    task.seen = []
    task.render_template_fields({})
    assert task.message == "2"
    assert {content for content, *_ in task.seen} >= {"+44", "{{ 1 + 1 }}"}, "Airflow no longer calls render_template"
    assert {len(arguments) for arguments in task.seen} == {4}, "Airflow calls render_template with other arguments"


def test_airflow_renders_fields_by_do_render_template_fields() -> None:
    asked: list[tuple[str, ...]] = []

    class Noting(WasslySendMessageOperator):
        def _do_render_template_fields(self, parent: Any, template_fields: Any, *args: Any, **kwargs: Any) -> None:
            asked.append(tuple(template_fields))
            super()._do_render_template_fields(parent, template_fields, *args, **kwargs)

    with dag():
        task = Noting(task_id="send", contact_mobile_number="+44", message="{{ 1 + 1 }}")
        mapped = Noting.partial(task_id="mapped", contact_mobile_number="+44").expand(message=["{{ 1 + 1 }}"])
    task.render_template_fields({})
    assert asked == [tuple(WasslySendMessageOperator.template_fields)], "_do_render_template_fields is not called"
    source = inspect.getsource(type(mapped).render_template_fields)
    assert "._do_render_template_fields(" in source, "a mapped task does not call _do_render_template_fields"


def test_a_task_waits_for_the_output_that_depend_on_was_given() -> None:
    """``XComArg.apply_upstream_relationship``, ``iter_references`` and ``get_flat_relative_ids``."""
    with dag():
        first = bases.BaseOperator(task_id="first")
        task = bases.BaseOperator(task_id="send")
        templates.depend_on(task, first.output)
    assert task.upstream_task_ids == {"first"}, "XComArg.apply_upstream_relationship does not set the order"
    assert [operator.task_id for operator, _ in first.output.iter_references()] == ["first"], (
        "XComArg.iter_references has changed"
    )
    assert task.get_flat_relative_ids(upstream=True) == {"first"}, "get_flat_relative_ids has changed"


def test_what_a_mapped_task_expands_over_is_known() -> None:
    """``expand_input`` and its ``value``, and ``_BaseOperator__from_mapped`` of what is made of it."""
    with dag() as whole:
        first = bases.BaseOperator(task_id="first")
        mapped = WasslyBroadcastOperator.partial(task_id="send", recipients=["+44"]).expand(message=first.output)
    running = SimpleNamespace(task_id="send", get_dag=lambda: whole)
    assert templates.expanded_over_outputs(running) == {"message"}, "MappedOperator.expand_input.value has changed"
    made: Any = mapped.unmap({"message": "text"})
    assert made._BaseOperator__from_mapped is True, "MappedOperator.unmap does not set _BaseOperator__from_mapped"


def test_the_names_that_templates_have_are_known() -> None:
    expected = {"ds", "dag_run", "ti", "var", "conn", "params", "exception"}
    assert expected <= templates.names_in_templates(), "KNOWN_CONTEXT_KEYS, or Context.__annotations__, has changed"


def test_a_dag_makes_a_template_environment_that_makes_text() -> None:
    from jinja2.nativetypes import NativeEnvironment

    native = DAG("native", schedule=None, render_template_as_native_obj=True)
    assert isinstance(native.get_template_env(), NativeEnvironment)
    assert not isinstance(native.get_template_env(force_sandboxed=True), NativeEnvironment), (
        "get_template_env ignores force_sandboxed"
    )


def test_airflow_takes_over_the_default_arguments_of_every_class() -> None:
    """Its metaclass wraps each ``__init__``, and takes that of the first base where a class has none."""
    with DAG("defaults", schedule=None, default_args={"instance_id": "one", "owner": "them"}):
        task = WasslySendMessageOperator(task_id="send", contact_mobile_number="+44", message="text")
    assert (task.instance_id, task.owner) == ("one", "them"), "BaseOperatorMeta no longer wraps __init__"


# Airflow: deferral, stopping, masking.


@pytest.mark.parametrize(
    "error", ["Trigger/execution timeout" if versions.IS_AIRFLOW_2 else "Trigger timeout", "Trigger failure"]
)
def test_a_deferral_that_failed_is_resumed_in_fail(error: str) -> None:
    """``__fail__``, what its ``error`` says when the time is over, and ``TaskDeferralError`` otherwise."""
    has_timed_out = exceptions.has_deferral_timed_out("__fail__", {"error": error})
    assert has_timed_out is (error != "Trigger failure")
    operator = bases.BaseOperator(task_id="wait")
    raised: Exception | None = None
    try:
        operator.resume_execution("__fail__", {"error": error}, {})
    except Exception as failure:
        raised = failure
    assert str(raised) == error, "BaseOperator.resume_execution does not raise the error of __fail__"
    assert has_timed_out or isinstance(raised, exceptions.deferral_error()), "__fail__ raises no TaskDeferralError"
    if versions.IS_AIRFLOW_2:
        from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

        source = inspect.getsource(SchedulerJobRunner.check_trigger_timeouts)
        assert '"__fail__"' in source, "the scheduler no longer ends deferrals with __fail__"
        assert '"Trigger/execution timeout"' in source, (
            "the scheduler has changed the error of a deferral that timed out"
        )
    else:
        trigger = importlib.import_module("airflow.models.trigger")
        assert trigger.TRIGGER_FAIL_REPR == "__fail__", "TRIGGER_FAIL_REPR has changed"
        assert trigger.TriggerFailureReason.TRIGGER_TIMEOUT.value == "Trigger timeout", "TRIGGER_TIMEOUT has changed"


def test_a_secret_is_masked_in_this_process_alone() -> None:
    masking.mask_secret_here("a-secret-of-this-test")
    assert masking.redact("It is a-secret-of-this-test.") == "It is ***.", (
        "SecretsMasker.add_mask or redact has changed"
    )


def test_the_page_of_a_run_has_the_address_that_logs_have(monkeypatch: pytest.MonkeyPatch) -> None:
    base = "https://airflow.invalid/"
    monkeypatch.setenv("AIRFLOW__WEBSERVER__BASE_URL" if versions.IS_AIRFLOW_2 else "AIRFLOW__API__BASE_URL", base)
    ti = SimpleNamespace(dag_id="d", run_id="r +1", task_id="t", map_index=-1, region_index=-1, try_number=1)
    ti.execution_date = datetime(2026, 1, 1, tzinfo=timezone.utc)
    log_url = find("airflow.models.taskinstance:TaskInstance.log_url").fget(ti)
    page = tasks.run_url("d", "r +1")
    assert page is not None
    assert log_url.replace(f"{base}/", base).startswith(page), f"Airflow's pages are not at {page}, but at {log_url}"


#: What is read of a task instance, beside its ids.
OF_A_TASK_INSTANCE = {"id", "map_index", "max_tries", "state", "task", "try_number"}


def test_whether_airflow_has_a_fernet_key_is_in_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, expected in (("", False), (Fernet.generate_key().decode(), True)):
        monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", key)
        assert config.has_fernet_key() is expected
    default = config.conf().get_default_value("core", "fernet_key")
    monkeypatch.setattr(config, "conf", lambda: SimpleNamespace(get=lambda section, name, fallback: default))
    assert not config.has_fernet_key(), f"{default!r} is taken for a key"


if not versions.IS_AIRFLOW_2:

    def test_a_task_instance_has_what_is_read_of_it() -> None:
        runtime = find("airflow.sdk.execution_time.task_runner:RuntimeTaskInstance")
        wanted = OF_A_TASK_INSTANCE | ({"region_id"} if versions.VERSION >= (3, 4) else set())
        wanted |= {"log_url"} if versions.VERSION < (3, 1) else set()
        missing = wanted - runtime.model_fields.keys()
        assert not missing, f"RuntimeTaskInstance no longer has {sorted(missing)}"

    def test_a_stopped_task_has_five_seconds() -> None:
        kill = find("airflow.sdk.execution_time.supervisor:ActivitySubprocess.kill")
        delay = inspect.signature(kill).parameters["escalation_delay"].default
        assert delay == 5.0, f"ActivitySubprocess.kill waits {delay} s, for which config.seconds_after_sigterm() plans"

    def test_a_running_task_reaches_airflow_by_supervisor_comms(monkeypatch: pytest.MonkeyPatch) -> None:
        task_runner = find("airflow.sdk.execution_time.task_runner")
        comms = find("airflow.sdk.execution_time.comms")
        assert "SUPERVISOR_COMMS" in inspect.get_annotations(task_runner), "task_runner.SUPERVISOR_COMMS is gone"
        answers: list[Any] = [
            comms.VariableResult(key="k", value="v"),
            comms.ErrorResponse(error=find("airflow.sdk.exceptions:ErrorType").VARIABLE_NOT_FOUND),
            comms.ErrorResponse(),
        ]
        channel = SimpleNamespace(send=lambda request: answers.pop(0))
        assert not variables.can_reach_airflow()
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", channel, raising=False)
        assert variables.can_reach_airflow()
        assert variables.get_variable("k") == "v"
        assert variables.get_variable("k") is None, "ErrorType.VARIABLE_NOT_FOUND has changed"
        with pytest.raises(find("airflow.sdk.exceptions:AirflowRuntimeError")):
            variables.get_variable("k")


if versions.VERSION >= (3, 1):

    def test_saved_connections_are_read_in_a_process_that_calls_itself_server(monkeypatch: pytest.MonkeyPatch) -> None:
        backends = find("airflow.sdk.execution_time.supervisor:ensure_secrets_backend_loaded")
        monkeypatch.delitem(os.environ, "_AIRFLOW_PROCESS_CONTEXT", raising=False)
        assert "MetastoreBackend" not in {type(backend).__name__ for backend in backends()}
        monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
        found = {type(backend).__name__ for backend in backends()}
        assert "MetastoreBackend" in found, "Airflow no longer reads _AIRFLOW_PROCESS_CONTEXT"
