"""What a test can expect of a message, and how to show where a message differs."""

from __future__ import annotations

import difflib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from airflow_provider_wassly.sandbox.service.contents import CHUNK_BYTES, measure
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


@dataclass(frozen=True)
class Expectation:
    """
    One thing that a test expects of a message.

    :param name: the parameter of ``assert_sent``.
    """

    name: str

    @property
    def expected(self) -> str:
        """The expected value, on one line."""
        raise NotImplementedError

    def sent(self, message: Message) -> str:
        """Return the message's value, on one line."""
        raise NotImplementedError

    def is_met(self, message: Message) -> bool:
        """Return whether the message meets the expectation."""
        raise NotImplementedError

    def difference(self, message: Message) -> list[str]:
        """Show both values; the first line goes next to the name."""
        return [f"expected  {self.expected}", f"sent      {self.sent(message)}"]

    def likeness(self, message: Message) -> float:
        """Return how similar a message is that does not meet the expectation, from 0 to 1; 0.5 if unknown."""
        return 0.5


@dataclass(frozen=True)
class Value(Expectation):
    """
    An exact value. A field that was not sent counts as empty, because the recipient sees no difference.

    :param attribute: the message's attribute.
    :param value: the expected value.
    """

    attribute: str
    value: str

    @property
    def expected(self) -> str:
        """The expected value, on one line."""
        return preview(self.value)

    def sent(self, message: Message) -> str:
        """Return the message's value, on one line."""
        return preview(getattr(message, self.attribute))

    def is_met(self, message: Message) -> bool:
        """Return whether the value is the same."""
        return (getattr(message, self.attribute) or "") == self.value

    def difference(self, message: Message) -> list[str]:
        """Show both values so that they can be told apart."""
        ours, theirs = apart(self.value, getattr(message, self.attribute))
        return [f"expected  {ours}", f"sent      {theirs}"]


@dataclass(frozen=True)
class Text(Value):
    """The whole text of the message."""

    def difference(self, message: Message) -> list[str]:
        """Show both texts, line by line."""
        if not (message.message and self.value):
            return super().difference(message)
        return ["- expected, + sent", *(f"    {line}" for line in diff(self.value, message.message))]

    def likeness(self, message: Message) -> float:
        """Estimate how many characters the texts share."""
        return difflib.SequenceMatcher(None, self.value[:1000], (message.message or "")[:1000]).quick_ratio()


@dataclass(frozen=True)
class Match(Expectation):
    """A pattern to find in the text."""

    pattern: re.Pattern[str]

    @property
    def expected(self) -> str:
        """The expected value, on one line."""
        return f"a match of {preview(self.pattern.pattern)}"

    def sent(self, message: Message) -> str:
        """Return the message's value, on one line."""
        return preview(message.message)

    def is_met(self, message: Message) -> bool:
        """Return whether the pattern is found."""
        return self.pattern.search(message.message or "") is not None

    def difference(self, message: Message) -> list[str]:
        """Show the pattern, and the text that does not contain it."""
        lines = folded(message.message or "")
        if len(lines) == 1 and len(lines[0]) <= MAX_PREVIEW:
            return super().difference(message)
        return [f"expected  {self.expected}", "sent", *(f"    {line}" for line in cut(lines, MAX_DIFF))]


@dataclass(frozen=True)
class Content:
    """
    The content of a file.

    :param size: the length, in bytes.
    :param sha256: the hexadecimal digest.
    :param open: opens the content for reading.
    """

    size: int
    sha256: str
    open: Callable[[], BinaryIO]

    @classmethod
    def of(cls, opener: Callable[[], BinaryIO]) -> Content:
        """Measure the content that ``opener`` opens."""
        with opener() as source:
            return cls(*measure(source), opener)


@dataclass(frozen=True)
class File(Expectation):
    """
    A file: its name, its content or both.

    :param file_name: the expected name, ``None`` for any.
    :param content: the expected content, ``None`` for any.
    """

    file_name: str | None
    content: Content | None

    @classmethod
    def of(cls, name: str, given: Any) -> File:
        """
        Build the expectation from a parameter of ``assert_sent``.

        :raises OSError: when it is a path and the file cannot be read.
        :raises ValueError: when it is empty.
        :raises TypeError: when it has the wrong type.
        """
        __tracebackhide__ = True
        if given == "":
            raise ValueError(f"{name} must not be empty; to check for a file, look at the message's .{name}")
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
        """The expected value, on one line."""
        return self._described(preview(self.file_name))

    def _described(self, name: str) -> str:
        parts = [] if self.file_name is None else [name]
        return ", ".join([*parts, in_bytes(self.content.size)] if self.content is not None else parts)

    def sent(self, message: Message) -> str:
        """Return the message's value, on one line."""
        file = self._file(message)
        if file is not None:
            return f"{preview(file.name)}, {in_bytes(file.size)}"
        other = message.media if self.name == "document" else message.document
        return "nothing" if other is None else f"nothing, but {preview(other.name)} as {other.field}"

    def is_met(self, message: Message) -> bool:
        """Return whether the expected name and content are the same."""
        file = self._file(message)
        return (
            file is not None
            and self.file_name in (None, file.name)
            and (self.content is None or (self.content.size, self.content.sha256) == (file.size, file.sha256))
        )

    def difference(self, message: Message) -> list[str]:
        """Show names and sizes, and where the contents start to differ."""
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
        """Rate a file with the right name or content above any other file, and that above no file."""
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
            return ["the content differs; the sent file is no longer available"]
        return [
            f"the content differs from offset {offset:,}",
            f"expected  {ours_there or 'end of file'!s}",
            f"sent      {theirs_there or 'end of file'!s}",
        ]


def _first_offset(one: BinaryIO, other: BinaryIO) -> int:
    """Return the offset of the first difference between two files."""
    offset = 0
    while (chunk := one.read(CHUNK_BYTES)) == (other_chunk := other.read(CHUNK_BYTES)) and chunk:
        offset += len(chunk)
    return offset + differ_at(chunk, other_chunk)
