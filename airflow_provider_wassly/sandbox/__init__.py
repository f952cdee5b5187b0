"""
A local stand-in for the Wassly service, like Mailpit for mail: it accepts messages, stores them and sends none.

Use :class:`Sandbox` in Python, ``python -m airflow_provider_wassly.sandbox`` in a shell, or the control API over HTTP
(:mod:`airflow_provider_wassly.sandbox.control`). It needs the extra ``[sandbox]``.
"""

from __future__ import annotations

from airflow_provider_wassly.sandbox.box import Sandbox
from airflow_provider_wassly.sandbox.service.faults import FAULTS, Fault
from airflow_provider_wassly.sandbox.service.models import Call, Message
from airflow_provider_wassly.sandbox.service.models import ReceivedFile as Attachment
from airflow_provider_wassly.sandbox.service.models import SandboxDevice as Device

__all__ = ["FAULTS", "Attachment", "Call", "Device", "Fault", "Message", "Sandbox"]
