"""Paths and URIs of files: tell local from remote ones, and open both."""

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
    """Return the path in the local file system, ``None`` for a URI of another one."""
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
        return path  # Airflow's path object only looks like a URI: its name is not percent-encoded
    return unquote(path.removeprefix("localhost") if path.startswith("localhost/") else path, errors="surrogateescape")


def refuse_web_address(
    location: Any, parameter: str, advice: str = "download the file in an earlier task and give its path"
) -> None:
    """
    Refuse a web address, which can be opened but not checked or written like a file.

    :param location: anything that names a file.
    :param parameter: the name of the parameter, for the error.
    :param advice: what to do instead, for the error.
    :raises WasslyInvalidMessage: for ``http://`` and ``https://``.
    """
    uri = _URI.match(text := str(location))
    if uri and uri["scheme"].lower() in _WEB_SCHEMES:
        # Show only the host: anyone who has a signed address can read the file.
        host = re.split(r"[/?#]", text[uri.end() :], maxsplit=1)[0].rpartition("@")[2]
        raise WasslyInvalidMessage(f"{uri.group()}{host}/… is a web address; {advice}", field=parameter)


def is_folder(status: Any) -> bool:
    """Return whether a result of ``stat`` belongs to a folder."""
    kind = status.get("type") if isinstance(status, Mapping) else None
    return kind == "directory" if kind else stat.S_ISDIR(status.st_mode)


def reason_of(error: Exception) -> str:
    """Return why a file in an object storage cannot be read. Each storage has its own exceptions."""
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, PermissionError):
        # S3 and others answer a missing file like this to users who may not list the bucket.
        return f"{reason} (some storages also answer this when the file is missing)"
    return reason


def remote_path(location: Any, conn_id: str | None) -> Any:
    """Return Airflow's path object for a URI; a path object is returned unchanged."""
    return object_storage.object_storage_path(location, conn_id) if isinstance(location, str) else location


def open_location(location: Any, conn_id: str | None, mode: str) -> IO[Any]:
    """
    Open a local or remote file.

    :param location: a local path, a URI that Airflow's ``ObjectStoragePath`` reads, or such an object.
    :param conn_id: the Airflow connection for the object storage.
    :param mode: a binary mode of :func:`open`, such as ``rb``.
    :raises Exception: when the file cannot be opened; each storage has its own exceptions.
    """
    path = local_path(location)
    if path is not None:
        return open(path, mode)
    file: IO[Any] = remote_path(location, conn_id).open(mode)
    return file
