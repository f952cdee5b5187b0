"""The operator that sends one message to a whole list."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from datetime import timezone as timezones
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, NoReturn
from zoneinfo import ZoneInfo

from airflow_provider_wassly.airflow_compat import bases, config, templates, variables, versions
from airflow_provider_wassly.operators.base import WasslyTask, check_content, fail

if TYPE_CHECKING:
    from airflow_provider_wassly.broadcast.devices import Wait
    from airflow_provider_wassly.broadcast.exclusions import Exclusions
    from airflow_provider_wassly.broadcast.outputs import Outputs
    from airflow_provider_wassly.broadcast.record import BroadcastRecord
    from airflow_provider_wassly.broadcast.rendering import MessageRenderer
    from airflow_provider_wassly.broadcast.run import BroadcastRun
    from airflow_provider_wassly.broadcast.tally import Tally
    from airflow_provider_wassly.client import WasslyError
    from airflow_provider_wassly.hooks.wassly import WasslyHook

#: Rendered once per recipient. Listed here, because parsing a DAG needs them and must not import the renderer.
_PER_RECIPIENT = (
    "message",
    "document",
    "document_name",
    "document_content_type",
    "media",
    "media_name",
    "media_content_type",
)

#: How long a wait may outlast its time before Airflow ends it, because no triggerer is there to end it.
_WAIT_GRACE = timedelta(minutes=10)

#: Seconds between two looks at the devices of a task that waits without a worker slot.
_POKE_INTERVAL = 60.0

#: The oldest reading of the quota to rely on.
_MAX_AGE = timedelta(hours=36)


class WasslyBroadcastOperator(WasslyTask):
    """
    Sends a WhatsApp message to every recipient of a list, each with their own text and files if wanted.

    WhatsApp bans numbers that send unwanted or too many messages. Send only to people who have asked for it, and
    keep the pace slow.

    .. code-block:: python

        WasslyBroadcastOperator(
            task_id="send_reminders",
            recipients="/data/{{ ds }}/customers.csv",
            message="Hello {{ recipient.name }}, your invoice {{ recipient.invoice }} is due.",
            document="/data/{{ ds }}/{{ recipient.invoice }}.pdf",
            max_failures=0.01,
            report="/data/{{ ds }}/report.csv",
        )

    The task records each recipient before sending, and the result afterwards. A retry, or clearing the task after it
    has failed, resumes where the previous attempt stopped: nobody gets a second message, and recipients whose outcome
    is unknown (at most ``2 × max_workers`` each time its process is killed) are skipped. Clearing the task after it
    has succeeded starts over.

    Between attempts, you may correct rows that were not sent to, and add new ones at the end.

    Returns ``{"recipients": …, "accepted": …, "failed": …, "invalid": …, "unknown": …, "duplicate": …, "excluded": …,
    "not_sent": …, "remaining_conversations": …, "duration": …, "messages_per_minute": …, "report": …}``, the duration
    in seconds.

    :param recipients: a list of dicts or of numbers as text; or the path or URI of a CSV file with a header line, of a
        file with a JSON array, or of a file with one JSON object per line. Columns: ``contact_mobile_number``
        (required), ``contact_name``, ``instance_id``, and any others for the templates. A number that appears twice
        gets one message; see ``on_duplicate``. (templated)
    :param exclude: the numbers that are never sent to, such as people who have opted out, in any form of
        ``recipients``, as a set, or as the path or URI of a text file with one number per line; by default none. Any
        spelling of a number excludes it. A file is read again in each attempt and after each wait. If it is missing, or
        one of its numbers cannot be read, nothing (more) is sent. (templated)
    :param message: the text, rendered for each recipient with the task's context and ``recipient``, as in
        ``{{ recipient.invoice }}``; required if there is neither ``document`` nor ``media``. A name ending in ``.j2``
        is a template file. A callable is called for each recipient with ``context`` and ``jinja_env``.
    :param document: the path or URI of a document. Rendered like ``message``, as are the next five parameters.
    :param document_name: the file name that the recipient sees; by default the last part of the path. A name without
        a known extension gets the extension of the file.
    :param document_content_type: the MIME type; by default the one that matches the name.
    :param media: the path or URI of an image, a video or an audio file.
    :param media_name: as ``document_name``.
    :param media_content_type: as ``document_content_type``.
    :param instance_id: the sending WhatsApp Web session for rows that name none; by default the connection's.
        (templated)
    :param instance_ids: several sessions that share the rows that name none, instead of ``instance_id``. A row keeps
        its session in all attempts. (templated)
    :param messages_per_minute: the average pace of each sending session; by default 10. ``None`` sends without a pace
        limit.
    :param jitter: random variation of the gap between two messages, as a fraction from 0 to 1; by default 0.5.
    :param send_between: when messages may leave, as two times such as ``("09:00", "20:00")``; ``("22:00", "06:00")``
        crosses midnight and belongs to the day on which it begins. By default at any time.
    :param send_on: the days on which messages may leave, such as ``{"mon", "tue", "wed"}``; by default every day.
    :param timezone: the time zone of ``send_between``, ``send_on`` and ``max_per_day``, such as ``Europe/Berlin``; by
        default the DAG's.
    :param max_per_day: how many messages of this task may leave from each session on a calendar day, over all attempts;
        by default there is no limit. A message whose outcome is unknown counts.
    :param max_workers: how many messages may be in flight at once, from all sessions together; by default 1.
    :param reserve_conversations: stop before fewer conversations than this remain; by default there is no reserve.
    :param max_failures: how many recipients may fail while the task still succeeds: a number, or a fraction of the list
        below 1.0; by default 0. Invalid rows count, and so do unknown outcomes unless ``on_outcome_unknown`` is
        ``ignore``.
    :param on_outcome_unknown: what to do with recipients whose outcome is unknown: ``fail`` skips them and counts them
        as failures (default), ``ignore`` skips them, ``retry`` sends to them again in the next attempt, so that they
        may get the message twice.
    :param on_duplicate: what to do with a row whose number is in an earlier row: ``skip`` it, with a warning if the two
        rows differ in anything else (default), or ``send`` the message of each row.
    :param validate_first: check every row that is not excluded (number, texts, files) before the first message leaves,
        and send nothing if one is wrong; by default wrong rows are skipped and counted as invalid.
    :param on_device_disconnected: ``wait`` until a disconnected session is back (default), while the others keep
        sending; or leave its rows for the next attempt and ``fail`` once the others are done.
    :param wait_timeout: the longest that all waits of an attempt may take together, nights included: for hours and
        days, ``max_per_day``, a disconnected session, and a long ``Retry-After`` from Wassly; by default 7 days. Then
        the attempt fails, and a retry resumes.
    :param deferrable: whether the task gives up its worker slot during waits of more than a minute; by default
        ``[operators] default_deferrable``. This needs a triggerer. The task resumes in the same attempt.
    :param report: path or URI of a CSV file to write, with one line per recipient and its outcome; by default none. A
        mapped task adds its index to the name: ``report-3.csv``. (templated)
    :param report_numbers: whether the report shows numbers ``short`` (``+44…0123``, the default) or ``full``.
    :param unsent: path or URI of a file to write, with the rows that were definitely not sent to, all their columns and
        a ``reason``: CSV if its name ends in ``.csv``, otherwise JSON lines. It is a valid list of ``recipients`` and
        leaves out duplicate and excluded rows. By default none; a mapped task adds its index to the name. (templated)
    :param on_clear: what to do when the task is cleared after it has failed: ``resume`` (default), or ``restart``,
        which sends to everyone again.
    :param attachment_conn_id: the Airflow connection for the object storage of list, files and report; by default none.
    :param wassly_conn_id: the Airflow connection; by default ``wassly_default``. (templated)
    """

    # Without message, document and media: Airflow would render them before there is a recipient.
    template_fields: Sequence[str] = (
        "wassly_conn_id",
        "recipients",
        "exclude",
        "report",
        "unsent",
        "instance_id",
        "instance_ids",
    )
    native_fields = ("recipients", "exclude")
    ui_color = "#d3f5df"

    def __init__(
        self,
        *,
        recipients: Any,
        exclude: Any = None,
        message: Any = None,
        document: Any = None,
        document_name: Any = None,
        document_content_type: Any = None,
        media: Any = None,
        media_name: Any = None,
        media_content_type: Any = None,
        instance_id: str | None = None,
        instance_ids: Sequence[str] | None = None,
        messages_per_minute: float | None = 10,
        jitter: float = 0.5,
        send_between: tuple[str, str] | None = None,
        send_on: Collection[str] | None = None,
        timezone: str | None = None,
        max_per_day: int | None = None,
        max_workers: int = 1,
        reserve_conversations: int | None = None,
        max_failures: float = 0,
        on_outcome_unknown: Literal["fail", "retry", "ignore"] = "fail",
        on_duplicate: Literal["skip", "send"] = "skip",
        validate_first: bool = False,
        on_device_disconnected: Literal["wait", "fail"] = "wait",
        wait_timeout: timedelta = timedelta(days=7),
        deferrable: bool | None = None,
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
        if on_device_disconnected not in ("wait", "fail"):
            raise ValueError(f"on_device_disconnected must be 'wait' or 'fail', not {on_device_disconnected!r}")
        if max_per_day is not None:
            _check_whole("max_per_day", max_per_day, least=1)
        if not isinstance(wait_timeout, timedelta) or wait_timeout < timedelta(0):
            raise ValueError(f"wait_timeout must be a timedelta such as timedelta(days=7), not {wait_timeout!r}")
        _check_hours(send_between, send_on, timezone)
        _check_instances(instance_id, instance_ids)
        if on_duplicate not in ("skip", "send"):
            raise ValueError(f"on_duplicate must be 'skip' or 'send', not {on_duplicate!r}")
        if on_clear not in ("resume", "restart"):
            raise ValueError(f"on_clear must be 'resume' or 'restart', not {on_clear!r}")
        if report_numbers not in ("short", "full"):
            raise ValueError(f"report_numbers must be 'short' or 'full', not {report_numbers!r}")
        check_content(message, document, media)
        self.recipients = templates.as_path(recipients)
        self.exclude = templates.as_path(exclude)
        self.message = message
        self.document = templates.as_path(document)
        self.document_name = document_name
        self.document_content_type = document_content_type
        self.media = templates.as_path(media)
        self.media_name = media_name
        self.media_content_type = media_content_type
        self.instance_id = instance_id
        self.instance_ids = instance_ids
        self.send_between = send_between
        self.send_on = send_on
        self.timezone = timezone
        self.max_per_day = max_per_day
        self.on_device_disconnected = on_device_disconnected
        self.wait_timeout = wait_timeout
        self.deferrable = config.default_deferrable() if deferrable is None else deferrable
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
        self._excludes = exclude is not None
        self._record: BroadcastRecord | None = None
        self._run: BroadcastRun | None = None
        self._stopping = False
        for name in _PER_RECIPIENT:
            # Airflow only looks for the outputs of other tasks in template fields.
            templates.depend_on(self, getattr(self, name))

    @cached_property
    def hook(self) -> WasslyHook:
        """The hook of this task's connection. Its client repeats nothing, because then all threads have to wait."""
        from airflow_provider_wassly.hooks.wassly import WasslyHook

        return WasslyHook(self.wassly_conn_id, client_options={"max_attempts": 1, "pool_maxsize": self.max_workers})

    def begin(self, context: bases.Context) -> None:
        """Read the record of earlier attempts, before anything in this one can fail."""
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
        Send to every recipient that no earlier attempt sent to.

        :raises AirflowFailException: when no retry can help; it skips the retries.
        :raises WasslyError: when a retry can help, so that ``retries`` apply.
        """
        return self._attempt(context)

    def resume(
        self,
        context: bases.Context,
        event: Any = None,
        *,
        waited: float = 0.0,
        since: str | None = None,
        left_unknown: Sequence[int] = (),
    ) -> dict[str, Any]:
        """
        Resume after a wait without a worker slot, in the same attempt.

        :param event: the trigger's event.
        :param waited: how many seconds the attempt had waited before this wait.
        :param since: when this wait began, in ISO 8601 format.
        :param left_unknown: the positions of the rows that this attempt has left unknown.
        """
        if isinstance(event, dict) and event.get("message"):
            self.log.info("Resuming: %s", event["message"])
        # "airflow dags test" leaves these out. Then each wait may take the whole time.
        began = None if since is None else datetime.fromisoformat(since)
        return self._attempt(context, _Before(timedelta(seconds=waited), began, tuple(left_unknown)))

    def _attempt(self, context: bases.Context, before: _Before | None = None) -> dict[str, Any]:
        from airflow_provider_wassly.broadcast.outputs import Outputs
        from airflow_provider_wassly.client import WasslyError
        from airflow_provider_wassly.records.stores import when_it_ends

        if self._record is None:
            self.begin(context)
        record = self._record
        assert record is not None
        when_it_ends(context, lambda succeeded: record.remove() if succeeded or record.knows_nothing else None)
        outputs = Outputs(self.attachment_conn_id)
        try:
            if before is not None and record.is_missing:
                raise _record_is_missing()
            run = self._send(context, record, outputs, before or _Before())
            if run.waits_for is None:
                return self._end(context, record, run, outputs)
            # The report shows how far the task is while it waits.
            if unsaved := outputs.save():
                self.log.warning("Waiting with an outdated report: %s", unsaved)
        except WasslyError as error:
            fail(error)
        finally:
            outputs.close()
        self._defer(run.waits_for, run.waited, run.left_unknown)

    def _defer(self, wait: Wait, waited: timedelta, left_unknown: Collection[int]) -> NoReturn:
        """Give up the worker slot until a wait is over. Everything is recorded by now, and nothing is in flight."""
        from airflow_provider_wassly.airflow_compat import tasks
        from airflow_provider_wassly.triggers.device import DeviceTrigger

        now = self.hook.get_conn().clock.now()
        deadline = now + self.wait_timeout - waited
        if wait.until is not None:
            deadline = min(deadline, wait.until)
        options = {"wassly_conn_id": self.wassly_conn_id, "deadline": deadline.isoformat()}
        trigger = (
            DeviceTrigger(instance_ids=list(wait.instance_ids), poke_interval=_POKE_INTERVAL, **options)
            if wait.instance_ids
            else tasks.trigger_at(deadline)
        )
        self.defer(
            trigger=trigger,
            method_name="resume",
            kwargs={
                "waited": waited.total_seconds(),
                "since": now.isoformat(),
                "left_unknown": sorted(left_unknown),
            },
            timeout=max(deadline - now, timedelta(0)) + _WAIT_GRACE,
        )

    def on_kill(self) -> None:
        """Let nothing more leave; the replies to messages in flight are still recorded."""
        # No more than this: it runs in a signal handler, from which Airflow cannot be called.
        self._stopping = True
        if self._run is not None:
            self._run.kill()

    def _send(self, context: bases.Context, record: BroadcastRecord, outputs: Outputs, before: _Before) -> BroadcastRun:
        """Set up the broadcast and run it to its end."""
        from airflow_provider_wassly.client import WasslyError

        try:
            run = self._run = self._set_up(context, record, outputs, before)
            if self._stopping:
                run.kill()
            self._log_if_cleared(record)
            try:
                run.run(config.seconds_after_sigterm())
            except WasslyError:
                raise
            except BaseException as interruption:
                # Airflow ends the task. Report what it has done all the same.
                self.log.error("Interrupted by %s: %s", type(interruption).__name__, run.tally.counts_in_words())
                outputs.save()
                self._log_end(run.tally, outputs)
                self._push(context, run.tally.summary())
                raise
            return run
        except WasslyError as error:
            if record.is_resumed:
                self._add_earlier_attempts(context, record, error)
            raise

    def _set_up(
        self, context: bases.Context, record: BroadcastRecord, outputs: Outputs, before: _Before
    ) -> BroadcastRun:
        """Check everything that can be checked before the first message, and return the run that sends."""
        from airflow_provider_wassly.broadcast.hours import Hours
        from airflow_provider_wassly.broadcast.listener import ProgressListener
        from airflow_provider_wassly.broadcast.pace import Pace
        from airflow_provider_wassly.broadcast.recipients import RecipientList, survey
        from airflow_provider_wassly.broadcast.run import BroadcastRun, Limits, read_exclusions

        recipients = RecipientList(self.recipients, self.attachment_conn_id)
        surveyed = survey(recipients)
        record.resume(surveyed)
        exclusions = self._exclusions()
        read_exclusions(exclusions, is_under_way=record.is_resumed)
        outputs.open(
            report=self._place(self.report, context),
            shows_numbers=self.report_numbers == "full",
            unsent=self._place(self.unsent, context),
            sources={"recipients": recipients.file, "exclude": exclusions.file},
        )
        renderer = self._renderer(context)
        renderer.check(surveyed.columns)
        if self.validate_first and not record.is_resumed:
            renderer.check_all(recipients, exclusions)
        clock = self.hook.get_conn().clock
        waited = before.waited
        if before.since is not None:
            waited += max(timedelta(0), clock.now() - before.since)
        record.begin(clock)
        recorded_quota = None if self.reserve_conversations is None else self._recorded_quota()
        run = BroadcastRun(
            hook=self.hook,
            recipients=recipients,
            survey=surveyed,
            record=record,
            message_to=renderer.message_to,
            pace=Pace(self.messages_per_minute, self.jitter, clock=clock),
            limits=Limits(
                self.max_workers,
                self.reserve_conversations,
                repeats_unknown=self.on_outcome_unknown == "retry",
                repeats_numbers=self.on_duplicate == "send",
                hours=Hours(self.send_between, self.send_on, self._zone()),
                max_per_day=self.max_per_day,
                waits_for_devices=self.on_device_disconnected == "wait",
                wait_timeout=self.wait_timeout,
                leaves_slot=self.deferrable,
            ),
            outputs=outputs,
            instance_ids=self._instances(),
            listener=ProgressListener(context, self.hook, pushes=self.do_xcom_push),
            waited=waited,
            exclusions=exclusions,
            left_unknown=before.left_unknown,
        )
        run.tally.remaining_conversations = recorded_quota
        return run

    def _exclusions(self) -> Exclusions:
        from airflow_provider_wassly.broadcast.exclusions import Exclusions
        from airflow_provider_wassly.client import WasslyInvalidMessage

        if self._excludes and self.exclude is None:
            raise WasslyInvalidMessage(
                "the task or template that it comes from returned None; return an empty list to exclude nobody",
                field="exclude",
            )
        return Exclusions(self.exclude, self.hook.get_conn().default_region, self.attachment_conn_id)

    def _renderer(self, context: bases.Context) -> MessageRenderer:
        from airflow_provider_wassly.broadcast.rendering import MessageRenderer

        return MessageRenderer(
            {name: getattr(self, name) for name in _PER_RECIPIENT},
            task=self,
            context=context,
            env=self.text_environment(context),
            hook=self.hook,
            instance_id=self._instances()[0] or None,
            attachment_conn_id=self.attachment_conn_id,
        )

    def _instances(self) -> list[str]:
        """Return the sessions for rows that name none; an empty name if neither task nor connection has one."""
        if self.instance_ids:
            names = [str(name).strip() for name in self.instance_ids]
            if "" in names or len(set(names)) < len(names):
                from airflow_provider_wassly.client import WasslyInvalidMessage

                raise WasslyInvalidMessage(f"must be different and not empty; got {names}", field="instance_ids")
            return names
        return [self.instance_id or self.hook.settings.instance_id or ""]

    def _zone(self) -> tzinfo:
        if self.timezone is not None:
            return ZoneInfo(self.timezone)
        dag = self.get_dag()
        zone: tzinfo | None = getattr(dag, "timezone", None)
        return zone or timezones.utc

    def _log_if_cleared(self, record: BroadcastRecord) -> None:
        if record.is_cleared and record.is_resumed:
            self.log.info(
                "Resuming without sending to anyone twice: this task was cleared after it failed. To send to everyone "
                "again, start a new DAG run, or set on_clear='restart'"
            )
        elif record.is_cleared:
            self.log.info("Sending to everyone again: this task was cleared after it failed (on_clear='restart')")

    def _recorded_quota(self) -> int | None:
        """Return how many conversations remain by the last reading; the first reply updates it."""
        reading = self.hook.get_quota() if variables.can_reach_airflow() else None
        return reading.remaining_conversations if reading is not None and reading.age < _MAX_AGE else None

    def _end(
        self, context: bases.Context, record: BroadcastRecord, run: BroadcastRun, outputs: Outputs
    ) -> dict[str, Any]:
        """Save the files, decide whether the task succeeds, and return the summary."""
        from airflow_provider_wassly.broadcast.run import WasslyBroadcastIncomplete
        from airflow_provider_wassly.client import WasslyError

        tally = run.tally
        problem = self._too_many_failures(tally) if run.stopped_by is None else run.as_end_of_broadcast(run.stopped_by)
        unsaved = outputs.save()
        if problem is None and unsaved:
            problem = run.as_end_of_broadcast(WasslyBroadcastIncomplete(unsaved, may_pass=True))
        if problem is None:
            try:
                record.write()  # what could not be written when the sending ended
            except WasslyError as error:
                problem = run.as_end_of_broadcast(error)
        if problem is None:
            if record.is_resumed and not tally.sent and not tally.outcomes["excluded"]:
                self.log.info("Nothing left to send: earlier attempts sent to everyone")
            self.hook.count_excluded(tally.outcomes["excluded"])
            self._log_end(tally, outputs)
            return self._with_report(context, tally.summary())
        self._push(context, tally.summary())
        problem.message += outputs.places
        raise problem

    def _too_many_failures(self, tally: Tally) -> WasslyError | None:
        """Return the error for more failures than ``max_failures`` allows, ``None`` if there are not so many."""
        from airflow_provider_wassly.broadcast.run import WasslyBroadcastIncomplete

        failures = tally.failures(with_unknown=self.on_outcome_unknown != "ignore")
        is_share = isinstance(self.max_failures, float)
        # Divided, because a multiplied fraction can fall below the whole number that it means: 0.29 * 100 < 29.
        if (failures / tally.total if is_share else failures) <= self.max_failures:
            return None
        counts = tally.counts_in_words()
        counted = "" if counts.endswith(f" {failures} failed") else f"{failures} failures, "
        allowed = f"{self.max_failures * 100:g}%" if is_share else self.max_failures
        return WasslyBroadcastIncomplete(
            f"{counts} ({counted}allowed: {allowed})",
            may_pass=tally.may_pass > 0 or (self.on_outcome_unknown == "retry" and tally.outcomes["unknown"] > 0),
        )

    def _add_earlier_attempts(self, context: bases.Context, record: BroadcastRecord, error: WasslyError) -> None:
        """Add what earlier attempts did to the error that kept this attempt from sending."""
        from airflow_provider_wassly.client import WasslyError

        if error.accepted is not None:
            error.verdict = "This attempt sent nothing"
        try:
            counts = record.counts()
        except WasslyError as failure:
            self.log.debug("Could not count the earlier attempts: %s", failure)
            return
        error.message += f" (earlier attempts: {counts['accepted']} accepted, {counts['unknown']} unknown)"
        self._push(context, counts)

    def _log_end(self, tally: Tally, outputs: Outputs) -> None:
        left = tally.remaining_conversations
        quota = "" if left is None else f"; {left} conversations remain"
        self.log.info("Broadcast ended: %s%s%s", tally.counts_in_words(), quota, outputs.places)

    def _push(self, context: bases.Context, summary: dict[str, Any]) -> None:
        """Push the summary although the task fails, so that a later task can see what was done."""
        ti = context.get("ti")
        if ti is not None and self.do_xcom_push:
            try:
                ti.xcom_push(key="return_value", value=self._with_report(context, summary))
            except Exception as error:
                self.log.warning("Could not push the summary: %s: %s", type(error).__name__, error)

    def _with_report(self, context: bases.Context, summary: dict[str, Any]) -> dict[str, Any]:
        place = self._place(self.report, context)
        return {**summary, "report": None if place is None else str(place)}

    def _place(self, location: Any, context: bases.Context) -> Any:
        """Return where this task writes a file, so that mapped tasks do not overwrite each other's files."""
        from airflow_provider_wassly.broadcast.report import indexed

        map_index = getattr(context.get("ti"), "map_index", None)
        return location if location is None or map_index is None or map_index < 0 else indexed(location, map_index)


