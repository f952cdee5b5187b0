"""An Airflow beside the user's own, with the example DAGs and the sandbox as its connection."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from airflow_provider_wassly.sandbox import Sandbox

ROOT = Path(__file__).resolve().parent.parent


def environment(home: Path, box: Sandbox) -> dict[str, str]:
    """
    Return this process's environment with another Airflow in place of the user's.

    :param home: where it keeps all of its files, and the example DAGs theirs.
    :param box: what it sends to.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    return kept | {
        # Airflow looks for its own command there.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "example_dags"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW_CONN_WASSLY_DEFAULT": box.connection,
        # The reports that the DAGs write.
        "TMPDIR": str(home),
    }


def port(name: str, default: int) -> int:
    """
    Read a port number from the environment.

    :raises SystemExit: when it is none.
    """
    text = os.environ.get(name) or str(default)
    if not (text.isascii() and text.isdecimal() and int(text) <= 65535):
        raise SystemExit(f"{name} must be a number up to 65535, not {text!r}")
    return int(text)


def start(box: Sandbox, command: str) -> Sandbox:
    """
    Start the sandbox.

    :param command: what the user called, for the hint in the error.
    :raises SystemExit: when that fails.
    """
    try:
        return box.start()
    except OSError as error:
        raise SystemExit(f"{error.strerror}; choose another port: {command} PORT=8096") from None
