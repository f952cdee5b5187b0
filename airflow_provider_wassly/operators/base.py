"""What the operators, the sensors and the notifier share."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_wassly.airflow_compat import bases, exceptions, templates

if TYPE_CHECKING:
    import jinja2

    from airflow_provider_wassly.client import WasslyError
    from airflow_provider_wassly.hooks.wassly import WasslyHook

log = logging.getLogger(__name__)


class WasslyTask(templates.RendersText, bases.BaseOperator):
    """A task that uses a Wassly connection and renders its templates as text."""

    wassly_conn_id: str
    _has_begun = False

    # Without it, Airflow would call the ``__init__`` of the operator base and skip that of the sensor base.
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    @cached_property
    def hook(self) -> WasslyHook:
        """The hook of this task's connection."""
        # Imported here, because the DAG processor imports this module at every parse and needs no HTTP library.
        from airflow_provider_wassly.hooks.wassly import WasslyHook

        return WasslyHook(self.wassly_conn_id)

    def begin(self, context: bases.Context) -> None:
        """Begin an attempt, before anything in it can fail. Called once, when the first field is rendered."""

    def render_template(
        self,
        content: Any,
        context: bases.Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Render the value of a field as text. The first call begins the attempt."""
        if not self._has_begun:
            self._has_begun = True
            # Imported here, because the DAG processor renders nothing.
            from airflow_provider_wassly.airflow_compat import tasks

            # Pages and commands that show templates render them too.
            if (ti := context.get("ti")) is not None and tasks.runs_here(ti):
                self.begin(context)
        return super().render_template(content, context, jinja_env, seen_oids)

    def text_environment(
        self, context: bases.Context, jinja_env: jinja2.Environment | None = None
    ) -> jinja2.Environment:
        """Return the template environment: the given one or the task's, replaced if it renders native objects."""
        from jinja2.nativetypes import NativeEnvironment

        env = jinja_env or self.get_template_env()
        dag = self.get_dag()
        if isinstance(env, NativeEnvironment) and dag is not None:
            return dag.get_template_env(force_sandboxed=True)
        return env


def fail(error: WasslyError, text: str = "", *, may_pass: bool | None = None) -> NoReturn:
    """
    Fail the task, without retries unless the error may pass.

    Airflow logs the text. The traceback is left out, because the frames of the libraries would bury the text.

    :param text: the text for the log; by default the summary of the error.
    :param may_pass: whether retries apply; by default what the error says.
    """
    log.debug("Where it happened:", exc_info=error)
    text = text or error.summary
    if error.may_pass if may_pass is None else may_pass:
        error.text = text
        raise error.with_traceback(None) from None
    raise exceptions.fail_exception(text) from None


def check_content(message: Any, document: Any, media: Any) -> None:
    """
    Refuse an empty message when the DAG is parsed.

    :raises ValueError: when there is neither a text nor a file.
    """
    if all(value is None or (isinstance(value, str) and not value) for value in (message, document, media)):
        raise ValueError("message is required if there is neither document nor media")
