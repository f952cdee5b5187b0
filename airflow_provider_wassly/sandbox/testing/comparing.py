"""Comparison of texts, formatted so that a person can see the differences in a terminal."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Sequence
from itertools import groupby
from typing import Any

MAX_WIDTH = 100
MAX_PREVIEW = 60
MAX_DIFF = 24
MAX_RUN = 8
#: Lines compared of each text: difflib's running time grows much faster than the number of lines.
MAX_COMPARED = 40
CONTEXT = 2


def in_bytes(size: int) -> str:
    """Format a size."""
    return "1 byte" if size == 1 else f"{size:,} bytes"


def preview(text: str | None) -> str:
    """Format the beginning of a text on one line."""
    if text is None:
        return "nothing"
    if len(text) <= MAX_PREVIEW:
        return repr(text)
    return f"{text[:MAX_PREVIEW]!r}… ({len(text):,} characters)"


def apart(expected: str, sent: str | None) -> tuple[str, str]:
    """Format two texts on one line each; if they would look the same, show the difference in ASCII."""
    ours, theirs = preview(expected), preview(sent)
    if sent is None or expected == sent or unicodedata.normalize("NFC", ours) != unicodedata.normalize("NFC", theirs):
        return ours, theirs
    start = max(0, differ_at(expected, sent) - MAX_PREVIEW // 2)
    before = "…" if start else ""
    return before + ascii(expected[start : start + MAX_PREVIEW]), before + ascii(sent[start : start + MAX_PREVIEW])


def folded(text: str) -> list[str]:
    """Split a text into lines that fit a terminal, with invisible characters escaped."""
    lines = []
    for line in text.split("\n"):
        while len(line) > MAX_WIDTH:
            lines.append(_visible(line[:MAX_WIDTH]) + "…")
            line = line[MAX_WIDTH:]
        lines.append(_visible(line))
    return lines


def _visible(line: str) -> str:
    return "".join(
        char if char.isprintable() and char != "\\" else char.encode("unicode_escape").decode("ascii") for char in line
    )


def diff(expected: str, sent: str) -> list[str]:
    """Compare two texts line by line, starting near the first difference."""
    ours, theirs = folded(expected), folded(sent)
    skipped = max(0, differ_at(ours, theirs) - CONTEXT)
    ours, theirs = ours[skipped:], theirs[skipped:]
    uncompared = max(len(ours), len(theirs)) - MAX_COMPARED
    lines = [f"  … {_lines(skipped, 'equal')}"] if skipped else []
    compared = difflib.ndiff(ours[:MAX_COMPARED], theirs[:MAX_COMPARED])
    for marker, same in groupby(compared, key=lambda line: line[0]):
        run = list(same)
        if marker == " " and len(run) > 2 * CONTEXT:
            run[CONTEXT:-CONTEXT] = [f"  … {_lines(len(run) - 2 * CONTEXT, 'equal')}"]
        elif marker != " ":
            run = cut(run, MAX_RUN, f"{marker} ")
        lines += run
    lines = cut(lines, MAX_DIFF)
    if uncompared > 0:
        lines.append(f"  … {_lines(uncompared, 'further')} not compared")
    return lines


def differ_at(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Return the first index at which two sequences differ, or the shorter one's length."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (item, other_item) in pairs if item != other_item), min(len(one), len(other)))


def cut(lines: list[str], number: int, margin: str = "") -> list[str]:
    """Keep the first ``number`` lines, and say how many were left out."""
    if len(lines) <= number:
        return lines
    return [*lines[:number], f"{margin}… {_lines(len(lines) - number, 'more')}"]


def _lines(number: int, kind: str) -> str:
    return f"{number:,} {kind} {'line' if number == 1 else 'lines'}"
