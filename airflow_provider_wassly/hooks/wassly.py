"""The hook: it turns an Airflow connection into a client."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import Any

from airflow_provider_wassly.airflow_compat import bases, config, exceptions, masking, metrics, variables
from airflow_provider_wassly.client import (
    Attachment,
    Device,
    MessageParameters,
    OutgoingMessage,
    SendObserver,
    SendReceipt,
    WasslyClient,
    WasslyConfigError,
    WasslyError,
    WasslyInvalidMessage,
    shorten,
)
from airflow_provider_wassly.client.transport.auth import StoredToken, nothing_stored
from airflow_provider_wassly.connection.form import form_widgets, ui_field_behaviour
from airflow_provider_wassly.connection.settings import ConnectionSettings, connection_error
from airflow_provider_wassly.files.attachments import resolve_attachment
from airflow_provider_wassly.quota import Quota, QuotaReading
from airflow_provider_wassly.records.shared_token import SharedToken

log = logging.getLogger(__name__)

_NO_FERNET_KEY = (
    "share_token: Airflow has no fernet key here, so it would save the token unencrypted. Set [core] fernet_key "
    "(AIRFLOW__CORE__FERNET_KEY) for workers and API server, or remove share_token"
)


class WasslyHook(bases.BaseHook):
    """
    Sends WhatsApp messages through the account of an Airflow connection.

    .. code-block:: python

        hook = WasslyHook("wassly_default")
        receipt = hook.send_message("+491701234567", "Your report", document="s3://bucket/report.pdf")
        print(receipt.remaining_conversations)

    Use a hook in one thread only. Other threads may use the client that :meth:`get_conn` returns: before 3.2, where
    answers from Airflow can reach the wrong thread, it calls Airflow only in the main thread.

    :param wassly_conn_id: the connection, of type ``wassly``. Default: ``wassly_default``.
    :param client_options: arguments of :class:`WasslyClient` that override the connection's.
    :param share_token: ``False`` to ignore the connection's ``share_token``.
    """

    conn_name_attr = "wassly_conn_id"
    default_conn_name = "wassly_default"
    conn_type = "wassly"
    hook_name = "Wassly"

    def __init__(
        self,
        wassly_conn_id: str = default_conn_name,
        *,
        client_options: Mapping[str, Any] | None = None,
        share_token: bool = True,
    ) -> None:
        super().__init__()
        self.wassly_conn_id = wassly_conn_id
        self._client_options = dict(client_options or {})
        self._thread = threading.get_ident()
        self._share_token = share_token
        self._new_tokens: list[str] = []

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's widgets, for Airflow before 3.2; newer versions read the provider info."""
        return form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the form's labels and placeholders, for Airflow before 3.2."""
        return ui_field_behaviour()

    @cached_property
    def settings(self) -> ConnectionSettings:
        """
        The connection's values.

        :raises WasslyConfigError: names the connection, the field and the fix.
        """
        try:
            connection = self.get_connection(self.wassly_conn_id)
        except exceptions.not_found_exceptions() as error:
            raise WasslyConfigError(_not_found_text(self.wassly_conn_id)) from error
        settings = ConnectionSettings.of(connection)
        for secret in settings.secrets():
            masking.mask_secret(secret)
        return settings

    @cached_property
    def _client(self) -> WasslyClient:
        options = {"name": f"connection {self.wassly_conn_id!r}", **self.settings.client, **self._client_options}
        try:
            return WasslyClient(**options, on_new_token=self._note_token, stored_token=self._stored_token)
        except WasslyConfigError as error:
            raise connection_error(self.wassly_conn_id, error) from None

    @property
    def _stored_token(self) -> StoredToken | None:
        if self._shared_token is not None:
            return self._shared_token.read
        return nothing_stored if self.settings.share_token else None

    @cached_property
    def _shared_token(self) -> SharedToken | None:
        if not (self._share_token and self.settings.share_token):
            return None
        if variables.can_reach_airflow() and not config.has_fernet_key():
            raise WasslyConfigError(_NO_FERNET_KEY)
        options = {**self.settings.client, **self._client_options}
        return SharedToken(self.wassly_conn_id, *map(options.get, ("base_url", "apikey", "email", "password")))

    def _note_token(self, token: str) -> None:
        if threading.get_ident() == self._thread:
            self._make_known(token)
        else:
            masking.mask_secret_here(token)
            self._new_tokens.append(token)

    def _make_known(self, token: str) -> None:
        masking.mask_secret(token)
        if self._shared_token is not None:
            self._shared_token.save(token)

    def mask_tokens(self) -> None:
        """
        Have Airflow mask the tokens that the client got in other threads, and save them if they are shared.

        This process masks them already.
        """
        while self._new_tokens:
            self._make_known(self._new_tokens.pop(0))

    def get_conn(self) -> WasslyClient:
        """
        Return the connection's client, always the same one.

        :raises WasslyConfigError: names the connection, the field and the fix.
        """
        return self._client

    def list_devices(self) -> list[Device]:
        """
        Return the account's WhatsApp Web sessions.

        :raises WasslyError: as :meth:`WasslyClient.list_devices` does.
        """
        return self.get_conn().list_devices()

    def attachment(
        self,
        location: Any,
        *,
        parameter: str,
        name: str | None = None,
        content_type: str | None = None,
        attachment_conn_id: str | None = None,
    ) -> Attachment:
        """
        Find a file and check it against the connection's rules.

        :param location: a local path, a URI that Airflow's ``ObjectStoragePath`` reads, or such an object.
        :param parameter: ``document`` or ``media``, for error texts.
        :param name: the file name that the recipient sees. Default: the last part of the path. A name without a known
            extension gets the file's.
        :param content_type: the MIME type. Default: derived from the name.
        :param attachment_conn_id: the Airflow connection for the object storage.
        :raises WasslyInvalidMessage: when the file cannot or may not be sent.
        """
        return resolve_attachment(
            location,
            parameter=parameter,
            name=name,
            content_type=content_type,
            conn_id=attachment_conn_id,
            roots=self.settings.attachment_roots,
            max_bytes=self.settings.max_attachment_bytes,
        )

    def prepare(self, parameters: MessageParameters, *, attachment_conn_id: str | None = None) -> OutgoingMessage:
        """
        Check a message without calling Wassly.

        There is one exception: if no ``instance_id`` is set, the device list is fetched once to name the instances.

        :param parameters: the message as it was asked for.
        :param attachment_conn_id: the Airflow connection for the object storage of both files.
        :return: the message, ready for :meth:`send`.
        :raises WasslyInvalidMessage: names the parameter that is wrong.
        """
        instance = parameters.instance_id or self.settings.instance_id
        if not instance:
            raise WasslyInvalidMessage(self._missing_instance_text, field="instance_id")
        found = self.attachments(parameters, attachment_conn_id=attachment_conn_id)
        return self.get_conn().prepare(replace(parameters.with_files(found), instance_id=instance))

    def attachments(
        self, parameters: MessageParameters, *, attachment_conn_id: str | None = None
    ) -> dict[str, Attachment]:
        """
        Find a message's files and check them against the connection's rules.

        :param parameters: the message as it was asked for.
        :param attachment_conn_id: the Airflow connection for the object storage of both files.
        :return: the files by the API's field name.
        :raises WasslyInvalidMessage: when a file cannot or may not be sent.
        """
        return {
            parameter: file.location
            if isinstance(file.location, Attachment)
            else self.attachment(
                file.location,
                parameter=parameter,
                name=file.name,
                content_type=file.content_type,
                attachment_conn_id=attachment_conn_id,
            )
            for parameter, file in parameters.files.items()
        }

    def send_message(
        self,
        contact_mobile_number: str,
        message: str | None = None,
        *,
        contact_name: str | None = None,
        document: Any = None,
        document_name: str | None = None,
        document_content_type: str | None = None,
        media: Any = None,
        media_name: str | None = None,
        media_content_type: str | None = None,
        instance_id: str | None = None,
        attachment_conn_id: str | None = None,
    ) -> SendReceipt:
        """
        Send one message.

        One call never sends the message twice: it repeats a failed send only if Wassly definitely did not accept it.

        :param contact_mobile_number: the recipient's number, with ``+`` and country code, or in the national form of
            the connection's ``default_region``.
        :param message: the text; required without ``document`` and ``media``.
        :param contact_name: the contact's display name.
        :param document: a document: local path, URI, ``ObjectStoragePath`` or :class:`Attachment`.
        :param document_name: the file name that the recipient sees. Default: the last part of the path. A name without
            a known extension gets the file's.
        :param document_content_type: the document's MIME type. Default: derived from its name.
        :param media: an image, video or audio file, in the same forms.
        :param media_name: as ``document_name``.
        :param media_content_type: as ``document_content_type``.
        :param instance_id: the WhatsApp Web session that sends. Default: the connection's.
        :param attachment_conn_id: the Airflow connection for the object storage of both files.
        :return: what Wassly answered.
        :raises WasslyConfigError: when the connection is missing or wrong.
        :raises WasslyInvalidMessage: before any call, when the message cannot be sent as it is.
        :raises WasslyError: on any other failure; its ``accepted`` says what is known about the message.
        """
        parameters = MessageParameters(
            contact_mobile_number=contact_mobile_number,
            message=message,
            contact_name=contact_name,
            document=document,
            document_name=document_name,
            document_content_type=document_content_type,
            media=media,
            media_name=media_name,
            media_content_type=media_content_type,
            instance_id=instance_id,
        )
        return self.send(self.prepare(parameters, attachment_conn_id=attachment_conn_id))

    def send(
        self,
        message: OutgoingMessage,
        *,
        observer: SendObserver | None = None,
    ) -> SendReceipt:
        """
        Send a message that :meth:`prepare` returned, count it in Airflow's metrics, and save the remaining quota.

        :param message: the prepared message.
        :param observer: notified of what becomes of the message, as soon as it is known.
        :return: what Wassly answered.
        :raises WasslyError: as :meth:`send_message` does.
        """
        try:
            receipt = self.get_conn().send(message, observer=observer)
        except WasslyError as error:
            self.count(error)
            raise
        self.log_receipt(message, receipt)
        self.count(receipt)
        self.keep_quota(receipt, message.instance_id)
        return receipt

    def log_receipt(self, message: OutgoingMessage, receipt: SendReceipt) -> None:
        """Log that Wassly accepted a message. :meth:`send` already does this."""
        log.info(
            "Wassly accepted a %s message for %s (conversation %s, %s conversations remaining)",
            receipt.message_type or message.kind,
            shorten(message.contact_mobile_number),
            _or_unknown(receipt.conversation_id),
            _or_unknown(receipt.remaining_conversations),
        )

    def count(self, outcome: SendReceipt | WasslyError) -> None:
        """Count a message in Airflow's metrics, by its outcome. :meth:`send` already does this."""
        name = (
            "accepted"
            if isinstance(outcome, SendReceipt)
            else "unknown"
            if outcome.accepted is None
            else "not_accepted"
        )
        # The outcome is part of the name, because plain statsd has no tags.
        self._measure(metrics.count, f"wassly.messages.{name}")

    def count_excluded(self, recipients: int) -> None:
        """Count the recipients of a broadcast that were excluded, in Airflow's metrics."""
        if recipients:
            self._measure(metrics.count, "wassly.messages.excluded", recipients)

    def keep_quota(self, receipt: SendReceipt, instance_id: str, age: timedelta = timedelta(0)) -> None:
        """
        Save the remaining quota from a receipt. :meth:`send` already does this.

        :param receipt: what Wassly answered.
        :param instance_id: the WhatsApp Web session that sent the message.
        :param age: how long ago the answer arrived.
        """
        if receipt.remaining_conversations is None:
            return
        self._measure(metrics.gauge, "wassly.remaining_conversations", receipt.remaining_conversations)
        if self.settings.record_quota:
            Quota(self.wassly_conn_id).record(receipt.remaining_conversations, instance_id, age)

    def gauge(self, name: str, value: float) -> None:
        """Set a gauge in Airflow's metrics."""
        self._measure(metrics.gauge, name, value)

    def _measure(self, measure: Callable[..., None], name: str, *values: float) -> None:
        try:
            measure(name, *values, tags={"conn_id": self.wassly_conn_id})
        except Exception as error:
            # A failed metric does not undo the message.
            log.warning("Could not send the metric %s: %s: %s", name, type(error).__name__, error)

    def get_quota(self) -> QuotaReading | None:
        """
        Return the remaining quota from the last answer to a message of this connection, ``None`` if there is none.

        This does not call Wassly, which has no quota endpoint.

        :raises Exception: when Airflow does not answer.
        """
        return Quota(self.wassly_conn_id).read()

    def forget_quota(self) -> None:
        """
        Delete the saved quota reading, for instance after a top-up.

        :raises Exception: when Airflow does not answer.
        """
        Quota(self.wassly_conn_id).forget()

    def forget_token(self) -> None:
        """
        Delete the token that ``share_token`` saved, and forget it in this process, so that the next call logs in.

        :raises Exception: when Airflow does not answer.
        """
        client = self.get_conn()
        self.mask_tokens()
        (self._shared_token or SharedToken(self.wassly_conn_id)).forget()
        client.forget_token()

    def find_device(self, instance_id: str | None = None) -> Device:
        """
        Return one of the account's WhatsApp Web sessions.

        :param instance_id: its instance id. Default: the connection's.
        :raises WasslyInvalidMessage: when no instance id is set, or the account does not have it.
        :raises WasslyError: as :meth:`WasslyClient.list_devices` does.
        """
        return _device_with(instance_id or self.settings.instance_id, self.list_devices())

    @cached_property
    def _missing_instance_text(self) -> str:
        try:
            known = f"The account's instances: {_instances_and_states(self.list_devices())}"
        except WasslyError as error:
            log.debug("Could not read the device list: %s", error)
            known = "Wassly's device list shows the account's instances"
        return f"not set. Set it in the extra of connection {self.wassly_conn_id!r}, or in each task. {known}"

    def test_connection(self) -> tuple[bool, str]:
        """
        Test the connection by reading the device list; this sends no message and costs nothing.

        :return: whether the list could be read and contains the connection's instance, and a text that says how many
            devices are connected, or what is wrong.
        """
        try:
            devices = self.list_devices()
            sender = _device_with(self.settings.instance_id, devices)
        except Exception as error:
            return False, str(error)
        connected = sorted(device.instance_id or "unnamed" for device in devices if device.is_connected)
        names = f" ({', '.join(connected)})" if connected else ""
        off = "" if sender.is_connected else f". {sender.instance_id} is {sender.status or 'without status'}"
        return True, f"Connection works: {len(connected)} of {len(devices)} devices connected{names}{off}"


