"""
A local stand-in for the Wassly service, what Mailpit is for mail: takes messages, keeps them, sends none.

In Python it is :class:`Sandbox`, in a shell ``python -m airflow_provider_wassly.sandbox``, and over HTTP the
control API that :mod:`airflow_provider_wassly.sandbox.control.api` describes. It needs the extra ``[sandbox]``.
"""

from __future__ import annotations

from airflow_provider_wassly.sandbox.box import Sandbox
from airflow_provider_wassly.sandbox.service.faults import FAULTS, Fault
from airflow_provider_wassly.sandbox.service.models import Call, Message
from airflow_provider_wassly.sandbox.service.models import ReceivedFile as Attachment
from airflow_provider_wassly.sandbox.service.models import SandboxDevice as Device

__all__ = ["FAULTS", "Attachment", "Call", "Device", "Fault", "Message", "Sandbox"]
