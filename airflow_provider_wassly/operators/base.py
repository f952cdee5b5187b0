"""What the operators, the sensors and the notifier share."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_wassly.airflow_compat import bases, exceptions, tasks, templates

if TYPE_CHECKING:
    import jinja2

    from airflow_provider_wassly.client import WasslyError
    from airflow_provider_wassly.hooks.wassly import WasslyHook

log = logging.getLogger(__name__)


class WasslyTask(templates.RendersText, bases.BaseOperator):
    """A task that uses a Wassly connection, with templates that are rendered as text."""

    wassly_conn_id: str
    _has_begun = False

    # Without it, Airflow would take the base's own, and a sensor's base would be left out.
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    @cached_property
    def hook(self) -> WasslyHook:
        """The hook of this task's connection."""
        # Here and not above: the DAG processor imports this module at every parse and needs no HTTP library.
        from airflow_provider_wassly.hooks.wassly import WasslyHook

        return WasslyHook(self.wassly_conn_id)

    def begin(self, context: bases.Context) -> None:
        """Prepare an attempt before anything in it can fail. Called once, when the first field is rendered."""

    def render_template(
        self,
        content: Any,
        context: bases.Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Render what a field holds, as text. The first one begins the attempt."""
        if not self._has_begun:
            self._has_begun = True
            # Others render templates too: a page or a command that shows them.
            if (ti := context.get("ti")) is not None and tasks.runs_here(ti):
                self.begin(context)
        return super().render_template(content, context, jinja_env, seen_oids)

    def text_environment(
        self, context: bases.Context, jinja_env: jinja2.Environment | None = None
    ) -> jinja2.Environment:
        """Return the environment of the task's templates, or the given one, unless it makes objects out of text."""
        from jinja2.nativetypes import NativeEnvironment

        env = jinja_env or self.get_template_env()
        dag = self.get_dag()
        if isinstance(env, NativeEnvironment) and dag is not None:
            return dag.get_template_env(force_sandboxed=True)
        return env


def fail(error: WasslyError, text: str = "", *, may_pass: bool | None = None) -> NoReturn:
    """
    Let the task fail, for good unless the error may pass.

    Airflow logs the text, so nobody else has to; without the frames of the libraries below, which would bury it.

    :param text: what the log says; the error's summary by default.
    :param may_pass: whether retries apply; what the error says of itself by default.
    """
    log.debug("Where it happened:", exc_info=error)
    text = text or error.summary
    if error.may_pass if may_pass is None else may_pass:
        error.text = text
        raise error.with_traceback(None) from None
    raise exceptions.fail_exception(text) from None


def check_content(message: Any, document: Any, media: Any) -> None:
    """
    Refuse a message in which there is nothing, when the DAG is parsed.

    :raises ValueError: names what is missing.
    """
    if all(value is None or (isinstance(value, str) and not value) for value in (message, document, media)):
        raise ValueError("message must be given if there is neither document nor media")
