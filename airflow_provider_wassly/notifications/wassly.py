"""The notifier: WhatsApp messages as task callbacks, DAG callbacks and deadline alerts."""

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
    Sends a WhatsApp message when a task or a DAG run fails, succeeds, is retried or misses its deadline.

    Use it for ``on_failure_callback``, ``on_retry_callback``, ``on_success_callback`` and the other callbacks of tasks
    and DAGs. One instance can serve many tasks, for example in ``default_args``.

    .. code-block:: python

        with DAG(
            "daily_sales",
            schedule="@daily",
            on_failure_callback=WasslyNotifier(contact_mobile_number=["+447700900101", "+447700900102"]),
        ):
            ...

    As a deadline alert (Airflow 3.1+), pass the class to ``AsyncCallback``:

    .. code-block:: python

        DeadlineAlert(
            reference=DeadlineReference.DAGRUN_QUEUED_AT,
            interval=timedelta(hours=2),
            callback=AsyncCallback(WasslyNotifier, kwargs={"contact_mobile_number": "+447700900123"}),
        )

    A call ends within 15 seconds, however slow Wassly or the file storage is, so that Airflow does not kill it. Within
    that time, a message that was definitely not accepted is sent again if that can help; one whose outcome is unknown
    never is. The log and the error list everyone who was not, or may not have been, reached.

    The default text ends with a link. Set ``[api] base_url`` (``[webserver] base_url`` on Airflow 2.11) to your
    Airflow's address; until then the link points to ``localhost`` or is left out.

    Every templated parameter can also be a callable that takes ``context`` and ``jinja_env``, as in any operator.

    :param contact_mobile_number: the recipients, required: one number, several separated by commas, a list, or a
        template that renders to a list. Each has ``+`` and the country code, or is in the national form of the
        connection's ``default_region``. (templated)
    :param message: the text. Default: a short summary of what happened. A name ending in ``.j2`` is a template file
        next to the DAG file (not in a deadline alert, which has no DAG). (templated)
    :param document: a document to attach: a local path or a URI that Airflow's ``ObjectStoragePath`` reads. Default:
        none. (templated)
    :param document_content_type: the document's MIME type. Default: the type that its name implies. (templated)
    :param media: an image, a video or an audio file to attach: a path or URI, as for ``document``. Default: none.
        (templated)
    :param media_content_type: the MIME type of ``media``. Default: the type that its name implies. (templated)
    :param instance_id: the WhatsApp Web session that sends. Default: the connection's. (templated)
    :param wassly_conn_id: the Airflow connection. Default: ``wassly_default``. (templated)
    :param context: set by Airflow for a deadline alert; leave it out.
    :raises ValueError: when the DAG is parsed and ``contact_mobile_number`` is neither text nor a list.
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
        # An object with "resolve" is a task's output, which is not a list yet.
        is_whole = isinstance(contact_mobile_number, str) or hasattr(contact_mobile_number, "resolve")
        if not (is_whole or callable(contact_mobile_number) or isinstance(contact_mobile_number, Iterable)):
            kind = type(contact_mobile_number).__name__
            raise ValueError(f"contact_mobile_number: must be text or a list of texts, not {kind}")
        self.contact_mobile_number = (
            contact_mobile_number if is_whole or callable(contact_mobile_number) else list(contact_mobile_number)
        )
        self.message = message
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
        # Airflow renders in place: with a shared instance, the second task would send the first one's text.
        own = copy.copy(self)
        # The time limit includes rendering, because callables can be slow.
        own._began = time.monotonic()
        return own

    def get_template_env(self, dag: Any = None) -> jinja2.Environment:
        """Return the DAG's environment, or one without the user's filters where the full DAG is not available."""
        if hasattr(dag, "get_template_env"):
            whole: jinja2.Environment = dag.get_template_env(force_sandboxed=True)
            return whole
        env = super().get_template_env()
        if file := getattr(dag, "fileloc", None):
            # From 3.1 on, ``airflow dags test`` passes only the serialized DAG to DAG callbacks.
            from jinja2 import FileSystemLoader

            env.loader = FileSystemLoader(os.path.dirname(file))
        return env

    def render_template_fields(self, context: bases.Context, jinja_env: jinja2.Environment | None = None) -> None:
        """
        Render or call all fields.

        Before 3.3, Airflow itself calls none, and keeps the template if it renders to nothing.
        """
        env = jinja_env or self.get_template_env(context.get("dag"))
        for name in self.template_fields:
            value = getattr(self, name)
            if callable(value):
                rendered = value(context=context, jinja_env=env)
            else:
                with self.rendering(name):
                    rendered = self.render_template(value, context, env, set())
            setattr(self, name, rendered)

    def render_template(
        self,
        content: Any,
        context: bases.Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Render a field's value as text; in a list of recipients, call every callable."""
        if isinstance(content, list) and any(map(callable, content)):
            # Each recipient can be a number, a template, or a callable that returns who is on duty.
            env = self.text_environment(context, jinja_env)
            content = [each(context=context, jinja_env=env) if callable(each) else each for each in content]
        return super().render_template(content, context, jinja_env, seen_oids)

    def text_environment(self, context: bases.Context, jinja_env: jinja2.Environment | None) -> jinja2.Environment:
        """Return the environment of the DAG's templates."""
        return jinja_env or self.get_template_env(context.get("dag"))

    def notify(self, context: bases.Context) -> None:
        """
        Send the message to every recipient.

        :raises WasslyError: when a recipient was not, or may not have been, reached.
        """
        self._notify(context)

    async def async_notify(self, context: bases.Context) -> None:
        """
        Send the message to every recipient, in a thread so as not to block the event loop.

        :raises WasslyError: when a recipient was not, or may not have been, reached.
        """
        from asgiref.sync import sync_to_async

        # Not asyncio.to_thread: Airflow's own calls reach this event loop only from a thread of asgiref's.
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
            # A deadline alert can run in a process where setting a Variable hangs.
            use_variables="deadline" not in context,
            began=self._began,
        )


def _separate(numbers: Any) -> Iterator[Any]:
    """Yield each number, however they are written: as a list, as text, or as a list in text."""
    if isinstance(numbers, str) and (written := _written_list(numbers)) is not None:
        numbers = written or [""]
    if isinstance(numbers, str):
        # Keep an empty value, so that it becomes an error: somebody who should be notified is missing.
        yield from [number for number in re.split(r"[,;\n]", numbers) if number.strip()] or [""]
    elif isinstance(numbers, Iterable) and not isinstance(numbers, (bytes, Mapping)):
        for each in numbers:
            yield from _separate(each)
    else:
        yield numbers


def _written_list(text: str) -> list[Any] | None:
    """Return the items of a list that a template has rendered as text, in JSON or Python syntax."""
    if not text.strip().startswith(("[", "(", "{")):
        return None
    for read in (json.loads, ast.literal_eval):
        # Text that neither can read is a number, such as (0170) 1234567.
        with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = read(text.strip())
            return list(value) if isinstance(value, (list, tuple, set)) else None
    return None


send_wassly_notification = WasslyNotifier
