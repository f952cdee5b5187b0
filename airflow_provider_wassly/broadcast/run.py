"""Runs a broadcast: who is next, what the outcome is, when to wait or stop. All in one thread; see ``senders``."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial

from airflow_provider_wassly.broadcast import estimate
from airflow_provider_wassly.broadcast.devices import INSTANCE_ID, Assignment, SendingDevice, Wait, wait_for_first
from airflow_provider_wassly.broadcast.duplicates import SentNumbers, warn_of_duplicates
from airflow_provider_wassly.broadcast.exclusions import Exclusions
from airflow_provider_wassly.broadcast.failures import FailureStreaks, concerns_a_session, concerns_everybody
from airflow_provider_wassly.broadcast.hours import ALWAYS, Hours
from airflow_provider_wassly.broadcast.pace import Pace
from airflow_provider_wassly.broadcast.progress import Listener, Progress
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
from airflow_provider_wassly.broadcast.watch import DeviceWatch
from airflow_provider_wassly.client import (
    OutgoingMessage,
    SendReceipt,
    WasslyDeviceDisconnected,
    WasslyError,
    WasslyInvalidMessage,
    WasslyRateLimited,
    WasslyUnavailable,
)
from airflow_provider_wassly.hooks.wassly import WasslyHook
from airflow_provider_wassly.records.signals import in_one_piece

log = logging.getLogger(__name__)

#: Seconds before its turn that a message is announced. If the task dies in between, the outcome is unknown.
_LEAD = 0.5

#: Seconds between two looks at messages that are on their way when the sending has ended.
_LOOK = 0.25

#: The longest wait for an answer, or for the next message to be due. Answers and stops end it.
_IDLE = 60.0

#: Waits that end within so many seconds are never worth giving up the worker slot.
_SHORT = 60.0

#: More devices than this are a sign of a column that holds something else.
_MOST_DEVICES = 100
#: Why a row is not sent to.
_EXCLUDED = "the number is in exclude"

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


def read_exclusions(exclusions: Exclusions, *, is_under_way: bool) -> None:
    """
    Read the exclusions, at the start or again.

    :param is_under_way: whether the broadcast has begun. Then a retry can resume it once they can be read.
    :raises WasslyInvalidMessage: when they cannot be read at the start.
    :raises WasslyBroadcastIncomplete: when they cannot be read later.
    """
    try:
        exclusions.refresh()
    except WasslyInvalidMessage as error:
        if not is_under_way:
            raise
        raise WasslyBroadcastIncomplete(error.message, may_pass=True) from error.__cause__


def how_to_resume(is_retried: bool) -> str:
    """Return the advice for an incomplete broadcast."""
    how = "A retry, or clearing the task," if is_retried else "Clearing the task"
    return f"{how} resumes without sending to anyone twice."


@dataclass(frozen=True)
class Limits:
    """
    The limits of a broadcast.

    :param max_workers: how many messages may be in flight at once, from all devices together.
    :param reserve_conversations: how many conversations to keep; ``None`` to use them all.
    :param repeats_unknown: whether to send again to recipients that an earlier attempt left unknown.
    :param repeats_numbers: whether a number that is in several rows gets the message of each.
    :param hours: when messages may leave.
    :param max_per_day: how many messages may leave from each device on a calendar day; ``None`` for no limit.
    :param waits_for_devices: whether to wait for a disconnected device; otherwise its rows are not sent to.
    :param wait_timeout: how long all waits together may take.
    :param leaves_slot: whether to end, instead of waiting here, when a wait is long.
    """

    max_workers: int
    reserve_conversations: int | None
    repeats_unknown: bool
    repeats_numbers: bool = False
    hours: Hours = ALWAYS
    max_per_day: int | None = None
    waits_for_devices: bool = False
    wait_timeout: timedelta = timedelta(days=7)
    leaves_slot: bool = False


@dataclass(eq=False)
class _Place:
    """A recipient's place in the list and in the record."""

    row: Row
    chunk: Chunk
    index: int
    #: What earlier attempts recorded.
    known: str
    device: SendingDevice[_Place]
    is_settled: bool = False
    #: Whether its number is kept as one that is sent to.
    has_number: bool = False
    #: The day whose messages it counts among.
    counted_on: date | None = None

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
    :param message_to: returns the message to a row from the device with this instance id, if it has one.
    :param pace: says when messages may leave from a device.
    :param limits: the limits.
    :param outputs: receive the outcome of each row.
    :param instance_ids: the devices for rows that name none.
    :param listener: takes progress and metrics.
    :param waited: how long this attempt has waited before.
    :param exclusions: the numbers that are never sent to, already read; by default none.
    :param left_unknown: the positions of the rows that this attempt has left unknown before; it does not send to them
        again.
    """

    def __init__(
        self,
        *,
        hook: WasslyHook,
        recipients: RecipientList,
        survey: Survey,
        record: BroadcastRecord,
        message_to: Callable[[Row, str | None], OutgoingMessage],
        pace: Pace,
        limits: Limits,
        outputs: Iterable[Output],
        instance_ids: Sequence[str] = ("",),
        listener: Listener | None = None,
        waited: timedelta = timedelta(0),
        exclusions: Exclusions | None = None,
        left_unknown: Iterable[int] = (),
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
        self._exclusions = Exclusions() if exclusions is None else exclusions
        self._senders: Senders[_Place] = Senders(hook.get_conn(), pace, limits.max_workers)
        self._remaining = Remaining(limits.reserve_conversations, None)
        #: Announced, and not finished yet.
        self._out: set[Job[_Place]] = set()
        self._assignment = Assignment(instance_ids)
        self._devices: dict[str, SendingDevice[_Place]] = {}
        self._watch = DeviceWatch(hook.get_conn(), self._senders.wake)
        #: Until when Wassly asked to send nothing.
        self._held_until: datetime | None = None
        self._held_by: WasslyError | None = None
        self._closes_at: datetime | None = None
        self._waited = waited
        self._waits_since: datetime | None = None
        self._region = hook.get_conn().default_region
        self._sent_numbers = SentNumbers(self._region)
        self._streaks: FailureStreaks[_Place] = FailureStreaks()
        # With the sending session, and the time of the reply by the monotonic clock.
        self._latest: tuple[SendReceipt, str, float] | None = None
        self._next_quota = 0.0
        self._is_over = False
        self._killed_at: float | None = None
        self.tally = Tally(survey.total, self._clock)
        self._progress = Progress(self.tally, limits.hours, self._done_at, listener)
        #: The rows that this attempt left unknown, if others that are unknown get the message again.
        self.left_unknown = set(left_unknown)
        #: Why it stopped early, ``None`` if it did not.
        self.stopped_by: WasslyError | None = None
        #: What it waits for, if the wait is worth giving up the worker slot.
        self.waits_for: Wait | None = None

    @property
    def waited(self) -> timedelta:
        """How long this attempt has waited."""
        since = self._waits_since
        return self._waited + (timedelta(0) if since is None else self._clock.now() - since)

    def kill(self) -> None:
        """Let nothing more leave. May be called in a signal handler."""
        self._killed_at = self._clock.monotonic()
        self._senders.refuse()
        self._senders.wake()

    def run(self, seconds_after_kill: float) -> None:
        """
        Send to every recipient that was not sent to yet.

        However it ends, :attr:`tally` and the report say what was done; :attr:`stopped_by` says why it stopped early.

        :param seconds_after_kill: how long to wait for replies after :meth:`kill`.
        :raises WasslyListChanged: before anything is sent, when rows that were sent to have changed.
        :raises WasslyRecordUnreadable: before anything is sent, when the record of earlier attempts cannot be read.
        """
        self._next_quota = self._clock.monotonic() + _QUOTA_SECONDS
        self._remaining = Remaining(self._limits.reserve_conversations, self.tally.remaining_conversations)
        has_started = False
        try:
            if not self._limits.repeats_numbers:
                warn_of_duplicates(self._recipients, self._region)
            before = self._look_through_the_list()
            self._progress.log_start(
                before=before,
                messages_per_minute=self._pace.messages_per_minute,
                max_workers=self._limits.max_workers,
                devices=len(self._devices),
            )
            has_started = True
            self._loop()
        except WasslyError as error:
            if not has_started:
                raise
            self._stop(error)
        finally:
            self._wind_up(seconds_after_kill)
        if self._killed_at is not None:
            self._stop(WasslyBroadcastIncomplete("the task is being stopped", may_pass=True))
        if self.stopped_by is not None:
            self.waits_for = None
        if self.waits_for is None:
            self._report_the_rest(seconds_after_kill)
            self._progress.end()
        self._keep_quota()

    def refresh_exclusions(self) -> None:
        """
        Read the exclusions again, and drop the messages to numbers that have been added, unless they are announced.

        :raises WasslyBroadcastIncomplete: when they cannot be read; then nothing more may leave.
        """
        read_exclusions(self._exclusions, is_under_way=True)
        for device in self._devices.values():
            for job in [job for job in device.ready if self._is_excluded(job.row)]:
                device.ready.remove(job)

    def _stop(self, error: WasslyError) -> None:
        """Stop, and keep the first reason."""
        self.stopped_by = self.stopped_by or error

    def _report_the_rest(self, seconds_after_kill: float) -> None:
        """Report all rows that were not sent to after a stop, if the list can be read and there is time."""
        try:
            for device in self._devices.values():
                reason = "" if device.failure is None else device.failure.message
                device.unprepare()
                while (place := self._next_place(device)) is not None:
                    self._settle(place, "not_sent", reason=reason)
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

    def _look_through_the_list(self) -> int:
        """
        Find out which devices send to how many rows, and which numbers earlier attempts sent to, or may have.

        This happens before anything is sent, because the first of two rows with the same number can be another one than
        in the attempt before, if it was wrong then and has been corrected.

        :return: how many rows earlier attempts sent to, or may have.
        """
        columns = self._survey.columns
        shared = dict.fromkeys(self._assignment.shared)
        if not self._record.is_resumed and columns is not None and INSTANCE_ID not in columns:
            for number, name in enumerate(shared):
                self._add_device(name, len(range(number, self._survey.total, len(shared))))
            return 0
        before = 0
        for row, _chunk, _index, known in self._rows():
            name = self._assignment.of(row)
            device = self._devices.get(name) or self._add_device(name, 0)
            if known in (ACCEPTED, ANNOUNCED, UNKNOWN):
                before += 1
                self._sent_numbers.add_row(row)
            device.left += self._needs_message(row, known)
        return before

    def _add_device(self, name: str, left: int) -> SendingDevice[_Place]:
        if len(self._devices) == _MOST_DEVICES:
            raise WasslyInvalidMessage(
                f"the column {INSTANCE_ID} names more than {_MOST_DEVICES} instances; correct it, or rename it if it "
                "holds something else",
                field="recipients",
            )
        device: SendingDevice[_Place] = SendingDevice(name, self._pace.another(), left)
        device.rows = self._places(device)
        self._devices[name] = device
        return device

    def _needs_message(self, row: Row, known: str) -> bool:
        return known in (OPEN, FAILED_FOR_NOW) or (known in (ANNOUNCED, UNKNOWN) and self._repeats(row))

    def _repeats(self, row: Row) -> bool:
        """Tell whether a row whose outcome is unknown gets the message again."""
        return self._limits.repeats_unknown and row.position not in self.left_unknown

    def _rows(self) -> Iterator[tuple[Row, Chunk, int, str]]:
        """Yield every row with what is known about it."""
        length, total = len(digest(())), 0
        for number, rows in enumerate(self._recipients.chunks()):
            total += len(rows)
            if digest(rows) != self._survey.digests[number * length : (number + 1) * length]:
                raise _list_changed()
            chunk = self._record.chunk(number, rows)
            self._record.forget({chunk, *self._chunks_in_use()})
            for index, row in enumerate(rows):
                yield row, chunk, index, chunk[index]
        if total != self._survey.total:
            raise _list_changed()
        self._record.check_end(number + 1)

    def _chunks_in_use(self) -> Iterator[Chunk]:
        yield from (job.row.chunk for job in self._out)
        yield from (place.chunk for place in self._streaks.refused)
        for device in self._devices.values():
            yield from (place.chunk for place in (*device.next_rows, *(job.row for job in device.ready)))
            if device.chunk is not None:
                yield device.chunk

    def _places(self, device: SendingDevice[_Place]) -> Iterator[_Place]:
        """Yield the rows of a device."""
        for row, chunk, index, known in self._rows():
            device.chunk = chunk
            if self._assignment.of(row) == device.instance_id:
                yield _Place(row, chunk, index, known, device)

    def _next_place(self, device: SendingDevice[_Place]) -> _Place | None:
        """Return the next row of a device that needs a message, ``None`` if there is none."""
        while device.next_rows:
            if not self._is_excluded(place := device.next_rows.pop(0)):
                return place
        for place in device.rows:
            known = place.known
            if known == ACCEPTED:
                self._settle(place, "accepted", place.chunk.conversation_ids.get(place.index))
                continue
            if place.was_unknown:
                place.note(UNKNOWN)
                if not self._repeats(place.row):
                    reason = "an earlier attempt left it unknown; see its log"
                    if known == ANNOUNCED:
                        reason = "an earlier attempt was killed before the answer was recorded"
                    self._settle(place, "unknown", reason=reason)
                    continue
            # Before every outcome that puts a row into ``unsent``.
            if self._is_excluded(place):
                continue
            if known == FAILED:
                self._settle(place, "failed", reason="an earlier attempt failed; see its log")
                continue
            return place
        device.is_exhausted = True
        return None

    def _is_excluded(self, place: _Place) -> bool:
        """Tell whether a row's number must not be sent to, and settle the row if so."""
        if not self._exclusions.excludes(place.row):
            return False
        self._settle(place, "excluded", reason=_EXCLUDED)
        return True

    def _job(self, place: _Place) -> Job[_Place] | None:
        """Return the message to send to a row, ``None`` if there is none to send."""
        device = place.device
        try:
            place.row.check()
            message = self._message_to(place.row, device.instance_id or None)
        except WasslyInvalidMessage as error:
            self._settle(place, "invalid", reason=error.message)
            return None
        number = message.contact_mobile_number
        may_repeat = place.has_number or place.was_unknown or self._limits.repeats_numbers
        if number in self._sent_numbers and not may_repeat:
            self._settle(place, "duplicate", reason="the number also appears in another row")
            return None
        place.has_number = True
        self._sent_numbers.add(number)
        return Job(place, message, self._senders, device.pace)

    # The sending

    def _loop(self) -> None:
        while self._killed_at is None and self.stopped_by is None and self.waits_for is None:
            sending, waits = self._sort_devices()
            if sending:
                self._end_wait()
                pause = self._prepare_or_announce(sending)
            elif self._out:
                pause = _IDLE
            elif waits:
                pause = self._wait(wait_for_first(waits))
            else:
                # An error that may pass comes first: a retry can help as soon as one device can come back.
                failures = [device.failure for device in self._devices.values() if device.failure is not None]
                for error in sorted(failures, key=lambda error: not error.may_pass):
                    self._stop(error)
                return
            # Not 0, because some clocks stay the same for a moment.
            self._take_back(min(pause, max(0.01, self._progress.next - self._clock.monotonic())))
            self._report_progress()

    def _sort_devices(self) -> tuple[list[SendingDevice[_Place]], list[Wait]]:
        """Return the devices that have rows to send to now, and what the others that have rows wait for."""
        now = self._clock.now()
        sending, waits, changed, has_waited = [], [], [], False
        for device in self._devices.values():
            if device.failure is not None or not self._has_rows(device):
                continue
            wait = self._wait_of(device, now)
            if wait is None:
                sending.append(device)
            else:
                device.unprepare()
                waits.append(wait)
            if wait != device.wait:
                changed.append(device)
                if wait is None and now - device.waits_since > timedelta(seconds=_SHORT):
                    has_waited = True
                device.waits_since = now if device.wait is None else device.waits_since
                device.wait = wait
        if any(wait.instance_ids for wait in waits):
            self._look_at_devices()
        if has_waited:
            self.refresh_exclusions()
        if sending and len(self._devices) > 1:
            for device in changed:
                self._progress.log_device(device.instance_id, device.wait)
        return sending, waits

    def _look_at_devices(self) -> None:
        if (is_connected := self._watch.look()) is not None:
            for device in self._devices.values():
                # One that the account does not have any more says so when it is used.
                if device.disconnection is not None and is_connected.get(device.instance_id, True):
                    device.disconnection = None

    def _has_rows(self, device: SendingDevice[_Place]) -> bool:
        if not device.has_rows and not device.is_exhausted and (place := self._next_place(device)) is not None:
            device.put_back([place])
        return device.has_rows

    def _wait_of(self, device: SendingDevice[_Place], now: datetime) -> Wait | None:
        """Return what a device waits for, ``None`` if it can send."""
        if device.wait is not None and device.wait.until is not None and now < device.wait.until:
            return device.wait
        hours, most = self._limits.hours, self._limits.max_per_day
        if self._held_until is not None and now < self._held_until:
            return Wait("Wassly asked for it (Retry-After)", hours.opens_at(self._held_until), error=self._held_by)
        if not hours.is_open(now):
            return Wait(f"it is outside the sending hours ({hours.in_words})", hours.opens_at(now))
        if most is not None and self._record.sent_on(hours.day_of(now), device.instance_id) >= most:
            return Wait(f"max_per_day ({most}) is reached", hours.opens_at(hours.next_day(now)))
        if device.disconnection is not None:
            name = device.instance_id
            return Wait(f"instance {name} is disconnected", None, (name,), error=device.disconnection)
        return None

    def _prepare_or_announce(self, sending: Sequence[SendingDevice[_Place]]) -> float:
        """Do one step; return how many seconds to wait for an answer before the next one."""
        most = self._limits.max_workers
        for device in sorted(sending, key=lambda device: len(device.ready)):
            if len(device.ready) < most and not (device.is_exhausted and not device.next_rows):
                if (place := self._next_place(device)) is not None and (job := self._job(place)) is not None:
                    device.ready.append(job)
                return 0.0
        if len(self._out) <= most:
            return self._announce_in_time(sending)
        return _IDLE

    def _announce_in_time(self, sending: Sequence[SendingDevice[_Place]]) -> float:
        """Announce the next messages if it is time to; otherwise return how many seconds to wait."""
        ready = sum(len(device.ready) for device in sending)
        room = self._remaining.room(self._limits.max_workers, len(self._out))
        if room < 1 and not self._out:
            self.stopped_by = self._reserve_reached()
        if room < min(self._limits.max_workers, ready) and self._out:
            return _IDLE
        if room < 1:
            return 0.0
        now = self._clock.now()
        due: list[tuple[float, Job[_Place]]] = []
        left = self._seconds_left(now)
        pause = min(_IDLE, left)
        for device in sending:
            waiting = sum(job.row.device is device and not job.may_be_accepted for job in self._out)
            for place, job in enumerate(device.ready[: min(room, self._room_today(device, now))]):
                due_in = device.pace.seconds_to_next(waiting + place)
                if due_in < left:
                    due.append((due_in, job))
        if not due:
            return pause
        due.sort(key=lambda entry: entry[0])
        if (due_in := due[0][0] - _LEAD) > 0:
            return min(pause, due_in)
        self._announce([job for _, job in due[:room]], now)
        return 0.0

    def _room_today(self, device: SendingDevice[_Place], now: datetime) -> int:
        """Return how many more messages may leave from a device today."""
        if (most := self._limits.max_per_day) is None:
            return self._limits.max_workers
        return most - self._record.sent_on(self._limits.hours.day_of(now), device.instance_id)

    def _seconds_left(self, now: datetime) -> float:
        """Return for how many seconds messages may leave: until the hours end, or the day that a limit counts for."""
        if self._closes_at is None or self._closes_at <= now:
            hours = self._limits.hours
            midnight = None if self._limits.max_per_day is None else hours.next_day(now)
            ends = [end for end in (hours.closes_at(now), midnight) if end is not None]
            if not ends:
                return math.inf
            self._closes_at = min(ends)
        return (self._closes_at - now).total_seconds()

    def _announce(self, jobs: Sequence[Job[_Place]], now: datetime) -> None:
        """Record that messages are about to leave, along with the outcomes before them; then let them leave."""
        # First, so that an interruption at any point below is cleaned up after.
        self._out.update(jobs)
        for job in jobs:
            job.row.device.ready.remove(job)
            job.leaves_before = self._clock.monotonic() + self._seconds_left(now)
            job.row.note(ANNOUNCED)
            if self._limits.max_per_day is not None:
                job.row.counted_on = self._limits.hours.day_of(now)
                self._record.count_sent(job.row.counted_on, job.row.device.instance_id, 1)
        self._record.write()
        for job in jobs:
            self._senders.give(job)

    # The waiting

    def _wait(self, wait: Wait) -> float:
        """Wait for a device to be able to send; return for how many seconds."""
        now = self._clock.now()
        if self._waits_since is None:
            self._waits_since = now
            # It can be killed at any time in a long wait.
            self._record.write()
        self._progress.tell_wait(wait)
        left = self._limits.wait_timeout - self.waited
        ahead = None if wait.until is None else wait.until - now
        if left <= timedelta(0) or (ahead is not None and ahead > left and not wait.instance_ids):
            self._stop(self._waited_too_long(wait))
            return 0.0
        is_long = (self.waited - self._waited if ahead is None else ahead).total_seconds() >= _SHORT
        if self._limits.leaves_slot and is_long:
            self.waits_for = wait
            return 0.0
        return min(_IDLE, *(seconds.total_seconds() for seconds in (left, ahead) if seconds is not None))

    def _waited_too_long(self, wait: Wait) -> WasslyError:
        reason = f"wait_timeout ({self._limits.wait_timeout}) allows no longer wait"
        if wait.error is None:
            return WasslyBroadcastIncomplete(f"{wait.reason}; {reason}", may_pass=True)
        wait.error.message += f"; {reason}"
        return wait.error

    def _end_wait(self) -> None:
        if self._waits_since is not None:
            self._waited, self._waits_since = self.waited, None
            self._progress.tell_wait(None)

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
        is_certain = not (isinstance(outcome, WasslyError) and outcome.accepted is None)
        if place.counted_on is not None and is_certain and not isinstance(outcome, SendReceipt):
            self._record.count_sent(place.counted_on, place.device.instance_id, -1)
            place.counted_on = None
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
            return
        if isinstance(outcome, WasslyError):
            self._hook.count(outcome)
            self._report_failure(place, outcome)
        elif self._is_over:
            self._settle(place, "not_sent")
        else:
            self._give_back(place)

    def _give_back(self, place: _Place) -> None:
        """Let a row have its turn again: its message did not leave, or was refused for a reason that passes."""
        place.device.put_back([place])
        place.device.next_rows.sort(key=lambda place: place.row.position)

    def _report_failure(self, place: _Place, error: WasslyError) -> None:
        if concerns_a_session(error):
            if isinstance(error, WasslyDeviceDisconnected) and self._limits.waits_for_devices and not self._is_over:
                if place.device.disconnection is None:
                    self._watch.begin()
                place.device.disconnection = error
                self._give_back(place)
                return
            self._settle(place, "not_sent", reason=error.message)
            place.device.failure = place.device.failure or error
            return
        if concerns_everybody(error):
            asked = error.retry_after if isinstance(error, (WasslyRateLimited, WasslyUnavailable)) else None
            if asked is not None and not self._is_over:
                until = self._clock.now() + timedelta(seconds=asked)
                if self._held_until is None or until > self._held_until:
                    self._held_until, self._held_by = until, error
                self._give_back(place)
                return
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

    def _done_at(self, now: datetime) -> datetime | None:
        """Return when all devices will be done, ``None`` if that is not known."""
        hours, most = self._limits.hours, self._limits.max_per_day
        latest = now
        for device in self._devices.values():
            pace = self._pace.messages_per_minute or (self.tally.per_minute / len(self._devices)) or None
            sent = 0 if most is None else self._record.sent_on(hours.day_of(now), device.instance_id)
            begin = max(now, self._held_until or now)
            done_at = estimate.done_at(begin, device.left, pace, hours, most, sent)
            if done_at is None:
                return None
            latest = max(latest, done_at)
        return latest

    def _settle(
        self, place: _Place, outcome: Outcome, conversation_id: int | str | None = None, *, reason: str = ""
    ) -> None:
        """Count and report the final outcome of a recipient, once per attempt."""
        if place.is_settled:
            return
        place.is_settled = True
        if place.was_unknown and outcome in ("failed", "invalid", "excluded", "not_sent"):
            outcome, reason = "unknown", f"an earlier attempt left it unknown; this attempt: {reason or 'not sent'}"
        self.tally.outcomes[outcome] += 1
        place.device.left -= self._needs_message(place.row, place.known)
        if outcome == "unknown" and self._limits.repeats_unknown:
            self.left_unknown.add(place.row.position)
        for output in self._outputs:
            output.add(Line(place.row, outcome, conversation_id, reason))
        if outcome in ("failed", "invalid", "unknown"):
            self._progress.log_failure(place.row, outcome, reason)

    def _report_progress(self) -> None:
        self._hook.mask_tokens()
        self._progress.tell_if_due()
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
