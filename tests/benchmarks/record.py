"""How much a broadcast's record writes to Airflow's store for each recipient."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from tests.benchmarks import campaign
from tests.benchmarks.figures import Figure
from tests.benchmarks.processes import alone, server

RECIPIENTS = 2000
MOST = 1024


class CountingStore:
    """Has the interface of Airflow's ``task_state_store``; counts what is written."""

    def __init__(self) -> None:
        self.calls = 0
        self.bytes = 0
        self._values: dict[str, Any] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return self._values.get(key, default)

    def set(self, key: str, value: Any, *, retention: Any) -> None:
        self.calls += 1
        self.bytes += len(json.dumps(value))
        self._values[key] = value


def written(port: int, workers: int) -> tuple[int, int]:
    """Return the number of bytes written, and the number of calls."""
    store = CountingStore()
    ti = SimpleNamespace(dag_id="campaign", run_id="a run", task_id="send", map_index=-1, try_number=1, max_tries=0)
    campaign.send(port, RECIPIENTS, workers, {"ti": ti, "task_state_store": store})
    return store.bytes, store.calls


def measure() -> list[Figure]:
    figures = []
    for workers in (1, 10):
        with server("service") as port:
            bytes_, calls = alone(written, port, workers)
        figures.append(
            Figure(
                f"record of a broadcast, {workers} worker{'s' * (workers > 1)}",
                f"{bytes_ / RECIPIENTS:,.0f} bytes a recipient",
                f"{calls / RECIPIENTS:.2f} calls a recipient",
                f"≤ {MOST:,} bytes",
                bytes_ / RECIPIENTS <= MOST,
            )
        )
    return figures
