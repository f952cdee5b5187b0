"""
The record of a broadcast: each recipient is recorded before sending, and the record outlives the attempt.

The head says whose record it is and how many chunks of the list have been started. Each chunk has its own value, with
one character per row. Changes since the chunks were written are in the journal, which is small, so that little is
written per message. No value holds a phone number, a text, a path or a secret, and each stays far below 64 KiB.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from functools import lru_cache, reduce
from operator import xor
from typing import Any

from airflow_provider_wassly.airflow_compat import versions
from airflow_provider_wassly.broadcast.recipients import CHUNK, Row, Survey, mark
from airflow_provider_wassly.client.clock import SYSTEM, Clock
from airflow_provider_wassly.records.attempts import Attempt
from airflow_provider_wassly.records.send_record import WasslyRecordError, WasslyRecordUnreadable
from airflow_provider_wassly.records.signals import in_one_piece
from airflow_provider_wassly.records.stores import Store

log = logging.getLogger(__name__)

#: The version of the format. Later versions of this package read the formats of earlier ones.
_VERSION = 2

#: How many changes the journal holds before the chunks are written.
_JOURNAL_SIZE = 32

#: How many characters the conversation ids of one chunk may take; the ids beyond that are dropped.
_MAX_IDS = 40_000

#: Seconds without a write after which to check whether Airflow has given up this process, which takes some minutes.
_SOON = 30.0

# What is known about a row, as one character.
OPEN = "."
#: About to be sent, or in flight. If an earlier attempt left it, the outcome is unknown.
ANNOUNCED = "?"
ACCEPTED = "a"
UNKNOWN = "u"
#: Definitely not accepted, and a retry does not help. Clearing the task tries it again.
FAILED = "f"
#: Definitely not accepted; a retry may help.
FAILED_FOR_NOW = "r"

#: Rows with these outcomes must not change: Wassly accepted their messages, or may have.
_SETTLED = {ANNOUNCED, ACCEPTED, UNKNOWN}


class WasslyListChanged(WasslyRecordError):
    """Raised before an attempt sends anything, when rows that earlier attempts sent to have changed."""

    verdict = "This attempt sent nothing"
    advice = (
        "Restore the rows that were sent to, then clear the task; other rows may be corrected, and new ones added at "
        "the end. Or send to the remaining recipients in a new DAG run; `unsent` lists them."
    )


class Chunk:
    """
    What is known about the rows of one chunk.

    :param outcomes: one character per row; rows beyond the end are open.
    :param ids: the conversation ids of accepted rows, by index.
    :param digest: the checksum of the settled rows, as an earlier attempt wrote it.
    """

    def __init__(self, outcomes: str = "", ids: Mapping[int, int] | None = None, digest: int | None = None) -> None:
        self._outcomes = bytearray(outcomes, "ascii")
        self.conversation_ids = dict(ids or {})
        self._found = digest
        self._marks: dict[int, int] = {}
        #: The rows that changed since the chunk's value was written.
        self.changes: set[int] = set()
        #: Whether a row changed since the chunk's value or the journal was written.
        self.is_changed = False

    def __getitem__(self, index: int) -> str:
        return chr(self._outcomes[index]) if index < len(self._outcomes) else OPEN

    def note(self, index: int, outcome: str, row: Row) -> None:
        """Note what is known about a row. If this is interrupted anywhere, it can be repeated."""
        if self[index] == outcome:
            return
        self._marks[index] = mark(row)
        self.changes.add(index)
        self.is_changed = True
        self._set(index, outcome)

    def overlay(self, index: int, outcome: str, conversation_id: int | None, digest: int) -> None:
        """Apply a change from the journal."""
        self._set(index, outcome)
        self._found = digest
        if conversation_id is not None:
            self.conversation_ids[index] = conversation_id

    def is_about(self, rows: Sequence[Row]) -> bool:
        """Tell whether the settled rows are still the same in the current list."""
        self._marks = {index: mark(rows[index]) for index in self.settled()}
        found, self._found = self._found, None
        # Format 1 has no such digest; the digests in its head cover all rows.
        return found is None or found == self.digest

    @property
    def changed_outcomes(self) -> set[str]:
        """What is known about the rows that changed."""
        return {self[index] for index in self.changes}

    @property
    def digest(self) -> int:
        """A 16-bit checksum of the settled rows."""
        if self._found is not None:
            return self._found
        return reduce(xor, (self._marks[index] for index in self.settled()), 0)

    @property
    def text(self) -> str:
        """One character per row, without the open ones at the end."""
        return self._outcomes.decode("ascii").rstrip(OPEN)

    def settled(self) -> Iterator[int]:
        """Yield the indexes of the rows that must not change."""
        return (index for index, outcome in enumerate(self.text) if outcome in _SETTLED)

    def _set(self, index: int, outcome: str) -> None:
        self._outcomes.extend(OPEN.encode() * (index + 1 - len(self._outcomes)))
        self._outcomes[index] = ord(outcome)


class BroadcastRecord:
    """
    What is known about a broadcast, across the attempts of its task.

    The record is kept until the task succeeds, so that clearing the task sends to nobody twice.

    :param store: returns the store of a value by its name, ``None`` where nothing is kept.
    :param attempt: the running attempt.
    :param starts_over: whether to drop a record from before the task was cleared.
    :param earlier_store: the same for values of an earlier version of this package or of Airflow, if they were kept
        elsewhere.
    """

    def __init__(
        self,
        store: Callable[[str], Store | None],
        attempt: Attempt,
        *,
        starts_over: bool = False,
        earlier_store: Callable[[str], Store | None] | None = None,
    ) -> None:
        self._store = store
        self._attempt = attempt
        self._starts_over = starts_over
        self._earlier_store = earlier_store
        self._clock = SYSTEM
        self._token = secrets.token_hex(8)
        self._chunks: dict[int, Chunk] = {}
        #: The head and the journal of an earlier attempt.
        self._head: dict[str, Any] | None = None
        self._journal: dict[str, Any] | None = None
        self._failure: WasslyRecordError | None = None
        self._has_looked = False
        # The head that this process wrote last, and the one it has tried to write since. Another process's head has
        # another ``process``.
        self._written: dict[str, Any] | None = None
        self._tried: dict[str, Any] | None = None
        self._process = secrets.token_hex(4)
        #: How many chunks have been started: their values must exist.
        self._begun = 0
        # Each value is numbered when it is written: the journal applies to chunks with a lower number.
        self._epoch = 1
        self._count = 0
        self._written_at = 0.0
        #: How many messages left on a day, by device: the day, and the number.
        self._sent: dict[str, tuple[str, int]] = {}
        #: Whether an earlier attempt began to send, and whether the task was cleared since.
        self.is_resumed = False
        self.is_cleared = False

    def look(self) -> None:
        """
        Read the head, and take over the record. If that fails, :meth:`resume` raises the error.

        Call it before anything in the attempt can fail: a later attempt cannot tell a record of this task instance from
        one that a deleted task instance of the same name left.
        """
        if self._has_looked:
            return
        self._has_looked = True
        try:
            head = self._get(_HEAD)
            if head is None and self._earlier_store is not None:
                head = self._move_here(self._earlier_store)
            if head is not None:
                _check_head(head)
                owner = self._attempt.owner_of(head)
                self.is_cleared = owner == "cleared"
                if owner == "other" or (self.is_cleared and self._starts_over) or not head.get("sends", True):
                    # Before anything else, because a head with the journal of another record is unreadable for good.
                    self._delete(_HEAD)
                    head = None
                    self._sent = {} if owner == "other" else self._sent_before()
                else:
                    self._token = head["token"]
                    self._begun = head.get("begun", 0)
                    self._epoch = head.get("epoch", 0) + 1
                    self.is_resumed = True
            self._head = head
            if self._is_shared:
                self._take_over()
            # Only now, when no other process writes to it any more.
            if head is not None and head["version"] > 1:
                self._journal = self._read_journal()
                self._sent = _sent_in(self._journal)
        except WasslyRecordError as error:
            self._failure = error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            self._failure = _not_understood(error)

    def _sent_before(self) -> dict[str, tuple[str, int]]:
        """Return the messages of the day from a record that is dropped: they left all the same."""
        journal = self._get(_JOURNAL)
        try:
            if journal is not None:
                _check_journal(journal, journal["token"])
                return _sent_in(journal)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            log.debug("Could not read the journal of a dropped record: %s", error)
        return {}

    def _move_here(self, earlier_store: Callable[[str], Store | None]) -> dict[str, Any] | None:
        """Move a record to where this version keeps it, and return its head."""
        head = self._get(_HEAD, earlier_store)
        if head is not None:
            _check_head(head)
            chunks = -(-head["total"] // CHUNK) if head["version"] == 1 else head["begun"] + 1
            for name in (_JOURNAL, *map(_name, range(chunks))):
                if (value := self._get(name, earlier_store)) is not None:
                    self._set(name, value)
            # The head last: until it is moved, it is read from the old place.
            self._set(_HEAD, head)
            self._delete(_HEAD, earlier_store)
        return head

    def _read_journal(self) -> dict[str, Any]:
        journal = self._get(_JOURNAL)
        if journal is None:
            raise ValueError("the journal is missing")
        _check_journal(journal, self._token)
        return journal

    def _take_over(self) -> None:
        """Claim the record for this process, so that any other process notices that it has lost it."""
        if self._head is None:
            self._write_journal()
            self._write_head(sends=False)
        else:
            # The head stays that of the earlier attempt, except for the process that may write.
            self._put_head({**self._head, "process": self._process})

    def resume(self, survey: Survey) -> None:
        """
        Resume from what earlier attempts recorded.

        :param survey: what the first pass over the current list found.
        :raises WasslyListChanged: when the first version of this package started with another list.
        :raises WasslyRecordUnreadable: when the record cannot be read.
        """
        self.look()
        if self._failure is not None:
            raise self._failure
        if self._head is not None and self._head["version"] == 1:
            _check_list(self._head, survey)

    def begin(self, clock: Clock = SYSTEM) -> None:
        """
        Record that this attempt begins to send.

        :param clock: measures the time between two writes.
        :raises WasslyRecordError: when the record cannot be written, or another attempt has started.
        """
        self._clock = clock
        self._refuse_if_overtaken()
        if self._journal is None and (self._head is not None or self._written is None):
            self._write_journal()
        self._write_head()
        # The changes of the old journal go into their chunks before a new journal replaces it.
        if self._journal is not None:
            for number in sorted(int(number) for number in self._journal["changes"]):
                self._set(_name(number), self._chunk_value(self._load(number)))

    def chunk(self, number: int, rows: Sequence[Row]) -> Chunk:
        """
        Return what is known about the rows of a chunk.

        :param number: the number of the chunk, counted from 0.
        :param rows: the current rows.
        :raises WasslyListChanged: when rows that were sent to have changed.
        :raises WasslyRecordUnreadable: when the record cannot be read.
        """
        if number not in self._chunks:
            # In the first attempt, one that this process wrote and dropped from memory.
            chunk = self._load(number) if self.is_resumed or number < self._begun else Chunk()
            for index in chunk.settled():
                if index >= len(rows):
                    raise _list_changed(f"row {number * CHUNK + index + 1} was sent to, but is gone")
            if not chunk.is_about(rows):
                first, last = number * CHUNK + 1, number * CHUNK + len(rows)
                lines = f" (lines {rows[0].line} to {rows[-1].line})" if rows[0].line is not None else ""
                raise _list_changed(f"in rows {first} to {last}{lines}, numbers that were already sent to have changed")
            self._chunks[number] = chunk
        return self._chunks[number]

    def check_end(self, chunks: int) -> None:
        """
        Check that no row beyond the end of the list was sent to.

        :param chunks: how many chunks the list has.
        :raises WasslyListChanged: when one was.
        """
        for number in range(chunks, self._begun + 1) if self.is_resumed else ():
            for index in self._load(number).settled():
                raise _list_changed(f"row {number * CHUNK + index + 1} was sent to, but is gone")

    def counts(self) -> dict[str, int]:
        """
        Return how many messages of earlier attempts were accepted, and how many are unknown.

        :raises WasslyRecordError: when the record cannot be read.
        """
        if self._head is not None and self._head["version"] > 1 and self._journal is None:
            raise _not_understood(ValueError("the journal was not read"))
        known = "".join(self._load(number).text for number in range(self._begun + 1))
        return {"accepted": known.count(ACCEPTED), "unknown": known.count(UNKNOWN) + known.count(ANNOUNCED)}

    def sent_on(self, day: date, instance_id: str) -> int:
        """Return how many messages left from a device on a day, or may have, in all attempts."""
        counted_on, number = self._sent.get(_device(instance_id), ("", 0))
        return number if counted_on == day.isoformat() else 0

    def count_sent(self, day: date, instance_id: str, number: int) -> None:
        """Count messages that leave from a device on a day. They are written along with the next changes."""
        counted = self.sent_on(day, instance_id) + number
        if counted >= 0:  # not for one that was taken back after midnight
            self._sent[_device(instance_id)] = (day.isoformat(), counted)

    def write(self) -> None:
        """
        Write the changes.

        :raises WasslyRecordError: when they cannot be written; then nothing more may leave.
        """
        if not any(chunk.is_changed for chunk in self._chunks.values()):
            return
        if versions.OUTLIVES_ITS_SUPERVISOR or self._clock.monotonic() - self._written_at > _SOON:
            self._refuse_if_overtaken()
        changed = {number: chunk for number, chunk in self._chunks.items() if chunk.changes}
        begun = max(changed) + 1
        if begun > self._begun or sum(len(chunk.changes) for chunk in changed.values()) > _JOURNAL_SIZE:
            # A chunk in between may have no row that was sent to. It is written all the same, because it is counted.
            counted = {number: self._chunks.get(number, Chunk()) for number in range(self._begun, begun)}
            if self._sent or _announces_too_early(changed):
                # First all in one value. It also counts the messages of the day, before they leave.
                self._write_journal()
            # In the order of the list, so that outcomes are written before new announcements.
            for number, chunk in sorted({**counted, **changed}.items()):
                self._set(_name(number), self._chunk_value(chunk))
            if begun > self._begun:
                # After the chunks: all that the head counts must exist.
                self._begun = begun
                self._write_head()
            for chunk in changed.values():
                chunk.changes.clear()
        else:
            self._write_journal()
        for chunk in changed.values():
            chunk.is_changed = False

    def forget(self, in_use: set[Chunk]) -> None:
        """Drop the chunks from memory that are written and not in use."""
        if self._store(_HEAD) is None:
            return
        self._chunks = {number: chunk for number, chunk in self._chunks.items() if chunk.changes or chunk in in_use}

    def remove(self) -> None:
        """
        Remove the whole record, after the task has succeeded.

        :raises WasslyRecordError: when it cannot be removed, or another attempt has started.
        """
        self._refuse_if_overtaken()
        # The head first: without it, the other values mean nothing.
        for name in (_HEAD, _JOURNAL, *map(_name, range(self._begun + 1))):
            self._delete(name)

    @property
    def knows_nothing(self) -> bool:
        """
        Whether it is known that no attempt has sent to anyone.

        :raises WasslyRecordError: when the record cannot be read.
        """
        if self._failure is not None or not self._has_looked:
            return False
        if self.is_resumed or self._begun or any(chunk.changes for chunk in self._chunks.values()):
            return False
        # Several tries can run in one process, and a later one may have sent.
        return self._get(_HEAD) in (None, self._written, self._tried)

    @property
    def is_missing(self) -> bool:
        """Whether values are kept, and none is of this attempt or an earlier one."""
        return self._failure is None and not self.is_resumed and self._store(_HEAD) is not None

    @property
    def _is_shared(self) -> bool:
        store = self._store(_HEAD)
        return store is not None and store.is_shared

    def _refuse_if_overtaken(self) -> None:
        """
        Raise if another process has claimed the record since: that one now decides who is sent to.

        An attempt that Airflow has given up can keep running if its process outlives its supervisor (Airflow 2.11), or
        after its machine was asleep.
        """
        if self._is_shared and self._get(_HEAD) not in (self._written, self._tried):
            raise WasslyRecordError("another attempt of this task has started, so this one stops", may_pass=False)

    def _load(self, number: int) -> Chunk:
        """Read a chunk, with the newer changes in the journal of an earlier attempt."""
        value = self._get(_name(number))
        if value is None or value.get("token") != self._token:
            if number < self._begun:
                raise _not_understood(ValueError(f"chunk {number} is missing"))
            value = None  # not started, or from a record of the same name that was removed
        chunk, written = Chunk(), 0
        try:
            if value is not None:
                outcomes = value["outcomes"]
                if len(outcomes) > CHUNK:
                    raise ValueError(f"chunk {number} has {len(outcomes)} rows")
                if set(outcomes) - set(_OUTCOMES):
                    raise ValueError(f"chunk {number} has unknown outcomes")
                accepted = [index for index, outcome in enumerate(outcomes) if outcome == ACCEPTED]
                ids = zip(accepted, value["conversation_ids"].split(","), strict=False)
                digest = value.get("digest")
                chunk = Chunk(
                    self._as_of_now(value, outcomes),
                    {index: int(text) for index, text in ids if text},
                    None if digest is None else int(digest, 16),
                )
                if number >= self._begun:
                    # It must be written again before the head can count it.
                    chunk.changes.update(index for index, outcome in enumerate(outcomes) if outcome != OPEN)
                written = value.get("written", 0)
            journal = self._journal
            if journal is not None and journal["written"] > written and (text := journal["changes"].get(str(number))):
                of_all = int(journal["digests"][str(number)], 16)
                for index, outcome, conversation_id in _changes_in(text):
                    known = self._as_of_now(journal, outcome)
                    chunk.overlay(index, known, int(conversation_id) if conversation_id else None, of_all)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _not_understood(error) from error
        return chunk

    def _as_of_now(self, value: Mapping[str, Any], outcomes: str) -> str:
        """Return outcomes as this attempt sees them: clearing the task reopens rows that failed for good."""
        return outcomes if value["chain"] == self._attempt.chain else outcomes.replace(FAILED, OPEN)

    def _chunk_value(self, chunk: Chunk) -> dict[str, Any]:
        outcomes = chunk.text
        ids = ",".join(
            str(chunk.conversation_ids.get(index, "")) for index, outcome in enumerate(outcomes) if outcome == ACCEPTED
        )
        if len(ids) > _MAX_IDS:
            ids = ids[:_MAX_IDS].rpartition(",")[0]
        return {**self._common(), "outcomes": outcomes, "conversation_ids": ids, "digest": f"{chunk.digest:04x}"}

    def _write_journal(self) -> None:
        changed = {str(number): chunk for number, chunk in self._chunks.items() if chunk.changes}
        changes = {
            number: "".join(
                f"{index}{chunk[index]}{chunk.conversation_ids.get(index, '') if chunk[index] == ACCEPTED else ''},"
                for index in sorted(chunk.changes)
            )
            for number, chunk in changed.items()
        }
        digests = {number: f"{chunk.digest:04x}" for number, chunk in changed.items()}
        counts = {"sent": {name: list(count) for name, count in self._sent.items()}} if self._sent else {}
        self._set(_JOURNAL, {**self._common(), "changes": changes, "digests": digests, **counts})

    def _write_head(self, *, sends: bool = True) -> None:
        """
        Write the head.

        :param sends: whether messages may have been sent by then; not if the record was only taken over.
        """
        whose = {"version": _VERSION, **self._attempt.as_values(), "process": self._process}
        self._put_head({**whose, "token": self._token, "sends": sends, "epoch": self._epoch, "begun": self._begun})

    def _put_head(self, head: dict[str, Any]) -> None:
        self._tried = head
        self._set(_HEAD, head)
        self._written = head

    def _common(self) -> dict[str, Any]:
        self._count += 1
        written = self._epoch * _WRITES_OF_AN_ATTEMPT + self._count
        return {"token": self._token, "chain": self._attempt.chain, "written": written}

    def _get(self, name: str, where: Callable[[str], Store | None] | None = None) -> dict[str, Any] | None:
        store = (where or self._store)(name)
        try:
            return None if store is None else in_one_piece(store.get)
        except Exception as error:
            raise WasslyRecordUnreadable(
                f"could not read the send record ({type(error).__name__}: {error})",
                may_pass=not isinstance(error, ValueError),
            ) from error

    def _set(self, name: str, value: dict[str, Any]) -> None:
        store = self._store(name)
        try:
            if store is not None:
                in_one_piece(lambda: store.set(value))
        except Exception as error:
            raise WasslyRecordError(
                f"could not write the send record ({type(error).__name__}: {error})", may_pass=True
            ) from error
        self._written_at = self._clock.monotonic()

    def _delete(self, name: str, where: Callable[[str], Store | None] | None = None) -> None:
        store = (where or self._store)(name)
        try:
            if store is not None:
                in_one_piece(store.delete)
        except Exception as error:
            raise WasslyRecordError(
                f"could not remove the send record ({type(error).__name__}: {error})", may_pass=True
            ) from error


_HEAD = "wassly_broadcast__head"
_JOURNAL = "wassly_broadcast__journal"
_HEAD_FIELDS: dict[str, Any] = {
    "token": str,
    "chain": int,
    "try_number": int,
}
_OUTCOMES = (OPEN, ANNOUNCED, ACCEPTED, UNKNOWN, FAILED, FAILED_FOR_NOW)
_CHANGE = re.compile(rf"(\d+)([{''.join(map(re.escape, _OUTCOMES))}])(-?\d*)")

#: More writes than an attempt can make.
_WRITES_OF_AN_ATTEMPT = 2**32


def _name(number: int) -> str:
    return f"wassly_broadcast__{number}"


@lru_cache(maxsize=256)
def _device(instance_id: str) -> str:
    """Return a short name for a device."""
    return hashlib.sha256(instance_id.encode()).hexdigest()[:8]


def _announces_too_early(changed: Mapping[int, Chunk]) -> bool:
    """Tell whether a chunk announces messages before a later one notes outcomes, as with several devices."""
    announcing = [number for number, chunk in changed.items() if ANNOUNCED in chunk.changed_outcomes]
    noting = [number for number, chunk in changed.items() if chunk.changed_outcomes - {ANNOUNCED}]
    return bool(announcing and noting) and min(announcing) < max(noting)


def _changes_in(text: str) -> Iterable[tuple[int, str, str]]:
    for change in filter(None, text.split(",")):
        if (found := _CHANGE.fullmatch(change)) is None or int(found[1]) >= CHUNK:
            raise ValueError(f"{change!r} in the journal is not a change")
        yield int(found[1]), found[2], found[3]


def _check_head(head: dict[str, Any]) -> None:
    """Refuse a head in a format that this version does not know."""
    if head["version"] > _VERSION:
        raise ValueError(f"version {head['version']} was written by a later version of this package")
    fields = {"total": int, "digests": str} if head["version"] == 1 else {"epoch": int, "begun": int}
    for name, kind in {**_HEAD_FIELDS, **fields}.items():
        if not isinstance(head[name], kind) or isinstance(head[name], bool):
            raise TypeError(f"{name} is of type {type(head[name]).__name__}")


def _check_journal(journal: dict[str, Any], token: str) -> None:
    """Refuse a journal in a format that this version does not write."""
    if journal["token"] != token:
        raise ValueError("the journal belongs to another record")
    if not isinstance(journal["written"], int) or not isinstance(journal["digests"], dict):
        raise TypeError("the journal has values of the wrong type")
    for day, sent in journal.get("sent", {}).values():
        if not isinstance(day, str) or not isinstance(sent, int):
            raise TypeError("the journal counts messages of the wrong type")
    for number, changes in journal["changes"].items():
        if not isinstance(changes, str) or not number.isdecimal():
            raise TypeError("the journal has changes of the wrong type")


def _sent_in(journal: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
    return {name: (day, number) for name, (day, number) in journal.get("sent", {}).items()}


def _list_changed(reason: str) -> WasslyListChanged:
    return WasslyListChanged(f"recipients: {reason}", may_pass=False)


def _check_list(head: dict[str, Any], survey: Survey) -> None:
    """Refuse any other list than the one that the first version of this package started with."""
    if (head["total"], head["digests"]) != (survey.total, survey.digests):
        raise WasslyListChanged(
            "recipients: the list has changed since an attempt with an earlier version of this package, whose "
            "record allows no row to change",
            may_pass=False,
        )


def _not_understood(error: Exception) -> WasslyRecordUnreadable:
    failure = WasslyRecordUnreadable(
        f"could not interpret the send record ({type(error).__name__}: {error})", may_pass=False
    )
    failure.__cause__ = error
    return failure