def _device_with(instance_id: str | None, devices: list[Device]) -> Device:
    """
    Return the device with this instance id.

    :raises WasslyInvalidMessage: when there is none; names the account's instances.
    """
    by_id = {device.instance_id: device for device in devices if device.instance_id}
    if not instance_id:
        raise WasslyInvalidMessage(
            "not set. Set it in the connection's extra, or in each task. The account's instances: "
            f"{_instances_and_states(devices)}",
            field="instance_id",
        )
    if instance_id not in by_id:
        raise WasslyInvalidMessage(
            f"the account has no instance {instance_id!r}; its instances: {_instances_and_states(devices)}",
            field="instance_id",
        )
    return by_id[instance_id]


def _not_found_text(conn_id: str) -> str:
    """Return the error text for a connection that Airflow cannot find, with the likely reason."""
    variable = f"AIRFLOW_CONN_{conn_id.upper()}"
    if os.environ.get(variable):
        return (
            f"There is no connection {conn_id!r}: Airflow cannot read {variable}. Write it as JSON, or as a URI with "
            "percent-encoded login, password and values"
        )
    missing = f"There is no connection {conn_id!r}; create it (type Wassly) or set wassly_conn_id"
    if variables.reads_saved_connections():
        return missing
    return (
        f"{missing}. Outside a task, Airflow 3 looks for connections only in the environment ({variable}) and in "
        "secrets backends, not among those saved in Airflow"
    )


def _instances_and_states(devices: Sequence[Device]) -> str:
    """Return an account's instances, each with its state, as an error lists them."""
    named = sorted((device.instance_id, device.status or "without status") for device in devices if device.instance_id)
    return ", ".join(f"{name} ({status})" for name, status in named) or "none"


def _or_unknown(value: object) -> object:
    return "unknown" if value is None else value
