"""
A client for the Wassly HTTP API in plain Python: messages, answers, errors.

Nothing here knows Airflow, its connections or its files; how a call travels is in ``client.transport``.
"""

from airflow_provider_wassly.client.attachments import Attachment
from airflow_provider_wassly.client.client import DEFAULT_BASE_URL, WasslyClient
from airflow_provider_wassly.client.errors import (
    WasslyAttachmentError,
    WasslyAuthError,
    WasslyConfigError,
    WasslyDeviceDisconnected,
    WasslyError,
    WasslyInstanceUnknown,
    WasslyInvalidMessage,
    WasslyOutcomeUnknown,
    WasslyRateLimited,
    WasslyRejected,
    WasslyUnavailable,
)
from airflow_provider_wassly.client.messages import MessageParameters, OutgoingMessage
from airflow_provider_wassly.client.models import Device, SendReceipt
from airflow_provider_wassly.client.numbers import normalize, shorten
from airflow_provider_wassly.client.observer import SendObserver

__all__ = [
    "DEFAULT_BASE_URL",
    "Attachment",
    "Device",
    "MessageParameters",
    "OutgoingMessage",
    "SendObserver",
    "SendReceipt",
    "WasslyAttachmentError",
    "WasslyAuthError",
    "WasslyClient",
    "WasslyConfigError",
    "WasslyDeviceDisconnected",
    "WasslyError",
    "WasslyInstanceUnknown",
    "WasslyInvalidMessage",
    "WasslyOutcomeUnknown",
    "WasslyRateLimited",
    "WasslyRejected",
    "WasslyUnavailable",
    "normalize",
    "shorten",
]
