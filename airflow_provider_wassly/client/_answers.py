"""What an answer means: strict about success, tolerant about everything else."""

from __future__ import annotations

import datetime
import email.utils
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_wassly.client.errors import (
    WasslyAuthError,
    WasslyError,
    WasslyOutcomeUnknown,
    WasslyRateLimited,
    WasslyRejected,
    WasslyUnavailable,
)
from airflow_provider_wassly.client.models import Device, SendReceipt

_EXCERPT = 200
_MAX_REASONS = 10

#: 4xx that say of a documented call that this is not where Wassly is.
_NOT_THERE = {404, 405, 410}

#: 4xx by which a gateway says that the service or the client took too long, so not that nothing was processed: Request
#: Timeout, and Client Closed Request of AWS and nginx.
_TIMEOUTS = {408, 460, 499}


@dataclass(frozen=True)
class Answer:
    """
    An HTTP answer that arrived whole.

    :param url: what was called.
    :param redact: takes secrets out of a text that may be shown.
    :param request_whole: whether the request had left so far that a parser could take it for a whole one.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str
    request_whole: bool
    redact: Callable[[str], str]

    def json_object(self) -> dict[str, Any] | None:
        """Return the body if it is a JSON object."""
        try:
            # Not only JSONDecodeError: undecodable bytes, numbers too long for int(), nesting too deep.
            parsed = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return parsed if isinstance(parsed, dict) else None

    @property
    def retry_after(self) -> float | None:
        """Seconds from the ``Retry-After`` header, ``None`` if it is absent or neither seconds nor a date."""
        text = self.headers.get("Retry-After", "").strip()
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
            return float(text)
        try:
            when = email.utils.parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        if when.tzinfo is None:
            when = when.replace(tzinfo=datetime.timezone.utc)
        return max(0.0, (when - datetime.datetime.now(datetime.timezone.utc)).total_seconds())

    @property
    def location(self) -> str | None:
        """
        Where a redirect points, without its query; ``None`` if this is no redirect.

        Not to be shown, as it may hold a secret, but to be judged by: what is shown has lost its secrets and its end.
        """
        if not 300 <= self.status < 400:
            return None
        return re.split(r"[?#]", self.headers.get("Location", ""), maxsplit=1)[0]

    @property
    def redirect_target(self) -> str | None:
        """The same as an error may show it."""
        if self.location is None:
            return None
        return self.readable(self.location) or "nowhere (no Location header)"

    @property
    def is_unauthenticated(self) -> bool:
        """Whether the credentials were not accepted; such a call is not processed."""
        if self.status in {401, 403}:
            return True
        target = self.location
        return target is not None and bool(re.search(r"/(login|signin|sign-in|auth)\b", target, re.IGNORECASE))

    @property
    def is_moved(self) -> bool:
        """Whether a redirect concerns the address only (other scheme, host or slash), so nothing was processed."""
        target = self.location
        if target is None:
            return False
        if self.status in {301, 307, 308}:
            return True
        try:
            path = urlsplit(target).path
        except ValueError:
            return False
        return path.rstrip("/") == urlsplit(self.url).path.rstrip("/")

    def describe(self) -> str:
        """Return the first part of the body, in one line."""
        if not self.body:
            return "the body is empty"
        kind = self.headers.get("Content-Type", "no content type")
        return f"{self.readable(kind)}: {self.readable(self.body.decode(errors='replace'))}"

    def readable(self, text: str) -> str:
        """Return ``text`` as an error may show it: without secrets, in one line, cut to a readable length."""
        # Secrets go first: half of one would not be recognised.
        line = one_line(self.redact(text))
        return f"{line[:_EXCERPT]}…" if len(line) > _EXCERPT else line


def one_line(text: str) -> str:
    """Return ``text`` with line breaks, control characters and halves of characters turned into single spaces."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+", " ", text).strip()


def read_receipt(answer: Answer) -> SendReceipt:
    """
    Return the receipt, or raise what the answer to a send call means.

    :raises WasslyError: one of the tree.
    """
    if 200 <= answer.status < 300:
        payload = answer.json_object()
        success = _truth(payload.get("success")) if payload is not None else None
        if payload is None or success is None:
            raise WasslyOutcomeUnknown(
                f"HTTP {answer.status}, but not the documented JSON answer ({answer.describe()})"
            )
        if not success:
            raise _rejected(answer, payload)
        if not answer.request_whole:
            raise WasslyOutcomeUnknown("Wassly answered success before it had received the whole request")
        data = payload.get("data")
        values: dict[str, Any] = data if isinstance(data, dict) else {}
        return SendReceipt(
            message_type=_text(values.get("message_type")),
            conversation_id=_identifier(values.get("conversation_id")),
            remaining_conversations=_whole_number(values.get("remaining_conversations")),
        )
    if (refused := refusal(answer)) is not None:
        raise refused
    if not answer.request_whole:
        raise WasslyUnavailable(f"HTTP {answer.status} before the request had left whole")
    what = f"redirected to {answer.redirect_target}" if answer.redirect_target else answer.describe()
    raise WasslyOutcomeUnknown(f"HTTP {answer.status} after the request had left whole ({what})")


