"""Reading the content of files in chunks, so that large ones need little memory."""

from __future__ import annotations

import hashlib
from typing import BinaryIO

CHUNK_BYTES = 1024 * 1024


def measure(source: BinaryIO, copy_to: BinaryIO | None = None) -> tuple[int, str]:
    """
    Read a file to its end; return its size in bytes and its hexadecimal SHA-256 digest.

    :param source: the file to read.
    :param copy_to: a file to write the content to. Default: none.
    """
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(CHUNK_BYTES):
        if copy_to is not None:
            copy_to.write(chunk)
        digest.update(chunk)
        size += len(chunk)
    return size, digest.hexdigest()
