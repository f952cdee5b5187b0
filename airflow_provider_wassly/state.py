"""What outlives one attempt of a task: that its message was about to leave, and what came back."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Literal

from airflow_provider_wassly import stores
from airflow_provider_wassly.client import SendReceipt, WasslyError
from airflow_provider_wassly.stores import Store, VariableStore, in_one_piece, store_of

log = logging.getLogger(__name__)

_NAME = "wassly_send"

#: Of the record's form. A later version of this package reads what an earlier one wrote.
_VERSION = 1


class WasslyRecordError(WasslyError):
    """
    Raised before a message leaves when its send record cannot be written.

    :param message: the reason.
    :param may_pass: whether a later try can succeed without anybody changing anything.
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
    """Raised before a message leaves when the record cannot be read: an earlier try may have sent it."""

    accepted = None
    _verdict = "UNKNOWN whether an earlier try's message was accepted"
    advice = "This try sent nothing. Look into the chat on the sending phone before you send again."


class SendRecord:
    """
    What is known of a message across the tries of its task.

    A chain of tries begins with the first one, and anew each time that somebody clears the task
    after it has ended. The record holds no phone number, no text, no path and no secret.

    :param store: where it is kept, ``None`` to keep none.
    :param chain: what is the same for all tries of the chain, and, almost always, another one after clearing.
    :param try_number: the number of this try.
    :param retries: those of the task as it is now.
    """

    def __init__(self, store: Store | None, chain: int, try_number: int, retries: int | None = None) -> None:
        self._store = store
        self._chain = chain
        self._try_number = try_number
        self._retries = retries
        self._began = _now()
        self._accepted = False
        #: Whether this try's message may have left and nobody knows what became of it.
        self.announced = False

    @classmethod
    def of(cls, context: Any) -> SendRecord:
        """Return the record of the running task; one that keeps nothing where no task is running."""
        ti = context.get("ti")
        if ti is None:
            return cls(None, 0, 0)
        # Clearing sets max_tries to the tries so far plus the task's retries; retrying leaves it as it is.
        chain, try_number = ti.max_tries, ti.try_number
        # In the state of the task, every chain of tries has its own, so that a process of an earlier one cannot write
        # over it. Of Variables there is one for each task instance, so that clearing leaves none behind.
        store = store_of(context, _NAME if context.get("task_state_store") is None else f"{_NAME}__{chain}")
        return cls(store, chain, try_number, getattr(getattr(ti, "task", None), "retries", None))

    def read(self) -> SendReceipt | Literal["announced", "ambiguous"] | None:
        """
        Return what an earlier try of the chain left.

        :return: its receipt; ``announced``: only that its message may have left; ``ambiguous``: the task's retries
            were changed so that this may be a retry or a task that was cleared.
        :raises WasslyRecordUnreadable: when it cannot be read.
        """
        # A first try has no earlier one. `airflow dags test` uses run ids again, and so would find an old record.
        if self._store is None or self._try_number <= 1:
            return None
        try:
            value = in_one_piece(self._store.get)
        except Exception as error:
            raise WasslyRecordUnreadable(
                f"the send record could not be read ({type(error).__name__}: {error})",
                may_pass=not isinstance(error, ValueError),
            ) from error
        if value is None:
            return None
        try:
            if value["version"] > _VERSION:
                raise ValueError(f"version {value['version']} was written by a later version of this package")
            if value["chain"] != self._chain:
                return None
            if self._retries != value["retries"] and self._chain == value["try_number"] + (self._retries or 0):
                return "ambiguous"
            receipt = value["receipt"]
            return (
                "announced"
                if receipt is None
                else SendReceipt(
                    receipt["message_type"], receipt["conversation_id"], receipt["remaining_conversations"]
                )
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise WasslyRecordUnreadable(
                f"the send record could not be understood ({type(error).__name__}: {error})", may_pass=False
            ) from error

    def announce(self) -> None:
        """
        Write down that the message is about to leave.

        :raises WasslyRecordError: when that cannot be written, or a later try has taken over; then the message must
            not leave.
        """
        if self.announced:
            return
        try:
            self._refuse_if_overtaken()
            self._write_announcement()
        except WasslyError:
            raise
        except Exception as error:
            raise WasslyRecordError(
                f"the send record could not be written ({type(error).__name__}: {error}), so nothing was sent",
                may_pass=True,
            ) from error
        self.announced = True

    def _write_announcement(self) -> None:
        try:
            self._write(None)
        except Exception:
            raise
        except BaseException:
            # Interrupted meanwhile: it is written, but the message will not leave.
            self.announced = True
            self.withdraw()
            raise

    def accept(self, receipt: SendReceipt) -> None:
        """Write down what Wassly answered."""
        try:
            self._try_to(lambda: self._write(asdict(receipt)), "that Wassly accepted the message")
        finally:
            # Whatever interrupts from here on: what became of the message is known.
            self._accepted = True
            self.announced = False

    def withdraw(self) -> None:
        """Write down that this try's message was certainly not accepted, unless it was."""
        if self._accepted:
            return
        if self.announced:
            self.announced = False
            self._try_to(self._delete, "that Wassly did not accept the message")
        elif self._try_number <= 1 and isinstance(self._store, VariableStore):
            # A run of the same name, deleted since, may have left one, which the next try would take for its own.
            self._try_to(self._delete_older, "that there is no earlier try")

    def _refuse_if_overtaken(self) -> None:
        """
        Refuse where a later try has written since this one began: Airflow has given this one up.

        As good as reading and then writing can be. Writes to ``task_state_store`` name the try that makes them.
        """
        if not isinstance(self._store, VariableStore):
            return
        try:
            value = in_one_piece(self._store.get)
            mine = (self._chain, self._try_number)
            is_later = value and (value["chain"], value["try_number"]) != mine and _time(value) > self._began
        except (KeyError, TypeError, ValueError):
            return  # whatever it is, no later try has written it
        if is_later:
            self._store = None  # from now on it is the other's
            raise WasslyRecordError(
                "another try of this task has begun to send meanwhile, so this one sent nothing", may_pass=False
            )

    def _write(self, receipt: dict[str, Any] | None) -> None:
        if self._store is not None:
            value = {
                "version": _VERSION,
                "chain": self._chain,
                "try_number": self._try_number,
                "retries": self._retries,
                "written_at": _now().isoformat(),
                "receipt": receipt,
            }
            in_one_piece(lambda: self._store.set(value))  # type: ignore[union-attr]

    def _delete(self) -> None:
        if self._store is not None:
            in_one_piece(self._store.delete)

    def _delete_older(self) -> None:
        value = None if self._store is None else in_one_piece(self._store.get)
        if value and _time(value) < self._began:
            self._delete()

    @staticmethod
    def _try_to(write: Callable[[], None], what: str) -> None:
        try:
            write()
        except Exception as error:
            # The answer is there all the same. If the task was cleared meanwhile, Airflow refuses its writes.
            log.warning(
                "It could not be written down %s (%s: %s). A next try of this task will call the outcome unknown",
                what,
                type(error).__name__,
                error,
            )


def forget_after_success(context: Any) -> None:
    """Have the Variable of the record removed when Airflow knows that the task of ``context`` has succeeded."""
    stores.forget_after_success(context, lambda: [_NAME])


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def _time(value: dict[str, Any]) -> datetime.datetime:
    return datetime.datetime.fromisoformat(value["written_at"])
