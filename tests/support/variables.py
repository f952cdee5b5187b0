"""Airflow's Variables and a clock, in memory."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from airflow_provider_wassly import _compat, quota


class Variables:
    """
    What Airflow keeps, and what time it is.

    :param monkeypatch: puts it in the place of Airflow's own.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.values: dict[str, str] = {}
        self.failure: Exception | None = None
        self.time = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)
        monkeypatch.setattr(quota, "now", lambda: self.time)
        monkeypatch.setattr(_compat, "can_reach_airflow", lambda: True)
        monkeypatch.setattr(_compat, "get_variable", self._get)
        monkeypatch.setattr(_compat, "set_variable", self._set)
        monkeypatch.setattr(_compat, "delete_variable", self._delete)

    def wait(self, **duration: float) -> None:
        """Let time pass."""
        self.time += timedelta(**duration)

    def _fail(self) -> None:
        if self.failure:
            raise self.failure

    def _get(self, key: str) -> str | None:
        self._fail()
        return self.values.get(key)

    def _set(self, key: str, value: str, description: str) -> None:
        self._fail()
        self.values[key] = value

    def _delete(self, key: str) -> None:
        self._fail()
        self.values.pop(key, None)
