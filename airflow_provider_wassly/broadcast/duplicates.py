"""Rows with the same number: who already has a message, and which rows differ."""

from __future__ import annotations

import logging
from contextlib import suppress

from airflow_provider_wassly.broadcast.recipients import RecipientList, Row, content_of, where
from airflow_provider_wassly.broadcast.report import short
from airflow_provider_wassly.client import WasslyInvalidMessage, normalize

log = logging.getLogger(__name__)

#: Rows with the same number and another content that get a line of their own in the log.
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
        """Add a number as the client writes it: ``+`` and digits."""
        self._numbers.add(_as_integer(number))

    def add_row(self, row: Row) -> None:
        """Add the number of a row that an earlier attempt has sent to."""
        with suppress(WasslyInvalidMessage):  # in a region that the connection had then
            self.add(normalize(row.number, self._region))


def warn_of_duplicates(recipients: RecipientList, region: str | None) -> None:
    """
    Warn of rows whose message nobody gets because another row has the same number and says something else.

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
                    "%s and %s have the same number (%s) and differ: it gets one message, that of the first row "
                    "that can be sent (on_duplicate='skip')",
                    where(position, line).capitalize(),
                    row.where,
                    short(row.number),
                )
    if told > _MAX_DUPLICATES:
        log.warning("%d more rows have the number of a row before them and differ from it", told - _MAX_DUPLICATES)


def _as_integer(number: str) -> int:
    # A third of the memory that the text would take.
    return int(number[1:])
