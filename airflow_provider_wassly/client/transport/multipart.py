"""The body of a send request, laid out so that an incomplete one is invalid."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from types import TracebackType

from requests_toolbelt import MultipartEncoder, MultipartEncoderMonitor
from urllib3.fields import RequestField

from airflow_provider_wassly.client.attachments import Attachment, AttachmentReader

log = logging.getLogger(__name__)

PROGRESS_INTERVAL = 10.0


class _Encoder(MultipartEncoder):  # type: ignore[misc]
    def _iter_fields(self) -> Iterator[RequestField]:
        for name, value in self.fields:
            if isinstance(value, tuple):
                filename, data, content_type = value
                # urllib3 would write %22 for a quote, as browsers do. PHP and Python take that literally and read \"
                # correctly.
                escaped = filename.replace('"', '\\"')
                headers = {
                    "Content-Disposition": f'form-data; name="{name}"; filename="{escaped}"',
                    "Content-Type": content_type,
                }
            else:
                data, headers = value, {"Content-Disposition": f'form-data; name="{name}"'}
            yield RequestField(name, data, headers=headers)


class SendBody:
    """
    The request body of one attempt, as a context manager that keeps the files open.

    The files come first, the required fields last. A server that gets an incomplete body misses ``instance_id`` at its
    end and can only refuse it. (PHP runs its script with whatever arrived, the last value cut or not, and needs no
    closing delimiter.)

    :param texts: the text fields in sending order, ``instance_id`` last.
    :param files: the attachments by field name.
    :raises WasslyAttachmentError: when a file can no longer be opened.
    """

    def __init__(self, texts: dict[str, str], files: dict[str, Attachment]) -> None:
        self._readers: list[AttachmentReader] = []
        parts: list[tuple[str, object]] = []
        try:
            for name, attachment in files.items():
                reader = AttachmentReader(attachment)
                self._readers.append(reader)
                parts.append((name, (attachment.name, reader, attachment.content_type)))
        except BaseException:
            self._close()
            raise
        parts += texts.items()
        encoder = _Encoder(parts)
        name, value = list(texts.items())[-1]
        delimiter = f"--{encoder.boundary_value}"
        last_part = f'{delimiter}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n{delimiter}--\r\n'
        #: As long as no more than this many bytes have been sent, no parser can take the request as complete. Only the
        #: part of the last required field comes after them.
        self.harmless: int = encoder.len - len(last_part.encode())
        self.content_type: str = encoder.content_type
        self.stream = MultipartEncoderMonitor(encoder, _Progress(encoder.len))

    def __enter__(self) -> SendBody:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        for reader in self._readers:
            reader.close()


class _Progress:
    def __init__(self, total: int) -> None:
        self._total = total
        self._next = time.monotonic() + PROGRESS_INTERVAL

    def __call__(self, monitor: MultipartEncoderMonitor) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PROGRESS_INTERVAL
            log.info(
                "Uploaded %.1f of %.1f MiB (%d %%)",
                monitor.bytes_read / 2**20,
                self._total / 2**20,
                100 * monitor.bytes_read // self._total,
            )
