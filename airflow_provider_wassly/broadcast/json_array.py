"""A file that holds one JSON array, read item by item."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import IO, Any

#: Characters that are read at once.
_BLOCK = 64 * 1024

#: Characters of one item: one that has no end must not take all memory.
_LARGEST = 1024 * 1024

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")


class NotJsonError(Exception):
    """Raised where the file cannot be read; the text names the line."""


def items(text: IO[str], first: str, line: int) -> Iterator[tuple[int, Any]]:
    """
    Yield the items of the array, each with the line on which it begins.

    :param text: the file.
    :param first: what was read of it: the ``[``, and what is around it.
    :param line: that on which ``first`` begins.
    :raises NotJsonError: when it is not one array.
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
            # As in a file that was cut off.
            raise window.error("no , or ] after an item")
    if window.peek():
        raise window.error("something stands behind the array's ]")


class _Window:
    """What is in sight of the file: not much more than one item."""

    def __init__(self, text: IO[str], held: str, line: int) -> None:
        self._text = text
        self._held = held
        self._at = 0
        self.line = line

    def peek(self) -> str:
        """Return the next character that is no white space; at the end an empty text."""
        while True:
            space = _SPACE.match(self._held, self._at)
            assert space is not None
            self._pass(space.end())
            if self._at < len(self._held) or not self._see_more():
                return self._held[self._at : self._at + 1]

    def take(self) -> str:
        """Return this character and go past it."""
        char = self.peek()
        self._pass(self._at + len(char))
        return char

    def value(self) -> Any:
        """Return the value that begins here and go past it."""
        while True:
            value, end, problem = None, len(self._held), ""
            try:
                value, end = _DECODER.raw_decode(self._held, self._at)
            except (RecursionError, ValueError) as error:
                problem = getattr(error, "msg", str(error))
            # What ends where the sight does may go on beyond it, as 12 of 123.
            if end == len(self._held) and end - self._at < _LARGEST and self._see_more():
                continue
            if problem:
                raise self.error(problem)
            self._pass(end)
            return value

    def error(self, reason: str) -> NotJsonError:
        """Return what is to be raised if it goes wrong here."""
        return NotJsonError(f"line {self.line} is not valid JSON: {reason}")

    def _see_more(self) -> bool:
        # Twice as much each time, so that a long item is not tried again for each of its blocks.
        more = self._text.read(max(_BLOCK, len(self._held) - self._at))
        self._held = self._held[self._at :] + more
        self._at = 0
        return bool(more)

    def _pass(self, end: int) -> None:
        self.line += self._held.count("\n", self._at, end)
        self._at = end
