"""The files that a broadcast leaves, opened before the first message and saved after the last."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from airflow_provider_wassly.broadcast.report import Output, Report, Unsent, check_places

log = logging.getLogger(__name__)


class Outputs:
    """
    The report and the list of the unsent, as far as the task wants them.

    :param conn_id: the Airflow connection for the object storage.
    """

    def __init__(self, conn_id: str | None = None) -> None:
        self._conn_id = conn_id
        self._outputs: list[Output] = []

    def __iter__(self) -> Iterator[Output]:
        return iter(self._outputs)

    def open(self, *, report: Any, shows_numbers: bool, unsent: Any, recipients: Any) -> None:
        """
        Open those that have a location, and check that each can be written.

        :param report: where the report goes, ``None`` for none.
        :param shows_numbers: whether it shows numbers in full.
        :param unsent: where the list of the unsent goes, ``None`` for none.
        :param recipients: the file of the list, ``None`` if it is none. It must not be overwritten.
        :raises WasslyInvalidMessage: names the parameter that is wrong.
        """
        if report is not None:
            self._outputs.append(Report(report, self._conn_id, shows_numbers))
        if unsent is not None:
            self._outputs.append(Unsent(unsent, self._conn_id))
        check_places(recipients, self._outputs)

    def save(self) -> str:
        """Write each to its place; return what went wrong, an empty text if nothing did."""
        wrong = []
        for output in self._outputs:
            try:
                output.save()
            except Exception as error:
                wrong.append(f"{output.location} could not be saved ({type(error).__name__}: {error})")
                log.error("%s", wrong[-1])
        return "; ".join(wrong)

    @property
    def places(self) -> str:
        """Where they were saved, as the end of a log line or an error."""
        return "".join(f". {output.parameter.capitalize()}: {output.location}" for output in self if output.is_saved)

    def close(self) -> None:
        """Release what was not saved."""
        for output in self._outputs:
            output.close()
