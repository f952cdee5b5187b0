"""
The accepted messages and their files, on disk.

The messages are in SQLite, so that they can be read page by page and a data folder outlives the process. Without a data
folder everything is temporary.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import sqlite3
import tempfile
import threading
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from airflow_provider_wassly.sandbox.service.contents import measure
from airflow_provider_wassly.sandbox.service.models import Message, ReceivedFile, utc_now

DEFAULT_MAX_MESSAGES = 10_000
DATABASE = "inbox.sqlite3"
FILES = "files"

_FORMAT = 1
_TABLES = f"""
BEGIN;
CREATE TABLE message (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    contact_mobile_number TEXT NOT NULL,
    contact_name BLOB,
    message BLOB,
    instance_id BLOB NOT NULL,
    message_type TEXT NOT NULL,
    conversation_id INTEGER NOT NULL,
    received_at TEXT NOT NULL,
    document TEXT,
    media TEXT
);
CREATE INDEX message_by_number ON message (contact_mobile_number, id);
CREATE TABLE conversation (id INTEGER PRIMARY KEY, contact_mobile_number TEXT NOT NULL UNIQUE);
PRAGMA user_version = {_FORMAT};
COMMIT;
"""
_COLUMNS = ", ".join(field.name for field in dataclasses.fields(Message))


@dataclasses.dataclass(frozen=True)
class Contact:
    """
    A number that messages were sent to.

    :param contact_mobile_number: the number.
    :param contact_name: the name in the newest message, ``None`` without one.
    :param messages: how many messages are stored.
    :param last: the newest message.
    """

    contact_mobile_number: str
    contact_name: str | None
    messages: int
    last: Message


class Inbox:
    """
    The messages, oldest first, and their files. Thread-safe.

    :param data_dir: the folder to store them in; ``None`` to delete them when the sandbox stops.
    :param max_messages: how many messages to keep; each further one replaces the oldest.
    """

    def __init__(self, data_dir: Path | None = None, max_messages: int = DEFAULT_MAX_MESSAGES) -> None:
        if not isinstance(max_messages, int) or isinstance(max_messages, bool) or max_messages < 1:
            raise ValueError(f"max_messages must be a positive integer, not {max_messages!r}")
        self.max_messages = max_messages
        self._data_dir = data_dir
        self._lock = threading.RLock()
        self._file_ids = count(1)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._files: Path | None = None
        # Without a name, SQLite works in memory, moves large data to disk and leaves nothing behind.
        self._database = _connect("")
        self._database.executescript(_TABLES)
        self._number = 0

    def open(self) -> None:
        """
        Prepare for receiving messages.

        :raises OSError: when the data folder cannot be used; the text says why.
        """
        if self._data_dir is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="wassly-sandbox-", ignore_cleanup_errors=True)
            self._files = Path(self._temporary.name)
            return
        files = self._data_dir / FILES
        try:
            files.mkdir(parents=True, exist_ok=True)
            database = _open_database(self._data_dir / DATABASE)
        except sqlite3.Error as error:
            reason = _describe_database_error(error)
            raise OSError(errno.EIO, f"cannot use the data folder {self._data_dir}: {reason}") from error
        except OSError as error:
            raise OSError(error.errno, f"cannot use the data folder {self._data_dir}: {error.strerror}") from error
        taken = [int(path.name.partition("-")[0]) for path in files.glob("[0-9]*-*")]
        with self._lock:
            self._database.close()
            self._database, self._files = database, files
            self._file_ids = count(max(taken, default=0) + 1)
            ((self._number,),) = database.execute("SELECT count(*) FROM message")
            with self._writing():
                dropped = self._drop_oldest(self._number)
            self._number -= len(dropped)
        _remove_files(dropped)

    def close(self) -> None:
        """Release the data folder, or delete the files; the messages can still be read."""
        with self._lock:
            self._files = None
            if self._temporary:
                self._temporary.cleanup()
                self._temporary = None
            elif self._data_dir is not None:
                copy = _connect("")
                self._database.backup(copy)
                self._database.close()
                self._database = copy

    def save(self, field: str, name: str, content_type: str, source: BinaryIO) -> ReceivedFile:
        """
        Copy a file to disk, in chunks.

        :raises OSError: when that fails; nothing is left on disk.
        :raises RuntimeError: when the inbox is closed.
        """
        if self._files is None:
            raise RuntimeError("the sandbox has stopped")
        path = self._files / f"{next(self._file_ids)}-{field}"  # never a name from outside
        try:
            with path.open("wb") as target:
                size, sha256 = measure(source, target)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return ReceivedFile(field, name, content_type, size, sha256, path)

    def add(
        self,
        *,
        contact_mobile_number: str,
        contact_name: str | None,
        message: str | None,
        instance_id: str,
        document: ReceivedFile | None,
        media: ReceivedFile | None,
    ) -> Message:
        """
        Store a message.

        :raises OSError: when that fails; nothing is stored.
        """
        with self._lock:
            with self._writing():
                self._database.execute(
                    "INSERT OR IGNORE INTO conversation (contact_mobile_number) VALUES (?)", [contact_mobile_number]
                )
                ((conversation_id,),) = self._database.execute(
                    "SELECT id FROM conversation WHERE contact_mobile_number = ?", [contact_mobile_number]
                )
                kept = Message(
                    id=0,
                    contact_mobile_number=contact_mobile_number,
                    contact_name=contact_name,
                    message=message,
                    instance_id=instance_id,
                    message_type="media" if media else "document" if document else "text",
                    conversation_id=conversation_id,
                    received_at=utc_now(),
                    document=document,
                    media=media,
                )
                row = self._database.execute(
                    f"INSERT INTO message ({_COLUMNS}) VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", _to_row(kept)
                )
                assert row.lastrowid is not None
                dropped = self._drop_oldest(self._number + 1)
            self._number += 1 - len(dropped)
        _remove_files(dropped)
        return dataclasses.replace(kept, id=row.lastrowid)

    def clear(self, *, conversations: bool = False) -> None:
        """
        Delete the messages and their files.

        :param conversations: whether to also forget each number's conversation id.
        """
        with self._lock:
            with self._writing():
                deleted = self.messages()
                self._database.execute("DELETE FROM message")
                if conversations:
                    self._database.execute("DELETE FROM conversation")
            self._number = 0
        _remove_files(deleted)

    def messages(
        self, *, after: int = 0, before: int | None = None, number: str | None = None, limit: int = -1
    ) -> list[Message]:
        """
        Return messages, oldest first.

        :param after: only messages with a higher id.
        :param before: only messages with a lower id; ``limit`` then keeps the newest of them.
        :param number: only messages to this number.
        :param limit: the maximum number of messages. Default: all.
        """
        condition, values = "id > ?", [after, limit]
        if before is not None:
            condition, values = f"{condition} AND id < ?", [after, before, limit]
        if number is not None:
            condition, values = f"contact_mobile_number = ? AND {condition}", [number, *values]  # type: ignore[list-item]
        order = "ASC" if before is None else "DESC"
        rows = self._read(f"SELECT {_COLUMNS} FROM message WHERE {condition} ORDER BY id {order} LIMIT ?", *values)
        return [self._from_row(row) for row in (rows if before is None else reversed(rows))]

    def message(self, message_id: int) -> Message | None:
        """Return the message with this id, ``None`` without one."""
        return next(iter(self.messages(after=message_id - 1, before=message_id + 1)), None)

    def contacts(self, *, before: int, limit: int) -> list[Contact]:
        """
        Return the contacts, the one with the newest message first.

        :param before: only contacts whose newest message has a lower id.
        :param limit: the maximum number of contacts.
        """
        # The subquery finds the ids from the index alone.
        rows = self._read(
            f"SELECT how_many, {_COLUMNS} FROM message JOIN (SELECT max(id) AS newest, count(*) AS how_many "
            "FROM message GROUP BY contact_mobile_number HAVING max(id) < ? ORDER BY max(id) DESC LIMIT ?) "
            "ON id = newest ORDER BY id DESC",
            before,
            limit,
        )
        found = []
        for how_many, *row in rows:
            last = self._from_row(row)
            found.append(Contact(last.contact_mobile_number, last.contact_name, how_many, last))
        return found

    def __len__(self) -> int:
        return self._number

    @property
    def last_id(self) -> int:
        """The id of the newest message, 0 without one."""
        ((number,),) = self._read("SELECT coalesce(max(id), 0) FROM message")
        return int(number)

    def _read(self, query: str, *values: Any) -> list[Any]:
        with self._lock:
            return self._database.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Write in one transaction, and turn database errors into a readable :class:`OSError`."""
        try:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise OSError(errno.EIO, f"cannot write to {self._data_dir or 'the temporary folder'}: {error}") from error

    def _drop_oldest(self, number: int) -> list[Message]:
        """
        Delete the oldest messages beyond the maximum, and return them.

        The caller deletes their files once the transaction is committed.

        :param number: how many messages there are.
        """
        if number <= self.max_messages:
            return []
        dropped = self.messages(limit=number - self.max_messages)
        self._database.execute("DELETE FROM message WHERE id <= ?", [dropped[-1].id])
        return dropped

    def _from_row(self, row: list[Any]) -> Message:
        number, mobile, name, text, instance, kind, conversation, received_at, document, media = row
        return Message(
            number,
            mobile,
            _from_bytes(name),
            _from_bytes(text),
            _from_bytes(instance) or "",
            kind,
            conversation,
            datetime.fromisoformat(received_at),
            self._attachment(document),
            self._attachment(media),
        )

    def _attachment(self, value: str | None) -> ReceivedFile | None:
        if value is None:
            return None
        values = json.loads(value)
        path = Path(values.pop("path"))
        # The data folder may have been moved.
        return ReceivedFile(**values, path=self._data_dir / FILES / path.name if self._data_dir else path)


