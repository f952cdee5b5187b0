"""
Who was sent to, written down ahead and across the tries of a task.

The head says which list it is about; each chunk of the list has a value of its own with one character for each row.
A value holds no phone number, no text, no path and no secret, and stays far under 64 KiB.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_wassly import _compat
from airflow_provider_wassly.broadcast.recipients import CHUNK, Survey
from airflow_provider_wassly.state import WasslyRecordError, WasslyRecordUnreadable
from airflow_provider_wassly.stores import Store, in_one_piece

log = logging.getLogger(__name__)

#: Of the record's form. A later version of this package reads what an earlier one wrote.
_VERSION = 1

#: Characters that the conversation ids of one chunk may take; what goes beyond is not kept.
_MAX_IDS = 40_000

# What is known of a row, one character each.
OPEN = "."
#: It is about to be sent or on its way. Of an earlier try: nobody knows whether it was accepted.
ANNOUNCED = "?"
ACCEPTED = "a"
UNKNOWN = "u"
#: Certainly not accepted; another try makes no difference unless somebody changes something. Clearing the task says so.
FAILED = "f"
#: Certainly not accepted; another try may help.
FAILED_FOR_NOW = "r"


class WasslyListChanged(WasslyRecordError):
    """Raised before anything is sent when the list is not the one that an earlier try has begun to send to."""

    _verdict = "Nothing was sent"
    advice = "Restore the list and clear the task, or send the new list in a new DAG run."


@dataclass(frozen=True)
class Try:
    """
    Which try of which chain of tries this is.

    :param chain: the same for all tries of a chain, and another one after somebody cleared the task.
    :param number: that of the try.
    :param retries: those of the task as it is now.
    """

    chain: int
    number: int
    retries: int | None

    @classmethod
    def of(cls, context: Any) -> Try:
        """Return that of the running task."""
        ti = context.get("ti")
        if ti is None:
            return cls(0, 0, None)
        # Clearing sets max_tries to the tries so far plus the task's retries; retrying leaves it as it is.
        return cls(ti.max_tries, ti.try_number, getattr(getattr(ti, "task", None), "retries", None))


class Chunk:
    """What is known of the rows of one chunk."""

    def __init__(self, size: int, outcomes: str = "", ids: Mapping[int, int] | None = None) -> None:
        self.outcomes = bytearray(outcomes.ljust(size, OPEN), "ascii")
        self.conversation_ids = dict(ids or {})
        self.is_changed = False

    def __getitem__(self, index: int) -> str:
        return chr(self.outcomes[index])

    def __setitem__(self, index: int, outcome: str) -> None:
        self.outcomes[index] = ord(outcome)
        self.is_changed = True


class BroadcastRecord:
    """
    What is known of a broadcast across the tries of its task.

    :param store: gives the store of a value by its name, ``None`` where none is kept.
    :param this_try: which try this is.
    :param list_: the list as it is now.
    """

    def __init__(self, store: Callable[[str], Store | None], this_try: Try, list_: Survey) -> None:
        self._store = store
        self._try = this_try
        self._list = list_
        self._token = secrets.token_hex(8)
        self._chunks: dict[int, Chunk] = {}
        self._summary: dict[str, Any] | None = None
        #: Whether an earlier try has begun to send.
        self.is_resumed = False

    @property
    def names(self) -> list[str]:
        """The names of all values that there can be."""
        return [_HEAD, *(_name(number) for number in range(-(-self._list.total // CHUNK)))]

    def look_back(self) -> dict[str, Any] | None:
        """
        Find what earlier tries have left.

        :return: the summary of an earlier try that sent to everybody, ``None`` when there is something to do.
        :raises WasslyListChanged: when they had another list.
        :raises WasslyRecordUnreadable: when it cannot be read.
        """
        # A first try has no earlier one. `airflow dags test` uses run ids again, and so would find an old record.
        head = self._head() if self._try.number > 1 else None
        if head is not None:
            summary = head["summary"]
            if summary is not None and head["chain"] == self._try.chain:
                if self._try.retries != head["retries"] and self._try.chain == head["try_number"] + (
                    self._try.retries or 0
                ):
                    raise WasslyRecordUnreadable(
                        "the task's retries were changed since a try that has sent to everybody, so that a retry and "
                        "a task that was cleared look the same. Clearing it once more, without a change, sends anew",
                        may_pass=False,
                    )
                return dict(summary)
            # A broadcast that had succeeded and was cleared begins anew.
            if summary is None:
                self._check_list(head)
                self._token = head["token"]
                self.is_resumed = True
        return None

    def begin(self) -> None:
        """
        Write down that this try begins to send.

        :raises WasslyRecordError: when that cannot be written.
        """
        self._write_head()

    def chunk(self, number: int, size: int) -> Chunk:
        """
        Return what is known of a chunk's rows.

        :param number: that of the chunk, from 0.
        :param size: how many rows it has.
        :raises WasslyRecordUnreadable: when it cannot be read.
        """
        if number not in self._chunks:
            self._chunks[number] = self._read_chunk(number, size) if self.is_resumed else Chunk(size)
        return self._chunks[number]

    def write(self) -> None:
        """
        Write every chunk that has changed.

        :raises WasslyRecordError: when that cannot be written; then nothing more may leave.
        """
        changed = [(number, chunk) for number, chunk in self._chunks.items() if chunk.is_changed]
        if changed:
            self._refuse_if_overtaken()
        for number, chunk in changed:
            self._set(_name(number), self._chunk_value(chunk))
            chunk.is_changed = False

    def forget(self, in_use: set[Chunk]) -> None:
        """Release the memory of chunks that are written and of which none is in use."""
        self._chunks = {number: chunk for number, chunk in self._chunks.items() if chunk.is_changed or chunk in in_use}

    def finish(self, summary: dict[str, Any]) -> None:
        """
        Write down that everybody was sent to, and what came of it.

        :raises WasslyRecordError: when that cannot be written.
        """
        self.write()
        self._refuse_if_overtaken()
        self._summary = summary
        self._write_head()

    def _refuse_if_overtaken(self) -> None:
        """Refuse to write where a later try has begun since: what is known of the recipients is its own from then."""
        # On Airflow 3 no process of an earlier try can write any more.
        head = self._head() if _compat.OUTLIVES_ITS_SUPERVISOR else None
        if head is not None and (head["token"], head["try_number"]) != (self._token, self._try.number):
            raise WasslyRecordError("another try of this task has begun meanwhile, so this one stops", may_pass=False)

    def _head(self) -> dict[str, Any] | None:
        head = self._get(_HEAD)
        if head is None:
            return None
        try:
            if head["version"] > _VERSION:
                raise ValueError(f"version {head['version']} was written by a later version of this package")
            for name, kind in _HEAD_FIELDS.items():
                if not isinstance(head[name], kind):
                    raise TypeError(f"{name} is of type {type(head[name]).__name__}")
            return dict(head)
        except (KeyError, TypeError, ValueError) as error:
            raise _not_understood(error) from error

    def _check_list(self, head: dict[str, Any]) -> None:
        if (head["total"], head["digests"]) == (self._list.total, self._list.digests):
            return
        if head["total"] != self._list.total:
            reason = f"it has {self._list.total} rows and had {head['total']}"
        else:
            size = len(self._list.digests) // len(self.names[1:])
            pairs = zip(_pieces(head["digests"], size), _pieces(self._list.digests, size), strict=False)
            first = next((number for number, (old, new) in enumerate(pairs) if old != new), 0)
            reason = f"rows {first * CHUNK + 1} to {min((first + 1) * CHUNK, self._list.total)} have other numbers"
        raise WasslyListChanged(f"the list of recipients changed since an earlier try: {reason}", may_pass=False)

    def _read_chunk(self, number: int, size: int) -> Chunk:
        value = self._get(_name(number))
        if value is None:
            return Chunk(size)
        try:
            if value["token"] != self._token:
                return Chunk(size)  # of a run of the same name that was deleted
            outcomes = value["outcomes"]
            if len(outcomes) > size or set(outcomes) - set(_OUTCOMES):
                raise ValueError(f"chunk {number} does not fit to the list")
            if value["chain"] != self._try.chain:
                outcomes = outcomes.replace(FAILED, OPEN)  # somebody has cleared the task since
            accepted = (index for index, outcome in enumerate(outcomes) if outcome == ACCEPTED)
            ids = zip(accepted, value["conversation_ids"].split(","), strict=False)
            return Chunk(size, outcomes, {index: int(text) for index, text in ids if text})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _not_understood(error) from error

    def _chunk_value(self, chunk: Chunk) -> dict[str, Any]:
        outcomes = chunk.outcomes.decode("ascii").rstrip(OPEN)
        ids = ",".join(
            str(chunk.conversation_ids.get(index, "")) for index, outcome in enumerate(outcomes) if outcome == ACCEPTED
        )
        if len(ids) > _MAX_IDS:
            ids = ids[:_MAX_IDS].rpartition(",")[0]
        return {"token": self._token, "chain": self._try.chain, "outcomes": outcomes, "conversation_ids": ids}

    def _write_head(self) -> None:
        self._set(
            _HEAD,
            {
                "version": _VERSION,
                "token": self._token,
                "chain": self._try.chain,
                "try_number": self._try.number,
                "retries": self._try.retries,
                "total": self._list.total,
                "digests": self._list.digests,
                "summary": self._summary,
            },
        )

    def _get(self, name: str) -> dict[str, Any] | None:
        store = self._store(name)
        try:
            return None if store is None else in_one_piece(store.get)
        except Exception as error:
            raise WasslyRecordUnreadable(
                f"the send record could not be read ({type(error).__name__}: {error})",
                may_pass=not isinstance(error, ValueError),
            ) from error

    def _set(self, name: str, value: dict[str, Any]) -> None:
        store = self._store(name)
        try:
            if store is not None:
                in_one_piece(lambda: store.set(value))
        except Exception as error:
            raise WasslyRecordError(
                f"the send record could not be written ({type(error).__name__}: {error})", may_pass=True
            ) from error


_HEAD = "wassly_broadcast__head"
_HEAD_FIELDS: dict[str, Any] = {
    "token": str,
    "chain": int,
    "try_number": int,
    "retries": (int, type(None)),
    "total": int,
    "digests": str,
    "summary": (dict, type(None)),
}
_OUTCOMES = (OPEN, ANNOUNCED, ACCEPTED, UNKNOWN, FAILED, FAILED_FOR_NOW)


def _name(number: int) -> str:
    return f"wassly_broadcast__{number}"


def _pieces(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def _not_understood(error: Exception) -> WasslyRecordUnreadable:
    return WasslyRecordUnreadable(
        f"the send record could not be understood ({type(error).__name__}: {error})", may_pass=False
    )
