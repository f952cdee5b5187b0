"""Files that a DAG names by a path or a URI."""

from __future__ import annotations

import re
from typing import IO, Any

from airflow_provider_wassly import _compat

_URI = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")
_LOCAL_SCHEMES = {"file", "local"}


def local_path(location: Any) -> str | None:
    """Return the path in the local file system, ``None`` for a URI of any other."""
    text = location if isinstance(location, str) else str(location)
    uri = _URI.match(text)
    if uri is None:
        return text
    return text[uri.end() :] if uri["scheme"].lower() in _LOCAL_SCHEMES else None


def remote_path(location: Any, conn_id: str | None) -> Any:
    """Return Airflow's path object for a URI, or for what is one already."""
    return _compat.object_storage_path(location, conn_id) if isinstance(location, str) else location


def open_location(location: Any, conn_id: str | None, mode: str) -> IO[Any]:
    """
    Open a file of any kind.

    :param location: a local path, a URI that Airflow's ``ObjectStoragePath`` reads, or such an object.
    :param conn_id: the Airflow connection for the object storage.
    :param mode: as in :func:`open`; binary.
    """
    path = local_path(location)
    if path is not None:
        return open(path, mode)
    file: IO[Any] = remote_path(location, conn_id).open(mode)
    return file
