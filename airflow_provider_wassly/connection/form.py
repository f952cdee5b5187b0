"""
The connection form for every version of Airflow, built from the same fields.

Airflow 3.2 and later read it from the provider info without importing the hook; older versions ask the hook.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_wassly.connection.fields import EXTRA_FIELDS, ConnectionField
from airflow_provider_wassly.connection.values import SECRET_UNCHANGED

#: ``extra`` stays visible although the form has all its fields: the Test button of Airflow 2.11 needs it on the page.
HIDDEN_FIELDS: list[str] = []

#: Ends the label of an advanced field where the form has no section for them.
ADVANCED = "(advanced)"

RELABELING: dict[str, str] = {
    "host": "Base URL",
    "login": "Email",
    "port": f"Port {ADVANCED}",
    "schema": f"Scheme {ADVANCED}",
}

PLACEHOLDERS: dict[str, str] = {
    "host": "https://www.wassly.com (the default)",
    "schema": "not needed if the base URL has it",
    "port": "443",
    "login": "the account's email; not needed with a token",
    "password": "the account's password, not the API key; not needed with a token",
    **{name: field.placeholder for name, field in EXTRA_FIELDS.items() if field.placeholder},
}


def ui_field_behaviour(hidden_fields: str = "hidden_fields") -> dict[str, Any]:
    """
    Return the labels and placeholders of the form.

    :param hidden_fields: the key of the hidden fields; the provider info spells it with a hyphen.
    """
    return {hidden_fields: HIDDEN_FIELDS, "relabeling": RELABELING, "placeholders": PLACEHOLDERS}


def conn_fields() -> dict[str, dict[str, Any]]:
    """Return the fields for the provider info, as Airflow 3.2 and later read them."""
    return {name: _conn_field(field) for name, field in EXTRA_FIELDS.items()}


def _conn_field(field: ConnectionField) -> dict[str, Any]:
    kind = "string" if field.kind == "password" else field.kind
    schema: dict[str, Any] = {"type": kind if field.required else [kind, "null"]}
    if field.advanced:
        schema["section"] = "Advanced"
    if field.kind == "password":
        schema["format"] = "password"
    if field.default is not None:
        schema["default"] = field.default
    return {"label": field.label, "description": field.description, "schema": schema}


def form_widgets() -> dict[str, Any]:
    """
    Return a form field for each key of the extra, for Airflow before 3.2.

    :raises ImportError: without Flask-AppBuilder; Airflow then shows no form.
    """
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
    from flask_babel import lazy_gettext
    from wtforms import BooleanField, IntegerField, PasswordField, StringField
    from wtforms.validators import Optional

    class SecretWidget(BS3PasswordFieldWidget):  # type: ignore[misc]
        """
        Shows that a secret is saved, without showing the secret.

        A plain password input comes back empty from the form, and Airflow 2.11 then removes the secret from the
        connection whenever somebody edits another field.
        """

        def __init__(self) -> None:
            super().__init__()
            self.hide_value = False

        def __call__(self, field: Any, **kwargs: Any) -> Any:
            return super().__call__(field, **kwargs, value=SECRET_UNCHANGED if field.data else "")

    def widget(field: ConnectionField) -> Any:
        label = f"{field.label} {ADVANCED}" if field.advanced else field.label
        options: dict[str, Any] = {"label": lazy_gettext(label), "description": field.description}
        if field.kind == "password":
            return PasswordField(**options, widget=SecretWidget())
        # Only for a field that is off by default: Airflow 2.11 shows the default instead of a saved "no".
        if field.kind == "boolean" and not field.default:
            return BooleanField(**options)
        kind = IntegerField if field.kind == "integer" else StringField
        return kind(**options, widget=BS3TextFieldWidget(), validators=[Optional()])

    return {name: widget(field) for name, field in EXTRA_FIELDS.items()}
