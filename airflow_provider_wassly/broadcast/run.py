"""Runs a broadcast: who is next, what the outcome is, when to stop. All in one thread; see ``senders``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from airflow_provider_wassly.broadcast.duplicates import SentNumbers, warn_of_duplicates
from airflow_provider_wassly.broadcast.failures import FailureStreaks, concerns_a_session, concerns_everybody
from airflow_provider_wassly.broadcast.pace import Pace
from airflow_provider_wassly.broadcast.progress import ProgressLog
from airflow_provider_wassly.broadcast.recipients import RecipientList, Row, Survey, digest
from airflow_provider_wassly.broadcast.record import (
    ACCEPTED,
    ANNOUNCED,
    FAILED,
    FAILED_FOR_NOW,
    OPEN,
    UNKNOWN,
    BroadcastRecord,
    Chunk,
)
from airflow_provider_wassly.broadcast.remaining import Exchange, Remaining
from airflow_provider_wassly.broadcast.report import Line, Outcome, Output
from airflow_provider_wassly.broadcast.senders import Job, Senders
from airflow_provider_wassly.broadcast.tally import Tally
from airflow_provider_wassly.client import OutgoingMessage, SendReceipt, WasslyError, WasslyInvalidMessage
from airflow_provider_wassly.hooks.wassly import WasslyHook
from airflow_provider_wassly.records.signals import in_one_piece

log = logging.getLogger(__name__)

#: Seconds before its turn that a message is announced. If the task dies in between, the outcome is unknown.
_LEAD = 0.5

#: Seconds between two checks whether the task is being stopped.
_LOOK = 0.25

#: Seconds between two writes of the remaining quota.
_QUOTA_SECONDS = 30.0


class WasslyBroadcastIncomplete(WasslyError):
    """
    Raised when some recipients were not sent to, or more failed than ``max_failures`` allows.

    :param message: the reason.
    :param may_pass: whether a retry can help without any change.
    """

    accepted = None
    verdict = "Broadcast incomplete"

    def __init__(self, message: str, *, may_pass: bool) -> None:
        super().__init__(message)
        self._may_pass = may_pass
        self.advice = how_to_resume(may_pass)

    @property
    def may_pass(self) -> bool:
        """Whether a retry can help without any change."""
        return self._may_pass


def how_to_resume(is_retried: bool) -> str:
    """Return the advice for an incomplete broadcast."""
    how = "A retry, or clearing the task," if is_retried else "Clearing the task"
    return f"{how} resumes without sending to anyone twice."


@dataclass(frozen=True)
class Limits:
    """
    The limits of a broadcast.

    :param max_workers: how many messages may be in flight at once.
    :param reserve_conversations: how many conversations to keep; ``None`` to use them all.
    :param repeats_unknown: whether to send again to recipients that an earlier attempt left unknown.
    :param repeats_numbers: whether a number that is in several rows gets the message of each.
    """

    max_workers: int
    reserve_conversations: int | None
    repeats_unknown: bool
    repeats_numbers: bool = False


@dataclass
class _Place:
    """A recipient's place in the list and in the record."""

    row: Row
    chunk: Chunk
    index: int
    #: What earlier attempts recorded.
    known: str
    is_settled: bool = False

    @property
    def was_unknown(self) -> bool:
        """Whether the outcome of an earlier attempt's message is unknown."""
        return self.known in (UNKNOWN, ANNOUNCED)

    def note(self, outcome: str) -> None:
        self.chunk.note(self.index, outcome, self.row)


