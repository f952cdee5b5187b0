"""The threads that send. They use the client and nothing of Airflow."""

from __future__ import annotations

import logging
import queue
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from airflow_provider_wassly.broadcast.pace import Pace
from airflow_provider_wassly.client import (
    OutgoingMessage,
    SendObserver,
    SendReceipt,
    WasslyAuthError,
    WasslyClient,
    WasslyError,
    WasslyOutcomeUnknown,
    WasslyRateLimited,
    WasslyUnavailable,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

#: How often a message that certainly was not accepted and may pass is tried in all.
_ATTEMPTS = 3

#: Seconds to wait before the second attempt and before the third, when Wassly does not say. All threads wait.
_BACKOFF = (1.0, 4.0)

#: Seconds; a longer wait is for the task's retries.
MAX_RETRY_AFTER = 600.0


class NotSent(Exception):
    """The message has not left and will not, because the sending was stopped before."""


@dataclass(eq=False)
class Job(SendObserver, Generic[T]):
    """
    A message to be sent.

    :param row: what the message is about.
    :param senders: they send it.
    """

    row: T
    message: OutgoingMessage
    senders: Senders[T]
    #: When it left, and when its outcome was known; by the monotonic clock.
    departed_at: float = field(default=0.0, init=False)
    answered_at: float = field(default=0.0, init=False)
    outcome: SendReceipt | WasslyError | NotSent | None = field(default=None, init=False)

    def departing(self) -> None:
        """Let the message leave, unless none is to leave any more."""
        if self.senders.refuses:
            raise NotSent
        self.departed_at = self.senders.clock.monotonic()
        # In this order, and so without a lock that an interruption could leave locked: either it is seen here that
        # nothing may leave, or it is seen there that this has left.
        super().departing()
        if self.senders.refuses:
            self.in_doubt = False
            raise NotSent

    def give_up(self) -> None:
        """Let what is known of it by now be its outcome, if none has come. What was refused can be sent again."""
        if self.outcome is None:
            without_receipt = WasslyOutcomeUnknown("no answer had come yet") if self.in_doubt else NotSent()
            self.outcome = self.receipt or without_receipt


class Senders(Generic[T]):
    """
    Threads that send what they are given and hand back what came of it.

    :param client: one that repeats nothing by itself.
    :param pace: when messages may leave.
    :param number: how many threads there are.
    """

    def __init__(self, client: WasslyClient, pace: Pace, number: int) -> None:
        self._client = client
        self.clock = client.clock
        self._pace = pace
        #: Whether nothing may leave any more.
        self.refuses = False
        self._jobs: queue.SimpleQueue[Job[T] | None] = self.clock.queue()
        self._done: queue.SimpleQueue[Job[T]] = self.clock.queue()
        self._number = number
        for thread in range(number):
            self.clock.start(self._work, f"wassly-broadcast-{thread}")

    def give(self, job: Job[T]) -> None:
        """Have a message sent as soon as a thread is free and its turn has come."""
        self._jobs.put(job)

    def take(self, timeout: float) -> Job[T] | None:
        """Return a job that is done, ``None`` when there is none within the time."""
        # Without the first of the two, Python 3.10 can forget the timeout of the second and wait forever.
        with suppress(queue.Empty):
            return self._done.get_nowait()
        if timeout > 0:
            with suppress(queue.Empty):
                return self._done.get(timeout=timeout)
        return None

    def refuse(self) -> None:
        """
        Let nothing leave any more. May be called in a signal handler.

        Of a job that has not left by then, ``may_be_accepted`` is false, or soon will be, and stays so.
        """
        self.refuses = True

    def stop(self) -> None:
        """
        Let nothing leave any more, and end the threads when they have nothing in hand.

        Jobs that no thread has taken do not come back.
        """
        self.refuse()
        self._pace.stop()
        with suppress(queue.Empty):
            while True:
                self._jobs.get_nowait()
        for _ in range(self._number):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            outcome: SendReceipt | WasslyError | NotSent
            try:
                outcome = self._send(job)
            except (NotSent, WasslyError) as error:
                outcome = error
            except Exception as error:
                log.exception("A message could not be sent")
                outcome = WasslyOutcomeUnknown(f"{type(error).__name__}: {error}")
            job.answered_at = self.clock.monotonic()
            job.outcome = outcome
            self._done.put(job)

    def _send(self, job: Job[T]) -> SendReceipt:
        attempt = 0
        doubts_credentials = False
        while True:
            if not self._pace.wait_for_turn():
                raise NotSent
            try:
                return self._client.send(job.message, observer=job)
            except WasslyAuthError:
                # The token may have been taken by what another thread, or another task of the account, met meanwhile.
                # That must not stop a list; credentials that are wrong are refused here too.
                if doubts_credentials or self.refuses or not self._credentials_are_good():
                    raise
                doubts_credentials = True
            except (WasslyRateLimited, WasslyUnavailable) as error:
                attempt += 1
                asked = error.retry_after
                if (asked or 0.0) > MAX_RETRY_AFTER:
                    # It concerns everybody: nothing more leaves until all of it is stopped.
                    self._pace.hold(MAX_RETRY_AFTER)
                    raise
                gives_up = attempt == _ATTEMPTS
                if asked is not None or not gives_up:
                    wait = _BACKOFF[attempt - 1] if asked is None else asked
                    log.warning("Sending nothing for %.1f s, because a message was not accepted: %s", wait, error)
                    # What Wassly asks for concerns the other messages too, also when this one is given up.
                    self._pace.hold(wait)
                if gives_up:
                    raise

    def _credentials_are_good(self) -> bool:
        try:
            self._client.list_devices()
        except WasslyError:
            return False
        return True
