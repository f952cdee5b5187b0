"""Reads a file that holds one JSON array, item by item."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import IO, Any

#: Characters to read at a time.
_BLOCK = 64 * 1024

#: How many characters one item may have: an item without an end must not fill the memory.
_LARGEST = 1024 * 1024

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")


class NotJsonError(Exception):
    """Raised when the file is not one JSON array; the text names the line."""


def items(text: IO[str], first: str, line: int) -> Iterator[tuple[int, Any]]:
    """
    Yield the items of the array, each with the line it begins on.

    :param text: the file.
    :param first: the part that was already read: the ``[`` and the text around it.
    :param line: the line that ``first`` begins on.
    :raises NotJsonError: when the file is not one array.
    """
    window = _Window(text, first, line)
    window.take()
    if window.peek() == "]":
        window.take()
    else:
        mark = ","
        while mark == ",":
            window.peek()
            yield window.line, window.value()
            mark = window.take()
        if mark != "]":
            # For example because the file was cut off.
            raise window.error("expected , or ] after an item")
    if window.peek():
        raise window.error("there is text after the array's closing ]")


class _Window:
    """The part of the file that is in memory: little more than one item."""

    def __init__(self, text: IO[str], held: str, line: int) -> None:
        self._text = text
        self._held = held
        self._at = 0
        self.line = line

    def peek(self) -> str:
        """Return the next character that is not white space, an empty string at the end."""
        while True:
            space = _SPACE.match(self._held, self._at)
            assert space is not None
            self._pass(space.end())
            if self._at < len(self._held) or not self._see_more():
                return self._held[self._at : self._at + 1]

    def take(self) -> str:
        """Return the next character and move past it."""
        char = self.peek()
        self._pass(self._at + len(char))
        return char

    def value(self) -> Any:
        """Return the value that begins here and move past it."""
        while True:
            value, end, problem = None, len(self._held), ""
            try:
                value, end = _DECODER.raw_decode(self._held, self._at)
            except (RecursionError, ValueError) as error:
                problem = getattr(error, "msg", str(error))
            # A value that ends where the window ends may continue beyond it, as 12 of 123.
            if end == len(self._held) and end - self._at < _LARGEST and self._see_more():
                continue
            if problem:
                raise self.error(problem)
            self._pass(end)
            return value

    def error(self, reason: str) -> NotJsonError:
        """Return the error to raise for this line."""
        return NotJsonError(f"line {self.line} is not valid JSON: {reason}")

    def _see_more(self) -> bool:
        # Doubles each time, so that a long item is not parsed again after every block.
        more = self._text.read(max(_BLOCK, len(self._held) - self._at))
        self._held = self._held[self._at :] + more
        self._at = 0
        return bool(more)

    def _pass(self, end: int) -> None:
        self.line += self._held.count("\n", self._at, end)
        self._at = end
