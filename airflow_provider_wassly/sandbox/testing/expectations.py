"""What a test can ask of a message, and how a message differs from it."""

from __future__ import annotations

import difflib
import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from airflow_provider_wassly.sandbox.service.models import Message, ReceivedFile
from airflow_provider_wassly.sandbox.testing.comparing import (
    MAX_DIFF,
    MAX_PREVIEW,
    apart,
    cut,
    diff,
    differ_at,
    folded,
    in_bytes,
    preview,
)

CHUNK = 1024 * 1024


@dataclass(frozen=True)
class Expectation:
    """
    One thing that is asked of a message.

    :param name: of the parameter.
    """

    name: str

    @property
    def expected(self) -> str:
        """What is asked, on one line."""
        raise NotImplementedError

    def sent(self, message: Message) -> str:
        """What the message has there, on one line."""
        raise NotImplementedError

    def is_right(self, message: Message) -> bool:
        """Tell whether the message has what is asked."""
        raise NotImplementedError

    def difference(self, message: Message) -> list[str]:
        """Show both; the first line stands beside the name."""
        return [f"expected  {self.expected}", f"sent      {self.sent(message)}"]

    def likeness(self, message: Message) -> float:
        """How near a message comes that is not right, from 0 to 1; in the middle where nothing better is known."""
        return 0.5


@dataclass(frozen=True)
class Value(Expectation):
    """
    A field that holds just this. What was not sent is taken for empty, as it makes no difference to the recipient.

    :param attribute: of the message.
    """

    attribute: str
    value: str

    @property
    def expected(self) -> str:
        """What is asked, on one line."""
        return preview(self.value)

    def sent(self, message: Message) -> str:
        """What the message has there, on one line."""
        return preview(getattr(message, self.attribute))

    def is_right(self, message: Message) -> bool:
        """Tell whether it is the same."""
        return (getattr(message, self.attribute) or "") == self.value

    def difference(self, message: Message) -> list[str]:
        """Show both, in a way in which they can be told from each other."""
        ours, theirs = apart(self.value, getattr(message, self.attribute))
        return [f"expected  {ours}", f"sent      {theirs}"]


@dataclass(frozen=True)
class Text(Value):
    """The text of the message, as a whole."""

    def difference(self, message: Message) -> list[str]:
        """Show both texts, line by line."""
        if not (message.message and self.value):
            return super().difference(message)
        return ["- expected, + sent", *(f"    {line}" for line in diff(self.value, message.message))]

    def likeness(self, message: Message) -> float:
        """How many characters the texts share, about."""
        return difflib.SequenceMatcher(None, self.value[:1000], (message.message or "")[:1000]).quick_ratio()


@dataclass(frozen=True)
class Match(Expectation):
    """A text in which a pattern is found."""

    pattern: re.Pattern[str]

    @property
    def expected(self) -> str:
        """What is asked, on one line."""
        return f"a match of {preview(self.pattern.pattern)}"

    def sent(self, message: Message) -> str:
        """What the message has there, on one line."""
        return preview(message.message)

    def is_right(self, message: Message) -> bool:
        """Tell whether the pattern is found."""
        return self.pattern.search(message.message or "") is not None

    def difference(self, message: Message) -> list[str]:
        """Show the pattern and what it was not found in."""
        lines = folded(message.message or "")
        if len(lines) == 1 and len(lines[0]) <= MAX_PREVIEW:
            return super().difference(message)
        return [f"expected  {self.expected}", "sent", *(f"    {line}" for line in cut(lines, MAX_DIFF))]


@dataclass(frozen=True)
class Content:
    """
    What a file holds.

    :param open: opens it for reading.
    """

    size: int
    sha256: str
    open: Callable[[], BinaryIO]

    @classmethod
    def of(cls, opener: Callable[[], BinaryIO]) -> Content:
        """Read it once, piece by piece."""
        digest, size = hashlib.sha256(), 0
        with opener() as source:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
        return cls(size, digest.hexdigest(), opener)


