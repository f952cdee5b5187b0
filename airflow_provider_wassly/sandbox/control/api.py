"""The routes of the control API, and the guard in front of them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from airflow_provider_wassly.sandbox.service.api import JSONAnswer
from airflow_provider_wassly.sandbox.service.faults import FAULTS, Fault, Faults
from airflow_provider_wassly.sandbox.service.hosts import is_loopback
from airflow_provider_wassly.sandbox.service.models import Message, ReceivedFile
from airflow_provider_wassly.sandbox.service.state import ServiceState

T = TypeVar("T")

MAX_LIMIT = 1000
MAX_ID = 10**18
CONTACT = ("contact_mobile_number", "contact_name", "messages")
HEARTBEAT_SECONDS = 15
#: Seconds between two events; faster changes are combined into one.
SHORTEST_GAP = 0.1


class Guard:
    """
    Blocks requests that other web pages make the browser send to this machine (CSRF, DNS rebinding).

    :param app: the application to guard.
    :param host: the name or address that the sandbox listens on.
    :param allow_remote: whether ``Host`` may name another machine.
    """

    def __init__(self, app: ASGIApp, host: str, allow_remote: bool) -> None:
        self.app = app
        self.host = host
        self.allow_remote = allow_remote

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self.is_own(host):
            refused = "The Host header does not name this machine; see --allow-remote"
        elif origin is not None and origin.partition("://")[2] != host:
            refused = "Pages from another origin cannot use the control API"
        else:
            await self.app(scope, receive, send)
            return
        await JSONAnswer({"message": refused}, 403)(scope, receive, send)

    def is_own(self, host_header: str) -> bool:
        """Return whether a ``Host`` header names this machine."""
        try:
            host = urlsplit(f"//{host_header}").hostname or ""
        except ValueError:
            return False
        return self.allow_remote or host == self.host.lower() or is_loopback(host)


def message_json(message: Message) -> dict[str, Any]:
    """Return a message as the control API shows it."""
    return {
        **{field.name: getattr(message, field.name) for field in dataclasses.fields(message)},
        "received_at": message.received_at.isoformat(),
        "document": attachment_json(message.id, message.document),
        "media": attachment_json(message.id, message.media),
    }


def attachment_json(message_id: int, attachment: ReceivedFile | None) -> dict[str, Any] | None:
    """Return an attachment as the control API shows it: with its URL, not its path on this machine."""
    if attachment is None:
        return None
    return {
        "name": attachment.name,
        "content_type": attachment.content_type,
        "size": attachment.size,
        "sha256": attachment.sha256,
        "url": f"/sandbox/messages/{message_id}/{attachment.field}",
    }


def fault_json(rule_id: int, fault: Fault) -> dict[str, Any]:
    """Return a rule as the control API shows it."""
    return {"id": rule_id, **dataclasses.asdict(fault)}


async def read_object(request: Request) -> dict[str, Any]:
    """
    Read a JSON object from a request's body.

    :raises HTTPException: 400 when the body is something else.
    """
    try:
        given = json.loads(await request.body())
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise HTTPException(400, "The body must be a JSON object")
    return given


@contextlib.contextmanager
def refusing_bad_values() -> Iterator[None]:
    """Turn a :class:`ValueError`, whose text names the field, into a 422."""
    try:
        yield
    except ValueError as error:
        raise HTTPException(422, str(error)) from error


def refuse_unknown(given: dict[str, Any], known: set[str]) -> None:
    """
    Refuse unknown keys, which are usually typos.

    :raises ValueError: when there is one.
    """
    if unknown := sorted(given.keys() - known):
        raise ValueError(f"unknown field {unknown[0]!r}; choose from {', '.join(sorted(known))}")


def whole_number(request: Request, name: str, default: T) -> int | T:
    """
    Read a number from the query string.

    :raises ValueError: when it is not a number.
    """
    text = request.query_params.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise ValueError(f"{name} must be an integer of 0 or more")
    return int(text)


def page_length(request: Request) -> int:
    """
    Read ``limit`` from the query string.

    :raises ValueError: when it is not a number, or out of range.
    """
    limit = whole_number(request, "limit", 100)
    if not 1 <= limit <= MAX_LIMIT:
        raise ValueError(f"limit must be from 1 to {MAX_LIMIT}")
    return limit


class Control:
    """
    The handlers of the control API.

    :param store: the state to show and change.
    :param faults: the rules to show and change.
    """

    def __init__(self, store: ServiceState, faults: Faults) -> None:
        self.store = store
        self.faults = faults

    def router(self) -> Router:
        """Return the routes, relative to ``/sandbox``."""
        message = "/messages/{id}"
        return Router(
            [
                Route("/messages", self.list_messages, methods=["GET"]),
                Route("/messages", self.delete_messages, methods=["DELETE"]),
                Route(message, self.show_message, methods=["GET"]),
                Route(message + "/{field}", self.download, methods=["GET"]),
                Route("/contacts", self.list_contacts, methods=["GET"]),
                Route("/calls", self.list_calls, methods=["GET"]),
                Route("/faults", self.list_faults, methods=["GET"]),
                Route("/faults", self.add_fault, methods=["POST"]),
                Route("/faults", self.clear_faults, methods=["DELETE"]),
                Route("/faults/{id}", self.remove_fault, methods=["DELETE"]),
                Route("/state", self.show_state, methods=["GET"]),
                Route("/state", self.set_state, methods=["PATCH"]),
                Route("/events", self.events, methods=["GET"]),
                Route("/devices/{instance_id}/{action}", self.set_device, methods=["POST"]),
                Route("/tokens/expire", self.expire_tokens, methods=["POST"]),
                Route("/reset", self.reset, methods=["POST"]),
            ],
            redirect_slashes=False,
        )

    def find(self, request: Request) -> Message:
        """
        Return the message that the path names.

        :raises HTTPException: 404 without one.
        """
        text = request.path_params["id"]
        message = self.store.inbox.message(int(text)) if re.fullmatch(r"[0-9]{1,18}", text) else None
        if message is None:
            raise HTTPException(404, f"There is no message {text}")
        return message

    async def list_messages(self, request: Request) -> Response:
        """``GET messages``."""
        with refusing_bad_values():
            after = whole_number(request, "after", 0)
            before = whole_number(request, "before", None)
            limit = page_length(request)
        number = request.query_params.get("number")
        # Ask for one extra, to know whether there are more.
        found = self.store.inbox.messages(after=after, before=before, number=number, limit=limit + 1)
        page = found[:limit] if before is None else found[-limit:]
        return JSONAnswer({"messages": [message_json(message) for message in page], "more": len(found) > limit})

    async def list_contacts(self, request: Request) -> Response:
        """``GET contacts``."""
        with refusing_bad_values():
            before = whole_number(request, "before", MAX_ID)
            limit = page_length(request)
        found = self.store.inbox.contacts(before=before, limit=limit + 1)
        page = [
            {**{name: getattr(contact, name) for name in CONTACT}, "last": message_json(contact.last)}
            for contact in found[:limit]
        ]
        return JSONAnswer({"contacts": page, "more": len(found) > limit})

    async def delete_messages(self, request: Request) -> Response:
        """``DELETE messages``."""
        self.store.delete_messages()
        return Response(status_code=204)

    async def show_message(self, request: Request) -> Response:
        """``GET messages/ID``."""
        return JSONAnswer(message_json(self.find(request)))

    async def download(self, request: Request) -> Response:
        """``GET messages/ID/document`` and ``…/media``."""
        field = request.path_params["field"]
        attachment = {"document": self.find(request).document, "media": self.find(request).media}.get(field)
        if attachment is None:
            raise HTTPException(404, f"Message {request.path_params['id']} has no {field}")
        if not attachment.path.exists():
            raise HTTPException(
                404, f"The {field} of message {request.path_params['id']} was deleted when the sandbox stopped"
            )
        # The type is untrusted: it must not break out of its header, and the browser must not guess another one.
        plain_type = re.fullmatch(r"[\w.+-]+/[\w.+-]+", attachment.content_type, re.ASCII)
        return FileResponse(
            attachment.path,
            media_type=attachment.content_type if plain_type else "application/octet-stream",
            filename=attachment.name,
            headers={
                "X-Content-Type-Options": "nosniff",
                # If the browser opens the file as a page, it gets no scripts and a separate origin.
                "Content-Security-Policy": "sandbox; default-src 'none'",
                "Cross-Origin-Resource-Policy": "same-origin",
            },
        )

    async def list_calls(self, request: Request) -> Response:
        """``GET calls``."""
        calls = [dataclasses.asdict(call) for call in self.store.calls]
        for call in calls:
            for moment in ("started_at", "finished_at"):
                call[moment] = call[moment] and call[moment].isoformat()
        return JSONAnswer({"calls": calls})

    async def list_faults(self, request: Request) -> Response:
        """``GET faults``."""
        rules = [fault_json(rule_id, fault) for rule_id, fault in self.faults.pending.items()]
        kinds = {
            name: {"does": kind.does, "only_send": kind.only_send, "names_recipient": kind.reads == "all"}
            for name, kind in FAULTS.items()
        }
        return JSONAnswer({"faults": rules, "kinds": kinds})

    async def add_fault(self, request: Request) -> Response:
        """``POST faults``."""
        given = await read_object(request)
        with refusing_bad_values():
            refuse_unknown(given, {field.name for field in dataclasses.fields(Fault)})
            if "name" not in given:
                raise ValueError("name is required")
            fault = Fault(**given)
        rule = dataclasses.replace(fault)  # a copy for the answer, because a call can use up the original at any time
        return JSONAnswer(fault_json(self.faults.add(fault), rule), 201)

    async def clear_faults(self, request: Request) -> Response:
        """``DELETE faults``."""
        self.faults.clear()
        return Response(status_code=204)

    async def remove_fault(self, request: Request) -> Response:
        """``DELETE faults/ID``."""
        text = request.path_params["id"]
        if not (re.fullmatch(r"[0-9]{1,18}", text) and self.faults.remove(int(text))):
            raise HTTPException(404, f"There is no active fault {text}")
        return Response(status_code=204)

    async def events(self, request: Request) -> Response:
        """``GET events``."""

        async def stream() -> AsyncIterator[str]:
            with self.store.changes.watch() as changed:
                while True:
                    changed.clear()
                    state = {**self.store.state(), "faults": len(self.faults.pending)}
                    yield f"data: {json.dumps(state)}\n\n"
                    await asyncio.sleep(SHORTEST_GAP)
                    while True:
                        try:
                            await asyncio.wait_for(changed.wait(), HEARTBEAT_SECONDS)
                            break
                        except asyncio.TimeoutError:
                            yield ":\n\n"  # lets both sides notice a lost connection

        return StreamingResponse(
            stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )

    async def show_state(self, request: Request) -> Response:
        """``GET state``."""
        return JSONAnswer(self.store.state())

    async def set_state(self, request: Request) -> Response:
        """``PATCH state``."""
        given = await read_object(request)
        with refusing_bad_values():
            refuse_unknown(given, {"latency", "conversations"})
            for name, value in given.items():
                if value is None:  # which would mean "unchanged" to the store
                    raise ValueError(f"{name} must be a number, not null")
            self.store.configure(**given)
        return JSONAnswer(self.store.state())

    async def set_device(self, request: Request) -> Response:
        """``POST devices/INSTANCE_ID/connect`` and ``…/disconnect``."""
        instance_id, action = request.path_params["instance_id"], request.path_params["action"]
        if action not in ("connect", "disconnect") or self.store.device(instance_id) is None:
            raise HTTPException(404, f"There is no device {instance_id!r} to {action}")
        self.store.set_device_status(instance_id, f"{action}ed")
        return JSONAnswer({"devices": [device.as_json() for device in self.store.devices]})

    async def expire_tokens(self, request: Request) -> Response:
        """``POST tokens/expire``."""
        self.store.expire_tokens()
        return Response(status_code=204)

    async def reset(self, request: Request) -> Response:
        """``POST reset``."""
        self.store.reset()
        self.faults.clear()
        return JSONAnswer(self.store.state())