def _connect(path: str | Path) -> sqlite3.Connection:
    # Autocommit: each statement is its own transaction unless BEGIN starts one.
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)


def _open_database(path: Path) -> sqlite3.Connection:
    """
    Open the database of a data folder, and lock it for this process.

    :raises sqlite3.Error: when it is damaged, in use or cannot be written.
    """
    database = _connect(path)
    try:
        # One process at a time: two would give different files the same id.
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = TRUNCATE")
        database.execute("PRAGMA synchronous = OFF")  # a crash of the machine may lose test messages
        database.execute("BEGIN EXCLUSIVE")
        ((found,),) = database.execute("PRAGMA user_version")
        ((tables,),) = database.execute("SELECT count(*) FROM sqlite_master")
        ((health,),) = database.execute("PRAGMA quick_check(1)")
        database.execute("COMMIT")
        if health != "ok":
            raise sqlite3.DatabaseError(str(health))
        if not tables and not found:
            database.executescript(_TABLES)
        elif found != _FORMAT:
            raise sqlite3.DatabaseError(f"{path.name} was written by another version of the sandbox")
    except BaseException:
        database.close()
        raise
    return database


def _describe_database_error(error: sqlite3.Error) -> str:
    text = " ".join(str(error).split())
    if "locked" in text:
        return "another sandbox is using it"
    if "another version" in text or "unable to open" in text or "readonly" in text or "full" in text:
        return text
    return f"{DATABASE} is damaged ({text}); move it away, or use another folder"


def _to_row(message: Message) -> list[Any]:
    return [
        message.contact_mobile_number,
        _to_bytes(message.contact_name),
        _to_bytes(message.message),
        _to_bytes(message.instance_id),
        message.message_type,
        message.conversation_id,
        message.received_at.isoformat(),
        _file_to_json(message.document),
        _file_to_json(message.media),
    ]


def _to_bytes(text: str | None) -> bytes | None:
    # Unusual charsets can produce lone surrogates, which SQLite cannot store as text.
    return None if text is None else text.encode(errors="surrogatepass")


def _from_bytes(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="surrogatepass")


def _file_to_json(attachment: ReceivedFile | None) -> str | None:
    return None if attachment is None else json.dumps({**dataclasses.asdict(attachment), "path": str(attachment.path)})


def _remove_files(messages: Iterable[Message]) -> None:
    """Delete the files of deleted messages."""
    for message in messages:
        for attachment in (message.document, message.media):
            if attachment:
                attachment.path.unlink(missing_ok=True)
