"""The log output of a test."""

from __future__ import annotations

import logging

import pytest


class Log:
    """Return everything logged so far. On Airflow 3 the task's own lines go to standard output."""

    def __init__(self, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
        caplog.set_level(logging.DEBUG)
        self._caplog = caplog
        self._capsys = capsys
        self._printed = ""

    @property
    def text(self) -> str:
        self._printed += self._capsys.readouterr().out
        return self._caplog.text + self._printed

    def count(self, text: str) -> int:
        """Return how often a text appears at level INFO and above."""
        self._printed += self._capsys.readouterr().out
        lines = [
            logging.Formatter().format(record) for record in self._caplog.records if record.levelno >= logging.INFO
        ]
        # Some versions of Airflow also print log lines.
        return "\n".join(lines).count(text) if text in self._caplog.text else self._printed.count(text)
