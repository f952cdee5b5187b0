"""The report of a broadcast: one line for each recipient, in the order of the list."""

from __future__ import annotations

import csv
import io
import os
import shutil
import tempfile
from dataclasses import astuple, dataclass
from typing import IO, Any, Literal

from airflow_provider_wassly.client import WasslyInvalidMessage
from airflow_provider_wassly.hooks.files import local_path, open_location, remote_path

COLUMNS = ("row", "contact_mobile_number", "outcome", "conversation_id", "reason")

Outcome = Literal["accepted", "failed", "invalid", "unknown", "duplicate", "not_sent"]


@dataclass(frozen=True)
class Line:
    """
    What came of one recipient.

    :param row: its place in the list, from 1.
    :param contact_mobile_number: as it is to be shown.
    :param conversation_id: of an accepted message, if it is known.
    :param reason: of anything else.
    """

    row: int
    contact_mobile_number: str
    outcome: Outcome
    conversation_id: int | str | None = None
    reason: str = ""


class Report:
    """
    Takes lines in any order and writes them in the list's, without keeping more than the gaps ask for.

    :param location: a local path or a URI.
    :param conn_id: the Airflow connection for the object storage.
    :raises WasslyInvalidMessage: when nothing can be written there.
    """

    def __init__(self, location: Any, conn_id: str | None = None) -> None:
        self._location = location
        self._conn_id = conn_id
        self._next = 1
        self._early: dict[int, Line] = {}
        self._check()
        self._failure: OSError | None = None
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="wassly-report-")  # noqa: SIM115  (closed by close)
        # A list can hold halves of characters, which UTF-8 cannot.
        self._text = io.TextIOWrapper(self._file, encoding="utf-8", errors="backslashreplace", newline="")
        self._writer = csv.writer(self._text)
        self._writer.writerow(COLUMNS)

    def add(self, line: Line) -> None:
        """Add a line; each row once. What goes wrong is raised by :meth:`save`: it must not stop the sending."""
        if self._failure is not None:
            return
        self._early[line.row] = line
        try:
            while (due := self._early.pop(self._next, None)) is not None:
                self._write(due)
                self._next += 1
        except OSError as error:
            self._failure = error
            self._early.clear()

    def save(self) -> None:
        """
        Write what there is to its place.

        :raises OSError: or whatever else the storage raises.
        """
        if self._failure is not None:
            raise self._failure
        for _, line in sorted(self._early.items()):
            self._write(line)
        self._early.clear()
        self._text.flush()
        self._file.seek(0)
        path = local_path(self._location)
        if path is None:
            with open_location(self._location, self._conn_id, "wb") as target:
                shutil.copyfileobj(self._file, target, 1024 * 1024)
            return
        # In one step, so that nobody reads half a report.
        beside = f"{path}.{os.getpid()}.part"
        try:
            with open(beside, "wb") as target:
                shutil.copyfileobj(self._file, target, 1024 * 1024)
            os.replace(beside, path)
        except BaseException:
            if os.path.exists(beside):
                os.unlink(beside)
            raise

    def close(self) -> None:
        """Release what is not saved."""
        self._text.close()

    def _write(self, line: Line) -> None:
        self._writer.writerow("" if cell is None else cell for cell in astuple(line))

    def _check(self) -> None:
        path = local_path(self._location)
        try:
            if path is None:
                remote = remote_path(self._location, self._conn_id)
                if not remote.exists():
                    with remote.open("wb") as target:
                        target.write((",".join(COLUMNS) + "\r\n").encode())
                return
            if os.path.isdir(path):
                raise IsADirectoryError("it is a folder")
            folder = os.path.dirname(path) or "."
            if not os.path.isdir(folder):
                raise FileNotFoundError(f"there is no folder {folder}")
            with tempfile.TemporaryFile(dir=folder):
                pass
        except Exception as error:
            raise WasslyInvalidMessage(
                f"{self._location} cannot be written: {error or type(error).__name__}", field="report"
            ) from error
