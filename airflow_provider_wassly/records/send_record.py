"""What outlives one attempt of a task: that its message was about to leave, and what came back."""

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

#: Of the record's form. A later version of this package reads what an earlier one wrote.
_VERSION = 2


class WasslyRecordError(WasslyError):
    """
    Raised before a message leaves when its send record cannot be written.

    :param message: the reason.
    :param may_pass: whether a later attempt can succeed without anybody changing anything.
    """

    advice = "Without the record a retry could send the message a second time."

    def __init__(self, message: str, *, may_pass: bool) -> None:
        super().__init__(message)
        self._may_pass = may_pass

    @property
    def may_pass(self) -> bool:
        """An Airflow that did not answer will; a record that makes no sense stays as it is."""
        return self._may_pass


class WasslyRecordUnreadable(WasslyRecordError):
    """Raised before a message leaves when the record cannot be read: an earlier attempt may have sent it."""

    accepted = None
    verdict = "UNKNOWN whether an earlier attempt's message was accepted"
    advice = "This attempt sent nothing. Look into the chat on the sending phone before you send again."


class WasslyRecipientChanged(WasslyRecordError):
    """Raised before a message leaves when an earlier attempt of the same task sent to somebody else."""

    verdict = "NOT sent to this recipient"
    advice = "Clear the task to send to the recipient that it has now."


