"""What a test has logged."""

from __future__ import annotations

import logging

import pytest

from airflow_provider_wassly import _compat


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
        # Airflow 2 prints the same lines.
        printed = "" if _compat._IS_AIRFLOW_2 else self._printed
        return "\n".join([*lines, printed]).count(text)
