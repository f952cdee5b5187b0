"""The measurements and their table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """
    One row of the table.

    :param what: what was measured.
    :param measured: the result.
    :param beside: the comparison value from the same run.
    :param must_be: the target, if there is one.
    :param is_met: whether the target is met.
    """

    what: str
    measured: str
    beside: str = ""
    must_be: str = ""
    is_met: bool | None = None


def table(figures: Iterable[Figure]) -> str:
    """Return the figures as a Markdown table, one row each."""
    marks = {None: "", True: "yes", False: "NO"}
    rows = [(each.what, each.measured, each.beside, each.must_be, marks[each.is_met]) for each in figures]
    headings = ("what", "measured", "beside", "must be", "ok?")
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    lines = [headings, tuple("-" * width for width in widths), *rows]
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)