@dataclass(frozen=True)
class File(Expectation):
    """A file: its name, its content or both."""

    file_name: str | None
    content: Content | None

    @classmethod
    def of(cls, name: str, given: Any) -> File:
        """
        Read what a test gave.

        :raises OSError: when it is a path, and the file cannot be read.
        """
        __tracebackhide__ = True
        if given == "":
            raise ValueError(f"{name} must not be empty; whether there is a file says .{name} of the message")
        if isinstance(given, str):
            return cls(name, given, None)
        if isinstance(given, bytes):
            return cls(name, None, Content.of(lambda: io.BytesIO(given)))
        if isinstance(given, Path):
            return cls(name, given.name, Content.of(lambda: given.open("rb")))
        what = "a str (the file's name), bytes (its content) or a pathlib.Path (both)"
        raise TypeError(f"{name} must be {what}, not {type(given).__name__}")

    @property
    def expected(self) -> str:
        """What is asked, on one line."""
        return self._described(preview(self.file_name))

    def _described(self, name: str) -> str:
        parts = [] if self.file_name is None else [name]
        return ", ".join([*parts, in_bytes(self.content.size)] if self.content is not None else parts)

    def sent(self, message: Message) -> str:
        """What the message has there, on one line."""
        file = self._file(message)
        if file is not None:
            return f"{preview(file.name)}, {in_bytes(file.size)}"
        other = message.media if self.name == "document" else message.document
        return "nothing" if other is None else f"nothing, but as {other.field} {preview(other.name)}"

    def is_right(self, message: Message) -> bool:
        """Tell whether name and content, as far as they are asked, are the same."""
        file = self._file(message)
        return (
            file is not None
            and self.file_name in (None, file.name)
            and (self.content is None or (self.content.size, self.content.sha256) == (file.size, file.sha256))
        )

    def difference(self, message: Message) -> list[str]:
        """Show names and sizes, and where the contents begin to differ."""
        file = self._file(message)
        if file is None:
            return super().difference(message)
        ours, theirs = preview(self.file_name), preview(file.name)
        if self.file_name is not None:
            ours, theirs = apart(self.file_name, file.name)
        lines = [f"expected  {self._described(ours)}", f"sent      {theirs}, {in_bytes(file.size)}"]
        if self.content is not None:
            lines += self._first_difference(self.content, file)
        return lines

    def likeness(self, message: Message) -> float:
        """Half of it is better than nothing."""
        file = self._file(message)
        if file is None:
            return 0
        same_content = self.content is not None and self.content.sha256 == file.sha256
        return 0.5 if self.file_name == file.name or same_content else 0.25

    def _file(self, message: Message) -> ReceivedFile | None:
        return message.document if self.name == "document" else message.media

    @staticmethod
    def _first_difference(content: Content, file: ReceivedFile) -> list[str]:
        if content.sha256 == file.sha256:
            return ["the content is the same"]
        try:
            with content.open() as ours, file.path.open("rb") as theirs:
                offset = _first_offset(ours, theirs)
                ours.seek(offset)
                theirs.seek(offset)
                ours_there, theirs_there = ours.read(16), theirs.read(16)
        except OSError:  # the sandbox has stopped, or the message was deleted
            return ["the content differs; what was sent is no longer there to look at"]
        return [
            f"the content differs from offset {offset:,}",
            f"expected  {ours_there or 'its end'!s}",
            f"sent      {theirs_there or 'its end'!s}",
        ]


def _first_offset(one: BinaryIO, other: BinaryIO) -> int:
    """Return where two files that differ begin to."""
    offset = 0
    while (chunk := one.read(CHUNK)) == (other_chunk := other.read(CHUNK)) and chunk:
        offset += len(chunk)
    return offset + differ_at(chunk, other_chunk)
