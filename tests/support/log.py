"""What a test has logged."""

from __future__ import annotations

import logging

import pytest


class Log:
    """Everything that was logged so far. On Airflow 3 the task's own lines go to the standard output."""

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
        """Return how often a text is shown to who reads at the level of information."""
        self._printed += self._capsys.readouterr().out
        lines = [
            logging.Formatter().format(record) for record in self._caplog.records if record.levelno >= logging.INFO
        ]
        # Some versions of Airflow print what is logged too.
        return "\n".join(lines).count(text) if text in self._caplog.text else self._printed.count(text)
