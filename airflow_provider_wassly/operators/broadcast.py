"""The operator that sends one message to a whole list."""

from __future__ import annotations

import copy
import math
from collections.abc import Hashable, Sequence
from datetime import timedelta
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_wassly.airflow_compat import bases, config, templates, variables, versions
from airflow_provider_wassly.operators.base import WasslyTask, check_content, fail

if TYPE_CHECKING:
    from collections.abc import Callable

    import jinja2

    from airflow_provider_wassly.broadcast.recipients import RecipientList, Row, Survey
    from airflow_provider_wassly.broadcast.record import BroadcastRecord
    from airflow_provider_wassly.broadcast.report import Output
    from airflow_provider_wassly.broadcast.run import BroadcastRun, Tally
    from airflow_provider_wassly.client import OutgoingMessage, WasslyError
    from airflow_provider_wassly.hooks.wassly import WasslyHook

#: Rendered once for each recipient.
_PER_RECIPIENT = (
    "message",
    "document",
    "document_name",
    "document_content_type",
    "media",
    "media_name",
    "media_content_type",
)

#: Stands in where a message is checked before it is known to whom it goes.
_SOMEBODY = "+447700900000"

#: A reading of the quota that is older says nothing.
_MAX_AGE = timedelta(hours=36)

#: Rows that ``validate_first`` names; so many are enough to see what is wrong.
_MAX_NAMED = 20


