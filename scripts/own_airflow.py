"""A separate Airflow with the example DAGs, connected to the sandbox; the user's own Airflow is not touched."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from airflow_provider_wassly.sandbox import Sandbox

ROOT = Path(__file__).resolve().parent.parent


def environment(home: Path, box: Sandbox) -> dict[str, str]:
    """
    Return this process's environment, with the settings of the separate Airflow instead of the user's.

    :param home: the folder for all files of Airflow and of the example DAGs.
    :param box: the sandbox to send to.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    return kept | {
        # Airflow starts its own command from the PATH.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "example_dags"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW_CONN_WASSLY_DEFAULT": box.connection,
        # The DAGs write their reports here.
        "TMPDIR": str(home),
    }


def port_from(name: str, default: int) -> int:
    """
    Read a port number from an environment variable.

    :raises SystemExit: when it is not a port number.
    """
    text = os.environ.get(name) or str(default)
    if not (text.isascii() and text.isdecimal() and int(text) <= 65535):
        raise SystemExit(f"{name} must be a number up to 65535, not {text!r}")
    return int(text)


def start(box: Sandbox, command: str) -> Sandbox:
    """
    Start the sandbox.

    :param command: the command that the user ran, for the hint in the error.
    :raises SystemExit: when that fails.
    """
    try:
        return box.start()
    except OSError as error:
        raise SystemExit(f"{error.strerror}; choose another port: {command} PORT=8096") from None
