"""Render templates as text, with Airflow's own renderer."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from airflow_provider_wassly.airflow_compat import versions

if TYPE_CHECKING:
    import jinja2

    from airflow_provider_wassly.airflow_compat.bases import Context


def depend_on(operator: Any, value: Any) -> None:
    """Make ``operator`` run after the tasks whose output is in ``value``, as Airflow does for template fields."""
    if not getattr(operator, "_BaseOperator__from_mapped", False):  # created at run time; its relations are known
        xcom_arg = versions.first_of("XComArg", "airflow.sdk.definitions.xcom_arg", "airflow.models.xcom_arg")
        xcom_arg.apply_upstream_relationship(operator, value)


def render_to_string(template: Any, context: Context) -> str:
    """Render a Jinja template as text, even with ``render_template_as_native_obj``."""
    render = versions.first_of("render_template_to_string", "airflow.sdk.definitions.context", "airflow.utils.helpers")
    text: str = render(template, context)
    return text


def names_in_templates() -> set[str]:
    """Return all names that Airflow can pass to templates, including those that only some runs have."""
    if versions.IS_AIRFLOW_2:
        return set(importlib.import_module("airflow.utils.context").KNOWN_CONTEXT_KEYS)
    return set(importlib.import_module("airflow.sdk.definitions.context").Context.__annotations__)


def as_path(location: Any) -> Any:
    """Return a :mod:`pathlib` path as text, which Airflow can render; an ``ObjectStoragePath`` stays unchanged."""
    return str(location) if isinstance(location, PurePath) and not hasattr(location, "protocol") else location


def template_of(name: str, content: str, env: jinja2.Environment) -> jinja2.Template:
    """
    Return the template in a field, or in the file that it names: a ``message`` that ends in ``.j2`` names one.

    :param name: the name of the field.
    :param content: its value.
    :param env: loads and compiles it.
    :raises ValueError: when a file is named but there is no DAG, and so no folder to find it in.
    :raises jinja2.TemplateError: when the file is missing or the template is invalid.
    """
    if not is_template_file(name, content):
        return env.from_string(content)
    if env.loader is None:
        raise ValueError(
            f"message: cannot find the template file {content}, because there is no DAG whose folder to search"
        )
    return env.get_template(content)


def is_template_file(name: str, content: str) -> bool:
    """Return whether a field names a template file. The path of an attachment is a path, whatever it ends in."""
    return name == "message" and content.endswith(".j2")


class RendersText:
    """
    Mixed into an operator or notifier, to render its templates as text.

    This holds with ``render_template_as_native_obj`` too: ``+49…`` must not become an integer.
    """

    #: The fields whose template can stand for an object, such as a list: the DAG decides how it is rendered.
    native_fields: Sequence[str] = ()
    #: The field that is being rendered, and whether its template is one of those.
    _field = ""
    _is_native = False

    def text_environment(self, context: Context, jinja_env: jinja2.Environment | None) -> jinja2.Environment:
        """Return the environment for the templates, one that renders text."""
        raise NotImplementedError

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], *args: Any, **kwargs: Any
    ) -> None:
        """Render one field after the other, so that :meth:`render_template` knows which one it is about."""
        for name in template_fields:
            with self.rendering(name if parent is self else ""):
                super()._do_render_template_fields(parent, (name,), *args, **kwargs)  # type: ignore[misc]

    @contextlib.contextmanager
    def rendering(self, name: str) -> Iterator[None]:
        """Let :meth:`render_template` know the field."""
        self._field = name
        self._is_native = name in self.native_fields and isinstance(getattr(self, name), str)
        try:
            yield
        finally:
            self._field, self._is_native = "", False

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Render a field's value. A value from ``expand`` is data (in ``seen_oids``) and stays unchanged."""
        if not isinstance(content, str) or self._is_native or (seen_oids and id(content) in seen_oids):
            return super().render_template(content, context, jinja_env, seen_oids)  # type: ignore[misc]
        template = template_of(self._field, content, self.text_environment(context, jinja_env))
        return render_to_string(template, context)


def expanded_over_outputs(task: Any) -> set[str]:
    """
    Return the parameters of a mapped task that ``expand`` takes from the outputs of other tasks.

    Their values are data: Airflow does not render them, so nobody else may either.
    """
    dag = task.get_dag()
    mapped = dag.get_task(task.task_id) if dag is not None else task
    expanded = getattr(getattr(mapped, "expand_input", None), "value", None)
    if not isinstance(expanded, Mapping):
        return set()
    return {name for name, value in expanded.items() if hasattr(value, "iter_references")}
