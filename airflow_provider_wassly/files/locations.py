"""Files that a DAG names by a path or a URI."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from typing import IO, Any
from urllib.parse import unquote

from airflow_provider_wassly.airflow_compat import object_storage
from airflow_provider_wassly.client import WasslyInvalidMessage

_URI = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")
_LOCAL_SCHEMES = {"file", "local"}
_WEB_SCHEMES = {"http", "https"}


def local_path(location: Any) -> str | None:
    """Return the path in the local file system, ``None`` for a URI of any other."""
    text = location if isinstance(location, str) else str(location)
    if isinstance(location, str) and text[:6].lower() == "file:/" and not text.startswith("//", 5):
        text = f"file://{text[5:]}"  # the short form of the same URI
    uri = _URI.match(text)
    if uri is None:
        return text
    if uri["scheme"].lower() not in _LOCAL_SCHEMES:
        return None
    path = text[uri.end() :]
    if not isinstance(location, str):
        return path  # Airflow's path object only looks like a URI: it holds the name as it is
    return unquote(path.removeprefix("localhost") if path.startswith("localhost/") else path, errors="surrogateescape")


def refuse_web_address(
    location: Any, parameter: str, advice: str = "download the file in an earlier task and give its path"
) -> None:
    """
    Refuse what could be opened, but neither looked at nor written to as a file.

    :param location: anything that names a file.
    :param advice: what to do instead.
    :raises WasslyInvalidMessage: for ``http://`` and ``https://``.
    """
    uri = _URI.match(text := str(location))
    if uri and uri["scheme"].lower() in _WEB_SCHEMES:
        # No more of it than the host: who has a signed address can read the file.
        host = re.split(r"[/?#]", text[uri.end() :], maxsplit=1)[0].rpartition("@")[2]
        raise WasslyInvalidMessage(f"{uri.group()}{host}/… is a web address; {advice}", field=parameter)


def is_folder(status: Any) -> bool:
    """Return whether what ``stat`` returned is that of a folder."""
    kind = status.get("type") if isinstance(status, Mapping) else None
    return kind == "directory" if kind else stat.S_ISDIR(status.st_mode)


def reason_of(error: Exception) -> str:
    """Return why a file in an object storage cannot be read. Each storage has exceptions of its own."""
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, PermissionError):
        # So do S3 and others, unless one may list what is there.
        return f"{reason} (a storage can answer so for a missing file too)"
    return reason


def remote_path(location: Any, conn_id: str | None) -> Any:
    """Return Airflow's path object for a URI, or for what is one already."""
    return object_storage.object_storage_path(location, conn_id) if isinstance(location, str) else location


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
