"""
What importing the operator costs a DAG processor that has Airflow's SDK loaded, beside peers in the same run.

Usage: ``python tests/benchmarks/imports.py``. Peers that are not installed are named as such.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

ROUNDS = 9
MODULES = {
    "this operator": "airflow_provider_wassly.operators.send_message",
    "smtp": "airflow.providers.smtp.operators.smtp",
    "telegram": "airflow.providers.telegram.operators.telegram",
    "slack": "airflow.providers.slack.operators.slack",
    "http": "airflow.providers.http.operators.http",
}
CHILD = """
import importlib, sys, time
from airflow.sdk import DAG, BaseHook, BaseOperator, task
before = set(sys.modules)
start = time.perf_counter()
importlib.import_module(sys.argv[1])
seconds = time.perf_counter() - start
heavy = {"requests", "requests_toolbelt", "phonenumbers", "urllib3"} & (set(sys.modules) - before)
print(seconds * 1000, ",".join(sorted(heavy)) or "none")
"""


def measure(module: str) -> tuple[float, str] | None:
    """Return milliseconds and the heavy modules that came along, ``None`` if it is not installed."""
    done = subprocess.run([sys.executable, "-c", CHILD, module], capture_output=True, text=True)
    if done.returncode:
        if "ModuleNotFoundError" in done.stderr:
            return None
        raise SystemExit(done.stderr)
    milliseconds, heavy = done.stdout.strip().splitlines()[-1].split()
    return float(milliseconds), heavy


def main() -> None:
    print(f"\nImport after airflow.sdk, median of {ROUNDS} processes")
    print(f"{'':16}{'ms':>8}  HTTP and number libraries that it loads")
    for name, module in MODULES.items():
        measured = [measure(module) for _ in range(ROUNDS)]
        values = [value for value in measured if value is not None]
        if values:
            print(f"{name:16}{statistics.median(value[0] for value in values):8.1f}  {values[0][1]}")
        else:
            print(f"{name:16}{'not installed':>14}")


if __name__ == "__main__":
    main()
