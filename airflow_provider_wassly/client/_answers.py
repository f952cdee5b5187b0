"""Read Wassly's answers: strict about success, tolerant about everything else."""

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

#: On a documented call, these mean that the host is not Wassly.
_NOT_THERE = {404, 405, 410}

#: A gateway's timeouts: Request Timeout, and Client Closed Request (460 on AWS, 499 on nginx). The service may have
#: processed the request, so these are no refusals.
_TIMEOUTS = {408, 460, 499}


@dataclass(frozen=True)
class Answer:
    """
    A complete HTTP answer.

    :param status: the HTTP status.
    :param headers: the headers, with case-insensitive names.
    :param body: the decoded body.
    :param url: the address that was called.
    :param request_whole: whether enough of the request may have left for a parser to take it as complete.
    :param redact: removes secrets from a text that will be shown.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str
    request_whole: bool
    redact: Callable[[str], str]

    def json_object(self) -> dict[str, Any] | None:
        """Return the body if it is a JSON object, else ``None``."""
        try:
            # Besides JSONDecodeError: undecodable bytes, numbers too long for int(), nesting too deep.
            parsed = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return parsed if isinstance(parsed, dict) else None

    @property
    def retry_after(self) -> float | None:
        """The ``Retry-After`` header in seconds; ``None`` if it is missing or unreadable."""
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
        The target of a redirect without its query; ``None`` if this is not a redirect.

        For decisions only: it may contain a secret. Show :attr:`redirect_target` instead, which is redacted and cut.
        """
        if not 300 <= self.status < 400:
            return None
        return re.split(r"[?#]", self.headers.get("Location", ""), maxsplit=1)[0]

    @property
    def redirect_target(self) -> str | None:
        """The target of a redirect as an error may show it; ``None`` if this is not a redirect."""
        if self.location is None:
            return None
        return self.readable(self.location) or "nowhere (no Location header)"

    @property
    def is_unauthenticated(self) -> bool:
        """Whether Wassly did not accept the credentials; it does not process such a call."""
        if self.status in {401, 403}:
            return True
        target = self.location
        return target is not None and bool(re.search(r"/(login|signin|sign-in|auth)\b", target, re.IGNORECASE))

    @property
    def is_moved(self) -> bool:
        """Whether a redirect only changes the address (scheme, host or slash), so that nothing was processed."""
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
        """Return content type and beginning of the body in one line."""
        if not self.body:
            return "empty body"
        kind = self.headers.get("Content-Type", "no content type")
        return f"{self.readable(kind)}: {self.readable(self.body.decode(errors='replace'))}"

    def readable(self, text: str) -> str:
        """Return ``text`` as an error may show it: without secrets, in one line, at most 200 characters."""
        # Redact before cutting: half a secret would not be recognised.
        line = one_line(self.redact(text))
        return f"{line[:_EXCERPT]}…" if len(line) > _EXCERPT else line


