"""
The three documented endpoints, and how a fault changes their behaviour.

Wassly documents only the answers to valid requests, and a few statuses for login. All error answers here are
assumptions: they imitate a Laravel application, which Wassly appears to be.
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
"""The real login answer can contain a secret that the client must ignore, so this one does too."""

HTML = "text/html; charset=utf-8"
JSON = "application/json"
IDLE_SECONDS = 0.05

# Faults whose answer is just a status and a text: name -> status, content type, body.
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
    """The valid credentials."""

    apikey: str
    email: str
    password: str


class JSONAnswer(Response):
    """JSON in pure ASCII: a message can contain code points that cannot be encoded as UTF-8."""

    media_type = JSON

    def render(self, content: Any) -> bytes:
        """Encode the content as JSON."""
        return json.dumps(content).encode("ascii")


class RefusedError(Exception):
    """
    Raised to refuse a call.

    :param answer: the answer to send.
    """

    def __init__(self, answer: Response) -> None:
        super().__init__(answer.status_code)
        self.answer = answer

    @classmethod
    def because(cls, reason: str, *, status: int, **more: Any) -> RefusedError:
        """
        Return a refusal in the service's usual JSON.

        :param reason: the answer's ``message``.
        :param status: the HTTP status.
        :param more: more members of the JSON object.
        """
        return cls(JSONAnswer({"success": False, "message": reason, **more}, status))


def connection_of(scope: Scope) -> Connection:
    """Return the connection that a call came in on."""
    connection: Connection = scope["state"]["connection"]
    return connection


# No answer at all (hang, reset), or a damaged one. Like every answer, these are ASGI applications.


async def hang(scope: Scope, receive: Receive, send: Send) -> None:
    """After the body was read, stay silent until the client disconnects or the sandbox stops."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def hang_unread(scope: Scope, receive: Receive, send: Send) -> None:
    """
    Read and send nothing until the client visibly disconnects or the sandbox stops.

    While nothing calls ``receive``, uvicorn leaves the rest of the body in the socket.
    """
    await connection_of(scope).wait_lost()


async def reset_connection(scope: Scope, receive: Receive, send: Send) -> None:
    """Close the connection with a TCP reset."""
    await connection_of(scope).close_with_reset()


class ShortBody(Response):
    """Announce the whole body, send half of it and close the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = bytes(self.body)[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})
        await connection_of(scope).close()


class CloseIdle:
    """Answer normally, then close the connection a moment later without announcing it."""

    def __init__(self, answer: ASGIApp) -> None:
        self.answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        await self.answer(scope, receive, send)
        connection_of(scope).close_soon(IDLE_SECONDS)


def plain_answer(fault: Fault) -> Response:
    """Build the answer for a fault that is just a status and a text."""
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
    A request's body, in the form that the endpoint needs.

    :param raw: the bytes, for an endpoint with small bodies.
    :param form: the parsed form; ``None`` if it is not valid.
    :param keep_files: whether to store the form's files.
    """

    raw: bytes = b""
    form: FormData | None = None
    keep_files: bool = True

    def text(self, field: str) -> str | None:
        """Return a form field that was sent as text, ``None`` without one."""
        value = self.form.get(field) if self.form is not None else None
        return value if isinstance(value, str) else None