class WasslyBroadcastOperator(WasslyTask):
    """
    Sends one WhatsApp message to every recipient of a list, each with texts and files of their own if wanted.

    WhatsApp bans numbers that send unwanted or too many messages. Send only to people who have asked for it, and
    keep the pace slow.

    The task records each recipient before sending, and the result afterwards. A retry, or clearing the task after it
    has failed, resumes where the previous attempt stopped: nobody gets a second message, and recipients whose outcome
    is unknown (at most ``2 × max_workers`` each time that its process is killed) are skipped. Clearing the task after
    it has succeeded starts over.

    Between attempts, rows that were not sent to may be corrected, and new ones added at the end.

    Returns ``{"recipients": …, "accepted": …, "failed": …, "invalid": …, "unknown": …, "duplicate": …, "not_sent": …,
    "remaining_conversations": …, "duration": …, "messages_per_minute": …, "report": …}``; ``duration`` in seconds.

    :param recipients: a list of mappings or of numbers as text, or the path or URI of a CSV file with a header line,
        or of a file with a JSON array or with a JSON object in each line. Columns: ``contact_mobile_number``, and if
        wanted ``contact_name``, ``instance_id`` and any others. A number that is in it twice is sent to once, see
        ``on_duplicate``. (templated)
    :param message: the text, rendered for each recipient with the task's context and ``recipient``, as in
        ``{{ recipient.invoice }}``. A name that ends in ``.j2`` is a template file. A callable is called for each
        recipient, with that ``context`` and ``jinja_env``.
    :param document: a document, path or URI, likewise.
    :param document_name: the file name that the recipient sees, likewise; by default the last part of the path. One
        without a known extension gets the file's.
    :param document_content_type: its MIME type, likewise; by default the one that goes with the name.
    :param media: an image, a video or an audio file, likewise.
    :param media_name: as ``document_name``.
    :param media_content_type: as ``document_content_type``.
    :param instance_id: the sending WhatsApp Web session, if the row does not name one; by default the
        connection's. (templated)
    :param messages_per_minute: the pace, on average; ``None``: as fast as ``max_workers`` go.
    :param jitter: by what share of it the time between two messages is shorter or longer, by chance; from 0 to 1.
    :param max_workers: how many messages are on their way at the same time.
    :param reserve_conversations: stop before fewer conversations than these remain.
    :param max_failures: how many recipients may fail for the task to succeed: a number, or a share below 1.0. Invalid
        rows count, and so do unknown outcomes unless ``on_outcome_unknown`` is ``ignore``.
    :param on_outcome_unknown: what is done with recipients of whom nobody knows whether the message was accepted:
        ``fail``: they count as failed and are left alone; ``ignore``: they are left alone; ``retry``: a later try
        sends to them again, and they may get the message twice.
    :param on_duplicate: what is done with a row whose number stands in a row before it: ``skip`` it, with a warning if
        the two differ in anything else, or ``send``: each row gets its message.
    :param validate_first: check every row (number, texts, files) before the first message leaves, and send none if
        one is wrong.
    :param report: path or URI of a CSV file to write: one row for each recipient, with what came of it. A mapped task's
        gets the map index in front of the extension: ``report-3.csv``. (templated)
    :param report_numbers: whether it shows numbers ``short`` (``+44…0123``) or ``full``.
    :param unsent: path or URI of a file to write: the rows that were certainly not sent to, with all of their columns
        and a ``reason``; CSV if its name ends in ``.csv``, else JSON lines. It is a valid list of ``recipients``. A
        mapped task's is named as its report. (templated)
    :param on_clear: what clearing the task does after it has failed: ``resume``, or ``restart``, which sends to
        everybody again.
    :param attachment_conn_id: the Airflow connection for the object storage of list, files and report.
    :param wassly_conn_id: the Airflow connection. (templated)
    """

    # Not message, document and media: Airflow would render them before there is a recipient.
    template_fields: Sequence[str] = ("wassly_conn_id", "recipients", "report", "unsent", "instance_id")
    ui_color = "#d3f5df"

    def __init__(
        self,
        *,
        recipients: Any,
        message: Any = None,
        document: Any = None,
        document_name: Any = None,
        document_content_type: Any = None,
        media: Any = None,
        media_name: Any = None,
        media_content_type: Any = None,
        instance_id: str | None = None,
        messages_per_minute: float | None = 10,
        jitter: float = 0.5,
        max_workers: int = 1,
        reserve_conversations: int | None = None,
        max_failures: float = 0,
        on_outcome_unknown: Literal["fail", "retry", "ignore"] = "fail",
        on_duplicate: Literal["skip", "send"] = "skip",
        validate_first: bool = False,
        report: Any = None,
        report_numbers: Literal["short", "full"] = "short",
        unsent: Any = None,
        on_clear: Literal["resume", "restart"] = "resume",
        attachment_conn_id: str | None = None,
        wassly_conn_id: str = "wassly_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        _check_number("messages_per_minute", messages_per_minute, above=0, may_be_none=True)
        _check_number("jitter", jitter, least=0, most=1)
        _check_whole("max_workers", max_workers, least=1)
        if reserve_conversations is not None:
            _check_whole("reserve_conversations", reserve_conversations, least=0)
        if isinstance(max_failures, float) and 0 <= max_failures < 1:
            pass
        else:
            _check_whole("max_failures", max_failures, least=0, otherwise=", or a share such as 0.01")
        if on_outcome_unknown not in ("fail", "retry", "ignore"):
            raise ValueError(f"on_outcome_unknown must be 'fail', 'retry' or 'ignore', not {on_outcome_unknown!r}")
        if on_duplicate not in ("skip", "send"):
            raise ValueError(f"on_duplicate must be 'skip' or 'send', not {on_duplicate!r}")
        if on_clear not in ("resume", "restart"):
            raise ValueError(f"on_clear must be 'resume' or 'restart', not {on_clear!r}")
        if report_numbers not in ("short", "full"):
            raise ValueError(f"report_numbers must be 'short' or 'full', not {report_numbers!r}")
        check_content(message, document, media)
        self.recipients = templates.as_path(recipients)
        if isinstance(self.recipients, str):
            self.recipients = templates.NativeTemplate(self.recipients)
        self.message = templates.as_message(message)
        self.document = templates.as_path(document)
        self.document_name = document_name
        self.document_content_type = document_content_type
        self.media = templates.as_path(media)
        self.media_name = media_name
        self.media_content_type = media_content_type
        self.instance_id = instance_id
        self.messages_per_minute = messages_per_minute
        self.jitter = jitter
        self.max_workers = max_workers
        self.reserve_conversations = reserve_conversations
        self.max_failures = max_failures
        self.on_outcome_unknown = on_outcome_unknown
        self.on_duplicate = on_duplicate
        self.validate_first = validate_first
        self.report = templates.as_path(report)
        self.report_numbers = report_numbers
        self.unsent = templates.as_path(unsent)
        self.on_clear = on_clear
        self.attachment_conn_id = attachment_conn_id
        self.wassly_conn_id = wassly_conn_id
        self._record: BroadcastRecord | None = None
        self._run: BroadcastRun | None = None
        self._stopping = False
        for name in _PER_RECIPIENT:
            # Airflow looks for the outputs of other tasks in template fields only.
            templates.depend_on(self, getattr(self, name))

    @cached_property
    def hook(self) -> WasslyHook:
        """The hook of this task's connection; its client repeats nothing, because all threads have to wait then."""
        from airflow_provider_wassly.hooks.wassly import WasslyHook

        return WasslyHook(self.wassly_conn_id, client_options={"max_attempts": 1, "pool_maxsize": self.max_workers})

    @cached_property
    def _verbatim(self) -> set[str]:
        """What is no template, although it is text."""
        return templates.expanded_over_outputs(self)

    def begin(self, context: bases.Context) -> None:
        """Look what an earlier attempt has left, before anything in this one can fail."""
        from airflow_provider_wassly.broadcast.record import BroadcastRecord
        from airflow_provider_wassly.records.attempts import Attempt
        from airflow_provider_wassly.records.stores import store_of

        store, earlier_store = partial(store_of, context, outlives_clear=True), None
        if context.get("task_state_store") is not None and not versions.CLEARING_KEEPS_TASK_STATE:
            earlier_store = partial(store_of, context)
        self._record = BroadcastRecord(
            store, Attempt.of(context), starts_over=self.on_clear == "restart", earlier_store=earlier_store
        )
        self._record.look()

    def execute(self, context: bases.Context) -> dict[str, Any]:
        """
        Send to everybody on the list who was not sent to by an earlier attempt.

        :raises AirflowFailException: when no retry can help, without using them.
        :raises WasslyError: when a retry can, so that ``retries`` apply.
        """
        from airflow_provider_wassly.broadcast.recipients import RecipientList, survey
        from airflow_provider_wassly.broadcast.report import Report, Unsent, check_places
        from airflow_provider_wassly.client import WasslyError
        from airflow_provider_wassly.records.stores import when_it_ends

        if self._record is None:
            self.begin(context)
        record = self._record
        assert record is not None
        outputs: list[Output] = []
        has_sent = False
        when_it_ends(context, lambda succeeded: record.remove() if succeeded or record.knows_nothing else None)
        try:
            recipients = RecipientList(self.recipients, self.attachment_conn_id)
            surveyed = survey(recipients)
            record.resume(surveyed)
            if self.report is not None:
                place = self._place(self.report, context)
                outputs.append(Report(place, self.attachment_conn_id, self.report_numbers == "full"))
            if self.unsent is not None:
                outputs.append(Unsent(self._place(self.unsent, context), self.attachment_conn_id))
            check_places(recipients.file, outputs)
            self._check_templates(context, surveyed)
            prepare = self._preparer(context)
            if self.validate_first and not record.is_resumed:
                self._validate(recipients, prepare)
            record.begin(self.hook.get_conn().clock)
            run = self._run = self._make_run(recipients, surveyed, record, prepare, outputs)
            if self._stopping:
                run.kill()
            self._tell_if_cleared(record)
            try:
                run.run(config.seconds_after_sigterm())
            except WasslyError:
                raise
            except BaseException as interruption:
                # Airflow ends the task: what it has done is to be known all the same.
                self._tell_and_save(context, run.tally, outputs, f"the task was ended by {type(interruption).__name__}")
                raise
            has_sent = True
            return self._end(context, record, run, outputs)
        except WasslyError as error:
            if record.is_resumed and not has_sent:
                self._tell_of_earlier_attempts(context, record, error)
            fail(error)
        finally:
            for output in outputs:
                output.close()

    def on_kill(self) -> None:
        """Let no message leave from now on; answers that are on their way are still written down."""
        # Only this: it runs inside of a signal handler, from which Airflow cannot be called.
        self._stopping = True
        if self._run is not None:
            self._run.kill()

    def _make_run(
        self,
        recipients: RecipientList,
        surveyed: Survey,
        record: BroadcastRecord,
        prepare: Callable[[Row], OutgoingMessage],
        outputs: Sequence[Output],
    ) -> BroadcastRun:
        from airflow_provider_wassly.broadcast.pace import Pace
        from airflow_provider_wassly.broadcast.run import BroadcastRun, Limits

        recorded_quota = None if self.reserve_conversations is None else self._recorded_quota()
        run = BroadcastRun(
            hook=self.hook,
            recipients=recipients,
            survey=surveyed,
            record=record,
            prepare=prepare,
            pace=Pace(self.messages_per_minute, self.jitter, clock=self.hook.get_conn().clock),
            limits=Limits(
                self.max_workers,
                self.reserve_conversations,
                repeats_unknown=self.on_outcome_unknown == "retry",
                repeats_numbers=self.on_duplicate == "send",
            ),
            outputs=outputs,
        )
        run.tally.remaining_conversations = recorded_quota
        return run

    def _tell_if_cleared(self, record: BroadcastRecord) -> None:
        if record.is_cleared and record.is_resumed:
            self.log.info(
                "Resuming, because this task was cleared after it had failed: nobody is sent to twice. To send to "
                "everybody again, start a new DAG run, or set on_clear='restart'"
            )
        elif record.is_cleared:
            self.log.info("Sending to everybody again: this task was cleared after it had failed (on_clear='restart')")

    def _recorded_quota(self) -> int | None:
        """Return how many conversations remain as far as anybody knows; the first answer will tell better."""
        reading = self.hook.get_quota() if variables.can_reach_airflow() else None
        return reading.remaining_conversations if reading is not None and reading.age < _MAX_AGE else None

    def _preparer(self, context: bases.Context) -> Callable[[Row], OutgoingMessage]:
        """Return what makes the message to a row."""
        from airflow_provider_wassly.broadcast.recipients import Recipient
        from airflow_provider_wassly.client import MessageParameters, WasslyInvalidMessage

        env = self.text_environment(context)
        own_context: Any = copy.copy(context)
        renderers = {name: self._renderer(name, own_context, env) for name in _PER_RECIPIENT}

        def render(name: str) -> Any:
            try:
                return renderers[name]()
            except Exception as error:  # filters and macros of the DAG can raise anything, for one row and not the next
                raise WasslyInvalidMessage(_reason(error), field=name) from None

        def find(parameter: str, location: Any, name: Any, content_type: Any) -> Any:
            return self.hook.attachment(
                location,
                parameter=parameter,
                name=name,
                content_type=content_type,
                attachment_conn_id=self.attachment_conn_id,
            )

        find_once = lru_cache(maxsize=128)(find)

        def attachment(parameter: str) -> Any:
            file = [render(name) for name in (parameter, f"{parameter}_name", f"{parameter}_content_type")]
            if file[0] is None:
                return None
            return (find_once if all(isinstance(value, Hashable) for value in file) else find)(parameter, *file)

        self._check_what_all_get(render, attachment, env)

        def prepare(row: Row) -> OutgoingMessage:
            own_context["recipient"] = Recipient(row.values)
            instance_id = row.values.get("instance_id")
            try:
                parameters = MessageParameters(
                    contact_mobile_number=row.number,
                    contact_name=row.values.get("contact_name"),
                    message=render("message"),
                    document=attachment("document"),
                    media=attachment("media"),
                    instance_id=(instance_id.strip() if isinstance(instance_id, str) else instance_id)
                    or self.instance_id,
                )
                return self.hook.prepare(parameters)
            except WasslyInvalidMessage as error:
                # A path, or what a filter says, can hold it.
                error.message = _without_number(error.message, row.number)
                raise

        return prepare

    def _check_what_all_get(
        self, render: Callable[[str], Any], attachment: Callable[[str], Any], env: jinja2.Environment
    ) -> None:
        """
        Refuse before the first message what would be refused in each row.

        :raises WasslyInvalidMessage: names the parameter.
        """
        from airflow_provider_wassly.client.messages import MessageParameters, prepare

        same = {name for name in _PER_RECIPIENT if self._is_the_same_for_all(name, env)}
        files = {
            parameter: attachment(parameter)
            for parameter in ("document", "media")
            if {parameter, f"{parameter}_name", f"{parameter}_content_type"} <= same
        }
        message = render("message") if "message" in same else None
        is_empty = message is None or (isinstance(message, str) and not message.strip())
        if is_empty and len(same) < len(_PER_RECIPIENT):
            message = "-"  # there may be a file
        prepare(MessageParameters(_SOMEBODY, message, instance_id="-", **files))

    def _is_the_same_for_all(self, name: str, env: jinja2.Environment) -> bool:
        from airflow_provider_wassly.broadcast.columns import is_the_same_for_all

        value = getattr(self, name)
        if callable(value) or hasattr(value, "protocol"):
            return False
        if not isinstance(value, str) or name in self._verbatim:
            return True
        return is_the_same_for_all(self._source(name, value, env), env)

    def _renderer(self, name: str, context: bases.Context, env: jinja2.Environment) -> Callable[[], Any]:
        """Return what renders a parameter for the recipient that is in ``context`` by then."""
        value = getattr(self, name)
        if isinstance(value, str) and name not in self._verbatim:
            template = self._template(name, value, env)
            return lambda: templates.render_to_string(template, context)
        if callable(value):
            return lambda: value(context=context, jinja_env=env)
        if hasattr(value, "protocol"):
            return lambda: self.render_template(value, context, env)
        if hasattr(value, "iter_references"):
            self._check_order(name, value)
            value = self.render_template(value, context, env)
        return lambda: value

    def _template(self, name: str, value: str, env: jinja2.Environment) -> jinja2.Template:
        import jinja2

        from airflow_provider_wassly.client import WasslyInvalidMessage

        try:
            return templates.template_of(value, env)
        except (jinja2.TemplateError, ValueError) as error:
            raise WasslyInvalidMessage(_reason(error), field=name) from None

    def _check_templates(self, context: bases.Context, surveyed: Survey) -> None:
        """
        Refuse templates that name what no row and no context has: each row would be invalid.

        :raises WasslyInvalidMessage: names it.
        """
        from airflow_provider_wassly.broadcast.columns import columns_needed, unknown_names
        from airflow_provider_wassly.client import WasslyInvalidMessage

        env = self.text_environment(context)
        for name in _PER_RECIPIENT:
            value = getattr(self, name)
            if not isinstance(value, str) or name in self._verbatim:
                continue
            source = self._source(name, value, env)
            for unknown in sorted(unknown_names(source, env, {*context, *templates.names_in_templates()})):
                raise WasslyInvalidMessage(
                    f"names {unknown}, which no template has; the columns of the list are recipient.…", field=name
                )
            if surveyed.columns is None:
                continue
            for column in sorted(columns_needed(source, env) - surveyed.columns):
                raise WasslyInvalidMessage(
                    f"names recipient.{column}, but the list has no such column; its columns: "
                    f"{', '.join(sorted(surveyed.columns)[:_MAX_NAMED])}",
                    field=name,
                )

    def _source(self, name: str, value: str, env: jinja2.Environment) -> str:
        """Return the text of a template that is one."""
        self._template(name, value, env)  # says what is wrong with it, if anything is
        if env.loader is None or not isinstance(value, templates.TemplateFile):
            return value
        return env.loader.get_source(env, value)[0]

    def _check_order(self, name: str, output: Any) -> None:
        """Refuse the output of a task that may not have run: in ``partial``, Airflow looks at template fields only."""
        from airflow_provider_wassly.client import WasslyInvalidMessage

        upstream = self.get_flat_relative_ids(upstream=True)
        for task, _ in output.iter_references():
            if task.task_id not in upstream:
                raise WasslyInvalidMessage(
                    f"the output of {task.task_id}, for which this task does not wait; "
                    f"set {task.task_id} >> {self.task_id} in the DAG",
                    field=name,
                )

    def _validate(self, recipients: RecipientList, prepare: Callable[[Row], OutgoingMessage]) -> None:
        from airflow_provider_wassly.client import WasslyInvalidMessage, shorten

        wrong, number = [], 0
        for rows in recipients.chunks():
            for row in rows:
                try:
                    if row.error:
                        raise WasslyInvalidMessage(row.error, field="the row")
                    prepare(row)
                except WasslyInvalidMessage as error:
                    number += 1
                    if number <= _MAX_NAMED:
                        wrong.append(f"{row.where} ({shorten(str(row.number))}): {error.message}")
        if number:
            more = f"; and {number - _MAX_NAMED} more" if number > _MAX_NAMED else ""
            raise WasslyInvalidMessage(
                f"{number} rows cannot be sent to (validate_first): {'; '.join(wrong)}{more}", field="recipients"
            )

    def _end(
        self, context: bases.Context, record: BroadcastRecord, run: BroadcastRun, outputs: Sequence[Output]
    ) -> dict[str, Any]:
        """Save the report, say whether it was a success, and return the summary."""
        from airflow_provider_wassly.broadcast.run import WasslyBroadcastIncomplete
        from airflow_provider_wassly.client import WasslyError

        tally, problem = run.tally, run.stopped_by
        if problem is None and self._are_too_many(failures := self._failures(tally), tally.total):
            problem = WasslyBroadcastIncomplete(
                f"{failures} failed or in doubt (max_failures={self.max_failures!r})",
                may_pass=tally.may_pass > 0 or (self.on_outcome_unknown == "retry" and tally.outcomes["unknown"] > 0),
            )
        unsaved = self._save(outputs)
        if problem is None and unsaved:
            problem = WasslyBroadcastIncomplete(unsaved, may_pass=True)
        if problem is None:
            try:
                record.write()  # what could not be written when the sending ended
            except WasslyError as error:
                problem = error
        if problem is None:
            if record.is_resumed and not tally.sent:
                self.log.info("Not sending: earlier attempts of this task have sent to everybody")
            self._log_end(tally, outputs)
            return self._with_report(context, tally.summary())
        self._push(context, tally.summary())
        problem = run.as_end_of_broadcast(problem)
        problem.message += _places(outputs)
        raise problem

    def _tell_of_earlier_attempts(self, context: bases.Context, record: BroadcastRecord, error: WasslyError) -> None:
        """Let what kept this attempt from sending not be taken for the whole of it."""
        from airflow_provider_wassly.client import WasslyError

        if error.accepted is not None:
            error.verdict = "This attempt sent nothing"
        try:
            counts = record.counts()
        except WasslyError as failure:
            self.log.debug("The send record could not be read: %s", failure)
            return
        error.message += f" (earlier attempts: {counts['accepted']} accepted, {counts['unknown']} unknown)"
        self._push(context, counts)

    def _tell_and_save(self, context: bases.Context, tally: Tally, outputs: Sequence[Output], reason: str) -> None:
        self.log.error("%s: %s", reason, tally.in_words())
        self._save(outputs)
        self._log_end(tally, outputs)
        self._push(context, tally.summary())

    def _log_end(self, tally: Tally, outputs: Sequence[Output]) -> None:
        left = tally.remaining_conversations
        quota = "" if left is None else f"; {left} conversations remain"
        self.log.info("Broadcast ended: %s%s%s", tally.in_words(), quota, _places(outputs))

    def _save(self, outputs: Sequence[Output]) -> str:
        """Write report and list of the unsent to their places; return what went wrong, nothing if nothing did."""
        wrong = []
        for output in outputs:
            try:
                output.save()
            except Exception as error:
                wrong.append(f"{output.location} could not be saved ({type(error).__name__}: {error})")
                self.log.error("%s", wrong[-1])
        return "; ".join(wrong)

    def _push(self, context: bases.Context, summary: dict[str, Any]) -> None:
        """Return a summary although the task fails, so that a later task can tell what became of it all."""
        ti = context.get("ti")
        if ti is not None and self.do_xcom_push:
            try:
                ti.xcom_push(key="return_value", value=self._with_report(context, summary))
            except Exception as error:
                self.log.warning("Could not push the summary: %s: %s", type(error).__name__, error)

    def _failures(self, tally: Tally) -> int:
        unknown = 0 if self.on_outcome_unknown == "ignore" else tally.outcomes["unknown"]
        return tally.outcomes["failed"] + tally.outcomes["invalid"] + unknown

    def _are_too_many(self, failures: int, total: int) -> bool:
        # A share of the total could fall below the whole number that it stands for: 0.29 * 100 < 29.
        return (failures / total if isinstance(self.max_failures, float) else failures) > self.max_failures

    def _with_report(self, context: bases.Context, summary: dict[str, Any]) -> dict[str, Any]:
        return {**summary, "report": None if self.report is None else str(self._place(self.report, context))}

    def _place(self, location: Any, context: bases.Context) -> Any:
        """Return where something is written, so that the tasks of a mapped one do not overwrite each other's."""
        from airflow_provider_wassly.broadcast.report import indexed

        map_index = getattr(context.get("ti"), "map_index", None)
        return location if map_index is None or map_index < 0 else indexed(location, map_index)


def _places(outputs: Sequence[Output]) -> str:
    """Return where reports were saved, as the end of a line."""
    return "".join(f". {output.parameter.capitalize()}: {output.location}" for output in outputs if output.is_saved)


def _reason(error: Exception) -> str:
    import jinja2

    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"{error.message}, line {error.lineno}"
    if isinstance(error, jinja2.TemplateError):
        return error.message or type(error).__name__
    return f"{type(error).__name__}: {error}"


def _without_number(text: str, number: Any) -> str:
    """Return ``text`` with a recipient's number as log lines may show it."""
    from airflow_provider_wassly.client import shorten

    digits = "".join(filter(str.isdigit, str(number)))
    if len(digits) < 8:
        return text
    return text.replace(str(number), shorten(str(number).strip())).replace(digits, shorten(f"+{digits}")[1:])


def _check_number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float = math.inf,
    may_be_none: bool = False,
) -> None:
    if value is None and may_be_none:
        return
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if is_number and (above is None or value > above) and (least is None or value >= least) and value <= most:
        return
    wanted = f"above {above:g}" if above is not None else f"from {least:g} to {most:g}"
    raise ValueError(f"{name} must be a number {wanted}{', or None' if may_be_none else ''}, not {value!r}")


def _check_whole(name: str, value: Any, *, least: int, otherwise: str = "") -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number from {least} up{otherwise}, not {value!r}")
