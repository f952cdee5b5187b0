"""The notifier: WhatsApp messages as callbacks of tasks and DAGs, and as deadline alerts."""

from __future__ import annotations

import ast
import contextlib
import copy
import json
import os
import re
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_wassly.airflow_compat import bases, templates

if TYPE_CHECKING:
    import jinja2


class WasslyNotifier(templates.RendersText, bases.BaseNotifier):
    """
    Sends a WhatsApp message when something has happened to a task or a DAG run.

    For ``on_failure_callback``, ``on_retry_callback``, ``on_success_callback`` and the like of tasks and DAGs, and for
    deadline alerts (Airflow 3.1+): ``AsyncCallback(WasslyNotifier, kwargs={"contact_mobile_number": …})``.

    A call ends within 15 seconds, whatever Wassly and the storage of a file do, so that it does not hold up what called
    it. In that time it tries again what was definitely not accepted and may pass, and never what is unknown. The log
    and the error list everyone who was not, or may not have been, reached.

    The link in the default text points to ``localhost``, or is left out, until ``[api] base_url`` is set
    (``[webserver] base_url`` on Airflow 2.11).

    One instance can serve many tasks, in ``default_args`` for instance.

    Every templated parameter can also be a callable, which gets ``context`` and ``jinja_env``, as in any operator.

    :param contact_mobile_number: one number or several, as a list, a template that renders to one, or separated by
        commas, each with ``+`` and country code or in the national form of the connection's ``default_region``.
        (templated)
    :param message: the text. By default one that says what has happened, for people on a phone. A name that ends in
        ``.j2`` is a template file beside the DAG; not in a deadline alert, which has no DAG. (templated)
    :param document: a document: local path, or URI that Airflow's ``ObjectStoragePath`` reads. (templated)
    :param document_content_type: its MIME type; by default the one that goes with the file's name. (templated)
    :param media: an image, a video or an audio file, in the same forms. (templated)
    :param media_content_type: as ``document_content_type``. (templated)
    :param instance_id: the sending WhatsApp Web session; by default the connection's. (templated)
    :param wassly_conn_id: the Airflow connection. (templated)
    :param context: what Airflow hands to a deadline alert.
    """

    template_fields: Sequence[str] = (
        "message",
        "contact_mobile_number",
        "document",
        "document_content_type",
        "media",
        "media_content_type",
        "instance_id",
        "wassly_conn_id",
    )

    _began: float | None = None

    def __init__(
        self,
        *,
        contact_mobile_number: Any,
        message: Any = None,
        document: Any = None,
        document_content_type: str | None = None,
        media: Any = None,
        media_content_type: str | None = None,
        instance_id: Any = None,
        wassly_conn_id: Any = "wassly_default",
        context: bases.Context | None = None,
    ) -> None:
        super().__init__()
        self.context = context or {}
        # What has "resolve" is the output of a task, which is no list yet.
        is_whole = isinstance(contact_mobile_number, str) or hasattr(contact_mobile_number, "resolve")
        if not (is_whole or callable(contact_mobile_number) or isinstance(contact_mobile_number, Iterable)):
            kind = type(contact_mobile_number).__name__
            raise ValueError(f"contact_mobile_number: must be a number as text, or a list of them, not {kind}")
        self.contact_mobile_number = (
            contact_mobile_number if is_whole or callable(contact_mobile_number) else list(contact_mobile_number)
        )
        self.message = templates.as_message(message)
        self.document = templates.as_path(document)
        self.document_content_type = document_content_type
        self.media = templates.as_path(media)
        self.media_content_type = media_content_type
        self.instance_id = instance_id
        self.wassly_conn_id = wassly_conn_id

    def __call__(self, *args: Any) -> None:
        """Render and send, on a copy."""
        super(WasslyNotifier, self._for_one_call()).__call__(*args)

    def __await__(self) -> Generator[Any, Any, Any]:
        """Render and send, on a copy."""
        return super(WasslyNotifier, self._for_one_call()).__await__()

    def _for_one_call(self) -> WasslyNotifier:
        # Airflow renders in place. The second task of a shared instance would tell the text of the first.
        own = copy.copy(self)
        # What is called for a field takes its time too.
        own._began = time.monotonic()
        return own

    def get_template_env(self, dag: Any = None) -> jinja2.Environment:
        """Return the DAG's environment; one that knows no filters of the user's where there is no whole DAG."""
        if hasattr(dag, "get_template_env"):
            whole: jinja2.Environment = dag.get_template_env(force_sandboxed=True)
            return whole
        env = super().get_template_env()
        if file := getattr(dag, "fileloc", None):
            # ``airflow dags test`` of 3.1 and later gives the callbacks of a DAG no more than its serialized form.
            from jinja2 import FileSystemLoader

            env.loader = FileSystemLoader(os.path.dirname(file))
        return env

    def render_template_fields(self, context: bases.Context, jinja_env: jinja2.Environment | None = None) -> None:
        """
        Render or call all fields.

        Before 3.3, Airflow itself would call none, and leave a template in place that renders to nothing.
        """
        env = jinja_env or self.get_template_env(context.get("dag"))
        for name in self.template_fields:
            value = getattr(self, name)
            if callable(value):
                rendered = value(context=context, jinja_env=env)
            else:
                rendered = self.render_template(value, context, env, set())
            setattr(self, name, rendered)

    def render_template(
        self,
        content: Any,
        context: bases.Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Render what a field holds, as text; call what says whom to notify."""
        if isinstance(content, list) and any(map(callable, content)):
            # On a list of people to notify each can be one of a template, a number or what says who is on duty.
            env = self.text_environment(context, jinja_env)
            content = [each(context=context, jinja_env=env) if callable(each) else each for each in content]
        return super().render_template(content, context, jinja_env, seen_oids)

    def text_environment(self, context: bases.Context, jinja_env: jinja2.Environment | None) -> jinja2.Environment:
        """Return the environment of the DAG's templates."""
        return jinja_env or self.get_template_env(context.get("dag"))

    def notify(self, context: bases.Context) -> None:
        """
        Send the message to every recipient.

        :raises WasslyError: when somebody certainly or perhaps was not reached.
        """
        self._notify(context)

    async def async_notify(self, context: bases.Context) -> None:
        """
        Do the same, in a thread and not in the event loop.

        :raises WasslyError: when somebody certainly or perhaps was not reached.
        """
        from asgiref.sync import sync_to_async

        # Not asyncio.to_thread: Airflow's own calls go back to this event loop from such a thread.
        await sync_to_async(self._notify, thread_sensitive=False)(context)

    def _notify(self, context: bases.Context) -> None:
        from airflow_provider_wassly.client.messages import MAX_CAPTION, MAX_MESSAGE, MessageParameters
        from airflow_provider_wassly.notifications.default_message import default_message
        from airflow_provider_wassly.notifications.delivery import notify_everybody
        from airflow_provider_wassly.notifications.plain_text import plain_text

        message = self.message
        if message is None:
            has_file = self.document is not None or self.media is not None
            message = default_message(context, MAX_CAPTION if has_file else MAX_MESSAGE)
        elif isinstance(message, str):
            message = plain_text(message)
        parameters = MessageParameters(
            contact_mobile_number=None,
            message=message,
            document=self.document,
            document_content_type=self.document_content_type,
            media=self.media,
            media_content_type=self.media_content_type,
            instance_id=self.instance_id,
        )
        notify_everybody(
            list(_separate(self.contact_mobile_number)),
            parameters,
            wassly_conn_id=self.wassly_conn_id,
            # A deadline alert can run in a process that never answers when a Variable is set.
            keep_quota="deadline" not in context,
            began=self._began,
        )


def _separate(numbers: Any) -> Iterator[Any]:
    """Yield one number after the other, whichever way they are written."""
    if isinstance(numbers, str) and (written := _written_list(numbers)) is not None:
        numbers = written or [""]
    if isinstance(numbers, str):
        # What is empty as a whole stays: somebody who was to be notified is not.
        yield from [number for number in re.split(r"[,;\n]", numbers) if number.strip()] or [""]
    elif isinstance(numbers, Iterable) and not isinstance(numbers, (bytes, Mapping)):
        for each in numbers:
            yield from _separate(each)
    else:
        yield numbers


def _written_list(text: str) -> list[Any] | None:
    """Return what a list holds that a template has made text of, as JSON or as Python writes it."""
    if not text.strip().startswith(("[", "(", "{")):
        return None
    for read in (json.loads, ast.literal_eval):
        # What neither of them can read is a number, such as (0170) 1234567.
        with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = read(text.strip())
            return list(value) if isinstance(value, (list, tuple, set)) else None
    return None


send_wassly_notification = WasslyNotifier
