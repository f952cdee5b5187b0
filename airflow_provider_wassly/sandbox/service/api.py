"""
The three documented endpoints, and how a fault changes what they do.

Only the answers to good requests are documented for the real service (and, for login, some statuses). All
error answers here are the sandbox's assumption: what a Laravel application would say, as Wassly looks like one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_provider_wassly.sandbox.service.faults import FAULTS, Fault, Faults
from airflow_provider_wassly.sandbox.service.models import Call, ReceivedFile
from airflow_provider_wassly.sandbox.service.state import ServiceState

if TYPE_CHECKING:
    from airflow_provider_wassly.sandbox.service.server import Connection

log = logging.getLogger(__name__)

FAKE_OPENAI_API_KEY = "sk-sandbox-openai-key-that-nobody-may-leak"
"""The real login answer can hold a secret that is none of our business; so this one does."""

HTML = "text/html; charset=utf-8"
JSON = "application/json"
IDLE_SECONDS = 0.05

# What needs no more than a status and a text: name -> status, content type, body.
PLAIN_ANSWERS = {
    "http_500": (500, JSON, '{"message": "Server Error"}'),
    "http_502_html": (502, HTML, "<html><body><h1>502 Bad Gateway</h1><hr>nginx</body></html>"),
    "http_413": (413, HTML, "<html><body><h1>413 Request Entity Too Large</h1><hr>nginx</body></html>"),
    "http_429": (429, JSON, '{"message": "Too Many Attempts."}'),
    "unauthorized": (401, JSON, '{"message": "Unauthenticated."}'),
    "redirect_to_login": (302, HTML, '<html><body>Redirecting to <a href="/login">/login</a></body></html>'),
    "rejected": (200, JSON, '{"success": false, "message": "Rejected by the sandbox"}'),
    "not_json": (200, HTML, "<html><head><title>Wassly</title></head><body>Welcome</body></html>"),
    "maintenance": (503, JSON, '{"message": "Service Unavailable"}'),
}


@dataclass(frozen=True)
class Account:
    """The credentials that are right."""

    apikey: str
    email: str
    password: str


class JSONAnswer(Response):
    """JSON in pure ASCII: what came in may hold code points that cannot be encoded as UTF-8."""

    media_type = JSON

    def render(self, content: Any) -> bytes:
        """Write the content as JSON."""
        return json.dumps(content).encode("ascii")


class RefusedError(Exception):
    """The call is refused with this answer."""

    def __init__(self, answer: Response) -> None:
        super().__init__(answer.status_code)
        self.answer = answer


def refusal(status: int, message: str, **more: Any) -> RefusedError:
    """Refuse with a status and a reason."""
    return RefusedError(JSONAnswer({"success": False, "message": message, **more}, status))


def connection_of(scope: Scope) -> Connection:
    """The connection that a call came by."""
    connection: Connection = scope["state"]["connection"]
    return connection


# Answers that are none, or not only an answer. Like every answer they are ASGI applications.


async def hang(scope: Scope, receive: Receive, send: Send) -> None:
    """Say nothing, after a body was read, until the client goes away or the sandbox stops."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def hang_unread(scope: Scope, receive: Receive, send: Send) -> None:
    """
    Neither read nor say anything until the client goes away, if that shows, or the sandbox stops.

    As long as ``receive`` is not called, uvicorn leaves in the socket all but the little it took already.
    """
    await connection_of(scope).wait_lost()


async def reset(scope: Scope, receive: Receive, send: Send) -> None:
    """End the connection with a TCP reset."""
    await connection_of(scope).reset()