class BroadcastRun:
    """
    One attempt of a broadcast.

    :param hook: the hook of the sending account; its client repeats nothing.
    :param recipients: the list.
    :param survey: what the first pass over the list found.
    :param record: what earlier attempts recorded.
    :param message_to: returns the message to a row.
    :param pace: says when messages may leave.
    :param limits: the limits.
    :param outputs: receive the outcome of each row.
    """

    def __init__(
        self,
        *,
        hook: WasslyHook,
        recipients: RecipientList,
        survey: Survey,
        record: BroadcastRecord,
        message_to: Callable[[Row], OutgoingMessage],
        pace: Pace,
        limits: Limits,
        outputs: Iterable[Output],
    ) -> None:
        self._hook = hook
        self._clock = hook.get_conn().clock
        self._recipients = recipients
        self._survey = survey
        self._record = record
        self._message_to = message_to
        self._pace = pace
        self._limits = limits
        self._outputs = outputs
        self._senders: Senders[_Place] = Senders(hook.get_conn(), pace, limits.max_workers)
        self._remaining = Remaining(limits.reserve_conversations, None)
        #: Announced, and not finished yet.
        self._out: set[Job[_Place]] = set()
        #: Rendered, and not announced yet.
        self._ready: list[Job[_Place]] = []
        self._region = hook.get_conn().default_region
        self._sent_numbers = SentNumbers(self._region)
        self._streaks: FailureStreaks[_Place] = FailureStreaks()
        #: The errors of sending sessions that are disconnected or unknown, by what the rows call the session.
        self._parked: dict[str, WasslyError] = {}
        # With the sending session, and the time of the reply by the monotonic clock.
        self._latest: tuple[SendReceipt, str, float] | None = None
        self._next_quota = 0.0
        self._is_over = False
        self._killed_at: float | None = None
        self.tally = Tally(survey.total, self._clock)
        self._progress = ProgressLog(self.tally)
        #: Why it stopped early, ``None`` if it did not.
        self.stopped_by: WasslyError | None = None

    def kill(self) -> None:
        """Let nothing more leave. May be called in a signal handler."""
        self._killed_at = self._clock.monotonic()
        self._senders.refuse()

    def run(self, seconds_after_kill: float) -> None:
        """
        Send to every recipient that was not sent to yet.

        However it ends, :attr:`tally` and the report say what was done; :attr:`stopped_by` says why it stopped early.

        :param seconds_after_kill: how long to wait for replies after :meth:`kill`.
        :raises WasslyListChanged: before anything is sent, when rows that were sent to have changed.
        :raises WasslyRecordUnreadable: before anything is sent, when the record of earlier attempts cannot be read.
        """
        jobs = (job for place in self._places() if (job := self._job(place)) is not None)
        self._next_quota = self._clock.monotonic() + _QUOTA_SECONDS
        self._remaining = Remaining(self._limits.reserve_conversations, self.tally.remaining_conversations)
        has_started = False
        try:
            if not self._limits.repeats_numbers:
                warn_of_duplicates(self._recipients, self._region)
            self._progress.log_start(
                before=self._remember_sent_numbers(),
                messages_per_minute=self._pace.messages_per_minute,
                max_workers=self._limits.max_workers,
            )
            has_started = True
            self._loop(jobs)
        except WasslyError as error:
            if not has_started:
                raise
            self._stop(error)
        finally:
            self._wind_up(seconds_after_kill)
        if self._killed_at is not None:
            self._stop(WasslyBroadcastIncomplete("the task is being stopped", may_pass=True))
        self._report_the_rest(jobs, seconds_after_kill)
        self._keep_quota()

    def _stop(self, error: WasslyError) -> None:
        """Stop, and keep the first reason."""
        self.stopped_by = self.stopped_by or error

    def _report_the_rest(self, jobs: Iterator[Job[_Place]], seconds_after_kill: float) -> None:
        """Report all rows that were not sent to after a stop, if the list can be read and there is time."""
        for job in self._ready:
            self._settle(job.row, "not_sent")
        try:
            # The sending is over: this only reports them.
            for _place in jobs:
                if self._killed_at is not None and self._clock.monotonic() > self._killed_at + seconds_after_kill:
                    return
        except WasslyError as error:
            self._stop(error)

    def as_end_of_broadcast(self, error: WasslyError) -> WasslyError:
        """
        Turn the error that stopped the broadcast into the error of the whole broadcast.

        It keeps its type, which a retry policy may check, and adds the counts.
        """
        error.message = f"{self.tally.counts_in_words()}: {error.message}"
        error.accepted = None
        error.verdict = WasslyBroadcastIncomplete.verdict
        if not isinstance(error, WasslyBroadcastIncomplete):
            error.advice = f"{error.advice} {how_to_resume(error.may_pass)}".strip()
        return error

    # Who is next

    def _places(self) -> Iterator[_Place]:
        """Yield every row with what is known about it."""
        length, total = len(digest(())), 0
        for number, rows in enumerate(self._recipients.chunks()):
            total += len(rows)
            if digest(rows) != self._survey.digests[number * length : (number + 1) * length]:
                raise _list_changed()
            chunk = self._record.chunk(number, rows)
            places = (*(job.row for job in (*self._out, *self._ready)), *self._streaks.refused)
            self._record.forget({chunk, *(place.chunk for place in places)})
            for index, row in enumerate(rows):
                yield _Place(row, chunk, index, chunk[index])
        if total != self._survey.total:
            raise _list_changed()
        self._record.check_end(number + 1)

    def _remember_sent_numbers(self) -> int:
        """
        Keep the numbers that earlier attempts sent to, or may have; return how many rows they are.

        This happens before anything is sent, because the first of two rows with the same number can be another one than
        in the attempt before, if it was wrong then and has been corrected.
        """
        if not self._record.is_resumed:
            return 0
        before = 0
        for place in self._places():
            if place.known == ACCEPTED or place.was_unknown:
                before += 1
                self._sent_numbers.add_row(place.row)
        return before

    def _job(self, place: _Place) -> Job[_Place] | None:
        """Return the message to send to a row, ``None`` if there is none to send."""
        known = place.known
        if known == ACCEPTED:
            self._settle(place, "accepted", place.chunk.conversation_ids.get(place.index))
            return None
        if known == FAILED:
            self._settle(place, "failed", reason="an earlier attempt failed; see its log")
            return None
        if place.was_unknown:
            place.note(UNKNOWN)
            if not self._limits.repeats_unknown:
                reason = "an earlier attempt left it unknown; see its log"
                if known == ANNOUNCED:
                    reason = "an earlier attempt was killed before the answer was recorded"
                self._settle(place, "unknown", reason=reason)
                return None
        if self._is_over or self._killed_at is not None:
            self._settle(place, "not_sent")
            return None
        if (parked := self._parked.get(_session(place))) is not None:
            self._settle(place, "not_sent", reason=parked.message)
            return None
        try:
            place.row.check()
            message = self._message_to(place.row)
        except WasslyInvalidMessage as error:
            self._settle(place, "invalid", reason=error.message)
            return None
        number = message.contact_mobile_number
        if number in self._sent_numbers and not place.was_unknown and not self._limits.repeats_numbers:
            self._settle(place, "duplicate", reason="the number also appears in another row")
            return None
        self._sent_numbers.add(number)
        return Job(place, message, self._senders)

    # The sending

    def _loop(self, jobs: Iterator[Job[_Place]]) -> None:
        most = self._limits.max_workers
        is_exhausted = False
        while self._killed_at is None and self.stopped_by is None:
            wait = _LOOK
            if not is_exhausted and len(self._ready) < most:
                job = next(jobs, None)
                is_exhausted = job is None
                if job is not None:
                    self._ready.append(job)
                wait = 0.0
            elif self._ready and len(self._out) <= most:
                wait = self._announce_in_time()
            elif is_exhausted and not self._ready and not self._out:
                # An error that may pass comes first: a retry can help as soon as one session can come back.
                for error in sorted(self._parked.values(), key=lambda error: not error.may_pass):
                    self._stop(error)
                return
            self._take_back(wait)
            self._report_progress()

    def _announce_in_time(self) -> float:
        """Announce the next messages if it is time to; otherwise return how many seconds to wait."""
        room = self._remaining.room(self._limits.max_workers, len(self._out))
        if room < 1 and not self._out:
            self.stopped_by = self._reserve_reached()
        if room < min(self._limits.max_workers, len(self._ready)) and self._out:
            return _LOOK
        waiting = sum(not job.may_be_accepted for job in self._out)
        due_in = self._pace.seconds_to_next(waiting) - _LEAD
        if due_in > 0:
            return min(_LOOK, due_in)
        if room > 0:
            self._announce(room)
        return 0.0

    def _announce(self, number: int) -> None:
        """Record that messages are about to leave, along with the outcomes before them; then let them leave."""
        jobs = self._ready[:number]
        # First, so that an interruption at any point below is cleaned up after.
        self._out.update(jobs)
        del self._ready[:number]
        for job in jobs:
            job.row.note(ANNOUNCED)
        self._record.write()
        for job in jobs:
            self._senders.give(job)

    def _reserve_reached(self) -> WasslyBroadcastIncomplete:
        remaining, reserve = self.tally.remaining_conversations, self._limits.reserve_conversations
        if self._remaining.is_never_told:
            return WasslyBroadcastIncomplete(
                "Wassly's replies do not say how many conversations remain, so reserve_conversations cannot be kept",
                may_pass=False,
            )
        doubt = f" (up to {self._remaining.in_doubt} of them may be used already)" if self._remaining.in_doubt else ""
        hint = "" if self.tally.sent else "; this is an earlier reading: after a top-up, call hook.forget_quota()"
        return WasslyBroadcastIncomplete(
            f"{remaining} conversations remain{doubt} and {reserve} are reserved (reserve_conversations){hint}",
            may_pass=True,
        )

    def _take_back(self, wait: float) -> None:
        """Note the outcomes of finished messages; wait for the first one."""
        while (job := self._senders.take(wait)) is not None:
            wait = 0.0
            # Otherwise an interruption could leave it uncounted, or counted twice.
            in_one_piece(partial(self._take_over, job))

    def _take_over(self, job: Job[_Place]) -> None:
        self._note(job)
        self._out.discard(job)
        self._report_outcome(job)

    def _note(self, job: Job[_Place]) -> None:
        """Record the outcome of a message. After an interruption, this may run a second time."""
        place, outcome = job.row, job.outcome
        if isinstance(outcome, SendReceipt):
            if isinstance(outcome.conversation_id, int):
                place.chunk.conversation_ids[place.index] = outcome.conversation_id
            place.note(ACCEPTED)
        elif place.was_unknown or (isinstance(outcome, WasslyError) and outcome.accepted is None):
            # If sending again was refused, the outcome of the first message is still unknown.
            place.note(UNKNOWN)
        elif not isinstance(outcome, WasslyError) or _concerns_others_too(outcome):
            place.note(OPEN)
        else:
            place.note(FAILED_FOR_NOW if outcome.may_pass else FAILED)

    def _report_outcome(self, job: Job[_Place]) -> None:
        """Count and report the outcome of a message, and stop if it calls for that."""
        place, outcome = job.row, job.outcome
        is_latest = self._remaining.note(Exchange(job.departed_at, job.answered_at, outcome))
        self.tally.remaining_conversations = self._remaining.number
        if isinstance(outcome, SendReceipt):
            self.tally.sent += 1
            self._streaks.note_accepted()
            if is_latest:
                self._latest = outcome, job.message.instance_id, job.answered_at
            self._hook.count(outcome)
            self._settle(place, "accepted", outcome.conversation_id)
        elif isinstance(outcome, WasslyError):
            self._hook.count(outcome)
            self._report_failure(place, outcome)
        else:
            self._settle(place, "not_sent")

    def _report_failure(self, place: _Place, error: WasslyError) -> None:
        if concerns_a_session(error):
            self._settle(place, "not_sent", reason=error.message)
            self._park(_session(place), error)
            return
        if concerns_everybody(error):
            self._settle(place, "not_sent", reason=error.message)
            self._stop(error)
            return
        is_unknown = error.accepted is None
        self._settle(place, "unknown" if is_unknown else "failed", reason=error.message)
        if is_unknown or error.may_pass:
            self.tally.may_pass += not is_unknown
            # Recipients that failed in an earlier attempt do not count: the rows after them would never get a turn.
            counts = not (place.was_unknown or place.known == FAILED_FOR_NOW)
            if reason := self._streaks.note_failed(error, counts=counts):
                self._stop(WasslyBroadcastIncomplete(reason, may_pass=True))
        elif reason := self._streaks.note_refused(place, error):
            for refused in self._streaks.refused:
                # They are sent to once the message is corrected.
                refused.note(FAILED_FOR_NOW)
            self._stop(WasslyBroadcastIncomplete(reason, may_pass=False))

    def _park(self, session: str, error: WasslyError) -> None:
        """Skip, in this attempt, all rows of a sending session that is disconnected or unknown."""
        self._parked.setdefault(session, error)
        for job in [job for job in self._ready if _session(job.row) == session]:
            self._ready.remove(job)
            self._settle(job.row, "not_sent", reason=error.message)

    def _wind_up(self, seconds_after_kill: float) -> None:
        """Let nothing more leave, wait for outstanding replies, and record what is known."""
        self._is_over = True
        try:
            self._senders.stop()
            self._await_answers(seconds_after_kill)
        finally:
            # Whatever interrupted the wait, nothing interrupts this.
            in_one_piece(self._finish)

    def _finish(self) -> None:
        """Record and report what is known about all messages."""
        self._senders.refuse()
        for job in self._out:
            job.give_up()
            self._note(job)
        self._try_to_write()
        for job in self._out:
            self._report_outcome(job)
        self._out.clear()
        self._hook.mask_tokens()

    def _await_answers(self, seconds_after_kill: float) -> None:
        is_written = False
        while any(job.may_be_accepted and job.outcome is None for job in self._out):
            wait = _LOOK
            if self._killed_at is not None:
                wait = min(wait, self._killed_at + seconds_after_kill - self._clock.monotonic())
                if wait <= 0:
                    break
                if not is_written:
                    # There may be no time to do it later.
                    is_written = True
                    for job in self._out:
                        if not job.may_be_accepted:
                            job.row.note(UNKNOWN if job.row.was_unknown else OPEN)
                    self._try_to_write()
            self._take_back(wait)
        self._take_back(0)

    def _try_to_write(self) -> None:
        try:
            self._record.write()
        except WasslyError as error:
            # Airflow refuses the writes of a task that was cleared meanwhile.
            log.warning("%s. The next attempt will treat the last messages as unknown", error)

    # What is reported

    def _settle(
        self, place: _Place, outcome: Outcome, conversation_id: int | str | None = None, *, reason: str = ""
    ) -> None:
        """Count and report the final outcome of a recipient, once per attempt."""
        if place.is_settled:
            return
        place.is_settled = True
        if place.was_unknown and outcome in ("failed", "invalid", "not_sent"):
            outcome, reason = "unknown", f"an earlier attempt left it unknown; this attempt: {reason or 'not sent'}"
        self.tally.outcomes[outcome] += 1
        for output in self._outputs:
            output.add(Line(place.row, outcome, conversation_id, reason))
        if outcome in ("failed", "invalid", "unknown"):
            self._progress.log_failure(place.row, outcome, reason)

    def _report_progress(self) -> None:
        self._hook.mask_tokens()
        self._progress.log_progress_if_due()
        now = self._clock.monotonic()
        if now >= self._next_quota:
            self._next_quota = now + _QUOTA_SECONDS
            self._keep_quota()

    def _keep_quota(self) -> None:
        latest, self._latest = self._latest, None
        if latest is not None:
            receipt, instance_id, answered_at = latest
            # With its age, so that it does not replace a newer reading of another task.
            self._hook.keep_quota(receipt, instance_id, timedelta(seconds=self._clock.monotonic() - answered_at))


def _list_changed() -> WasslyBroadcastIncomplete:
    return WasslyBroadcastIncomplete("recipients: the list changed during the broadcast", may_pass=True)


def _concerns_others_too(error: WasslyError) -> bool:
    return concerns_a_session(error) or concerns_everybody(error)


def _session(place: _Place) -> str:
    """Return the sending session that a row names, an empty string if it names none."""
    return str(place.row.values.get("instance_id") or "").strip()