@dataclass(frozen=True)
class _Before:
    """What the process before a wait leaves to the next one of the same attempt."""

    waited: timedelta = timedelta(0)
    since: datetime | None = None
    left_unknown: tuple[int, ...] = ()


def _record_is_missing() -> WasslyError:
    """Return the error for a wait that ends twice: what the first process did, the second one cannot know."""
    from airflow_provider_wassly.records.send_record import WasslyRecordUnreadable

    return WasslyRecordUnreadable(
        "the send record of this attempt is gone, so nothing shows who was sent to: another process has already "
        "resumed it and succeeded, or somebody has deleted the record. Clearing the task sends to everyone again",
        may_pass=False,
    )


def _check_hours(send_between: Any, send_on: Any, timezone: Any) -> None:
    if send_between is not None or send_on is not None:
        # Imported here, because the DAG processor need not load it for the other broadcasts.
        from airflow_provider_wassly.broadcast.hours import Hours

        Hours(send_between, send_on)
    try:
        if timezone is not None:
            ZoneInfo(timezone)
    except (KeyError, TypeError, ValueError, OSError):
        raise ValueError(f"timezone must be a name such as 'Europe/Berlin', not {timezone!r}") from None


def _check_instances(instance_id: Any, instance_ids: Any) -> None:
    if instance_ids is None:
        return
    if instance_id is not None:
        raise ValueError("instance_id and instance_ids exclude each other; put all instances into instance_ids")
    if not isinstance(instance_ids, (list, tuple)) or not instance_ids or len(set(instance_ids)) < len(instance_ids):
        raise ValueError(f"instance_ids must be a list of different instance ids, not {instance_ids!r}")


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
        raise ValueError(f"{name} must be a whole number of at least {least}{otherwise}, not {value!r}")
