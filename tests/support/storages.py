from __future__ import annotations

import importlib
from typing import Any


def attach(protocol: str, conn_id: str | None, storage: Any) -> None:
    """Let Airflow find a storage under a scheme and a connection id, as a provider package would."""
    for module in ("airflow.sdk.io", "airflow.io.store"):
        try:
            importlib.import_module(module).attach(protocol, conn_id=conn_id, fs=storage)
            return
        except ImportError:
            continue
    raise ImportError("attach")
