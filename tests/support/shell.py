"""Commands as somebody else types them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_in_shell(folder: Path, script: str, **environment: str) -> str:
    """Run a script in a folder, with nothing of this run's Airflow, and return what it prints."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTEST_"))}
    kept["AIRFLOW_HOME"] = str(folder / ".airflow")
    kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    done = subprocess.run(
        ["bash", "-ec", script],
        cwd=folder,
        env=kept | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    return done.stdout
