"""A broadcast on its way: who is next, what came of each, when to stop. All of it in one thread; see ``senders``."""

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

#: Seconds before its turn at which a message is announced; a task that dies meanwhile leaves it unknown.
_LEAD = 0.5

#: Seconds between two looks at whether the task is being stopped.
_LOOK = 0.25

_QUOTA_SECONDS = 30.0


class WasslyBroadcastIncomplete(WasslyError):
    """
    Raised when not everybody on the list was sent to.

    :param message: why.
    :param may_pass: whether a later try can go on without anybody changing anything.
    """

    accepted = None
    verdict = "The broadcast is not complete"

    def __init__(self, message: str, *, may_pass: bool) -> None:
        super().__init__(message)
        self._may_pass = may_pass
        self.advice = how_to_resume(may_pass)

    @property
    def may_pass(self) -> bool:
        """Whether a later try can go on without anybody changing anything."""
        return self._may_pass


def how_to_resume(is_retried: bool) -> str:
    """Return what the reader of a log can do about a broadcast that is not complete."""
    how = "A retry, or clearing the task," if is_retried else "Clearing the task"
    return f"{how} resumes without sending to anyone twice."


@dataclass(frozen=True)
class Limits:
    """
    How a broadcast is sent.

    :param max_workers: how many messages are on their way at the same time.
    :param reserve_conversations: the quota does not fall below it; ``None`` for no such limit.
    :param repeats_unknown: whether those are sent again of whom an earlier try left nobody knows what.
    :param repeats_numbers: whether a number that stands in several rows gets the message of each.
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
    #: What earlier tries have left.
    known: str
    is_settled: bool = False

    @property
    def was_unknown(self) -> bool:
        """Whether nobody knows what became of an earlier try's message to it."""
        return self.known in (UNKNOWN, ANNOUNCED)

    def note(self, outcome: str) -> None:
        self.chunk.note(self.index, outcome, self.row)