def one_line(text: str) -> str:
    """Return ``text`` with each run of white space, control characters and lone surrogates as a single space."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+", " ", text).strip()


def read_receipt(answer: Answer) -> SendReceipt:
    """
    Return the receipt from the answer to a send call.

    :raises WasslyError: the class that fits, when the answer is not a success.
    """
    if 200 <= answer.status < 300:
        payload = answer.json_object()
        success = _truth(payload.get("success")) if payload is not None else None
        if payload is None or success is None:
            raise WasslyOutcomeUnknown(
                f"Wassly answered HTTP {answer.status}, but not with the documented JSON ({answer.describe()})"
            )
        if not success:
            raise _rejected(answer, payload)
        if not answer.request_whole:
            raise WasslyOutcomeUnknown("Wassly reported success before it had received the complete request")
        data = payload.get("data")
        values: dict[str, Any] = data if isinstance(data, dict) else {}
        return SendReceipt(
            message_type=_text_or_none(values.get("message_type")),
            conversation_id=_identifier(values.get("conversation_id")),
            remaining_conversations=_whole_number(values.get("remaining_conversations")),
        )
    if (not_accepted := not_accepted_error(answer)) is not None:
        raise not_accepted
    if not answer.request_whole:
        raise WasslyUnavailable(f"Wassly answered HTTP {answer.status} before it had received the complete request")
    what = f"redirected to {answer.redirect_target}" if answer.redirect_target else answer.describe()
    raise WasslyOutcomeUnknown(f"Wassly answered HTTP {answer.status} after receiving the complete request ({what})")


def read_devices(answer: Answer) -> list[Device]:
    """
    Return the devices from the answer to the list call.

    :raises WasslyError: the class that fits, when the answer is not a device list.
    """
    devices = _success_payload(answer).get("devices")
    if not isinstance(devices, list):
        raise WasslyUnavailable(f"the device list is not the documented JSON ({answer.describe()})")
    return [
        Device(
            id=_text_or_none(entry.get("id")),
            name=_text_or_none(entry.get("name")),
            status=_text_or_none(entry.get("status")),
            last_active=_text_or_none(entry.get("lastActive")),
            instance_id=_text_or_none(entry.get("instance_id")),
        )
        for entry in devices
        if isinstance(entry, dict)
    ]


def read_token(answer: Answer) -> str:
    """
    Return the token from the answer to the login call.

    The answer contains other secrets, so nothing else of it is returned or shown.

    :raises WasslyError: the class that fits, when there is no token; without the body of a successful answer.
    """
    try:
        data = _success_payload(answer).get("data")
    except WasslyRejected as error:
        if answer.is_moved or error.status in _NOT_THERE:
            raise  # the address is wrong, not the credentials
        raise WasslyAuthError(f"login failed: {error.message}", status=error.status) from None
    token = data.get("token") if isinstance(data, dict) else None
    if not isinstance(token, str) or not is_header_value(token):
        raise WasslyUnavailable("the login answer has no usable token in data.token")
    return token


def is_header_value(text: str) -> bool:
    """Whether ``text`` can be sent unchanged as the value of an HTTP header."""
    return re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", text) is not None


def _success_payload(answer: Answer) -> dict[str, Any]:
    """
    Return the JSON object of a successful call that sends no message.

    :raises WasslyError: the class that fits; its ``accepted`` is always ``False``.
    """
    if 200 <= answer.status < 300:
        payload = answer.json_object()
        if payload is None:
            content_type = answer.headers.get("Content-Type", "no content type")
            raise WasslyUnavailable(
                f"Wassly answered HTTP {answer.status}, but not with the documented JSON "
                f"({answer.readable(content_type)})"
            )
        if _truth(payload.get("success")) is False:
            raise _rejected(answer, payload)
        return payload
    if answer.status in _NOT_THERE:
        reason = _reason_and_errors(answer, answer.json_object() or {})[0] or answer.describe()
        raise WasslyRejected(
            f"HTTP {answer.status}, Wassly is not at {answer.readable(answer.url)}; correct the connection's host, "
            f"port or schema ({reason})",
            status=answer.status,
        )
    raise not_accepted_error(answer) or WasslyUnavailable(
        f"Wassly answered HTTP {answer.status} ({answer.describe()})", retry_after=answer.retry_after
    )


def not_accepted_error(answer: Answer) -> WasslyError | None:
    """Return the error for an answer whose status means that nothing was accepted, ``None`` for any other."""
    target = answer.redirect_target
    if answer.is_unauthenticated:
        if target is not None:
            reason = f"redirected to {target} (not followed)"
        else:
            reason = _reason_and_errors(answer, answer.json_object() or {})[0] or answer.describe()
        return WasslyAuthError(f"not authenticated (HTTP {answer.status}): {reason}", status=answer.status)
    if answer.is_moved:
        return WasslyRejected(
            f"HTTP {answer.status}: redirected to {target} (not followed); correct the connection's host or schema",
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
    reason, errors = _reason_and_errors(answer, payload)
    said = reason or ("no reason given" if payload else answer.describe())
    if answer.status in _NOT_THERE and not reason:
        said += "; check the connection's host"
    fields = "; ".join(f"{name}: {' '.join(texts)}" for name, texts in errors.items())
    what = "success: false" if 200 <= answer.status < 300 else f"HTTP {answer.status}"
    return WasslyRejected(
        f"rejected ({what}): {said}{f' [{fields}]' if fields else ''}",
        status=answer.status,
        reason=reason,
        errors=errors,
    )


def _reason_and_errors(answer: Answer, payload: dict[str, Any]) -> tuple[str | None, dict[str, list[str]]]:
    """Return the answer's ``message`` and its ``errors`` (field → reasons), as an error may show them."""
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
    """Return a boolean in any form that PHP may write, ``None`` if it is not one."""
    if isinstance(value, str):
        value = value.strip().lower()
    # 1 == True and 0 == False in Python, so the tuples cover both.
    if value in (True, "1", "true"):
        return True
    if value in (False, "0", "false"):
        return False
    return None


def _whole_number(value: Any) -> int | None:
    """Return a whole number, also from a string or from ``2.0``; ``None`` if it is not one."""
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
    return number if number is not None else _text_or_none(value)


def _text_or_none(value: Any) -> str | None:
    """Return a text or number as one line of at most 200 characters; ``None`` if it is empty or anything else."""
    if isinstance(value, str):
        return one_line(value)[:_EXCERPT] or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None
