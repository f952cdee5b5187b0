"""Rows that share a number: which numbers were sent to, and which rows differ in content."""

from __future__ import annotations

import logging
from contextlib import suppress

from airflow_provider_wassly.broadcast.recipients import RecipientList, Row, content_of, where
from airflow_provider_wassly.broadcast.report import short
from airflow_provider_wassly.client import WasslyInvalidMessage, normalize

log = logging.getLogger(__name__)

#: How many rows that repeat a number with different content get a log line of their own.
_MAX_DUPLICATES = 20


class SentNumbers:
    """
    The numbers that were sent to, or may have been.

    :param region: the connection's ``default_region``.
    """

    def __init__(self, region: str | None) -> None:
        self._region = region
        self._numbers: set[int] = set()

    def __contains__(self, number: str) -> bool:
        return _as_integer(number) in self._numbers

    def add(self, number: str) -> None:
        """Add a number in the form that the client sends: ``+`` and digits."""
        self._numbers.add(_as_integer(number))

    def add_row(self, row: Row) -> None:
        """Add the number of a row that an earlier attempt sent to."""
        with suppress(WasslyInvalidMessage):  # a national form, of a default_region that the connection no longer has
            self.add(normalize(row.number, self._region))


def warn_of_duplicates(recipients: RecipientList, region: str | None) -> None:
    """
    Warn about rows that are skipped as duplicates although they differ from the first row with their number.

    :param recipients: the list.
    :param region: the connection's ``default_region``.
    """
    first: dict[int, tuple[int, int | None, int]] = {}
    told = 0
    for rows in recipients.chunks():
        for row in rows:
            try:
                number = _as_integer(normalize(row.number, region))
            except WasslyInvalidMessage:
                continue
            position, line, content = first.setdefault(number, (row.position, row.line, content_of(row)))
            if content == content_of(row):
                continue
            told += 1
            if told <= _MAX_DUPLICATES:
                log.warning(
                    "%s and %s have the same number (%s) but different content: only the first valid one is sent "
                    "(on_duplicate='skip')",
                    where(position, line).capitalize(),
                    row.where,
                    short(row.number),
                )
    if told > _MAX_DUPLICATES:
        log.warning("%d more rows repeat the number of an earlier row with different content", told - _MAX_DUPLICATES)


def _as_integer(number: str) -> int:
    # Takes a third of the memory of the text.
    return int(number[1:])
