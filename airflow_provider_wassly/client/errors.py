"""
The exceptions, and what each says about the message.

Every failure is a :class:`WasslyError`. Its ``accepted`` is ``False`` if Wassly definitely did not accept the message,
or ``None`` if the outcome is unknown. The API reports acceptance, not delivery.

.. code-block:: text

    WasslyError
     ├─ WasslyConfigError             the client or the connection is misconfigured
     ├─ WasslyInvalidMessage          the message failed a check before any call
     ├─ WasslyAttachmentError         a file could not be read, or changed size, during upload
     ├─ WasslyAuthError               Wassly did not accept apikey, token, email or password
     ├─ WasslyRejected                Wassly refused the message
     │   ├─ WasslyDeviceDisconnected  … because the sending device is not connected
     │   └─ WasslyInstanceUnknown     … because the account has no such instance
     ├─ WasslyRateLimited             too many requests
     ├─ WasslyUnavailable             no connection, or an incomplete request
     └─ WasslyOutcomeUnknown          a complete request without a trustworthy answer
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class WasslyError(Exception):
    """
    Any failure of a call to Wassly.

    :param message: what happened, in one line, without secrets.
    """

    #: The beginning of :attr:`summary`: what is known about the message.
    verdict: str = "NOT accepted by Wassly"
    #: ``False``: Wassly definitely did not accept the message. ``None``: the outcome is unknown.
    accepted: bool | None = False
    #: What to do about it, as a sentence; empty if :attr:`message` says it.
    advice: str = ""
    #: The text of the exception, if it is not :attr:`message`.
    text: str = ""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def may_pass(self) -> bool:
        """Whether the same call can succeed later although nobody changes anything."""
        return False

    @property
    def summary(self) -> str:
        """One line for a log: whether Wassly accepted the message, what happened, what to do."""
        return f"{self.verdict}: {self.message.removesuffix('.')}. {self.advice}".rstrip()

    def __str__(self) -> str:
        return self.text or self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Airflow moves exceptions between processes; the default would call __init__ with positional arguments only.
        return (_rebuild, (type(self), self.message, self.__dict__))


def _rebuild(cls: type[WasslyError], message: str, state: dict[str, Any]) -> WasslyError:
    error = cls.__new__(cls, message)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class WasslyConfigError(WasslyError):
    """Raised before any call when a client argument or a field of the connection is missing or wrong."""

    verdict = "Nothing was sent"


class WasslyInvalidMessage(WasslyError):
    """
    Raised before any call when the message cannot be sent as it is.

    An invalid number, an empty message, a missing file, a recipient that is not allowed …

    :param message: the reason.
    :param field: the name of the parameter that is wrong.
    """

    verdict = "Nothing was sent"

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class WasslyAttachmentError(WasslyError):
    """
    Raised during upload when a file can no longer be read or has changed size.

    The request was aborted before its required fields were sent, so Wassly cannot have accepted it.
    """

    advice = "Send the file only after it has been written completely."


class WasslyAuthError(WasslyError):
    """
    Raised when Wassly does not accept the credentials: 401, 403 or a redirect to a login page.

    If the token can be renewed, the call has been repeated once with a new one.

    :param message: the reason.
    :param status: the HTTP status, ``None`` when no call was made.
    """

    advice = "Check the connection's apikey, token, login and password."

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class WasslyRejected(WasslyError):
    """
    Raised when Wassly refused the message: a 4xx, or 200 with ``success: false``.

    Also raised when a redirect shows that the base URL is wrong. A 4xx that reports a timeout is a
    :class:`WasslyOutcomeUnknown`.

    :param message: the reason.
    :param status: the HTTP status.
    :param reason: the answer's own ``message``, if it had one.
    :param errors: the answer's reasons by field, if it had any.
    """

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
        """Whether the answer was ``success: false``, which is about the moment (quota, session); a 4xx is not."""
        return 200 <= self.status < 300


class WasslyDeviceDisconnected(WasslyRejected):
    """Raised when Wassly refused the message and its device list shows the sending device as not connected."""

    advice = "Reconnect the device in Wassly (open WhatsApp on the phone, or scan the QR code)."

    @property
    def may_pass(self) -> bool:
        """Always: the device can reconnect."""
        return True


class WasslyInstanceUnknown(WasslyRejected):
    """Raised when Wassly refused the message and its device list does not have the sending instance."""

    advice = "Set instance_id to one of these instances."


class WasslyRateLimited(WasslyError):
    """
    Raised on 429, once the client has used up its own attempts.

    :param message: the reason.
    :param retry_after: how many seconds Wassly asked to wait; ``None`` if it did not say.
    """

    advice = "Send more slowly, or let the task retry later."

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    @property
    def may_pass(self) -> bool:
        """Always: the limit ends with time."""
        return True


class WasslyUnavailable(WasslyError):
    """
    Raised when Wassly could not be reached or definitely did not process the call, after the client's own attempts.

    No connection (DNS, refused, TLS, a proxy that refuses, connect timeout), a request that was cut off, 503 with
    ``Retry-After``. For login and the device list also any other 5xx, a timeout, or an answer that is not the
    documented JSON.

    :param message: the reason.
    :param retry_after: how many seconds Wassly asked to wait; ``None`` if it did not say.
    """

    advice = "Let the task retry later; if the error persists, check host, network and proxy."

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    @property
    def may_pass(self) -> bool:
        """Always: networks and services recover."""
        return True


class WasslyOutcomeUnknown(WasslyError):
    """
    Raised when the complete request was sent and no trustworthy answer came back.

    Read timeout, an incomplete answer, a reset, 5xx, a gateway's timeout (408, 460, 499), a redirect to neither a login
    page nor another address of the same call, or a 200 that is not the documented JSON. Wassly may or may not have
    accepted the message. The client never repeats it, because the recipient could get it twice.
    """

    verdict = "UNKNOWN whether Wassly accepted it"
    accepted = None
    advice = "Check the chat on the sending phone before you send again."
