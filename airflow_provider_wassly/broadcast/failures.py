"""What a failure says of its recipient and of all others, and when so many of them end a broadcast."""

from __future__ import annotations

import re
from typing import Generic, TypeVar

from airflow_provider_wassly.broadcast.senders import MAX_RETRY_AFTER
from airflow_provider_wassly.client import (
    WasslyAuthError,
    WasslyConfigError,
    WasslyDeviceDisconnected,
    WasslyError,
    WasslyInstanceUnknown,
    WasslyRateLimited,
    WasslyUnavailable,
)

T = TypeVar("T")

#: So many recipients one after the other that fail for a reason that may pass: it is not the recipients.
_GIVE_UP_AFTER = 10

#: So many recipients, the first of a try, that are refused for the same reason: it is the message, or the connection.
_REFUSED_FROM_THE_START = 20

#: What differs from answer to answer: numbers, shortened or not, times, the id of a request.
_WITH_DIGITS = re.compile(r"\S*\d\S*")


def concerns_a_session(error: WasslyError) -> bool:
    """Tell whether all rows with the same sending session would fail as well, and no others."""
    return isinstance(error, (WasslyDeviceDisconnected, WasslyInstanceUnknown))


def concerns_everybody(error: WasslyError) -> bool:
    """Tell whether a failure says nothing about its recipient, and all others would fail as well."""
    if isinstance(error, (WasslyRateLimited, WasslyUnavailable)):
        return (error.retry_after or 0.0) > MAX_RETRY_AFTER
    return isinstance(error, (WasslyAuthError, WasslyConfigError))


class FailureStreaks(Generic[T]):
    """Notices when so many recipients fail one after the other that it cannot be the recipients."""

    def __init__(self) -> None:
        #: The recipients of this try, as long as all of them were refused for one reason; and that reason.
        self._refused: list[T] | None = []
        self._reason: tuple[int | None, str] | None = None
        self._failed = 0

    @property
    def refused(self) -> list[T]:
        """The recipients of this try, as long as all of them were refused for one reason."""
        return self._refused or []

    def note_accepted(self) -> None:
        """Take in that a message was accepted."""
        self._failed = 0
        self._refused = None

    def note_failed(self, error: WasslyError, *, counts: bool) -> str:
        """
        Take in a failure that may pass, or an outcome that is unknown.

        :param counts: whether it is one of those in a row.
        :return: why the broadcast is to stop, an empty text if it is not.
        """
        self._refused = None
        self._failed += counts
        if self._failed < _GIVE_UP_AFTER:
            return ""
        return f"{self._failed} recipients in a row failed; the last: {error.message}"

    def note_refused(self, recipient: T, error: WasslyError) -> str:
        """
        Take in a failure that cannot pass.

        :return: why the broadcast is to stop, because nobody was sent to yet and all were refused for one reason; an
            empty text if it is not.
        """
        reason = (getattr(error, "status", None), _WITH_DIGITS.sub("…", error.message))
        if self._refused is None or (self._refused and reason != self._reason):
            self._refused = None
            return ""
        self._reason = reason
        self._refused.append(recipient)
        if len(self._refused) != _REFUSED_FROM_THE_START:
            return ""
        return (
            f"the first {len(self._refused)} recipients were all refused for one reason, so the recipients are "
            f"not the cause: {error.message}"
        )
