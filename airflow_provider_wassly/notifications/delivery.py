"""Delivery of one message to several recipients in parallel, within a time limit."""

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

#: Seconds that one call may take. Airflow kills callbacks after 20; the rest is for recording the results.
_BUDGET = 14.0

#: One attempt fits into the budget even if it times out. Further attempts depend on the time left, which only this
#: module knows, so the client makes none.
_CLIENT_OPTIONS = {"connect_timeout": 5.0, "read_timeout": 9.0, "max_attempts": 1}

#: As many connections as the client keeps by default.
_MAX_THREADS = 10


class WasslyNotificationError(WasslyError):
    """
    Raised when some of several recipients were not, or may not have been, reached.

    :param failures: recipient, with a shortened number -> what went wrong.
    :param recipients: the total number of recipients.
    """

    accepted = None
    verdict = "Not everyone was notified"
    advice = "Each failed recipient is listed with the reason."

    def __init__(self, failures: Mapping[str, WasslyError], recipients: int) -> None:
        details = "; ".join(_describe_failure(who, error) for who, error in failures.items())
        super().__init__(f"{len(failures)} of {recipients} recipients: {details}")
        self.failures = dict(failures)
        if all(error.accepted is False for error in failures.values()):
            self.accepted = False  # definitely not accepted for any of them


def notify_everybody(
    numbers: Sequence[Any],
    message: MessageParameters,
    *,
    wassly_conn_id: str,
    use_variables: bool,
    began: float | None = None,
    clock: Clock = SYSTEM,
) -> None:
    """
    Send one message to every number, and wait for the results.

    While there is time, a message that was definitely not accepted is sent again if that can help.

    :param numbers: the recipients; a duplicate gets only one message.
    :param message: the message, without a recipient.
    :param wassly_conn_id: the Airflow connection.
    :param use_variables: whether to share the token and to save the remaining quota, in Airflow's Variables.
    :param began: when the time limit started, by ``clock``; default now.
    :param clock: the clock to measure the time limit with.
    :raises WasslyError: when the only recipient failed, or the message itself is wrong.
    :raises WasslyNotificationError: when at least one of several recipients failed.
    """
    deadline = (clock.monotonic() if began is None else began) + _BUDGET
    hook = WasslyHook(wassly_conn_id, client_options=_CLIENT_OPTIONS, share_token=use_variables)
    if not numbers:
        raise WasslyInvalidMessage("empty; nobody to notify", field="contact_mobile_number")
    # Check the files once, not for each recipient.
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
    if use_variables and receipts:
        _, latest, instance_id = min(receipts, key=lambda receipt: receipt[0])
        hook.keep_quota(latest, instance_id)
    if failures and recipients == 1:
        who, failure = failures.popitem()
        failure.text = _describe_failure(who, failure)
        # Airflow logs the traceback; without this it would include every frame of the libraries below.
        raise failure.with_traceback(None) from None
    if failures:
        raise WasslyNotificationError(failures, recipients)


def _look_at(file: FileParameters, parameter: str, hook: WasslyHook, deadline: float, clock: Clock) -> Attachment:
    """
    Find a file, in a thread: a storage that does not answer must not delay the caller.

    :raises WasslyInvalidMessage: when the file cannot or must not be sent, or is not found in time.
    """
    location = file.location
    find = partial(hook.attachment, location, parameter=parameter, name=file.name, content_type=file.content_type)
    # Connections must be read in the caller's thread; the hook caches the result.
    hook.get_conn()
    if local_path(location) is None:
        try:
            _ = remote_path(location, None).fs
        except Exception:
            return find()  # fails too, with a clear error
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
            f"could not check {location} within the {_BUDGET:.0f} s limit of a notification", field=parameter
        ) from None
    if isinstance(found, Exception):
        raise found
    return found


def _describe_failure(who: str, error: WasslyError) -> str:
    # Not the error's summary: it mentions the task's retries, and a callback has none.
    return f"{'UNKNOWN whether notified' if error.accepted is None else 'NOT notified'}: {who}: {error.message}"


def _send_all(
    client: WasslyClient, messages: Sequence[OutgoingMessage], deadline: float, clock: Clock
) -> list[SendReceipt | WasslyError]:
    """
    Send all messages in parallel, and return each result when all are done or the time is up.

    A message that has not left by then is never sent.

    :param client: the only object here that the other threads use.
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
    """The delivery of one message: one thread sends it, another waits for the result."""

    def __init__(self, message: OutgoingMessage, deadline: float, clock: Clock) -> None:
        self._message = message
        self._deadline = deadline
        self._clock = clock
        self._lock = threading.Lock()
        self._done = clock.event()
        self._outcome: SendReceipt | WasslyError | None = None
        self._given_up = False

    def make(self, client: WasslyClient) -> None:
        """Send the message, unless the waiting thread has given up."""
        outcome: SendReceipt | WasslyError
        try:
            outcome = self._send(client)
        except WasslyError as error:
            outcome = error
        except Exception as error:
            log.exception("Could not send the message")
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
                log.warning("Retrying in %.1f s for %s; not accepted: %s", seconds, who, error)
            self._clock.sleep(seconds)
            least *= 2

    def outcome(self) -> SendReceipt | WasslyError:
        """Wait for the result; give up at the deadline."""
        self._done.wait(max(0.0, self._deadline - self._clock.monotonic()))
        with self._lock:
            if self._outcome is not None:
                return self._outcome
            self._given_up = True
            is_in_doubt = self.in_doubt
            if (certain := self.receipt or self.refusal) is not None:
                return certain
            if is_in_doubt:
                return WasslyOutcomeUnknown(f"no reply within the {_BUDGET:.0f} s limit of a notification")
            return WasslyUnavailable(f"could not send within the {_BUDGET:.0f} s limit of a notification")

    def departing(self) -> None:
        """Let the message leave, unless the waiting thread has given up."""
        with self._lock:
            self._refuse_if_given_up()
            super().departing()

    def _refuse_if_given_up(self) -> None:
        if self._given_up:
            raise WasslyUnavailable("the notification ran out of time")
