"""Attachments: checked before the call, then streamed, exactly as many bytes as announced."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol, cast

from airflow_provider_wassly.client.errors import WasslyAttachmentError, WasslyInvalidMessage
from airflow_provider_wassly.client.file_types import ending_of, type_of

_MIME_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+ *(;[\x20-\x7e]*)?")


class Readable(Protocol):
    """A binary stream, as an opener returns it."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes; empty at the end of the file."""
        ...

    def close(self) -> None:
        """Release the stream."""
        ...


@dataclass(frozen=True)
class Attachment:
    """
    One file of a message.

    :param name: the file name that the recipient sees. Characters that multipart parsers or file systems refuse are
        replaced.
    :param size: the file's length in bytes.
    :param opener: opens the file at its beginning; called once for each attempt.
    :param content_type: the MIME type. Default: derived from ``name``, else ``application/octet-stream``.
    :raises WasslyInvalidMessage: when ``content_type`` is not a MIME type.
    """

    name: str
    size: int
    opener: Callable[[], Readable] = field(repr=False)
    content_type: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", _safe_name(self.name))
        content_type = checked_content_type(self.content_type, "content_type")
        object.__setattr__(self, "content_type", content_type or type_of(self.name) or "application/octet-stream")

    @classmethod
    def from_path(
        cls,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        content_type: str | None = None,
        parameter: str,
    ) -> Attachment:
        """
        Check a local file and return it as an attachment.

        :param path: the file.
        :param name: the file name that the recipient sees. Default: the last part of the path. A name without a known
            extension gets the file's.
        :param content_type: the MIME type. Default: derived from the name.
        :param parameter: ``document`` or ``media``, for error texts.
        :raises WasslyInvalidMessage: when the file is missing, unreadable or not a regular file.
        """
        if not isinstance(path, (str, os.PathLike)):
            raise WasslyInvalidMessage(f"must be a path, not {type(path).__name__}", field=parameter)
        location = os.fspath(path)
        try:
            found = os.stat(location)
            if not stat.S_ISREG(found.st_mode):
                kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a device, pipe or socket"
                raise WasslyInvalidMessage(f"{location} is {kind}, not a file", field=parameter)
            open(location, "rb").close()
        except FileNotFoundError:
            raise WasslyInvalidMessage(f"no such file: {in_full(location)}", field=parameter) from None
        except (OSError, ValueError) as error:
            raise WasslyInvalidMessage(f"{location} cannot be read: {_cause_of(error)}", field=parameter) from error
        return cls(
            name=display_name(name, location),
            size=found.st_size,
            opener=lambda: cast(BinaryIO, open(location, "rb")),
            content_type=""
            if content_type is None
            else checked_content_type(content_type, f"{parameter}_content_type"),
        )


class AttachmentReader:
    """
    Reads one attachment for one attempt.

    It returns exactly the announced number of bytes. If the file has become shorter, longer or unreadable, it raises as
    soon as that shows, and always before it returns the last byte.

    :param attachment: the file.
    :raises WasslyAttachmentError: here and in :meth:`read`, when the file no longer is what was announced.
    """

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        #: Bytes not returned yet; MultipartEncoder needs this name.
        self.len = attachment.size
        try:
            self._stream = attachment.opener()
        except Exception as error:
            raise self._failed(f"can no longer be opened: {_cause_of(error)}") from None

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` of the remaining bytes."""
        wanted = self.len if size < 0 else min(size, self.len)
        if not wanted:
            return b""
        try:
            data = self._stream.read(wanted)
            # Return the last bytes only once it is sure that none follow.
            surplus = self._stream.read(1) if len(data) == self.len else b""
        except Exception as error:
            raise self._failed(f"can no longer be read: {_cause_of(error)}") from None
        if not data:
            raise self._failed(f"has become shorter: {self.len} of {self._attachment.size} bytes are missing")
        if surplus:
            raise self._failed(f"has become longer than {self._attachment.size} bytes")
        self.len -= len(data)
        return data

    def close(self) -> None:
        """Close the underlying stream."""
        self._stream.close()

    def _failed(self, reason: str) -> WasslyAttachmentError:
        return WasslyAttachmentError(f"{self._attachment.name} {reason}")


def in_full(location: str | os.PathLike[str]) -> str:
    """Return a local path as an error names it: a relative one together with the working directory."""
    return f"{location}" if os.path.isabs(location) else f"{location} (in the working directory, {os.getcwd()})"


def display_name(name: str | None, path: str) -> str:
    """
    Return the file name that the recipient sees, with a known extension if possible: phones need one to open a file.

    :param name: the name that was asked for; ``None`` or empty means the last part of ``path``.
    :param path: the file, whose extension is added to a name without one.
    """
    shown = _safe_name(name or os.path.basename(path))
    ending = ending_of(path)
    if type_of(shown) or shown.lower().endswith(ending.lower()):
        return shown
    return shown.rstrip(". ") + ending


def checked_content_type(value: Any, parameter: str) -> str:
    """
    Return a MIME type as a header can carry it; an empty one stays empty.

    :param value: what was given.
    :param parameter: the name of the parameter, for error texts.
    :raises WasslyInvalidMessage: when ``value`` is not a MIME type.
    """
    if not isinstance(value, str):
        raise WasslyInvalidMessage(f"must be text, not {type(value).__name__}", field=parameter)
    content_type = value.strip(" ")
    if content_type and not _MIME_TYPE.fullmatch(content_type):
        raise WasslyInvalidMessage(f"{value!r} is not a MIME type such as application/pdf", field=parameter)
    return content_type


def _cause_of(error: BaseException) -> str:
    """Return why a file cannot be opened or read, in the operating system's words if it has some."""
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _safe_name(name: str) -> str:
    """
    Replace characters that multipart parsers disagree on or file systems refuse.

    Control characters and line breaks could end the header. Some parsers take a backslash for an escape, others for a
    path separator (PHP keeps only what follows the last one), and a slash likewise. File systems refuse names of dots.
    """
    cleaned = "".join(
        "_" if char in "\\/" or unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} else char for char in name
    ).strip()
    return cleaned if cleaned.strip(".") else "file"
