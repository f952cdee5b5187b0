"""One message to each of several people, all at once and within a time."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from airflow_provider_wassly.client import (
    Attachment,
    MessageParameters,
    OutgoingMessage,
    SendObserver,
    SendReceipt,
    WasslyClient,
    WasslyError,
    WasslyInvalidMessage,
    WasslyOutcomeUnknown,
    WasslyRateLimited,
    WasslyUnavailable,
    shorten,
)
from airflow_provider_wassly.client.clock import SYSTEM, Clock
from airflow_provider_wassly.client.messages import FileParameters
from airflow_provider_wassly.files.locations import local_path, remote_path
from airflow_provider_wassly.hooks.wassly import WasslyHook

log = logging.getLogger(__name__)

#: Seconds for all that one call does. Airflow kills callbacks after 20; the rest is for noting what came of it.
_BUDGET = 14.0

#: One attempt fits into that, with a connection that is not made or an answer that does not come. What comes after it
#: depends on the time that is left, which the client does not know.
_CLIENT_OPTIONS = {"connect_timeout": 5.0, "read_timeout": 9.0, "max_attempts": 1}

#: As many connections as the client keeps by default.
_MAX_THREADS = 10


class WasslyNotificationError(WasslyError):
    """
    Raised when some of several recipients were not reached, or perhaps not.

    :param failures: what went wrong, by recipient, whose number is shortened.
    :param recipients: how many there were in all.
    """

    accepted = None
    verdict = "Not everybody was notified"
    advice = "What is known of each message stands beside it."

    def __init__(self, failures: Mapping[str, WasslyError], recipients: int) -> None:
        details = "; ".join(_in_words(who, error) for who, error in failures.items())
        super().__init__(f"{len(failures)} of {recipients} recipients: {details}")
        self.failures = dict(failures)
        if all(error.accepted is False for error in failures.values()):
            self.accepted = False  # known of all of them, so of this too


def notify_everybody(
    numbers: Sequence[Any],
    message: MessageParameters,
    *,
    wassly_conn_id: str,
    keep_quota: bool,
    began: float | None = None,
    clock: Clock = SYSTEM,
) -> None:
    """
    Send one message to every number, and wait for what comes of it.

    What certainly was not accepted and may pass is sent again while there is time.

    :param numbers: the recipients; one that is there twice gets one message.
    :param message: the message, to whomever.
    :param keep_quota: whether the remaining quota is kept for the sensors.
    :param began: the moment from which the time counts; by default the present one.
    :param clock: what the time is counted by.
    :raises WasslyError: what went wrong with the only recipient, or with the message to all of them.
    :raises WasslyNotificationError: what went wrong with some of several.
    """
    deadline = (clock.monotonic() if began is None else began) + _BUDGET
    hook = WasslyHook(wassly_conn_id, client_options=_CLIENT_OPTIONS)
    if not numbers:
        raise WasslyInvalidMessage("empty; there is nobody to notify", field="contact_mobile_number")
    # Looked at once and not for each recipient.
    message = message.with_files(
        {parameter: _look_at(file, parameter, hook, deadline, clock) for parameter, file in message.files.items()}
    )
    messages: dict[str, tuple[str, OutgoingMessage]] = {}
    failures: dict[str, WasslyError] = {}
    for position, number in enumerate(numbers, start=1):
        who = f"recipient {position} ({shorten(str(number))})"
        try:
            prepared = hook.prepare(replace(message, contact_mobile_number=number))
            messages.setdefault(prepared.contact_mobile_number, (who, prepared))
        except WasslyInvalidMessage as error:
            failures[who] = error
    recipients = len(messages) + len(failures)
    outcomes = _send_all(hook.get_conn(), [prepared for _, prepared in messages.values()], deadline, clock)
    hook.mask_tokens()
    receipts = []
    for (who, prepared), outcome in zip(messages.values(), outcomes, strict=True):
        hook.count(outcome)
        if isinstance(outcome, WasslyError):
            failures[who] = outcome
            continue
        hook.log_receipt(prepared, outcome)
        if outcome.remaining_conversations is not None:
            receipts.append((outcome.remaining_conversations, outcome, prepared.instance_id))
    if keep_quota and receipts:
        _, latest, instance_id = min(receipts, key=lambda receipt: receipt[0])
        hook.keep_quota(latest, instance_id)
    if failures and recipients == 1:
        who, failure = failures.popitem()
        failure.text = _in_words(who, failure)
        # Airflow logs what is raised, with all frames of the libraries below.
        raise failure.with_traceback(None) from None
    if failures:
        raise WasslyNotificationError(failures, recipients)


def _look_at(file: FileParameters, parameter: str, hook: WasslyHook, deadline: float, clock: Clock) -> Attachment:
    """
    Find a file, in a thread: a storage that does not answer must not hold up what called us.

    :raises WasslyInvalidMessage: when it cannot or may not be sent, or is not found in time.
    """
    location = file.location
    find = partial(hook.attachment, location, parameter=parameter, name=file.name, content_type=file.content_type)
    # Airflow is asked for connections in the caller's thread alone; it keeps what comes of it.
    hook.get_conn()
    if local_path(location) is None:
        try:
            _ = remote_path(location, None).fs
        except Exception:
            return find()  # fails too, and says what is wrong
    answers: queue.SimpleQueue[Attachment | Exception] = clock.queue()

    def look() -> None:
        try:
            answers.put(find())
        except Exception as error:
            answers.put(error)

    clock.start(look, f"wassly-notifier-{parameter}")
    try:
        found = answers.get(timeout=max(0.0, deadline - clock.monotonic()))
    except queue.Empty:
        raise WasslyInvalidMessage(
            f"{location} could not be looked at within the {_BUDGET:.0f} s of a notification", field=parameter
        ) from None
    if isinstance(found, Exception):
        raise found
    return found


def _in_words(who: str, error: WasslyError) -> str:
    # Not its summary: that speaks of a task's retries, and a callback has none.
    return f"{'UNKNOWN whether notified' if error.accepted is None else 'NOT notified'}: {who}: {error.message}"


def _send_all(
    client: WasslyClient, messages: Sequence[OutgoingMessage], deadline: float, clock: Clock
) -> list[SendReceipt | WasslyError]:
    """
    Send all messages, and return what came of each when all are done or the time is over.

    A message that has not left by then will not leave any more.

    :param client: it alone is used in other threads than the caller's.
    """
    deliveries = [_Delivery(message, deadline, clock) for message in messages]
    waiting: queue.SimpleQueue[_Delivery] = clock.queue()
    for delivery in deliveries:
        waiting.put(delivery)

    def work() -> None:
        while True:
            try:
                delivery = waiting.get_nowait()
            except queue.Empty:
                return
            delivery.make(client)

    for number in range(min(len(deliveries), _MAX_THREADS)):
        clock.start(work, f"wassly-notifier-{number}")
    return [delivery.outcome() for delivery in deliveries]


class _Delivery(SendObserver):
    """One message on its way, made by one thread and waited for by another."""

    def __init__(self, message: OutgoingMessage, deadline: float, clock: Clock) -> None:
        self._message = message
        self._deadline = deadline
        self._clock = clock
        self._lock = threading.Lock()
        self._done = clock.event()
        self._outcome: SendReceipt | WasslyError | None = None
        self._given_up = False

    def make(self, client: WasslyClient) -> None:
        """Send the message, unless it was given up."""
        outcome: SendReceipt | WasslyError
        try:
            outcome = self._send(client)
        except WasslyError as error:
            outcome = error
        except Exception as error:
            log.exception("The message could not be sent")
            kind = WasslyOutcomeUnknown if self.in_doubt else WasslyUnavailable
            outcome = kind(f"{type(error).__name__}: {error}")
        with self._lock:
            self._outcome = outcome
        self._done.set()

    def _send(self, client: WasslyClient) -> SendReceipt:
        least = 1.0
        while True:
            self._refuse_if_given_up()
            try:
                return client.send(self._message, observer=self)
            except (WasslyUnavailable, WasslyRateLimited) as error:
                seconds = max(error.retry_after or 0.0, least)
                if self._clock.monotonic() + seconds >= self._deadline:
                    raise
                who = shorten(self._message.contact_mobile_number)
                log.warning("Trying again in %.1f s for %s, because it was not accepted: %s", seconds, who, error)
            self._clock.sleep(seconds)
            least *= 2

    def outcome(self) -> SendReceipt | WasslyError:
        """Wait for what comes of it; give it up at the deadline."""
        self._done.wait(max(0.0, self._deadline - self._clock.monotonic()))
        with self._lock:
            if self._outcome is not None:
                return self._outcome
            self._given_up = True
            is_in_doubt = self.in_doubt
            if (certain := self.receipt or self.refusal) is not None:
                return certain
            if is_in_doubt:
                return WasslyOutcomeUnknown(f"no answer came within the {_BUDGET:.0f} s of a notification")
            return WasslyUnavailable(f"it could not be sent within the {_BUDGET:.0f} s of a notification")

    def departing(self) -> None:
        """Let the message leave, unless it was given up."""
        with self._lock:
            self._refuse_if_given_up()
            super().departing()

    def _refuse_if_given_up(self) -> None:
        if self._given_up:
            raise WasslyUnavailable("the time of the notification was over")
