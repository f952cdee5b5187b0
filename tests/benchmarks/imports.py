"""The import time that the operator, installed from a wheel, adds to a DAG file, compared with peers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

from tests.benchmarks.figures import Figure

#: Of four processes each.
ROUNDS = 2
MOST = 5
HERE = Path(__file__).parent
OURS = "airflow_provider_wassly.operators.send_message"
PEERS = {
    "smtp": "airflow.providers.smtp.operators.smtp",
    "telegram": "airflow.providers.telegram.operators.telegram",
    "slack": "airflow.providers.slack.operators.slack",
    "http": "airflow.providers.http.operators.http",
}


def measure() -> list[Figure]:
    imports: defaultdict[str, list[Any]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        install_wheel(folder)
        for _ in range(ROUNDS):
            for peer in PEERS.values():
                # Ours is imported first, so that shared dependencies count towards it.
                ours, theirs = import_in_new_process(folder, OURS, peer)
                imports[OURS].append(ours)
                imports[peer].append(theirs)
        for result in imports[OURS]:
            assert Path(result["path"]).is_relative_to(folder), f"{result['path']} is not from the wheel"
    # The fastest run: other load on the machine can only add time.
    times = {module: min(each["milliseconds"] for each in results) for module, results in imports.items()}
    heavy = {module: ", ".join(results[0]["heavy"]) or "none" for module, results in imports.items()}
    return [
        Figure(
            "import of the operator, from a wheel",
            f"{times[OURS]:.1f} ms",
            ", ".join(f"{name} {times[module]:.0f}" for name, module in PEERS.items()),
            f"≤ {MOST} ms",
            times[OURS] <= MOST,
        ),
        Figure(
            "HTTP and number libraries that it loads",
            heavy[OURS],
            "; ".join(f"{name}: {heavy[module]}" for name, module in PEERS.items()),
            "none",
            heavy[OURS] == "none",
        ),
    ]


def install_wheel(folder: str) -> None:
    """Build this checkout's wheel and install it, with compiled bytecode."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-deps", "--target", folder, str(HERE.parents[1])], check=True)
    for path in Path(folder).rglob("*.py"):
        assert Path(cache_from_source(path)).exists(), f"{path} has no byte code"


def import_in_new_process(wheel: str, *modules: str) -> Any:
    done = subprocess.run(
        [sys.executable, str(HERE / "import_time.py"), *modules],
        # Takes precedence over the checkout, which is installed too.
        env={**os.environ, "PYTHONPATH": wheel},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])
