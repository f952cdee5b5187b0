"""The operator that sends one WhatsApp message."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_wassly.airflow_compat import bases, exceptions, templates
from airflow_provider_wassly.operators.base import WasslyTask, check_content, fail

if TYPE_CHECKING:
    from airflow_provider_wassly.client import MessageParameters, OutgoingMessage, SendReceipt, WasslyOutcomeUnknown
    from airflow_provider_wassly.records.send_record import SendRecord


class WasslySendMessageOperator(WasslyTask):
    """
    Sends one WhatsApp message, with a document or media if wanted.

    .. code-block:: python

        WasslySendMessageOperator(
            task_id="send_invoice",
            contact_mobile_number="{{ params.mobile }}",
            message="Your invoice for {{ ds }}",
            document="s3://invoices/{{ ds }}.pdf",
            attachment_conn_id="aws_default",
        )

    Returns ``{"outcome": "accepted", "message_type": …, "conversation_id": …, "remaining_conversations": …}``.
    Accepted means that Wassly took the message; the API does not report delivery.

    The task uses its ``retries`` if Wassly definitely did not accept the message and the failure may pass: Wassly
    unavailable, rate limit, device disconnected, ``success: false``. Failures that cannot pass end the task at once:
    bad input, wrong credentials, a 4xx. ``on_outcome_unknown`` decides what happens when the outcome is unknown.

    The task records that the message is about to leave, then what Wassly answered. So a retry after a crash does not
    send a message twice: it returns the recorded receipt, or treats the outcome as unknown. If the recipient has
    changed since, the task fails. Clearing the task after it has ended sends again.

    :param contact_mobile_number: the recipient, with ``+`` and country code, or in the national form of the
        connection's ``default_region``. (templated)
    :param message: the text; required if there is neither ``document`` nor ``media``. A name ending in ``.j2`` is a
        template file. (templated)
    :param contact_name: the display name of the contact; by default none is sent. (templated)
    :param document: a document: a local path, a URI that Airflow's ``ObjectStoragePath`` reads, or an
        ``ObjectStoragePath``. (templated)
    :param document_name: the file name that the recipient sees; by default the last part of the path. A name without
        a known extension gets the extension of the file. (templated)
    :param document_content_type: the MIME type; by default the one that matches the name. (templated)
    :param media: an image, a video or an audio file, in the same forms as ``document``. (templated)
    :param media_name: as ``document_name``. (templated)
    :param media_content_type: as ``document_content_type``. (templated)
    :param instance_id: the sending WhatsApp Web session; by default the connection's. (templated)
    :param attachment_conn_id: the Airflow connection for the object storage of both files; by default none.
    :param on_empty_attachment: what to do if a file is empty: ``fail`` the task (default), or ``skip`` it.
    :param on_outcome_unknown: what to do if it is unknown whether Wassly accepted the message: ``fail`` the task
        without using its retries (default), ``retry``, which can send the message twice, or ``ignore``, which succeeds
        and returns ``"outcome": "unknown"``.
    :param wassly_conn_id: the Airflow connection; by default ``wassly_default``. (templated)
    """

    template_fields: Sequence[str] = (
        # First, because rendering a text begins the attempt, and a callable message is not rendered.
        "wassly_conn_id",
        "message",
        "contact_mobile_number",
        "contact_name",
        "document",
        "document_name",
        "document_content_type",
        "media",
        "media_name",
        "media_content_type",
        "instance_id",
    )
    # Not ".j2": Airflow would load every field with that ending, but the path of an attachment is always a path.
    template_ext: Sequence[str] = ()
    template_fields_renderers = {"message": "md"}
    ui_color = "#d3f5df"

    def __init__(
        self,
        *,
        contact_mobile_number: str,
        message: str | None = None,
        contact_name: str | None = None,
        document: Any = None,
        document_name: str | None = None,
        document_content_type: str | None = None,
        media: Any = None,
        media_name: str | None = None,
        media_content_type: str | None = None,
        instance_id: str | None = None,
        attachment_conn_id: str | None = None,
        on_empty_attachment: Literal["fail", "skip"] = "fail",
        on_outcome_unknown: Literal["fail", "retry", "ignore"] = "fail",
        wassly_conn_id: str = "wassly_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if on_empty_attachment not in ("fail", "skip"):
            raise ValueError(f"on_empty_attachment must be 'fail' or 'skip', not {on_empty_attachment!r}")
        if on_outcome_unknown not in ("fail", "retry", "ignore"):
            raise ValueError(f"on_outcome_unknown must be 'fail', 'retry' or 'ignore', not {on_outcome_unknown!r}")
        check_content(message, document, media)
        self.contact_mobile_number = contact_mobile_number
        self.message = message
        self.contact_name = contact_name
        self.document = templates.as_path(document)
        self.document_name = document_name
        self.document_content_type = document_content_type
        self.media = templates.as_path(media)
        self.media_name = media_name
        self.media_content_type = media_content_type
        self.instance_id = instance_id
        self.attachment_conn_id = attachment_conn_id
        self.on_empty_attachment = on_empty_attachment
        self.on_outcome_unknown = on_outcome_unknown
        self.wassly_conn_id = wassly_conn_id
        self._record: SendRecord | None = None

    def begin(self, context: bases.Context) -> None:
        """Read the record of earlier attempts, before anything in this one can fail."""
        from airflow_provider_wassly.records.send_record import SendRecord

        self._record = SendRecord.of(context)
        self._record.look()

    def execute(self, context: bases.Context) -> dict[str, Any]:
        """
        Send the message, unless an earlier attempt of this task did.

        :raises AirflowFailException: for failures that cannot pass; it skips the retries.
        :raises WasslyError: for failures that may pass, so that ``retries`` apply.
        """
        from airflow_provider_wassly.client import WasslyError, WasslyOutcomeUnknown

        if self._record is None:
            self.begin(context)
        record = self._record
        assert record is not None
        record.remove_at_the_end(context)
        try:
            earlier = record.read(*self._identity_of_message())
            if earlier == "announced" or earlier == "ambiguous":
                self._send_again_or_raise(earlier)
            elif earlier is not None:
                self.log.info("Not sending again: Wassly accepted the message of an earlier attempt")
                return _result("accepted", earlier)
            receipt = self.hook.send(self._outgoing(), observer=record)
        except WasslyOutcomeUnknown as error:
            return self._end_unknown(error)
        except WasslyError as error:
            fail(error)
        except BaseException as interruption:
            self._log_what_is_known(record, type(interruption).__name__)
            raise
        return _result("accepted", receipt)

    def on_kill(self) -> None:
        """Let nothing more leave; the reply to a message in flight is still recorded."""
        # No more than this: it runs in a signal handler, from which Airflow cannot be called.
        if self._record is not None:
            self._record.hold_back()

    def _log_what_is_known(self, record: SendRecord, interruption: str) -> None:
        """Log what is known about the message after something other than a reply ended the attempt."""
        if record.in_doubt:
            self.log.error(
                "UNKNOWN whether Wassly accepted it: %s ended this attempt after the message left",
                interruption,
            )
        elif record.receipt is not None:
            self.log.error("Wassly accepted the message before %s ended this attempt", interruption)
        elif record.refusal is not None:
            self.log.error("%s After that, %s ended this attempt", record.refusal.summary, interruption)

    @property
    def _parameters(self) -> MessageParameters:
        """The message of this task; ready to send once the fields are rendered."""
        from airflow_provider_wassly.client import MessageParameters

        return MessageParameters(**{item.name: getattr(self, item.name) for item in fields(MessageParameters)})

    def _identity_of_message(self) -> tuple[str, Any]:
        """Return the recipient and the content of the message, without reading any file."""
        from airflow_provider_wassly.client import WasslyInvalidMessage, normalize

        recipient = str(self.contact_mobile_number)
        with contextlib.suppress(WasslyInvalidMessage):  # a national form, which needs the connection
            recipient = normalize(recipient)
        files = [self.document, self.document_name, self.media, self.media_name]
        return recipient, [self.message, self.contact_name, *map(str, files)]

    def _send_again_or_raise(self, found: Literal["announced", "ambiguous"]) -> None:
        """Raise for the unknown outcome of an earlier attempt, unless ``on_outcome_unknown`` says to send again."""
        from airflow_provider_wassly.client import WasslyOutcomeUnknown

        reason = {
            "announced": "an earlier attempt of this task ended after the message left, before the answer was recorded",
            "ambiguous": "the task's retries were lowered during this run, so a retry and a cleared task look the "
            "same, and an earlier attempt may have sent the message. To send it, clear the task once more without "
            "changing it",
        }[found]
        if self.on_outcome_unknown != "retry":
            raise WasslyOutcomeUnknown(reason)
        self.log.warning(
            "Sending again (on_outcome_unknown='retry'), although it is UNKNOWN whether Wassly accepted it: %s", reason
        )

    def _end_unknown(self, error: WasslyOutcomeUnknown) -> dict[str, Any]:
        from airflow_provider_wassly.client import shorten

        if self.on_outcome_unknown == "ignore":
            self.log.warning("%s The task succeeds anyway (on_outcome_unknown='ignore')", error.summary)
            return _result("unknown", None)
        if self.on_outcome_unknown == "retry":
            fail(
                error,
                f"{error.summary} A retry sends it again (on_outcome_unknown='retry')",
                may_pass=True,
            )
        fail(
            error,
            f"{error.summary} Retries are not used, because they could send the message twice. "
            f"If the message is in the chat with {shorten(str(self.contact_mobile_number))}, mark this task as "
            "success; if not, clear this task to send it again.",
        )

    def _outgoing(self) -> OutgoingMessage:
        found = self.hook.attachments(self._parameters, attachment_conn_id=self.attachment_conn_id)
        for parameter, attachment in found.items():
            if self.on_empty_attachment == "skip" and attachment.size == 0:
                reason = f"Nothing was sent: {parameter} {attachment.name} is empty (0 bytes)"
                # Airflow 3 does not show the exception's text.
                self.log.info(reason)
                raise exceptions.skip_exception(reason)
        return self.hook.prepare(self._parameters.with_files(found))


def _result(outcome: Literal["accepted", "unknown"], receipt: SendReceipt | None) -> dict[str, Any]:
    return {
        "outcome": outcome,
        "message_type": receipt and receipt.message_type,
        "conversation_id": receipt and receipt.conversation_id,
        "remaining_conversations": receipt and receipt.remaining_conversations,
    }