class ShortBody(Response):
    """Announce the whole body, send half of it and close."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = bytes(self.body)[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})
        await connection_of(scope).close()


class CloseIdle:
    """Answer, and close the connection a moment later without having said so."""

    def __init__(self, answer: ASGIApp) -> None:
        self.answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        await self.answer(scope, receive, send)
        connection_of(scope).close_soon(IDLE_SECONDS)


def plain_answer(fault: Fault) -> Response:
    """Build the answer of a fault that needs no more than a status and a text."""
    status, content_type, text = PLAIN_ANSWERS[fault.name]
    answer = Response(text, status, media_type=content_type)
    if status == 302:
        answer.headers["Location"] = "/login"
    if fault.retry_after:
        answer.headers["Retry-After"] = fault.retry_after
    if fault.early:
        answer.headers["Connection"] = "close"
    return answer


@dataclass
class Body:
    """
    A request's body, as far as an endpoint needs it.

    :param raw: the bytes, where they are few.
    :param form: the form, ``None`` when it did not parse.
    :param keep_files: whether the files of the form are to be kept.
    """

    raw: bytes = b""
    form: FormData | None = None
    keep_files: bool = True

    def text(self, field: str) -> str | None:
        """A field of the form that was sent as text."""
        value = self.form.get(field) if self.form is not None else None
        return value if isinstance(value, str) else None


class Endpoint:
    """One endpoint of the API, as an ASGI application: notes the call, lets faults strike, works, answers."""

    name: ClassVar[str]

    def __init__(self, store: ServiceState, faults: Faults, account: Account) -> None:
        self.store = store
        self.faults = faults
        self.account = account

    async def read(self, request: Request) -> Body:
        """Read the body to its end."""
        return Body(raw=await request.body())

    async def work(self, request: Request, body: Body) -> Response:
        """
        Do what the endpoint is there for.

        :raises RefusedError: when the call is refused.
        """
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call."""
        length = Request(scope).headers.get("content-length")
        call = self.store.begin_call(self.name, int(length) if length is not None else None)

        async def counting_receive() -> Message:
            message = await receive()
            call.bytes_received += len(message.get("body", b""))
            return message

        async def noting_send(message: Message) -> None:
            # Noted before it is handed over: who has the answer in hand must find the call complete.
            if message["type"] == "http.response.start":
                call.status = message["status"]
            elif not message.get("more_body", False):
                call.finish()
            await send(message)

        request = Request(scope, counting_receive)
        try:
            answer = await self.answer(request, call)
            if self.store.latency:
                await connection_of(scope).wait_lost(self.store.latency)
            await answer(scope, counting_receive, noting_send)
        except ClientDisconnect:
            pass  # nobody is there to be answered
        finally:
            call.finish()
            await request.close()

    async def answer(self, request: Request, call: Call) -> ASGIApp:
        """Find the answer to a call: the true one, or that of the fault whose turn it is."""
        fault = self.faults.take_at_headers(self.name)
        if fault and fault.reads != "all":
            call.fault = fault.name
            return await self.strike_before_end_of_body(fault, request, call)
        try:
            body = await self.read(request)
        except OSError as error:
            return cannot_keep(error)
        fault = fault or self.faults.take_after_body(self.name, body.text("contact_mobile_number"))
        if fault is None:
            return await self.true_answer(request, body)
        call.fault = fault.name
        return await self.strike(fault, request, body)

    async def true_answer(self, request: Request, body: Body) -> Response:
        """Work, and answer with what came of it."""
        try:
            return await self.work(request, body)
        except RefusedError as refused:
            return refused.answer
        except OSError as error:  # a full disk, a data folder that went away
            return cannot_keep(error)

    async def strike_before_end_of_body(self, fault: Fault, request: Request, call: Call) -> ASGIApp:
        """Find the answer of a fault that leaves the body, or half of it, unread."""
        if fault.reads == "half":
            # Without a Content-Length nobody knows where the half is: the first piece will do.
            async for _ in request.stream():
                if call.bytes_received * 2 >= (call.content_length or 0):
                    break
        if fault.name.startswith("hang"):
            return hang_unread
        if fault.name.startswith("reset"):
            return reset
        return plain_answer(fault)

    async def strike(self, fault: Fault, request: Request, body: Body) -> ASGIApp:
        """Find the answer of a fault, after the whole body was read."""
        body.keep_files = fault.name != "drops_attachment"
        done = await self.true_answer(request, body) if fault.record else None
        whole = bytes(done.body) if done else b'{"success": true, "message": "Message sent", "data": {}}'
        if fault.name == "token_expired":
            self.store.expire_tokens()
            return unauthenticated(request)
        if fault.name == "device_disconnected":
            return self.disconnect(body)
        if fault.name == "truncated_json":
            return Response(whole[: len(whole) // 2], media_type=JSON)
        if fault.name == "short_body":
            return ShortBody(whole, media_type=JSON)
        if fault.name == "hang_after_accept":
            return hang
        if fault.name == "reset_after_body":
            return reset
        if done and FAULTS[fault.name].answers_normally:
            return CloseIdle(done) if fault.name == "close_idle" else done
        return plain_answer(fault)

    def disconnect(self, body: Body) -> Response:
        """Disconnect the device that a message was to be sent from, and say so."""
        instance_id = body.text("instance_id") or ""
        with contextlib.suppress(ValueError):  # an unknown device needs no disconnecting
            self.store.set_device_status(instance_id, "disconnected")
        return not_connected(instance_id)

    def check_apikey(self, request: Request) -> None:
        """Refuse a call without the right API key."""
        if request.headers.get("apikey") != self.account.apikey:
            raise refusal(401, "Invalid or missing API key")

    def check_token(self, request: Request) -> None:
        """Refuse a call without a valid token."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not self.store.is_valid(token):
            raise RefusedError(unauthenticated(request))


def cannot_keep(error: OSError) -> Response:
    """Say that the call failed for a reason that lies with this machine."""
    log.error("The sandbox could not keep what it was sent: %s", error)
    return JSONAnswer({"success": False, "message": f"The sandbox could not keep the message: {error}"}, 507)


def unauthenticated(request: Request) -> Response:
    """Answer a call without a valid token as Laravel does: a browser is sent to the login page."""
    wants_json = JSON in request.headers.get("accept", "")
    return plain_answer(Fault("unauthorized" if wants_json else "redirect_to_login"))


def not_connected(instance_id: str) -> Response:
    """Say that a device cannot send now."""
    return JSONAnswer({"success": False, "message": f"WhatsApp instance {instance_id} is not connected"})


class Login(Endpoint):
    """``POST /api/login``."""

    name = "login"

    async def work(self, request: Request, body: Body) -> Response:
        """Issue a token."""
        self.check_apikey(request)
        try:
            given = json.loads(body.raw)
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict):
            raise refusal(400, "The body must be a JSON object")
        email, password = given.get("email"), given.get("password")
        if not isinstance(email, str) or not re.fullmatch(r"[^@\s]+@[^@\s]+", email):
            raise refusal(400, "The email must be a valid email address")
        if not isinstance(password, str) or not password:
            raise refusal(400, "The password field is required")
        if (email, password) != (self.account.email, self.account.password):
            raise refusal(401, "Invalid credentials")
        return JSONAnswer(
            {
                "success": True,
                "message": "Login Successfully",
                "data": {
                    "id": 2,
                    "name": "Sandbox",
                    "role_id": 3,
                    "client_id": 1,
                    "phone": "+491700000000",
                    "email": email,
                    "location": "",
                    "profile_image": None,
                    "openai_api_key": FAKE_OPENAI_API_KEY,
                    "token": self.store.login(),
                },
            }
        )


class Devices(Endpoint):
    """``GET /api/whatsapp-web-devices``."""

    name = "devices"

    async def work(self, request: Request, body: Body) -> Response:
        """List the devices."""
        self.check_apikey(request)
        self.check_token(request)
        return JSONAnswer({"success": True, "devices": [device.as_json() for device in self.store.devices]})


class SendMessage(Endpoint):
    """``POST /api/whatsapp-web-send-message``."""

    name = "send"

    async def read(self, request: Request) -> Body:
        """Read the form; files go to disk on the way."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
            async for _ in request.stream():
                pass  # not a form that is documented, and not to be kept
            return Body()
        try:
            return Body(form=await request.form())
        except (HTTPException, ValueError):
            # What Starlette found to be wrong, and what the parser and the codecs below it did.
            return Body()

    async def work(self, request: Request, body: Body) -> Response:
        """Accept a message."""
        self.check_apikey(request)
        self.check_token(request)
        form = body.form
        if form is None:
            raise refusal(400, "The body could not be read as multipart/form-data")
        if errors := self.validate(form):
            raise refusal(422, next(iter(errors.values()))[0], errors=errors)
        instance_id = str(form["instance_id"])
        device = self.store.device(instance_id)
        if device is None:
            reason = "The selected instance_id is invalid."
            raise refusal(422, reason, errors={"instance_id": [reason]})
        if not device.connected:
            raise RefusedError(not_connected(instance_id))
        if not self.store.conversations:
            raise refusal(200, "No conversations remaining")
        with self.keeping_files() as files:
            if body.keep_files:
                await asyncio.to_thread(self.save_files, form, files)
            accepted = self.store.accept(
                contact_mobile_number=str(form["contact_mobile_number"]),
                contact_name=body.text("contact_name"),
                message=body.text("message"),
                instance_id=instance_id,
                document=files.get("document"),
                media=files.get("media"),
            )
            if accepted is None:
                raise refusal(200, "No conversations remaining")
        message, remaining = accepted
        return JSONAnswer(
            {
                "success": True,
                "message": "Message sent successfully",
                "data": {
                    "message_type": message.message_type,
                    "conversation_id": message.conversation_id,
                    "remaining_conversations": remaining,
                },
            }
        )

    @staticmethod
    def validate(form: FormData) -> dict[str, list[str]]:
        """
        Check the fields.

        :return: field -> reasons; empty if all is well.
        """
        errors: dict[str, list[str]] = {}

        def check(field: str, good: Callable[[Any], object], reason: str) -> None:
            if not good(form.get(field)):
                errors[field] = [reason]

        for field in ("contact_mobile_number", "instance_id"):
            check(field, lambda value: isinstance(value, str) and value, f"The {field} field is required.")
        if "contact_mobile_number" not in errors:
            check(
                "contact_mobile_number",
                lambda value: re.fullmatch(r"\+[0-9]{8,15}", value),
                "The contact_mobile_number must be a + followed by 8 to 15 digits.",
            )
        for field in ("message", "contact_name"):
            check(field, lambda value: not isinstance(value, UploadFile), f"The {field} must be a text.")
        for field in ("document", "media"):
            check(field, lambda value: not isinstance(value, str), f"The {field} must be a file.")
            if isinstance(form.get(field), UploadFile):
                check(field, lambda value: value.filename != "", f"The {field} must have a file name.")
                check(field, lambda value: value.size > 0, f"The {field} must not be empty.")
        if not form.get("message") and "document" not in form and "media" not in form:
            errors["message"] = ["The message field is required when neither document nor media is present."]
        return errors

    @staticmethod
    @contextlib.contextmanager
    def keeping_files() -> Iterator[dict[str, ReceivedFile]]:
        """Collect saved files, and remove them if the message is not kept in the end."""
        files: dict[str, ReceivedFile] = {}
        try:
            yield files
        except BaseException:
            for attachment in files.values():
                attachment.path.unlink(missing_ok=True)
            raise

    def save_files(self, form: FormData, files: dict[str, ReceivedFile]) -> None:
        """Keep the files of a form."""
        for field in ("document", "media"):
            upload = form.get(field)
            if isinstance(upload, UploadFile):
                files[field] = self.store.inbox.save(
                    field,
                    # Lone surrogates, which odd charsets can bring, could not be sent on in any answer.
                    (upload.filename or "").encode(errors="replace").decode(),
                    upload.content_type or "",
                    upload.file,
                )
