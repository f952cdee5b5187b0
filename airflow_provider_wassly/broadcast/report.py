"""The files of a broadcast: the outcome of each recipient, and the rows that were not sent to."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import IO, Any, Literal, cast

from airflow_provider_wassly.broadcast.recipients import GUARD, NUMBER, UNREADABLE, Row
from airflow_provider_wassly.client import WasslyInvalidMessage, shorten
from airflow_provider_wassly.client.attachments import in_full
from airflow_provider_wassly.files.locations import (
    is_folder,
    local_path,
    open_location,
    refuse_web_address,
    remote_path,
)

#: ``line`` was added last: some readers go by the position of a column.
COLUMNS = ("row", NUMBER, "outcome", "conversation_id", "reason", "line")

#: Tells spreadsheets that a file is UTF-8.
_BOM = "\ufeff"

#: The start of a cell that a spreadsheet executes, full-width characters included.
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")

#: A cell that starts like this but is a number, shortened or not.
_NUMBER = re.compile(r"[+-][0-9][0-9 .,…]*")

Outcome = Literal["accepted", "failed", "invalid", "unknown", "duplicate", "excluded", "not_sent"]

#: Outcomes of rows that may be sent to in another broadcast. A duplicate is not among them, because another row has its
#: number, and neither is an excluded row, so that nobody who opted out is sent to.
_UNSENT = ("failed", "invalid", "not_sent")


@dataclass(frozen=True)
class Line:
    """
    The outcome of one recipient.

    :param row: the recipient.
    :param conversation_id: the conversation of an accepted message, if it is known.
    :param reason: the reason for any other outcome.
    """

    row: Row
    outcome: Outcome
    conversation_id: int | str | None = None
    reason: str = ""


class Output(ABC):
    """
    Takes lines in any order and writes them in the order of the list; only lines behind a gap wait in memory.

    :param location: a local path or a URI.
    :param conn_id: the Airflow connection for the object storage.
    :raises WasslyInvalidMessage: when nothing can be written there.
    """

    #: The name of the operator's parameter.
    parameter: str
    #: What a new file in an object storage contains until the output is saved.
    beginning = b""

    def __init__(self, location: Any, conn_id: str | None = None) -> None:
        self.location = location
        self.is_saved = False
        self._conn_id = conn_id
        self._next = 1
        self._early: dict[int, Line] = {}
        self._check()
        self._failure: OSError | None = None
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="wassly-report-")  # noqa: SIM115  (closed by close)
        self._text = _as_text(self._file)

    def add(self, line: Line) -> None:
        """Add a line, once per row. Errors are raised by :meth:`save`, so that they do not stop the sending."""
        if self._failure is not None:
            return
        self._early[line.row.position] = line
        try:
            while (due := self._early.pop(self._next, None)) is not None:
                self.write(due)
                self._next += 1
        except OSError as error:
            self._failure = error
            self._early.clear()

    def save(self) -> None:
        """
        Write the lines so far to the location.

        :raises OSError: or any other exception that the storage raises.
        """
        if self._failure is not None:
            raise self._failure
        for _, line in sorted(self._early.items()):
            self.write(line)
        self._early.clear()
        self._text.flush()
        self._file.seek(0)
        path = local_path(self.location)
        if path is None:
            with open_location(self.location, self._conn_id, "wb") as target:
                self.copy(self._file, target)
            self.is_saved = True
            return
        # Replaced in one step, so that nobody reads half a report.
        beside = f"{path}.{os.getpid()}.part"
        try:
            with open(beside, "wb") as target:
                self.copy(self._file, target)
            os.replace(beside, path)
            self.is_saved = True
        except BaseException:
            if os.path.exists(beside):
                os.unlink(beside)
            raise

    def close(self) -> None:
        """Release the temporary file."""
        self._text.close()

    @abstractmethod
    def write(self, line: Line) -> None:
        """Write a line to the temporary file."""

    def copy(self, source: IO[bytes], target: IO[bytes]) -> None:
        """Copy all lines to the location."""
        shutil.copyfileobj(source, target, 1024 * 1024)

    def _check(self) -> None:
        if not (isinstance(self.location, (str, PurePath)) or hasattr(self.location, "protocol")):
            raise WasslyInvalidMessage(
                f"must be a path or a URI; got {type(self.location).__name__}", field=self.parameter
            )
        if not str(self.location).strip():
            raise WasslyInvalidMessage("the path is empty; leave it out, or give a path or a URI", field=self.parameter)
        refuse_web_address(self.location, self.parameter, "give a path or a URI such as s3://bucket/report.csv")
        path = local_path(self.location)
        try:
            if path is None:
                remote = remote_path(self.location, self._conn_id)
                if not _is_there(remote):
                    with remote.open("wb") as target:
                        target.write(self.beginning)
                return
            if os.path.isdir(path):
                raise IsADirectoryError("it is a folder")
            folder = os.path.dirname(path) or "."
            if not os.path.isdir(folder):
                raise FileNotFoundError(f"no such folder: {in_full(folder)}")
            with tempfile.TemporaryFile(dir=folder):
                pass
        except Exception as error:
            raise WasslyInvalidMessage(
                f"{self.location} cannot be written: {error or type(error).__name__}", field=self.parameter
            ) from error


class Report(Output):
    """
    A CSV file with one line per recipient.

    :param shows_numbers: whether it shows numbers in full.
    """

    parameter = "report"
    beginning = (_BOM + ",".join(COLUMNS) + "\r\n").encode()

    def __init__(self, location: Any, conn_id: str | None = None, shows_numbers: bool = False) -> None:
        super().__init__(location, conn_id)
        self._shows_numbers = shows_numbers
        self._text.write(_BOM)
        self._writer = csv.writer(self._text)
        self._writer.writerow(COLUMNS)

    def write(self, line: Line) -> None:
        """Write a line."""
        number = line.row.number
        shown = "" if number is None else str(number) if self._shows_numbers else short(number)
        cells = (line.row.position, shown, line.outcome, line.conversation_id, line.reason, line.row.line)
        self._writer.writerow(f"'{cell}" if _is_run(cell) else cell for cell in cells)


class Unsent(Output):
    """
    The rows that were definitely not sent to, with all their columns and a reason: a valid list of recipients.

    CSV if its name ends in ``.csv``, otherwise one JSON object per line.
    """

    parameter = "unsent"

    def __init__(self, location: Any, conn_id: str | None = None) -> None:
        super().__init__(location, conn_id)
        self._columns: dict[str, None] = {NUMBER: None}

    def write(self, line: Line) -> None:
        """Write a line to the temporary file, if its recipient was not sent to."""
        if line.outcome in _UNSENT:
            values = {str(column): value for column, value in line.row.values.items()}
            values["reason"] = line.reason or line.outcome
            if line.row.unreadable:
                values[UNREADABLE] = line.row.unreadable
            self._columns.update(dict.fromkeys(values))
            self._text.write(json.dumps(values, default=str) + "\n")

    def copy(self, source: IO[bytes], target: IO[bytes]) -> None:
        """Copy all rows to the location."""
        if not str(self.location).lower().endswith(".csv"):
            super().copy(source, target)
            return
        text = _as_text(target)
        text.write(_BOM)
        writer = csv.writer(text)
        writer.writerow(map(_guarded, self._columns))
        writer.writerows([_guarded(row.get(column)) for column in self._columns] for row in _objects_in(source))
        text.flush()
        text.detach()


def check_places(sources: Mapping[str, Any], outputs: Iterable[Output]) -> None:
    """
    Refuse an output that would overwrite a list that the broadcast reads, or another output.

    :param sources: the files of the lists by parameter, ``None`` for a list that is not a file.
    :raises WasslyInvalidMessage: names both parameters.
    """
    taken = {_identity(source): parameter for parameter, source in sources.items() if source is not None}
    for output in outputs:
        other = taken.setdefault(_identity(output.location), output.parameter)
        if other != output.parameter:
            raise WasslyInvalidMessage(
                f"the same file as {other}, which it would overwrite; give it its own path", field=output.parameter
            )


def _identity(location: Any) -> str:
    path = local_path(location)
    return str(location) if path is None else os.path.realpath(path)


def _is_there(remote: Any) -> bool:
    try:
        status = remote.stat()
    except Exception:
        # Write access need not include read access. Then only a write shows whether it works; it costs an old report.
        return False
    if is_folder(status):
        raise IsADirectoryError("it is a folder")
    return True


def indexed(location: Any, map_index: int) -> Any:
    """Return the location of one mapped task's file: ``report.csv`` becomes ``report-3.csv``."""
    if hasattr(location, "with_name"):
        return location.with_name(f"{location.stem}-{map_index}{location.suffix}")
    root, extension = os.path.splitext(str(location))
    return f"{root}-{map_index}{extension}"


def short(number: object) -> str:
    """Return a number, shortened for log lines."""
    return shorten(str(number))


def _is_run(cell: Any) -> bool:
    """Tell whether a spreadsheet would treat a cell as a formula."""
    return isinstance(cell, str) and _FORMULA.match(cell) is not None and _NUMBER.fullmatch(cell) is None


def _guarded(cell: Any) -> Any:
    """Return a cell that no spreadsheet executes. Reading the list restores it."""
    return f"{GUARD}{cell}" if _is_run(cell) or (isinstance(cell, str) and cell.startswith(GUARD)) else cell


def _objects_in(lines: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
    return (cast(Mapping[str, Any], json.loads(line)) for line in lines)


def _as_text(file: IO[bytes]) -> io.TextIOWrapper:
    # A list can contain lone surrogates, which UTF-8 cannot encode.
    return io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
