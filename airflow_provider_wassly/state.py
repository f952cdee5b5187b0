"""What outlives one attempt of a task: that its message was about to leave, and what came back."""

from __future__ import annotations

import contextvars
import datetime
import hashlib
import json
import logging
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Literal, Protocol

from airflow_provider_wassly import _compat
from airflow_provider_wassly.client import SendReceipt, WasslyError

log = logging.getLogger(__name__)

#: Of the record's form. A later version of this package reads what an earlier one wrote.
_VERSION = 1


class WasslyRecordError(WasslyError):
    """
    Raised before a message leaves when its send record cannot be read or written.

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


class _Store(Protocol):
    """Where a record is kept. Every method raises when it could not do its work."""

    def get(self) -> dict[str, Any] | None: ...

    def set(self, value: dict[str, Any]) -> None: ...

    def delete(self) -> None: ...


class _TaskState:
    """Airflow 3.3+: the state of the task instance, which survives its tries and goes with its DAG run."""

    def __init__(self, accessor: Any, chain: int) -> None:
        self._accessor = accessor
        # Every chain of tries has its own, so that a process of an earlier one cannot write over it.
        self._key = f"wassly_send__{chain}"

    def get(self) -> dict[str, Any] | None:
        value: dict[str, Any] | None = self._accessor.get(self._key)
        return value

    def set(self, value: dict[str, Any]) -> None:
        self._accessor.set(self._key, value, retention=_compat.never_expire())

    def delete(self) -> None:
        self._accessor.delete(self._key)


class _Variable:
    """Airflow before 3.3: a Variable. Only one for each task instance, so that clearing leaves none behind."""

    def __init__(self, ti: Any) -> None:
        identity = json.dumps([ti.dag_id, ti.run_id, ti.task_id, ti.map_index])
        self._key = f"wassly_send__{hashlib.sha256(identity.encode()).hexdigest()}"

    def get(self) -> dict[str, Any] | None:
        text = _compat.get_variable(self._key)
        return None if text is None else json.loads(text)

    def set(self, value: dict[str, Any]) -> None:
        _compat.set_variable(
            self._key, json.dumps(value), "Whether a Wassly message was sent. Removed when its task succeeds."
        )

    def delete(self) -> None:
        _compat.delete_variable(self._key)


class SendRecord:
    """
    What is known of a message across the tries of its task.

    A chain of tries begins with the first one, and anew each time that somebody clears the task
    after it has ended. The record holds no phone number, no text, no path and no secret.

    :param store: where it is kept, ``None`` to keep none.
    :param chain: what is the same for all tries of the chain, and another one after clearing.
    :param try_number: the number of this try.
    """

    def __init__(self, store: _Store | None, chain: int, try_number: int) -> None:
        self._store = store
        self._chain = chain
        self._try_number = try_number
        #: Whether this try's message may have left.
        self.announced = False

    @classmethod
    def of(cls, context: Any) -> SendRecord:
        """Return the record of the running task; one that keeps nothing where no task is running."""
        ti = context.get("ti")
        if ti is None:
            return cls(None, 0, 0)
        # Clearing raises max_tries, retrying never does.
        chain, try_number = ti.max_tries, ti.try_number
        accessor = context.get("task_state_store")
        return cls(_Variable(ti) if accessor is None else _TaskState(accessor, chain), chain, try_number)

    def read(self) -> SendReceipt | Literal["announced"] | None:
        """
        Return what an earlier try of the chain left: its receipt, or only that its message may have left.

        :raises WasslyRecordError: when it cannot be read.
        """
        # A first try has no earlier one. `airflow dags test` uses run ids again, and so would find an old record.
        if self._store is None or self._try_number <= 1:
            return None
        try:
            value = self._store.get()
        except Exception as error:
            raise _record_error("read", error, may_pass=not isinstance(error, ValueError)) from error
        if value is None:
            return None
        try:
            if value["version"] > _VERSION:
                raise ValueError(f"version {value['version']} was written by a later version of this package")
            if value["chain"] != self._chain:
                return None
            receipt = value["receipt"]
            return (
                "announced"
                if receipt is None
                else SendReceipt(
                    receipt["message_type"], receipt["conversation_id"], receipt["remaining_conversations"]
                )
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _record_error("understood", error, may_pass=False) from error

    def announce(self) -> None:
        """
        Write down that the message is about to leave.

        :raises WasslyRecordError: when that cannot be written; then the message must not leave.
        """
        if not self.announced:
            try:
                self._write(None)
            except Exception as error:
                raise _record_error("written", error, may_pass=True) from error
            except BaseException:
                # Interrupted meanwhile: it is written, but the message will not leave.
                self.announced = True
                self.withdraw()
                raise
            self.announced = True

    def accept(self, receipt: SendReceipt) -> None:
        """Write down what Wassly answered."""
        self._try_to(lambda: self._write(asdict(receipt)), "that Wassly accepted the message")

    def withdraw(self) -> None:
        """Write down that the message was certainly not accepted."""
        if self.announced:
            self._try_to(self._delete, "that Wassly did not accept the message")
            self.announced = False

    def _write(self, receipt: dict[str, Any] | None) -> None:
        if self._store is not None:
            value = {
                "version": _VERSION,
                "chain": self._chain,
                "try_number": self._try_number,
                "written_at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                "receipt": receipt,
            }
            _in_one_piece(lambda: self._store.set(value))  # type: ignore[union-attr]

    def _delete(self) -> None:
        if self._store is not None:
            _in_one_piece(self._store.delete)

    @staticmethod
    def _try_to(write: Callable[[], None], what: str) -> None:
        try:
            write()
        except Exception as error:
            # The answer is there all the same. If the task was cleared meanwhile, Airflow refuses its writes.
            log.warning(
                "It could not be written down %s (%s: %s). Should this try die now, the next one will call the "
                "outcome unknown",
                what,
                type(error).__name__,
                error,
            )


def forget_send_record(context: Any) -> None:
    """
    Remove the record of a task that has succeeded.

    A success callback, because until Airflow knows of the success a next try may need the record.
    """
    try:
        _Variable(context["ti"]).delete()
    except Exception as error:
        log.warning("The Variable of the send record could not be removed: %s: %s", type(error).__name__, error)


def _record_error(what: str, cause: Exception, *, may_pass: bool) -> WasslyRecordError:
    return WasslyRecordError(
        f"the send record could not be {what} ({type(cause).__name__}: {cause}), so nothing was sent",
        may_pass=may_pass,
    )


def _in_one_piece(write: Callable[[], None]) -> None:
    """
    Write in a thread of its own and wait for its end, come what may.

    A signal (``execution_timeout``, SIGTERM on Airflow 2) raises in the main thread. In the middle of
    a write it would leave the record, or the task's channel to Airflow, in a state that nobody knows.
    """
    failures: list[BaseException] = []

    def work() -> None:
        try:
            write()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), name="wassly-send-record")
    thread.start()
    while thread.is_alive():
        try:
            thread.join()
        except BaseException as interruption:
            failures.insert(0, interruption)
    if failures:
        raise failures[0]
