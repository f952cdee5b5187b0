"""Airflow's Variables and the time of day, simulated."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from airflow_provider_wassly.airflow_compat import variables
from airflow_provider_wassly.quota import reading
from tests.support.kept import Kept


class Variables(Kept):
    """
    Airflow's Variables, and the current time.

    :param monkeypatch: replaces Airflow's own with it.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.time = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)
        monkeypatch.setattr(reading, "now", lambda: self.time)
        monkeypatch.setattr(variables, "can_reach_airflow", lambda: True)
        monkeypatch.setattr(variables, "get_variable", self.get)
        monkeypatch.setattr(variables, "set_variable", lambda key, value, description: self.set(key, value))
        monkeypatch.setattr(variables, "delete_variable", self.delete)

    def wait(self, **duration: float) -> None:
        """Let time pass."""
        self.time += timedelta(**duration)
