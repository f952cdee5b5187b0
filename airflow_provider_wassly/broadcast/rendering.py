"""Renders the message to each recipient: its texts and files."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import jinja2

from airflow_provider_wassly.airflow_compat import templates
from airflow_provider_wassly.broadcast.columns import columns_needed, is_the_same_for_all, unknown_names
from airflow_provider_wassly.broadcast.exclusions import Exclusions
from airflow_provider_wassly.broadcast.recipients import Recipient, RecipientList, Row
from airflow_provider_wassly.client import (
    Attachment,
    MessageParameters,
    OutgoingMessage,
    WasslyInvalidMessage,
    shorten,
)
from airflow_provider_wassly.client.messages import prepare as check_message
from airflow_provider_wassly.hooks.wassly import WasslyHook

if TYPE_CHECKING:
    from jinja2 import nodes

    from airflow_provider_wassly.airflow_compat.bases import BaseOperator, Context

#: Stands in for the recipient when a message is checked before its recipient is known.
_ANYBODY = "+447700900000"

#: How many wrong rows, or columns of the list, an error names: enough to see what is wrong.
_MAX_NAMED = 20


@dataclass(frozen=True)
class _Field:
    """
    One parameter of the message, ready to be rendered.

    :param render: returns its value for the recipient that is in the context at that moment.
    :param is_shared: whether every recipient gets the same value.
    :param tree: the syntax tree of its template, ``None`` if it is not a template.
    """

    render: Callable[[], Any]
    is_shared: bool
    tree: nodes.Template | None = None


class MessageRenderer:
    """
    Renders the message to each recipient. Each template is read once, here.

    :param fields: the message parameters by name, as written in the DAG: texts, templates, callables, paths, or the
        outputs of other tasks.
    :param task: the operator that the parameters belong to.
    :param context: the context of the running task.
    :param env: the template environment; it renders text, not objects.
    :param hook: checks messages and finds files.
    :param instance_id: the sending session for rows that name none; by default the connection's.
    :param attachment_conn_id: the Airflow connection for the object storage of the files.
    :raises WasslyInvalidMessage: when a template is wrong, or uses the output of a task that may not have run yet.
    """

    def __init__(
        self,
        fields: Mapping[str, Any],
        *,
        task: BaseOperator,
        context: Context,
        env: jinja2.Environment,
        hook: WasslyHook,
        instance_id: str | None = None,
        attachment_conn_id: str | None = None,
    ) -> None:
        self._task = task
        self._env = env
        self._hook = hook
        self._instance_id = instance_id
        self._attachment_conn_id = attachment_conn_id
        self._context: Any = copy.copy(context)
        # Parameters whose text is data, even if it looks like a template.
        self._literal = templates.expanded_over_outputs(task)
        self._fields = {name: self._field(name, value) for name, value in fields.items()}
        self._find_once = lru_cache(maxsize=128)(self._find)

    def check(self, columns: frozenset[str] | None) -> None:
        """
        Check, before the first message, what would be wrong in every row.

        :param columns: the columns of the list, ``None`` if they are not known.
        :raises WasslyInvalidMessage: names the parameter.
        """
        for name, field in self._fields.items():
            if field.tree is not None:
                self._check_names(name, field.tree, columns)
        shared = {name for name, field in self._fields.items() if field.is_shared}
        files = {
            parameter: self._attachment(parameter)
            for parameter in ("document", "media")
            if {parameter, f"{parameter}_name", f"{parameter}_content_type"} <= shared
        }
        message = self._render("message") if "message" in shared else None
        is_empty = message is None or (isinstance(message, str) and not message.strip())
        if is_empty and len(shared) < len(self._fields):
            message = "-"  # a recipient may still get a text or a file
        check_message(MessageParameters(_ANYBODY, message, instance_id="-", **files))

    def check_all(self, recipients: RecipientList, exclusions: Exclusions) -> None:
        """
        Render the message to every recipient except those who are excluded, and send nothing.

        :raises WasslyInvalidMessage: names the rows that cannot be sent to.
        """
        wrong, number = [], 0
        for rows in recipients.chunks():
            for row in rows:
                if exclusions.excludes(row):
                    continue
                try:
                    row.check()
                    self.message_to(row)
                except WasslyInvalidMessage as error:
                    number += 1
                    if number <= _MAX_NAMED:
                        wrong.append(f"{row.where} ({shorten(str(row.number))}): {error.message}")
        if number:
            more = f"; and {number - _MAX_NAMED} more" if number > _MAX_NAMED else ""
            rows_are = "1 row is" if number == 1 else f"{number} rows are"
            raise WasslyInvalidMessage(
                f"{rows_are} wrong (validate_first): {'; '.join(wrong)}{more}", field="recipients"
            )

    def message_to(self, row: Row, instance_id: str | None = None) -> OutgoingMessage:
        """
        Return the message to a recipient.

        :param row: the recipient.
        :param instance_id: the sending session; by default that of a row that names none.
        :raises WasslyInvalidMessage: when it cannot be sent as it is.
        """
        self._context["recipient"] = Recipient(row.values)
        named = row.values.get("instance_id")
        try:
            parameters = MessageParameters(
                contact_mobile_number=row.number,
                contact_name=row.values.get("contact_name"),
                message=self._render("message"),
                document=self._attachment("document"),
                media=self._attachment("media"),
                instance_id=(named.strip() if isinstance(named, str) else named) or instance_id or self._instance_id,
            )
            return self._hook.prepare(parameters)
        except WasslyInvalidMessage as error:
            # A path, or the error of a filter, can contain the number.
            error.message = _without_number(error.message, row.number)
            raise

    def _field(self, name: str, value: Any) -> _Field:
        if isinstance(value, str) and name not in self._literal:
            return self._template(name, value)
        if callable(value):
            return _Field(lambda: value(context=self._context, jinja_env=self._env), is_shared=False)
        if hasattr(value, "protocol"):
            return _Field(lambda: self._task.render_template(value, self._context, self._env), is_shared=False)
        if hasattr(value, "iter_references"):
            self._check_order(name, value)
            value = self._task.render_template(value, self._context, self._env)
        return _Field(lambda: value, is_shared=True)

    def _template(self, name: str, value: str) -> _Field:
        try:
            template = templates.template_of(name, value, self._env)
        except (jinja2.TemplateError, ValueError) as error:
            raise WasslyInvalidMessage(_reason(error), field=name) from None
        source = value
        if templates.is_template_file(name, value):
            assert self._env.loader is not None
            source = self._env.loader.get_source(self._env, value)[0]
        tree = self._env.parse(source)
        return _Field(
            lambda: templates.render_to_string(template, self._context),
            is_shared=is_the_same_for_all(tree),
            tree=tree,
        )

    def _check_order(self, name: str, output: Any) -> None:
        """Refuse the output of a task that may not have run: in ``partial``, Airflow only looks at template fields."""
        upstream = self._task.get_flat_relative_ids(upstream=True)
        for task, _ in output.iter_references():
            if task.task_id not in upstream:
                raise WasslyInvalidMessage(
                    f"uses the output of {task.task_id}, but this task does not wait for it; "
                    f"set {task.task_id} >> {self._task.task_id} in the DAG",
                    field=name,
                )

    def _check_names(self, name: str, tree: nodes.Template, columns: frozenset[str] | None) -> None:
        """Refuse a template with names that neither the context nor any row has."""
        known = {*self._context, *templates.names_in_templates()}
        for unknown in sorted(unknown_names(tree, self._env, known)):
            raise WasslyInvalidMessage(
                f"uses {unknown}, which is not defined; the columns of the list are recipient.…", field=name
            )
        if columns is None:
            return
        for column in sorted(columns_needed(tree) - columns):
            raise WasslyInvalidMessage(
                f"uses recipient.{column}, but the list has no such column; its columns: "
                f"{', '.join(sorted(columns)[:_MAX_NAMED])}",
                field=name,
            )

    def _render(self, name: str) -> Any:
        try:
            return self._fields[name].render()
        except Exception as error:  # the DAG's filters and macros can raise anything, and only for some rows
            raise WasslyInvalidMessage(_reason(error), field=name) from None

    def _attachment(self, parameter: str) -> Attachment | None:
        file = [self._render(name) for name in (parameter, f"{parameter}_name", f"{parameter}_content_type")]
        if file[0] is None:
            return None
        find = self._find_once if all(isinstance(value, Hashable) for value in file) else self._find
        return find(parameter, *file)

    def _find(self, parameter: str, location: Any, name: Any, content_type: Any) -> Attachment:
        return self._hook.attachment(
            location,
            parameter=parameter,
            name=name,
            content_type=content_type,
            attachment_conn_id=self._attachment_conn_id,
        )


def _reason(error: Exception) -> str:
    """Return why a template cannot be rendered."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"{error.message}, line {error.lineno}"
    if isinstance(error, jinja2.TemplateError):
        return error.message or type(error).__name__
    return f"{type(error).__name__}: {error}"


def _without_number(text: str, number: Any) -> str:
    """Return ``text`` with a recipient's number shortened, as log lines may show it."""
    digits = "".join(filter(str.isdigit, str(number)))
    if len(digits) < 8:
        return text
    return text.replace(str(number), shorten(str(number).strip())).replace(digits, shorten(f"+{digits}")[1:])
