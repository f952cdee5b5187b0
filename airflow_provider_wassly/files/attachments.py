"""Turn a path or URI from a DAG into an attachment that may be sent."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from airflow_provider_wassly.client import Attachment, WasslyInvalidMessage
from airflow_provider_wassly.client.attachments import checked_content_type, display_name
from airflow_provider_wassly.files.locations import is_folder, local_path, reason_of, refuse_web_address, remote_path


def resolve_attachment(
    location: Any,
    *,
    parameter: str,
    name: str | None = None,
    content_type: str | None = None,
    conn_id: str | None = None,
    roots: Sequence[str] | None = None,
    max_bytes: int | None = None,
) -> Attachment:
    """
    Find a file and check everything that can be checked without reading it.

    :param location: a local path, a URI that Airflow's ``ObjectStoragePath`` reads, or such an object.
    :param parameter: ``document`` or ``media``, for error texts.
    :param name: the file name that the recipient sees. Default: the last part of the path. A name without a known
        extension gets the file's.
    :param content_type: the MIME type. Default: derived from the name.
    :param conn_id: the Airflow connection for the object storage.
    :param roots: the folders and URI prefixes in which a file must lie. Default: it may lie anywhere.
    :param max_bytes: the largest size, in bytes, that may be sent. Default: no limit.
    :raises WasslyInvalidMessage: when the file cannot or may not be sent; the text says why.
    """
    if not isinstance(location, str) and not hasattr(location, "protocol"):
        try:
            location = os.fsdecode(location)
        except TypeError:
            raise WasslyInvalidMessage(
                f"must be a path, a URI or an ObjectStoragePath, not {type(location).__name__}", field=parameter
            ) from None
    text = str(location)
    if not text.strip():
        raise WasslyInvalidMessage("an empty path; omit the parameter to send no file", field=parameter)
    refuse_web_address(location, parameter)
    if not isinstance(name, (str, type(None))):
        raise WasslyInvalidMessage(f"must be text, not {type(name).__name__}", field=f"{parameter}_name")
    kind = "" if content_type is None else checked_content_type(content_type, f"{parameter}_content_type")
    local = local_path(location)
    if local is not None:
        attachment = _local(local, parameter, name, kind, roots)
    else:
        attachment = _remote(location, text, parameter, name, kind, conn_id, roots)
    if max_bytes is not None and attachment.size > max_bytes:
        raise WasslyInvalidMessage(
            f"{attachment.name} has {attachment.size} bytes; the connection's max_attachment_bytes is {max_bytes}",
            field=parameter,
        )
    return attachment


def _local(path: str, parameter: str, name: str | None, kind: str, roots: Sequence[str] | None) -> Attachment:
    shown = display_name(name, path)
    if roots is not None:
        # Resolve all links first, so that the file that is checked is the file that is opened.
        try:
            path = os.path.realpath(path)
        except ValueError:  # a null byte
            raise _outside(path, parameter) from None
        folders = [os.path.realpath(folder) for root in roots if (folder := local_path(root)) is not None]
        if not any(_is_under(path, folder, os.sep) for folder in folders):
            raise _outside(path, parameter)
    return replace(Attachment.from_path(path, parameter=parameter), name=shown, content_type=kind)


def _remote(
    location: Any,
    text: str,
    parameter: str,
    name: str | None,
    kind: str,
    conn_id: str | None,
    roots: Sequence[str] | None,
) -> Attachment:
    if roots is not None and not any(_is_inside(text, root) for root in roots if local_path(root) is None):
        raise _outside(text, parameter)
    try:
        location = remote_path(location, conn_id)
        # Only stat(): is_dir() would also need the right to list.
        status = location.stat()
        if is_folder(status):
            raise WasslyInvalidMessage(f"{text} is a folder, not a file", field=parameter)
        size = int(status.st_size)
    except WasslyInvalidMessage:
        raise
    except FileNotFoundError:
        raise WasslyInvalidMessage(f"no such file: {text}", field=parameter) from None
    except Exception as error:
        # Among others a ValueError, for a scheme whose provider is not installed.
        raise WasslyInvalidMessage(f"{text} cannot be read: {reason_of(error)}", field=parameter) from error
    return Attachment(
        name=display_name(name, location.name),
        size=size,
        opener=lambda: location.open("rb"),
        content_type=kind,
    )


def _is_inside(uri: str, root: str) -> bool:
    # Some storages resolve .. and %2e, others take them for parts of a name: the file must lie inside either way.
    # A :: stacks one file system on another, so that the beginning of the URI does not say where the file is.
    return "::" not in uri and all(_is_under(form(uri), form(root), "/") for form in (_as_written, _resolved))


def _as_written(uri: str) -> str:
    """Return a URI without its connection id, with the scheme in lower case."""
    # urllib, which Airflow uses to read the URI, drops these characters.
    scheme, _, rest = uri.translate(dict.fromkeys(map(ord, "\t\r\n"))).partition("://")
    bucket, _, path = rest.partition("/")
    return f"{scheme.lower()}://{bucket.rpartition('@')[2]}/{path}"


def _resolved(uri: str) -> str:
    """Return the same with every ``..`` resolved, however it is spelt."""
    scheme, _, rest = _as_written(uri).partition("://")
    bucket, _, path = rest.partition("/")
    while (decoded := unquote(path)) != path:
        path = decoded
    return f"{scheme}://{bucket}{posixpath.normpath('/' + path.lstrip('/'))}"


def _is_under(path: str, folder: str, separator: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(separator) + separator)


def _outside(path: str, parameter: str) -> WasslyInvalidMessage:
    return WasslyInvalidMessage(f"{path} is outside the connection's attachment_roots", field=parameter)
