"""The provider info that Airflow reads."""

from __future__ import annotations

from typing import Any

from airflow_provider_wassly.connection import form

_INTEGRATION = "Wassly"


def get_provider_info() -> dict[str, Any]:
    """Return the provider info, which conforms to ``provider_info.schema.json`` of Airflow 2.11 to 3.3."""
    return {
        "package-name": "airflow-provider-wassly",
        "name": "Wassly",
        "description": "Send WhatsApp messages with attachments through Wassly.",
        "integrations": [
            {"integration-name": _INTEGRATION, "external-doc-url": "https://docs.wassly.com", "tags": ["service"]}
        ],
        "hooks": [_modules("hooks.wassly")],
        "operators": [_modules("operators.base", "operators.broadcast", "operators.send_message")],
        "sensors": [_modules("sensors.base", "sensors.device", "sensors.quota")],
        "triggers": [_modules("triggers.base", "triggers.device", "triggers.quota")],
        "notifications": ["airflow_provider_wassly.notifications.wassly.WasslyNotifier"],
        "connection-types": [
            {
                "connection-type": "wassly",
                "hook-class-name": "airflow_provider_wassly.hooks.wassly.WasslyHook",
                "hook-name": "Wassly",
                "conn-fields": form.conn_fields(),
                "ui-field-behaviour": form.ui_field_behaviour(hidden_fields="hidden-fields"),
            }
        ],
    }


def _modules(*names: str) -> dict[str, Any]:
    return {
        "integration-name": _INTEGRATION,
        "python-modules": [f"airflow_provider_wassly.{name}" for name in names],
    }
