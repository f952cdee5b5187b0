"""The numbers that a broadcast never sends to."""

from __future__ import annotations

import logging
from typing import Any

from airflow_provider_wassly.broadcast.number_set import NumberSet
from airflow_provider_wassly.broadcast.recipients import RecipientList, Row
from airflow_provider_wassly.client import WasslyInvalidMessage, normalize, shorten

log = logging.getLogger(__name__)

#: How many rows an error names: enough to see what is wrong.
_MAX_NAMED = 20


class _OptOuts(RecipientList):
    parameter = "exclude"
    is_numbers_only = True


class Exclusions:
    """
    The numbers that a broadcast never sends to. Before the first :meth:`refresh` there are none.

    :param source: a list, set or file of numbers as :class:`RecipientList` reads them, or a text file with one number
        per line; ``None`` for no numbers.
    :param region: the connection's ``default_region``.
    :param conn_id: the Airflow connection for the object storage.
    :raises WasslyInvalidMessage: when it is none of these.
    """

    def __init__(self, source: Any = None, region: str | None = None, conn_id: str | None = None) -> None:
        self._list = None if source is None else _OptOuts(source, conn_id)
        self._region = region
        self._numbers = NumberSet()
        self._is_read = False

    @property
    def file(self) -> Any:
        """The path or URI of the file, ``None`` if there is none."""
        return None if self._list is None else self._list.file

    def refresh(self) -> None:
        """
        Read the numbers; later calls read a file again.

        :raises WasslyInvalidMessage: when one cannot be read. Its owner must not be sent to, so nothing may be sent.
            The numbers from before are kept.
        """
        if self._list is None or (self._is_read and self.file is None):
            return
        numbers = self._read(self._list)
        if not self._is_read or len(numbers) != len(self._numbers):
            log.info("Excluding %d number%s (exclude)", len(numbers), "" if len(numbers) == 1 else "s")
        self._numbers, self._is_read = numbers, True

    def __contains__(self, number: str) -> bool:
        """Tell whether a number, in the form that the client sends, is excluded."""
        return int(number) in self._numbers

    def excludes(self, row: Row) -> bool:
        """Tell whether a row's number is excluded. One that cannot be read is not: it is never sent to."""
        if not len(self._numbers):
            return False
        try:
            return normalize(row.number, self._region) in self
        except WasslyInvalidMessage:
            return False

    def _read(self, rows_of: RecipientList) -> NumberSet:
        numbers = NumberSet()
        wrong, total = [], 0
        for rows in rows_of.chunks():
            for row in rows:
                try:
                    row.check()
                    numbers.add(int(normalize(row.number, self._region)))
                except WasslyInvalidMessage as error:
                    total += 1
                    if total <= _MAX_NAMED:
                        reason = error.message.removeprefix(f"{error.field}: ")
                        wrong.append(f"{row.where} ({shorten(str(row.number))}): {reason}")
        if total:
            more = f"; and {total - _MAX_NAMED} more" if total > _MAX_NAMED else ""
            what = "1 row cannot be read; correct it" if total == 1 else f"{total} rows cannot be read; correct them"
            raise WasslyInvalidMessage(f"{what}: {'; '.join(wrong)}{more}", field=rows_of.parameter)
        return numbers
