"""The record of a single message: that it was about to leave, and what Wassly answered. It outlives the attempt."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Literal

from airflow_provider_wassly.airflow_compat import versions
from airflow_provider_wassly.client import SendObserver, SendReceipt, WasslyError
from airflow_provider_wassly.records.attempts import Attempt
from airflow_provider_wassly.records.signals import in_one_piece
from airflow_provider_wassly.records.stores import Store, store_of, when_it_ends

log = logging.getLogger(__name__)

_NAME = "wassly_send"

#: The version of the format. Later versions of this package read the formats of earlier ones.
_VERSION = 2


class WasslyRecordError(WasslyError):
    """
    Raised before a message leaves, when its send record cannot be written.

    :param message: the reason.
    :param may_pass: whether a retry can help without any change.
    """

    advice = "Without the record, a retry could send the message twice."

    def __init__(self, message: str, *, may_pass: bool) -> None:
        super().__init__(message)
        self._may_pass = may_pass

    @property
    def may_pass(self) -> bool:
        """Airflow may answer the next time; an unreadable record stays unreadable."""
        return self._may_pass


class WasslyRecordUnreadable(WasslyRecordError):
    """Raised before a message leaves, when the record cannot be read: an earlier attempt may have sent the message."""

    accepted = None
    verdict = "UNKNOWN whether an earlier attempt's message was accepted"
    advice = "This attempt sent nothing. Check the chat on the sending phone before you send again."


class WasslyRecipientChanged(WasslyRecordError):
    """Raised before a message leaves, when an earlier attempt of the same task sent to another recipient."""

    verdict = "NOT sent to this recipient"
    advice = "Clear the task to send to its current recipient."


class SendRecord(SendObserver):
    """
    What is known about a message, across the attempts of its task: an observer that records what it is told.

    It names its owner, and identifies the message by fingerprints too short to recover a number or a text from. It
    holds no phone number, no text, no path and no secret.

    Where processes of several attempts can write to the record, an attempt first claims it. If it has lost the claim
    when the message is about to leave, Airflow has given up this attempt and started another one.

    :param store: where the record is kept, ``None`` to keep none.
    :param attempt: the running attempt.
    :param earlier_store: where the first version of this package kept the record, if that was elsewhere.
    """

    def __init__(self, store: Store | None, attempt: Attempt, earlier_store: Store | None = None) -> None:
        self._store = store
        self._earlier_store = earlier_store
        self._attempt = attempt
        self._has_looked = False
        #: The record of an earlier attempt.
        self._found: dict[str, Any] | None = None
        self._failure: WasslyRecordError | None = None
        #: What this process wrote last, and what it has tried to write since. Other processes have another ``process``.
        self._written: dict[str, Any] | None = None
        self._tried: dict[str, Any] | None = None
        self._process = secrets.token_hex(4)
        self._content: dict[str, Any] = {}
        self._lets_leave = True

    @classmethod
    def of(cls, context: Any) -> SendRecord:
        """Return the record of the running task; it keeps nothing if no task is running."""
        attempt = Attempt.of(context)
        store, earlier = store_of(context, _NAME), None
        # A first try cannot find a record of the first version, unless Airflow runs it again.
        if store is not None and not store.is_shared and (attempt.try_number > 1 or versions.RUNS_TRIES_AGAIN):
            earlier = store_of(context, f"{_NAME}__{attempt.chain}")
        return cls(store, attempt, earlier)

    def look(self) -> None:
        """
        Read the record, and take it over. If that fails, :meth:`read` raises the error.

        Call it before anything in the attempt can fail: a later attempt cannot tell a record of this task instance from
        one that a deleted task instance of the same name left.
        """
        if self._store is None or self._has_looked:
            return
        self._has_looked = True
        try:
            found = in_one_piece(self._store.get)
            if found is None and self._earlier_store is not None:
                found = in_one_piece(self._earlier_store.get)
            if found is not None:
                self._check(found)
                if self._attempt.owner_of(found) in ("other", "cleared"):
                    found = None
                    if not self._store.is_shared:
                        in_one_piece(self._store.delete)
            self._found = found
        except _NotUnderstood as error:
            self._failure = WasslyRecordUnreadable(f"could not interpret the send record ({error})", may_pass=False)
        except Exception as error:
            self._failure = WasslyRecordUnreadable(
                f"could not read the send record ({type(error).__name__}: {error})",
                may_pass=not isinstance(error, ValueError),
            )
        else:
            self._take_over()

    def _take_over(self) -> None:
        assert self._store is not None
        if self._store.is_shared:
            # The record stays that of the earlier attempt, except for the process that may write.
            try:
                in_one_piece(lambda: self._put(self._claim()))
            except Exception as error:
                self._failure = _unwritable(error)
                if self._found is not None and self._found.get("announced", True):
                    self._failure = WasslyRecordUnreadable(
                        f"could not take over the send record ({type(error).__name__}: {error})", may_pass=True
                    )

    def _claim(self) -> dict[str, Any]:
        return {**self._found, "process": self._process} if self._found else self._value(False, None)

    def read(self, recipient: str, content: Any) -> SendReceipt | Literal["announced", "ambiguous"] | None:
        """
        Return what an earlier attempt recorded.

        :param recipient: the number to send to.
        :param content: the content to send, as anything that JSON can hold.
        :return: the receipt of a message to this recipient; ``announced`` if a message may have left and its outcome is
            unknown; ``ambiguous`` if the outcome is unknown because a retry and a cleared task look the same.
        :raises WasslyRecordUnreadable: when the record cannot be read.
        :raises WasslyRecordError: when the record cannot be written.
        :raises WasslyRecipientChanged: when the earlier message went to another recipient.
        """
        self.look()
        if self._failure is not None:
            raise self._failure
        self._content = {"to": _fingerprint(recipient), "about": _fingerprint(content)}
        found = self._found
        if found is None or not found.get("announced", True):
            return None
        owner = self._attempt.owner_of(found)
        if owner == "unclear" or (owner == "earlier" and self._attempt.is_ambiguous(found)):
            return "ambiguous"
        receipt = found["receipt"]
        if found.get("to", self._content["to"]) != self._content["to"]:
            outcome = "may have been accepted" if receipt is None else "was accepted"
            raise WasslyRecipientChanged(
                f"an earlier attempt of this task sent to another recipient, and that message {outcome}. The recipient "
                "has changed since, or the list that the task is expanded over",
                may_pass=False,
            )
        if receipt is None:
            return "announced"
        if found.get("about", self._content["about"]) != self._content["about"]:
            log.warning("Not sending the changed message: Wassly accepted the message of an earlier attempt")
        self.receipt = SendReceipt(
            receipt["message_type"], receipt["conversation_id"], receipt["remaining_conversations"]
        )
        return self.receipt

    def hold_back(self) -> None:
        """Let nothing more leave. May be called in a signal handler."""
        self._lets_leave = False

    def departing(self) -> None:
        """
        Record that the message is about to leave.

        :raises WasslyRecordError: when the record cannot be written, or another attempt has started; then the message
            must not leave.
        :raises RuntimeError: after :meth:`hold_back`.
        """
        if not self._lets_leave:
            raise RuntimeError("Nothing was sent: this task is being stopped")
        try:
            self._refuse_if_overtaken()
            # First: the write may take effect even if it is interrupted or fails.
            super().departing()
            in_one_piece(lambda: self._put(self._value(True, None)))
        except WasslyError:
            raise
        except BaseException as error:
            self._take_back()
            if not isinstance(error, Exception):
                raise
            raise _unwritable(error) from error

    def refused(self, error: WasslyError) -> None:
        """
        Record that the message of this attempt was definitely not accepted.

        If the message of an earlier attempt is unknown, it stays so.
        """
        self.refusal = error
        self._take_back()

    def _take_back(self) -> None:
        def write() -> None:
            if not self._is_mine():
                return
            assert self._store is not None
            if self._store.is_shared or self._found:
                self._put(self._claim())
            else:
                self._store.delete()

        if self.in_doubt:
            self.in_doubt = False
            self._try_to(write, "Wassly did not accept the message")

    def accepted(self, receipt: SendReceipt) -> None:
        """Record what Wassly answered."""

        def write() -> None:
            if self._is_mine():
                self._put(self._value(True, asdict(receipt)))

        try:
            self._try_to(write, "Wassly accepted the message")
        finally:
            # From here on the outcome is known, whatever interrupts.
            super().accepted(receipt)

    def remove_at_the_end(self, context: Any) -> None:
        """
        Remove the record once Airflow has recorded the end of the task of ``context``.

        After a failure, a record with an unknown outcome stays: Wassly may have the message.
        """

        def remove(succeeded: bool) -> None:
            in_doubt = self.in_doubt or (self._found or {}).get("announced", self._found is not None)
            # The outcome in a record that could not be read is unknown too.
            if succeeded or self.receipt is not None or not (in_doubt or self._failure):
                in_one_piece(lambda: self._store.delete() if self._store and self._is_mine() else None)

        when_it_ends(context, remove)

    def _refuse_if_overtaken(self) -> None:
        """Raise if another process has claimed the record since, as far as a read before a write can tell."""
        if self._store is not None and not in_one_piece(self._is_mine):
            self._store = None  # from now on it belongs to the other attempt
            raise WasslyRecordError(
                "another attempt of this task has started, so this one sent nothing", may_pass=False
            )

    def _is_mine(self) -> bool:
        if self._store is None:
            return False
        return not self._store.is_shared or self._store.get() in (self._written, self._tried)

    def _value(self, announced: bool, receipt: dict[str, Any] | None) -> dict[str, Any]:
        whose = {"version": _VERSION, **self._attempt.as_values(), "process": self._process}
        return {**whose, **self._content, "announced": announced, "receipt": receipt}

    def _put(self, value: dict[str, Any]) -> None:
        if self._store is not None:
            self._tried = value
            self._store.set(value)
            self._written = value

    @staticmethod
    def _check(value: dict[str, Any]) -> None:
        """
        Refuse a record in a format that this version does not know.

        :raises _NotUnderstood: with the reason.
        """
        try:
            if value["version"] > _VERSION:
                raise _NotUnderstood(f"version {value['version']} was written by a later version of this package")
            for name, kinds in _FIELDS.items():
                if not isinstance(value[name], kinds) or isinstance(value[name], bool):
                    raise _NotUnderstood(f"{name} is of type {type(value[name]).__name__}")
            if (receipt := value["receipt"]) is not None:
                SendReceipt(receipt["message_type"], receipt["conversation_id"], receipt["remaining_conversations"])
        except (AttributeError, KeyError, TypeError) as error:
            raise _NotUnderstood(f"{type(error).__name__}: {error}") from error

    @staticmethod
    def _try_to(write: Callable[[], None], outcome: str) -> None:
        try:
            in_one_piece(write)
        except Exception as error:
            # The reply is known all the same. Airflow refuses the writes of a task that was cleared meanwhile.
            log.warning(
                "Could not save the send record: %s: %s. %s, but the next attempt will treat it as unknown",
                type(error).__name__,
                error,
                outcome,
            )


def _unwritable(error: BaseException) -> WasslyRecordError:
    failure = WasslyRecordError(
        f"could not write the send record ({type(error).__name__}: {error}), so nothing was sent", may_pass=True
    )
    failure.__cause__ = error
    return failure


class _NotUnderstood(Exception):
    """Raised when no known version of this package wrote the record."""


_FIELDS: dict[str, Any] = {
    "chain": int,
    "try_number": int,
    "receipt": (dict, type(None)),
}


def _fingerprint(value: Any) -> str:
    """
    Return a fingerprint that shows whether two values are the same: four hexadecimal digits.

    Two different values have the same fingerprint by chance once in 65,536 times. With more digits, whoever reads the
    record could recover the number by trying them all.
    """
    return hashlib.sha256(json.dumps(value, default=str).encode()).hexdigest()[:4]
