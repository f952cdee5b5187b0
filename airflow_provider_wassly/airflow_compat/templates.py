"""Templates: how Airflow renders them, and how ours are rendered as text."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from airflow_provider_wassly.airflow_compat import versions

if TYPE_CHECKING:
    import jinja2

    from airflow_provider_wassly.airflow_compat.bases import Context


def depend_on(operator: Any, value: Any) -> None:
    """Let ``operator`` run after the tasks whose output ``value`` is, as Airflow does for template fields."""
    if not getattr(operator, "_BaseOperator__from_mapped", False):  # made when it runs; its relations are known
        xcom_arg = versions.first_of("XComArg", "airflow.sdk.definitions.xcom_arg", "airflow.models.xcom_arg")
        xcom_arg.apply_upstream_relationship(operator, value)


def render_to_string(template: Any, context: Context) -> str:
    """Render a Jinja template as text, whatever the DAG says about native objects."""
    render = versions.first_of("render_template_to_string", "airflow.sdk.definitions.context", "airflow.utils.helpers")
    text: str = render(template, context)
    return text


def names_in_templates() -> set[str]:
    """Return the names that Airflow gives to templates, also those that only some runs have."""
    if versions.IS_AIRFLOW_2:
        return set(importlib.import_module("airflow.utils.context").KNOWN_CONTEXT_KEYS)
    return set(importlib.import_module("airflow.sdk.definitions.context").Context.__annotations__)


class TemplateFile(str):
    """The name of a template file, as opposed to a template."""


class NativeTemplate(str):
    """A template that can stand for an object, such as a list, where the DAG renders objects."""


def as_message(message: Any) -> Any:
    """Return a ``message`` as a template field holds it: a name that ends in ``.j2`` is that of a file."""
    return TemplateFile(message) if isinstance(message, str) and message.endswith(".j2") else message


def as_path(location: Any) -> Any:
    """Return a :mod:`pathlib` path as text, because Airflow renders only that; an ``ObjectStoragePath`` as it is."""
    return str(location) if isinstance(location, PurePath) and not hasattr(location, "protocol") else location


def template_of(content: str, env: jinja2.Environment) -> jinja2.Template:
    """
    Return the template that a field holds or names.

    :raises ValueError: when a file is named and there is no folder in which to find it.
    :raises jinja2.TemplateError: when it is none.
    """
    if not isinstance(content, TemplateFile):
        return env.from_string(content)
    if env.loader is None:
        raise ValueError(f"message: {content} is a template file, and without a DAG there is no folder to find it in")
    return env.get_template(content)


class RendersText:
    """
    Mixed into an operator or notifier: its templates are rendered as text.

    Also with ``render_template_as_native_obj``: ``+49…`` must not become an integer.
    """

    def text_environment(self, context: Context, jinja_env: jinja2.Environment | None) -> jinja2.Environment:
        """Return the environment of the templates: one that makes text."""
        raise NotImplementedError

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Render what a field holds. What Airflow has expanded over is data (``seen_oids``) and stays as it is."""
        if type(content) not in (str, TemplateFile) or (seen_oids and id(content) in seen_oids):
            return super().render_template(content, context, jinja_env, seen_oids)  # type: ignore[misc]
        return render_to_string(template_of(content, self.text_environment(context, jinja_env)), context)


def expanded_over_outputs(task: Any) -> set[str]:
    """
    Return the parameters of a mapped task that ``expand`` took from the outputs of other tasks.

    What they hold is data. Airflow renders it no more, and neither may who renders by themselves.
    """
    dag = task.get_dag()
    mapped = dag.get_task(task.task_id) if dag is not None else task
    expanded = getattr(getattr(mapped, "expand_input", None), "value", None)
    if not isinstance(expanded, Mapping):
        return set()
    return {name for name, value in expanded.items() if hasattr(value, "iter_references")}