class BroadcastRun:
    """
    One try of a broadcast.

    :param hook: of the sending account; its client repeats nothing.
    :param recipients: the list.
    :param survey: what one reading of it has shown.
    :param record: what earlier tries have left.
    :param message_to: makes the message to a row.
    :param pace: when messages may leave.
    :param limits: how it is sent.
    :param outputs: take what comes of each.
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
        #: Announced, and not back yet.
        self._out: set[Job[_Place]] = set()
        #: Prepared, and not announced.
        self._ready: list[Job[_Place]] = []
        self._region = hook.get_conn().default_region
        self._sent_numbers = SentNumbers(self._region)
        self._streaks: FailureStreaks[_Place] = FailureStreaks()
        #: Of the sending sessions that are not connected or unknown: what a row says of its session, and the error.
        self._parked: dict[str, WasslyError] = {}
        # With the session that sent, and the moment of the answer by the monotonic clock.
        self._latest: tuple[SendReceipt, str, float] | None = None
        self._next_quota = 0.0
        self._is_over = False
        self._killed_at: float | None = None
        self.tally = Tally(survey.total, self._clock)
        self._progress = ProgressLog(self.tally)
        #: Why not everybody was sent to, if so.
        self.stopped_by: WasslyError | None = None

    def kill(self) -> None:
        """Let no message leave from now on. May be called in a signal handler."""
        self._killed_at = self._clock.monotonic()
        self._senders.refuse()

    def run(self, seconds_after_kill: float) -> None:
        """
        Send to everybody who was not sent to.

        However it ends, :attr:`tally` and the report say what it did; :attr:`stopped_by` says why it ended early.

        :param seconds_after_kill: how long answers may be waited for after :meth:`kill`.
        :raises WasslyListChanged: before anything is sent, when rows that were sent to have changed.
        :raises WasslyRecordUnreadable: before anything is sent, when it is not known who was sent to.
        """
        jobs = (job for place in self._places() if (job := self._job(place)) is not None)
        self._next_quota = self._clock.monotonic() + _QUOTA_SECONDS
        self._remaining = Remaining(self._limits.reserve_conversations, self.tally.remaining_conversations)
        is_under_way = False
        try:
            if not self._limits.repeats_numbers:
                warn_of_duplicates(self._recipients, self._region)
            self._progress.start(
                before=self._remember_who_was_sent_to(),
                messages_per_minute=self._pace.messages_per_minute,
                max_workers=self._limits.max_workers,
            )
            is_under_way = True
            self._loop(jobs)
        except WasslyError as error:
            if not is_under_way:
                raise
            self._stop(error)
        finally:
            self._wind_up(seconds_after_kill)
        if self._killed_at is not None:
            self._stop(WasslyBroadcastIncomplete("the task is being stopped", may_pass=True))
        self._tell_of_the_rest(jobs, seconds_after_kill)
        self._keep_quota()

    def _stop(self, error: WasslyError) -> None:
        """Let the first reason to stop be the one that is told."""
        self.stopped_by = self.stopped_by or error

    def _tell_of_the_rest(self, jobs: Iterator[Job[_Place]], seconds_after_kill: float) -> None:
        """Tell of all rows that were not sent to after a stop, as far as the list can be read and there is time."""
        for job in self._ready:
            self._settle(job.row, "not_sent")
        try:
            # It is over, so that none is sent.
            for _place in jobs:
                if self._killed_at is not None and self._clock.monotonic() > self._killed_at + seconds_after_kill:
                    return
        except WasslyError as error:
            self._stop(error)

    def as_end_of_broadcast(self, error: WasslyError) -> WasslyError:
        """
        Return why the broadcast is not complete, as the error of the whole.

        It is of the type of what has stopped it, which a retry policy may ask for, and says what was done.
        """
        error.message = f"{self.tally.counts_in_words()}: {error.message}"
        error.accepted = None
        error.verdict = WasslyBroadcastIncomplete.verdict
        if not isinstance(error, WasslyBroadcastIncomplete):
            error.advice = f"{error.advice} {how_to_resume(error.may_pass)}".strip()
        return error

    # Who is next

    def _places(self) -> Iterator[_Place]:
        """Yield every row with what is known of it."""
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

    def _remember_who_was_sent_to(self) -> int:
        """
        Keep the numbers of those to whom earlier tries have sent or may have; return how many they are.

        Before anything is sent: which of two rows with the same number is the first can differ from the try before,
        if the one was wrong then and is right now.
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
        """Return what is to be sent to a row, ``None`` when that is nothing."""
        known = place.known
        if known == ACCEPTED:
            self._settle(place, "accepted", place.chunk.conversation_ids.get(place.index))
            return None
        if known == FAILED:
            self._settle(place, "failed", reason="in an earlier attempt; its log says why")
            return None
        if place.was_unknown:
            place.note(UNKNOWN)
            if not self._limits.repeats_unknown:
                reason = "in an earlier attempt; its log says why"
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
            self._settle(place, "duplicate", reason="the number stands in another row too")
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
                # A retry can help as soon as one of the sessions may come back.
                for error in sorted(self._parked.values(), key=lambda error: not error.may_pass):
                    self._stop(error)
                return
            self._take_back(wait)
            self._tell()

    def _announce_in_time(self) -> float:
        """Announce the next messages if it is time; return how long to wait otherwise."""
        room = self._remaining.room(self._limits.max_workers, len(self._out))
        if room < 1 and not self._out:
            self.stopped_by = self._quota_reached()
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
        """Write down that messages are about to leave, and what came of those before; then let them."""
        jobs = self._ready[:number]
        # First of all, so that whatever interrupts this, it is known what has to be put in order.
        self._out.update(jobs)
        del self._ready[:number]
        for job in jobs:
            job.row.note(ANNOUNCED)
        self._record.write()
        for job in jobs:
            self._senders.give(job)

    def _quota_reached(self) -> WasslyBroadcastIncomplete:
        remaining, reserve = self.tally.remaining_conversations, self._limits.reserve_conversations
        if self._remaining.is_never_told:
            return WasslyBroadcastIncomplete(
                "Wassly's answers do not say how many conversations remain, so that reserve_conversations cannot be "
                "kept",
                may_pass=False,
            )
        doubt = f", {self._remaining.in_doubt} perhaps taken meanwhile," if self._remaining.in_doubt else ""
        hint = "" if self.tally.sent else "; that was recorded earlier: after a top-up, call hook.forget_quota()"
        return WasslyBroadcastIncomplete(
            f"{remaining} conversations remain{doubt} and {reserve} are reserved (reserve_conversations){hint}",
            may_pass=True,
        )

    def _take_back(self, wait: float) -> None:
        """Note what came of messages that are done; wait for the first of them."""
        while (job := self._senders.take(wait)) is not None:
            wait = 0.0
            # Otherwise an interruption could leave it out of the counts, or in them twice.
            in_one_piece(partial(self._take_over, job))

    def _take_over(self, job: Job[_Place]) -> None:
        self._note(job)
        self._out.discard(job)
        self._make_known(job)

    def _note(self, job: Job[_Place]) -> None:
        """Note what came of a message in the record. May be done twice, if something interrupts."""
        place, outcome = job.row, job.outcome
        if isinstance(outcome, SendReceipt):
            if isinstance(outcome.conversation_id, int):
                place.chunk.conversation_ids[place.index] = outcome.conversation_id
            place.note(ACCEPTED)
        elif place.was_unknown or (isinstance(outcome, WasslyError) and outcome.accepted is None):
            # A repetition that certainly was not accepted says nothing about the message before it.
            place.note(UNKNOWN)
        elif not isinstance(outcome, WasslyError) or _says_nothing_of_its_recipient(outcome):
            place.note(OPEN)
        else:
            place.note(FAILED_FOR_NOW if outcome.may_pass else FAILED)

    def _make_known(self, job: Job[_Place]) -> None:
        """Count and tell what came of a message, and stop if it is time to."""
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
            self._make_failure_known(place, outcome)
        else:
            self._settle(place, "not_sent")

    def _make_failure_known(self, place: _Place, error: WasslyError) -> None:
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
            # Those of an earlier try do not count: it would never come to the rows after them.
            counts = not (place.was_unknown or place.known == FAILED_FOR_NOW)
            if reason := self._streaks.note_failed(error, counts=counts):
                self._stop(WasslyBroadcastIncomplete(reason, may_pass=True))
        elif reason := self._streaks.note_refused(place, error):
            for refused in self._streaks.refused:
                # They are sent to when the message is corrected.
                refused.note(FAILED_FOR_NOW)
            self._stop(WasslyBroadcastIncomplete(reason, may_pass=False))

    def _park(self, session: str, error: WasslyError) -> None:
        """Leave alone, for this try, all rows whose sending session is not connected or unknown."""
        self._parked.setdefault(session, error)
        for job in [job for job in self._ready if _session(job.row) == session]:
            self._ready.remove(job)
            self._settle(job.row, "not_sent", reason=error.message)

    def _wind_up(self, seconds_after_kill: float) -> None:
        """Let nothing leave any more, wait for the answers that are on their way, and write down what is known."""
        self._is_over = True
        try:
            self._senders.stop()
            self._await_answers(seconds_after_kill)
        finally:
            # Whatever has interrupted it, nothing interrupts this.
            in_one_piece(self._finish)

    def _finish(self) -> None:
        """Write down what is known of all messages, and count it."""
        self._senders.refuse()
        for job in self._out:
            job.give_up()
            self._note(job)
        self._try_to_write()
        for job in self._out:
            self._make_known(job)
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
                    # There may be no time for it later.
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
            # If the task was cleared meanwhile, Airflow refuses its writes.
            log.warning("%s. A next attempt will call the outcome of the last messages unknown", error)

    # What is told

    def _settle(
        self, place: _Place, outcome: Outcome, conversation_id: int | str | None = None, *, reason: str = ""
    ) -> None:
        """Count and report what came of a recipient, finally and once for this try."""
        if place.is_settled:
            return
        place.is_settled = True
        if place.was_unknown and outcome in ("failed", "invalid", "not_sent"):
            outcome, reason = "unknown", f"in an earlier attempt; and now {reason or 'not sent'}"
        self.tally.outcomes[outcome] += 1
        for output in self._outputs:
            output.add(Line(place.row, outcome, conversation_id, reason))
        if outcome in ("failed", "invalid", "unknown"):
            self._progress.failure(place.row, outcome, reason)

    def _tell(self) -> None:
        self._hook.mask_tokens()
        self._progress.progress()
        now = self._clock.monotonic()
        if now >= self._next_quota:
            self._next_quota = now + _QUOTA_SECONDS
            self._keep_quota()

    def _keep_quota(self) -> None:
        latest, self._latest = self._latest, None
        if latest is not None:
            receipt, instance_id, answered_at = latest
            # A reading that has waited must not replace one that another task has had meanwhile.
            self._hook.keep_quota(receipt, instance_id, timedelta(seconds=self._clock.monotonic() - answered_at))


def _list_changed() -> WasslyBroadcastIncomplete:
    return WasslyBroadcastIncomplete("recipients: the list changed while it was being sent to", may_pass=True)


def _says_nothing_of_its_recipient(error: WasslyError) -> bool:
    return concerns_a_session(error) or concerns_everybody(error)


def _session(place: _Place) -> str:
    """Return what a row says of the session that is to send to it. Rows that say the same have the same."""
    return str(place.row.values.get("instance_id") or "").strip()