class Endpoint:
    """An endpoint of the API, as an ASGI application: records the call, applies faults, does its work and answers."""

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
        Do the endpoint's work.

        :raises RefusedError: to refuse the call.
        """
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one call."""
        length = Request(scope).headers.get("content-length")
        call = self.store.begin_call(self.name, int(length) if length is not None else None)

        async def counting_receive() -> Message:
            message = await receive()
            call.bytes_received += len(message.get("body", b""))
            return message

        async def noting_send(message: Message) -> None:
            # Record before sending: a client that has the answer must find the call complete.
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
            pass  # nobody is left to answer
        finally:
            call.finish()
            await request.close()

    async def answer(self, request: Request, call: Call) -> ASGIApp:
        """Return the answer to a call: the normal one, or that of the fault that applies."""
        fault = self.faults.take_at_headers(self.name)
        if fault and fault.reads != "all":
            call.fault = fault.name
            return await self.fail_before_end_of_body(fault, request, call)
        try:
            body = await self.read(request)
        except OSError as error:
            return storage_failed(error)
        fault = fault or self.faults.take_after_body(self.name, body.text("contact_mobile_number"))
        if fault is None:
            return await self.normal_answer(request, body)
        call.fault = fault.name
        return await self.fail_after_body(fault, request, body)

    async def normal_answer(self, request: Request, body: Body) -> Response:
        """Do the work and return its answer."""
        try:
            return await self.work(request, body)
        except RefusedError as refused:
            return refused.answer
        except OSError as error:  # for example a full disk, or a deleted data folder
            return storage_failed(error)

    async def fail_before_end_of_body(self, fault: Fault, request: Request, call: Call) -> ASGIApp:
        """Return the answer of a fault that leaves all or half of the body unread."""
        if fault.reads == "half":
            # Without a Content-Length the half is unknown; stop after the first chunk.
            async for _ in request.stream():
                if call.bytes_received * 2 >= (call.content_length or 0):
                    break
        if fault.name.startswith("hang"):
            return hang_unread
        if fault.name.startswith("reset"):
            return reset_connection
        return plain_answer(fault)

    async def fail_after_body(self, fault: Fault, request: Request, body: Body) -> ASGIApp:
        """Return the answer of a fault that acts after the whole body was read."""
        body.keep_files = fault.name != "drops_attachment"
        done = await self.normal_answer(request, body) if fault.record else None
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
            return reset_connection
        if done and FAULTS[fault.name].answers_normally:
            return CloseIdle(done) if fault.name == "close_idle" else done
        return plain_answer(fault)

    def disconnect(self, body: Body) -> Response:
        """Disconnect the device that the message names, and answer that it is not connected."""
        instance_id = body.text("instance_id") or ""
        with contextlib.suppress(ValueError):  # an unknown device is not connected anyway
            self.store.set_device_status(instance_id, "disconnected")
        return not_connected(instance_id)

    def check_apikey(self, request: Request) -> None:
        """Refuse a call without the right API key."""
        if request.headers.get("apikey") != self.account.apikey:
            raise RefusedError.because("Invalid or missing API key", status=401)

    def check_token(self, request: Request) -> None:
        """Refuse a call without a valid token."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not self.store.is_valid(token):
            raise RefusedError(unauthenticated(request))


def storage_failed(error: OSError) -> Response:
    """Answer that this machine could not store the message."""
    log.error("The sandbox could not store a message: %s", error)
    return JSONAnswer({"success": False, "message": f"The sandbox could not store the message: {error}"}, 507)


def unauthenticated(request: Request) -> Response:
    """Answer a call without a valid token as Laravel does: redirect to the login page unless the client wants JSON."""
    wants_json = JSON in request.headers.get("accept", "")
    return plain_answer(Fault("unauthorized" if wants_json else "redirect_to_login"))


def not_connected(instance_id: str) -> Response:
    """Answer that a device is not connected."""
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
            raise RefusedError.because("The body must be a JSON object", status=400)
        email, password = given.get("email"), given.get("password")
        if not isinstance(email, str) or not re.fullmatch(r"[^@\s]+@[^@\s]+", email):
            raise RefusedError.because("The email must be a valid email address", status=400)
        if not isinstance(password, str) or not password:
            raise RefusedError.because("The password field is required", status=400)
        if (email, password) != (self.account.email, self.account.password):
            raise RefusedError.because("Invalid credentials", status=401)
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
        """Read the form, writing its files to disk."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
            async for _ in request.stream():
                pass  # not a documented form; discard it
            return Body()
        try:
            return Body(form=await request.form())
        except (HTTPException, ValueError):
            # Starlette raises the first, the parser and the codecs below it the second.
            return Body()

    async def work(self, request: Request, body: Body) -> Response:
        """Accept a message."""
        self.check_apikey(request)
        self.check_token(request)
        form = body.form
        if form is None:
            raise RefusedError.because("The body is not valid multipart/form-data", status=400)
        if errors := self.validate(form):
            raise RefusedError.because(next(iter(errors.values()))[0], status=422, errors=errors)
        instance_id = str(form["instance_id"])
        device = self.store.device(instance_id)
        if device is None:
            reason = "The selected instance_id is invalid."
            raise RefusedError.because(reason, status=422, errors={"instance_id": [reason]})
        if not device.connected:
            raise RefusedError(not_connected(instance_id))
        if not self.store.conversations:
            raise RefusedError.because("No conversations remaining", status=200)
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
                raise RefusedError.because("No conversations remaining", status=200)
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

        :return: field -> reasons; empty if the form is valid.
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
            check(field, lambda value: not isinstance(value, UploadFile), f"The {field} must be a string.")
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
        """Collect the saved files, and delete them if the message is not stored in the end."""
        files: dict[str, ReceivedFile] = {}
        try:
            yield files
        except BaseException:
            for attachment in files.values():
                attachment.path.unlink(missing_ok=True)
            raise

    def save_files(self, form: FormData, files: dict[str, ReceivedFile]) -> None:
        """Store the files of a form."""
        for field in ("document", "media"):
            upload = form.get(field)
            if isinstance(upload, UploadFile):
                files[field] = self.store.inbox.save(
                    field,
                    # Unusual charsets can produce lone surrogates, which no answer could contain.
                    (upload.filename or "").encode(errors="replace").decode(),
                    upload.content_type or "",
                    upload.file,
                )