class SendRecord(SendObserver):
    """
    What is known of a message across the attempts of its task: an observer that writes down what it is told.

    It says whose it is, and what it is about in fingerprints too short to recover a number or a text from. It holds no
    phone number, no text, no path and no secret.

    Where processes of several attempts can write to it, an attempt first makes it its own. If it is not any more when
    the message is about to leave, Airflow has given this attempt up and another one has begun.

    :param store: where it is kept, ``None`` to keep none.
    :param attempt: the one that runs.
    :param earlier_store: where the first version of this package kept it, if that was elsewhere.
    """

    def __init__(self, store: Store | None, attempt: Attempt, earlier_store: Store | None = None) -> None:
        self._store = store
        self._earlier_store = earlier_store
        self._attempt = attempt
        self._has_looked = False
        #: As an earlier attempt has left it.
        self._found: dict[str, Any] | None = None
        self._failure: WasslyRecordError | None = None
        #: As this process has written it last, and as it has tried to since. Another one's differs in its token.
        self._written: dict[str, Any] | None = None
        self._tried: dict[str, Any] | None = None
        self._process = secrets.token_hex(4)
        self._content: dict[str, Any] = {}
        self._lets_leave = True

    @classmethod
    def of(cls, context: Any) -> SendRecord:
        """Return the record of the running task; one that keeps nothing where no task is running."""
        attempt = Attempt.of(context)
        store, earlier = store_of(context, _NAME), None
        # A first try has no record of the first version, unless Airflow runs it again.
        if store is not None and not store.is_shared and (attempt.try_number > 1 or versions.RUNS_TRIES_AGAIN):
            earlier = store_of(context, f"{_NAME}__{attempt.chain}")
        return cls(store, attempt, earlier)

    def look(self) -> None:
        """
        Read what is there, and take it over. :meth:`read` raises what goes wrong.

        To be called before anything in the attempt can fail: a next one cannot tell any more what another task instance
        of the same name has left.
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
            self._failure = WasslyRecordUnreadable(f"the send record could not be understood ({error})", may_pass=False)
        except Exception as error:
            self._failure = WasslyRecordUnreadable(
                f"the send record could not be read ({type(error).__name__}: {error})",
                may_pass=not isinstance(error, ValueError),
            )
        else:
            self._take_over()

    def _take_over(self) -> None:
        assert self._store is not None
        if self._store.is_shared:
            # What an earlier attempt has left stays its own but for the sign of who may write.
            try:
                in_one_piece(lambda: self._put(self._claim()))
            except Exception as error:
                self._failure = _unwritable(error)
                if self._found is not None and self._found.get("announced", True):
                    self._failure = WasslyRecordUnreadable(
                        f"the send record could not be taken over ({type(error).__name__}: {error})", may_pass=True
                    )

    def _claim(self) -> dict[str, Any]:
        return {**self._found, "process": self._process} if self._found else self._value(False, None)

    def read(self, recipient: str, content: Any) -> SendReceipt | Literal["announced", "ambiguous"] | None:
        """
        Return what an earlier attempt left.

        :param recipient: the number that this attempt is to send to.
        :param content: what it is to send: anything that can be JSON.
        :return: the receipt of a message to this recipient; ``announced``: it may have left and nobody knows what
            became of it; ``ambiguous``: likewise, because a retry and a task that was cleared look the same.
        :raises WasslyRecordUnreadable: when it cannot be read.
        :raises WasslyRecordError: when it cannot be written.
        :raises WasslyRecipientChanged: when the earlier message went to somebody else.
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
            came_of_it = "may have been accepted" if receipt is None else "was accepted"
            raise WasslyRecipientChanged(
                f"an earlier attempt of this task sent to another recipient, and that message {came_of_it}; the "
                "recipient has changed since, or the list that the task is expanded over",
                may_pass=False,
            )
        if receipt is None:
            return "announced"
        if found.get("about", self._content["about"]) != self._content["about"]:
            log.warning("The message has changed since an earlier attempt. What Wassly accepted then is not sent again")
        self.receipt = SendReceipt(
            receipt["message_type"], receipt["conversation_id"], receipt["remaining_conversations"]
        )
        return self.receipt

    def hold_back(self) -> None:
        """Let nothing leave from now on. May be called in a signal handler."""
        self._lets_leave = False

    def departing(self) -> None:
        """
        Write down that the message is about to leave.

        :raises WasslyRecordError: when that cannot be written, or another attempt has begun meanwhile; then the message
            must not leave.
        :raises RuntimeError: after :meth:`hold_back`.
        """
        if not self._lets_leave:
            raise RuntimeError("This task is being stopped; the message was not sent")
        try:
            self._refuse_if_overtaken()
            # First: whatever interrupts the write or becomes of it, it may have had its effect.
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
        Write down that the message of this attempt certainly was not accepted.

        That says nothing about the message of an earlier attempt, if there is any doubt about that.
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
            self._try_to(write, "that Wassly did not accept the message")

    def accepted(self, receipt: SendReceipt) -> None:
        """Write down what Wassly answered."""

        def write() -> None:
            if self._is_mine():
                self._put(self._value(True, asdict(receipt)))

        try:
            self._try_to(write, "that Wassly accepted the message")
        finally:
            # Whatever interrupts from here on: what became of the message is known.
            super().accepted(receipt)

    def remove_at_the_end(self, context: Any) -> None:
        """
        Have the record removed when Airflow knows that the task of ``context`` has ended.

        One in doubt stays if the task failed: who clears the task is to know that Wassly may have the message.
        """

        def remove(succeeded: bool) -> None:
            in_doubt = self.in_doubt or (self._found or {}).get("announced", self._found is not None)
            # Whether there is any doubt in one that could not be read is not known either.
            if succeeded or self.receipt is not None or not (in_doubt or self._failure):
                in_one_piece(lambda: self._store.delete() if self._store and self._is_mine() else None)

        when_it_ends(context, remove)

    def _refuse_if_overtaken(self) -> None:
        """Refuse where another process has made the record its own since. As good as reading and then writing is."""
        if self._store is not None and not in_one_piece(self._is_mine):
            self._store = None  # from now on it is the other's
            raise WasslyRecordError(
                "another attempt of this task has begun meanwhile, so this one sent nothing", may_pass=False
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
        Refuse what no version wrote that this one knows.

        :raises _NotUnderstood: says why.
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
    def _try_to(write: Callable[[], None], what: str) -> None:
        try:
            in_one_piece(write)
        except Exception as error:
            # The answer is there all the same. If the task was cleared meanwhile, Airflow refuses its writes.
            log.warning(
                "Could not record %s (%s: %s). A next attempt of this task will call the outcome unknown",
                what,
                type(error).__name__,
                error,
            )


def _unwritable(error: BaseException) -> WasslyRecordError:
    failure = WasslyRecordError(
        f"the send record could not be written ({type(error).__name__}: {error}), so nothing was sent", may_pass=True
    )
    failure.__cause__ = error
    return failure


class _NotUnderstood(Exception):
    """A record is not what any version of this package writes."""


_FIELDS: dict[str, Any] = {
    "chain": int,
    "try_number": int,
    "receipt": (dict, type(None)),
}


def _fingerprint(value: Any) -> str:
    """
    Return what shows that two values are the same: four hexadecimal digits.

    Two different ones have the same by chance once in 65,536 times. With more digits, whoever reads the record could
    find the number by trying them all.
    """
    return hashlib.sha256(json.dumps(value, default=str).encode()).hexdigest()[:4]
