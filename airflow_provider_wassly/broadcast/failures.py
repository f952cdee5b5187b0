"""Whom a failure concerns, and how many failures in a row end a broadcast."""

from __future__ import annotations

import re
from typing import Generic, TypeVar

from airflow_provider_wassly.broadcast.pace import MAX_RETRY_AFTER
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

#: Recipients in a row that fail for a reason that may pass; after that many, the recipients are not the cause.
_GIVE_UP_AFTER = 10

#: Recipients at the start of an attempt that are all refused for the same reason; after that many, the message or the
#: connection is the cause.
_REFUSED_FROM_THE_START = 20

#: The parts of a reason that differ from reply to reply: phone numbers, times, request ids.
_WITH_DIGITS = re.compile(r"\S*\d\S*")


def concerns_a_session(error: WasslyError) -> bool:
    """Tell whether an error affects every row with the same sending session, and no others."""
    return isinstance(error, (WasslyDeviceDisconnected, WasslyInstanceUnknown))


def concerns_everybody(error: WasslyError) -> bool:
    """Tell whether an error has nothing to do with its recipient: every other one would fail as well."""
    if isinstance(error, (WasslyRateLimited, WasslyUnavailable)):
        return (error.retry_after or 0.0) > MAX_RETRY_AFTER
    return isinstance(error, (WasslyAuthError, WasslyConfigError))


class FailureStreaks(Generic[T]):
    """Notices when so many recipients fail in a row that the recipients cannot be the cause."""

    def __init__(self) -> None:
        # The recipients of this attempt, as long as all of them were refused for the same reason.
        self._refused: list[T] | None = []
        self._reason: tuple[int | None, str] | None = None
        self._failed = 0

    @property
    def refused(self) -> list[T]:
        """The recipients of this attempt, as long as all of them were refused for the same reason."""
        return self._refused or []

    def note_accepted(self) -> None:
        """Note that a message was accepted."""
        self._failed = 0
        self._refused = None

    def note_failed(self, error: WasslyError, *, counts: bool) -> str:
        """
        Note a failure that may pass, or an unknown outcome.

        :param counts: whether it counts towards the recipients in a row.
        :return: why the broadcast has to stop; an empty string if it does not.
        """
        self._refused = None
        self._failed += counts
        if self._failed < _GIVE_UP_AFTER:
            return ""
        return f"{self._failed} recipients in a row failed, the last one with: {error.message}"

    def note_refused(self, recipient: T, error: WasslyError) -> str:
        """
        Note a refusal that cannot pass.

        :return: why the broadcast has to stop, if no message was accepted yet and all were refused for the same reason;
            an empty string if it does not.
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
            f"the first {len(self._refused)} recipients were all refused for the same reason, so the recipients "
            f"are not the cause: {error.message}"
        )
