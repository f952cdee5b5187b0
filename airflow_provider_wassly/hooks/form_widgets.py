"""The widgets of the connection form before Airflow 3.2; newer versions read the provider info."""

from __future__ import annotations

from typing import Any

from airflow_provider_wassly.connection_form import ADVANCED, EXTRA_FIELDS, SECRET_UNCHANGED, Field


def form_widgets() -> dict[str, Any]:
    """
    Return a form field for each key of the extra.

    :raises ImportError: without Flask-AppBuilder, which Airflow then takes as "no form here".
    """
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
    from flask_babel import lazy_gettext
    from wtforms import BooleanField, IntegerField, PasswordField, StringField
    from wtforms.validators import Optional

    class SecretWidget(BS3PasswordFieldWidget):  # type: ignore[misc]
        """
        Shows that a secret is saved, without the secret.

        A plain password input comes back empty from the form, and Airflow 2.11 then removes the
        secret from the connection whenever any other field is edited.
        """

        def __init__(self) -> None:
            super().__init__()
            self.hide_value = False

        def __call__(self, field: Any, **kwargs: Any) -> Any:
            return super().__call__(field, **kwargs, value=SECRET_UNCHANGED if field.data else "")

    def widget(field: Field) -> Any:
        label = f"{field.label} {ADVANCED}" if field.advanced else field.label
        options: dict[str, Any] = {"label": lazy_gettext(label), "description": field.description}
        if field.kind == "password":
            return PasswordField(**options, widget=SecretWidget())
        # Only for what is off by default: Airflow 2.11 shows a saved "no" as the default.
        if field.kind == "boolean" and not field.default:
            return BooleanField(**options)
        kind = IntegerField if field.kind == "integer" else StringField
        return kind(**options, widget=BS3TextFieldWidget(), validators=[Optional()])

    return {name: widget(field) for name, field in EXTRA_FIELDS.items()}
