"""Public names can be imported from where they have always been."""

from __future__ import annotations

import importlib
import pkgutil
import warnings

import pytest

import airflow_provider_wassly

#: Module -> names used in documentation, provider info, DAGs and except clauses. Listed before the modules were moved.
NAMES = {
    "broadcast.record": "WasslyListChanged",
    "broadcast.run": "WasslyBroadcastIncomplete",
    "client": (
        "Attachment DEFAULT_BASE_URL Device OutgoingMessage SendObserver SendReceipt WasslyAttachmentError "
        "WasslyAuthError WasslyClient WasslyConfigError WasslyDeviceDisconnected WasslyError "
        "WasslyInstanceUnknown WasslyInvalidMessage WasslyOutcomeUnknown WasslyRateLimited WasslyRejected "
        "WasslyUnavailable normalize shorten"
    ),
    "client.attachments": "Attachment AttachmentReader Readable checked_content_type display_name in_full",
    "client.client": "DEFAULT_BASE_URL WasslyClient",
    "client.clock": "Clock SYSTEM",
    "client.errors": (
        "WasslyAttachmentError WasslyAuthError WasslyConfigError WasslyDeviceDisconnected WasslyError "
        "WasslyInstanceUnknown WasslyInvalidMessage WasslyOutcomeUnknown WasslyRateLimited WasslyRejected "
        "WasslyUnavailable"
    ),
    "client.file_types": "ending_of type_of",
    "client.messages": "OutgoingMessage prepare",
    "client.models": "Device SendReceipt",
    "client.numbers": "ReadNumber check_region normalize read shorten",
    "client.observer": "SendObserver",
    "get_provider_info": "get_provider_info",
    "hooks.wassly": "WasslyHook",
    "notifications.default_message": "default_message",
    "notifications.delivery": "WasslyNotificationError",
    "notifications.wassly": "WasslyNotifier send_wassly_notification",
    "operators.broadcast": "WasslyBroadcastOperator",
    "operators.send_message": "WasslySendMessageOperator",
    "pytest_plugin": "wassly_sandbox",
    "quota": "Quota QuotaReading Verdict is_due judge now",
    "sandbox": "Attachment Call Device FAULTS Fault Message Sandbox",
    "sensors.base": "WasslySensor",
    "sensors.device": "WasslyDeviceSensor",
    "sensors.quota": "WasslyQuotaSensor",
    "triggers.base": "PollTrigger",
    "triggers.device": "DeviceTrigger",
    "triggers.quota": "QuotaTrigger",
}

#: The only files allowed next to the folders.
AT_THE_ROOT = {"get_provider_info", "pytest_plugin"}


@pytest.mark.parametrize("module", NAMES)
def test_a_public_name_stays_where_it_was(module: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = importlib.import_module(f"airflow_provider_wassly.{module}")
        missing = [name for name in NAMES[module].split() if not hasattr(found, name)]
    assert not missing


def test_no_module_lies_loose_at_the_root() -> None:
    modules = {found.name for found in pkgutil.iter_modules(airflow_provider_wassly.__path__) if not found.ispkg}
    assert modules == AT_THE_ROOT
