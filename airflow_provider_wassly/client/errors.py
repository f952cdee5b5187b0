"""
What can go wrong, and what is then known about the message.

Every failure is a :class:`WasslyError`. Its ``accepted`` says what is known about Wassly having
accepted the message: ``False`` (certainly not) or ``None`` (it cannot be known). Whether a phone
received it is not knowable through this API and never claimed.

.. code-block:: text

    WasslyError
     ├─ WasslyConfigError             the client or the connection is set up wrongly
     ├─ WasslyInvalidMessage          refused by us, before any call
     ├─ WasslyAttachmentError         the file failed while it was being sent
     ├─ WasslyAuthError               apikey, token, email or password not accepted
     ├─ WasslyRejected                Wassly answered no
     │   ├─ WasslyDeviceDisconnected  … because the sending device is not connected
     │   └─ WasslyInstanceUnknown     … because the account has no such instance
     ├─ WasslyRateLimited             too many requests
     ├─ WasslyUnavailable             no connection, or the request did not leave whole
     └─ WasslyOutcomeUnknown          the request left, no answer to trust came back
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class WasslyError(Exception):
    """
    Any failure of a call to Wassly.

    :param message: what happened, in one line, without secrets.
    """

    #: How :attr:`summary` begins: what is known about the message.
    verdict: str = "NOT accepted by Wassly"
    #: ``False``: Wassly certainly did not accept the message. ``None``: that cannot be known.
    accepted: bool | None = False
    #: What the reader of a log can do about it.
    advice: str = ""
    #: What the exception shows itself as, if that is not :attr:`message`.
    text: str = ""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def may_pass(self) -> bool:
        """Whether the same call can succeed later without anybody changing anything."""
        return False

    @property
    def summary(self) -> str:
        """One line for a log: what happened, whether Wassly accepted the message, what to do."""
        return f"{self.verdict}: {self.message}. {self.advice}"

    def __str__(self) -> str:
        return self.text or self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Airflow moves exceptions between processes; the default would call __init__ with the
        # positional arguments only.
        return (_rebuild, (type(self), self.message, self.__dict__))


def _rebuild(cls: type[WasslyError], message: str, state: dict[str, Any]) -> WasslyError:
    error = cls.__new__(cls, message)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class WasslyConfigError(WasslyError):
    """Raised before any call when an argument of the client, or a field of the connection, is missing or wrong."""

    advice = "Correct the connection."
    verdict = "Nothing was sent"


class WasslyInvalidMessage(WasslyError):
    """
    Raised before any call when the message cannot be sent as it is.

    A number that is none, nothing to send, a file that is missing, a recipient that is not allowed …

    :param message: the reason.
    :param field: the name of the parameter that is wrong.
    """

    advice = "Correct the parameter."
    verdict = "Nothing was sent"

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class WasslyAttachmentError(WasslyError):
    """
    Raised while sending when a file cannot be read any further or is no longer as long as it was.

    The request was given up before its required fields left, so it was no valid one.
    """

    advice = "Send the file only after its writer has finished it."


class WasslyAuthError(WasslyError):
    """
    Raised when Wassly does not accept the credentials: 401 or 403 after the one renewal, or a redirect to a login page.

    :param message: the reason.
    :param status: the HTTP status, ``None`` when no call was made.
    """

    advice = "Check apikey, token, login and password of the connection."

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class WasslyRejected(WasslyError):
    """
    Raised when Wassly answered that it did not accept the message: a 4xx, or 200 with ``success: false``.

    Also for a redirect that says that the address is another one. Not for a 4xx that reports a timeout, see
    :class:`WasslyOutcomeUnknown`.

    :param message: the reason.
    :param status: the HTTP status.
    :param reason: the answer's own ``message``, if it had one.
    :param errors: the answer's reasons by field, if it had any.
    """

    advice = "Read the reason that Wassly gave."

    def __init__(
        self,
        message: str,
        *,
        status: int,
        reason: str | None = None,
        errors: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.errors: dict[str, list[str]] = {name: list(texts) for name, texts in (errors or {}).items()}

    @property
    def may_pass(self) -> bool:
        """``success: false`` speaks of the moment (quota, session), a 4xx of the request itself."""
        return 200 <= self.status < 300


class WasslyDeviceDisconnected(WasslyRejected):
    """Raised when Wassly rejected the message and then listed the sending device as not connected."""

    advice = "Connect the device again in Wassly (open WhatsApp on the phone, or scan the QR code)."

    @property
    def may_pass(self) -> bool:
        """A phone comes back."""
        return True


class WasslyInstanceUnknown(WasslyRejected):
    """Raised when Wassly rejected the message and then listed other instances than the sending one."""

    advice = "Correct instance_id; the error lists the instances of the account."


class WasslyRateLimited(WasslyError):
    """
    Raised on 429, after the client's own repetitions.

    :param message: the reason.
    :param retry_after: seconds that Wassly asked to wait, ``None`` if it did not say.
    """

    advice = "Send more slowly, or let the task's retries try later."

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    @property
    def may_pass(self) -> bool:
        """Limits are lifted with time."""
        return True


class WasslyUnavailable(WasslyError):
    """
    Raised, after the client's own repetitions, when Wassly could not be reached or certainly did not process the call.

    No connection (DNS, refused, TLS, a proxy that refuses, connect timeout), a request that was not
    handed over whole, 503 with ``Retry-After``; from login and the device list also any 5xx, timeout or
    answer that is not the documented JSON.

    :param message: the reason.
    :param retry_after: seconds that Wassly asked to wait, ``None`` if it did not say.
    """

    advice = "Let the task's retries try later; if it lasts, check host, network and proxy."

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    @property
    def may_pass(self) -> bool:
        """Networks and services come back."""
        return True


class WasslyOutcomeUnknown(WasslyError):
    """
    Raised when the send request left and no answer to trust came back.

    Read timeout, an answer that does not come to its end, reset, 5xx, a 408, 460 or 499 (a gateway's words for a
    service or a client that took too long), a redirect to neither a login page nor another address of the same call,
    or a 200 that is not the documented JSON. The message may or may not have been accepted. It is never repeated by
    itself: a repetition can be a second message.
    """

    verdict = "UNKNOWN whether Wassly accepted it"
    accepted = None
    advice = "Look into the chat on the sending phone before you send again."
