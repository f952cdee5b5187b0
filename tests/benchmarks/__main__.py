"""
Measures speed and memory as users get them, compares with peers in the same run, and prints a table.

Usage: ``python -m tests.benchmarks [part …]``. Default: all parts. A missed target is marked but does not fail the run,
because even ratios vary on a shared machine. Only a crash does.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable

from tests.benchmarks import broadcast, imports, memory, record, upload
from tests.benchmarks.figures import Figure, table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("parts", nargs="*", metavar="part", help="imports, upload, record, memory or broadcast")
    parser.add_argument("--mebibytes", type=int, default=512, help="size of the upload")
    parser.add_argument("--recipients", type=int, default=15_000, help="with how many memory is measured")
    options = parser.parse_args()
    parts: dict[str, Callable[[], list[Figure]]] = {
        "imports": imports.measure,
        "upload": lambda: upload.measure(options.mebibytes),
        "record": record.measure,
        "memory": lambda: memory.measure(options.recipients),
        "broadcast": broadcast.measure,
    }
    if unknown := set(options.parts) - set(parts):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    figures: list[Figure] = []
    crashed = False
    load_before, *_ = os.getloadavg()
    with tempfile.TemporaryDirectory() as home:
        use_environment(home)
        for name in options.parts or parts:
            begun = time.monotonic()
            try:
                figures += parts[name]()
            except Exception:
                traceback.print_exc()
                crashed = True
            print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
    print(f"\n{table(figures)}\n")
    # A rate means nothing without it.
    print(
        f"Load of the machine: {load_before:.1f} before, {os.getloadavg()[0]:.1f} after; it has {os.cpu_count()} cores"
    )
    return int(crashed)


def use_environment(home: str) -> None:
    """Give all processes a separate Airflow and, as for users, compiled bytecode."""
    for name in [name for name in os.environ if name.startswith("AIRFLOW_")]:
        del os.environ[name]
    os.environ["AIRFLOW_HOME"] = home
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


if __name__ == "__main__":
    sys.exit(main())
