from __future__ import annotations

import importlib
import io
from typing import Any

from fsspec import AbstractFileSystem  # type: ignore[import-untyped]


def attach(protocol: str, conn_id: str | None, storage: Any) -> None:
    """Register a storage under a scheme and a connection id, as a provider package would."""
    for module in ("airflow.sdk.io.store", "airflow.io.store"):
        try:
            stores = importlib.import_module(module)
        except ImportError:
            continue
        # Airflow caches the first one for good, including one from another test.
        stores._STORE_CACHE.pop(f"{protocol}-{conn_id}" if conn_id else protocol, None)
        stores.attach(protocol, conn_id=conn_id, fs=storage)
        return
    raise ImportError("attach")


class Restricted(AbstractFileSystem):  # type: ignore[misc]
    """An object storage as seen by an account that may only read, or only write, single files."""

    cachable = False

    def __init__(self, mode: str, files: dict[str, bytes] | None = None) -> None:
        super().__init__()
        self._mode = mode
        self.files = files or {}

    def _open(self, path: str, mode: str = "rb", *args: Any, **options: Any) -> Any:
        if mode != self._mode:
            self._denied()
        name, files = path.strip("/"), self.files

        class Written(io.BytesIO):
            def close(self) -> None:
                if not self.closed:
                    files[name] = self.getvalue()
                super().close()

        return io.BytesIO(files[name]) if mode == "rb" else Written()

    def info(self, path: str, **options: Any) -> Any:
        if self._mode != "rb":
            self._denied()
        return {"name": path, "type": "file", "size": len(self.files[path.strip("/")])}

    def _denied(self, *args: Any, **options: Any) -> Any:
        raise PermissionError("Access Denied")

    ls = find = glob = walk = exists = isdir = isfile = _denied
