"""The files that a broadcast writes: opened before the first message, saved after the last."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from airflow_provider_wassly.broadcast.report import Output, Report, Unsent, check_places

log = logging.getLogger(__name__)


class Outputs:
    """
    The report and the list of unsent rows, if the task wants them.

    :param conn_id: the Airflow connection for the object storage.
    """

    def __init__(self, conn_id: str | None = None) -> None:
        self._conn_id = conn_id
        self._outputs: list[Output] = []

    def __iter__(self) -> Iterator[Output]:
        return iter(self._outputs)

    def open(self, *, report: Any, shows_numbers: bool, unsent: Any, sources: Mapping[str, Any]) -> None:
        """
        Open those that have a location, and check that they can be written.

        :param report: where to write the report, ``None`` for no report.
        :param shows_numbers: whether the report shows numbers in full.
        :param unsent: where to write the unsent rows, ``None`` not to write them.
        :param sources: the files that must not be overwritten, by parameter; ``None`` for a list that is not a file.
        :raises WasslyInvalidMessage: names the parameter that is wrong.
        """
        if report is not None:
            self._outputs.append(Report(report, self._conn_id, shows_numbers))
        if unsent is not None:
            self._outputs.append(Unsent(unsent, self._conn_id))
        check_places(sources, self._outputs)

    def save(self) -> str:
        """Write each to its location; return what went wrong, an empty string if nothing did."""
        wrong = []
        for output in self._outputs:
            try:
                output.save()
            except Exception as error:
                reason = f"save {output.location} ({type(error).__name__}: {error})"
                wrong.append(f"could not {reason}")
                log.error("Could not %s", reason)
        return "; ".join(wrong)

    @property
    def places(self) -> str:
        """Where they were saved, to be appended to a log line or an error."""
        return "".join(f". {output.parameter.capitalize()}: {output.location}" for output in self if output.is_saved)

    def close(self) -> None:
        """Release their temporary files."""
        for output in self._outputs:
            output.close()