def read_devices(answer: Answer) -> list[Device]:
    """
    Return the devices, or raise what the answer to the list call means.

    :raises WasslyError: one of the tree.
    """
    devices = _read(answer).get("devices")
    if not isinstance(devices, list):
        raise WasslyUnavailable(f"the device list is not the documented JSON answer ({answer.describe()})")
    return [
        Device(
            id=_text(entry.get("id")),
            name=_text(entry.get("name")),
            status=_text(entry.get("status")),
            last_active=_text(entry.get("lastActive")),
            instance_id=_text(entry.get("instance_id")),
        )
        for entry in devices
        if isinstance(entry, dict)
    ]


def read_token(answer: Answer) -> str:
    """
    Return the token of a login answer and nothing else of it: it holds other secrets.

    :raises WasslyError: one of the tree; its text holds nothing of a successful answer's body.
    """
    try:
        data = _read(answer).get("data")
    except WasslyRejected as error:
        if answer.is_moved or error.status in _NOT_THERE:
            raise  # about the address, and not about who logs in
        raise WasslyAuthError(f"login failed: {error.message}", status=error.status) from None
    token = data.get("token") if isinstance(data, dict) else None
    if not isinstance(token, str) or not is_header_value(token):
        raise WasslyUnavailable("the login answer holds no usable token where the documentation has it")
    return token


def is_header_value(text: str) -> bool:
    """Whether ``text`` can be sent as the value of an HTTP header as it is."""
    return re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", text) is not None


def _read(answer: Answer) -> dict[str, Any]:
    """Return the payload of a call that sends nothing; whatever is wrong with it, no message was accepted."""
    if 200 <= answer.status < 300:
        payload = answer.json_object()
        if payload is None:
            content_type = answer.headers.get("Content-Type", "no content type")
            raise WasslyUnavailable(
                f"HTTP {answer.status}, but not the documented JSON answer ({answer.readable(content_type)})"
            )
        if _truth(payload.get("success")) is False:
            raise _rejected(answer, payload)
        return payload
    if answer.status in _NOT_THERE:
        said = _reasons(answer, answer.json_object() or {})[0] or answer.describe()
        raise WasslyRejected(
            f"HTTP {answer.status}, Wassly is not at {answer.readable(answer.url)}: correct host, port or schema of "
            f"the connection ({said})",
            status=answer.status,
        )
    raise refusal(answer) or WasslyUnavailable(
        f"HTTP {answer.status} ({answer.describe()})", retry_after=answer.retry_after
    )


def refusal(answer: Answer) -> WasslyError | None:
    """Return the error for an answer whose status says that nothing was accepted, ``None`` for any other."""
    target = answer.redirect_target
    if answer.is_unauthenticated:
        if target is not None:
            reason = f"redirected to {target} (not followed)"
        else:
            reason = _reasons(answer, answer.json_object() or {})[0] or answer.describe()
        return WasslyAuthError(f"not authenticated (HTTP {answer.status}): {reason}", status=answer.status)
    if answer.is_moved:
        return WasslyRejected(
            f"HTTP {answer.status}: redirected to {target} (not followed); correct host or schema of the connection",
            status=answer.status,
        )
    if answer.status == 429:
        wait = "" if answer.retry_after is None else f", try again in {answer.retry_after:g} s"
        return WasslyRateLimited(f"too many requests (HTTP 429{wait})", retry_after=answer.retry_after)
    if 400 <= answer.status < 500 and answer.status not in _TIMEOUTS:
        return _rejected(answer, answer.json_object() or {})
    if answer.status == 503 and "Retry-After" in answer.headers:
        return WasslyUnavailable("Wassly is in maintenance (HTTP 503)", retry_after=answer.retry_after)
    return None


def _rejected(answer: Answer, payload: dict[str, Any]) -> WasslyRejected:
    reason, errors = _reasons(answer, payload)
    said = reason or ("no reason given" if payload else answer.describe())
    if answer.status in _NOT_THERE and not reason:
        said += "; is the host of the connection right?"
    fields = "; ".join(f"{name}: {' '.join(texts)}" for name, texts in errors.items())
    what = "success: false" if 200 <= answer.status < 300 else f"HTTP {answer.status}"
    return WasslyRejected(
        f"rejected ({what}): {said}{f' [{fields}]' if fields else ''}",
        status=answer.status,
        reason=reason,
        errors=errors,
    )


def _reasons(answer: Answer, payload: dict[str, Any]) -> tuple[str | None, dict[str, list[str]]]:
    """Return the answer's ``message`` and its ``errors`` (field → reasons), each cut to a readable length."""
    message = payload.get("message")
    reason = answer.readable(message) if isinstance(message, str) else ""
    errors = payload.get("errors")
    by_field = {
        answer.readable(name): [
            answer.readable(str(text)) for text in (texts if isinstance(texts, list) else [texts])[:_MAX_REASONS]
        ]
        for name, texts in (list(errors.items())[:_MAX_REASONS] if isinstance(errors, dict) else ())
    }
    return reason or None, by_field


def _truth(value: Any) -> bool | None:
    """Read a boolean as PHP may write it."""
    if isinstance(value, str):
        value = value.strip().lower()
    # 1 == True and 0 == False in Python, so the tuples cover both.
    if value in (True, "1", "true"):
        return True
    if value in (False, "0", "false"):
        return False
    return None


def _whole_number(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,18}\s*", value):
        return int(value)
    return None


def _identifier(value: Any) -> int | str | None:
    number = _whole_number(value)
    return number if number is not None else _text(value)


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return one_line(value)[:_EXCERPT] or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None
