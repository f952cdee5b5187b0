from __future__ import annotations

import pytest

from airflow_provider_wassly.airflow_compat import versions
from airflow_provider_wassly.broadcast import recipients, record


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (recipients, record):
        monkeypatch.setattr(module, "CHUNK", 3)
    monkeypatch.setattr(versions, "OUTLIVES_ITS_SUPERVISOR", False)


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the record in the calling thread, because a virtual clock knows only its own threads."""
    monkeypatch.setattr(record, "in_one_piece", lambda access: access())
