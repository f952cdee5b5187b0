"""The threads that send. They use the client, and no part of Airflow."""

from __future__ import annotations

import logging
import math
import queue
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from airflow_provider_wassly.broadcast.pace import MAX_RETRY_AFTER, Pace
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

#: How many times, at most, to send a message that was definitely not accepted for a reason that may pass.
_ATTEMPTS = 3

#: Seconds to wait before the second and the third time, unless Wassly names a time. All threads wait.
_BACKOFF = (1.0, 4.0)


class NotSent(Exception):
    """Raised when a message did not leave because the sending was stopped first, or its time was over."""


@dataclass(eq=False)
class Job(SendObserver, Generic[T]):
    """
    A message to be sent.

    :param row: the recipient, or whatever identifies the message to the caller.
    :param message: the message.
    :param senders: the threads that send it.
    :param pace: the pace of the sending device.
    """

    row: T
    message: OutgoingMessage
    senders: Senders[T]
    pace: Pace
    #: When it must have left, by the monotonic clock; otherwise it does not leave.
    leaves_before: float = field(default=math.inf, init=False)
    #: When it left, and when its outcome was known, by the monotonic clock.
    departed_at: float = field(default=0.0, init=False)
    answered_at: float = field(default=0.0, init=False)
    outcome: SendReceipt | WasslyError | NotSent | None = field(default=None, init=False)

    def departing(self) -> None:
        """Let the message leave, unless the sending was stopped, or the upload took until its time was over."""
        self.departed_at = self.senders.clock.monotonic()
        if self.senders.refuses or self.departed_at >= self.leaves_before:
            raise NotSent
        # In this order, no lock is needed that an interruption could leave locked: either this thread sees the stop, or
        # the stop sees that this message has left.
        super().departing()
        if self.senders.refuses:
            self.in_doubt = False
            raise NotSent

    def give_up(self) -> None:
        """Settle for what is known so far, if there is no outcome yet. A refused message can be sent again."""
        if self.outcome is None:
            without_receipt = (
                WasslyOutcomeUnknown("no answer came before this attempt ended") if self.in_doubt else NotSent()
            )
            self.outcome = self.receipt or without_receipt


class Senders(Generic[T]):
    """
    Threads that send the messages they are given and hand back the outcomes.

    :param client: a client that repeats nothing.
    :param pace: says when messages may leave.
    :param number: the number of threads.
    """

    def __init__(self, client: WasslyClient, pace: Pace, number: int) -> None:
        self._client = client
        self.clock = client.clock
        self._pace = pace
        #: Whether the sending was stopped, so that nothing more may leave.
        self.refuses = False
        self._jobs: queue.SimpleQueue[Job[T] | None] = self.clock.queue()
        self._done: queue.SimpleQueue[Job[T] | None] = self.clock.queue()
        self._number = number
        for thread in range(number):
            self.clock.start(self._work, f"wassly-broadcast-{thread}")

    def give(self, job: Job[T]) -> None:
        """Send a message as soon as a thread is free and its turn has come."""
        self._jobs.put(job)

    def take(self, timeout: float) -> Job[T] | None:
        """Return a finished job, ``None`` if there is none within ``timeout`` seconds, or after :meth:`wake`."""
        # Without the first call, Python 3.10 can lose the timeout of the second and wait forever.
        with suppress(queue.Empty):
            return self._done.get_nowait()
        if timeout > 0:
            with suppress(queue.Empty):
                return self._done.get(timeout=timeout)
        return None

    def wake(self) -> None:
        """End a wait in :meth:`take`. May be called in a signal handler."""
        # The one operation of a queue that a signal handler may interrupt anywhere.
        self._done.put(None)

    def refuse(self) -> None:
        """
        Let nothing more leave. May be called in a signal handler.

        The ``may_be_accepted`` of a job that has not left by then is false, or becomes false soon, and stays so.
        """
        self.refuses = True

    def stop(self) -> None:
        """
        Let nothing more leave, and end each thread when it has finished its job.

        Jobs that no thread has taken yet are dropped.
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
                log.exception("Could not send a message")
                outcome = WasslyOutcomeUnknown(f"{type(error).__name__}: {error}")
            job.answered_at = self.clock.monotonic()
            job.outcome = outcome
            self._done.put(job)

    def _send(self, job: Job[T]) -> SendReceipt:
        attempt = 0
        doubts_credentials = False
        while True:
            if not job.pace.wait_for_turn(job.leaves_before):
                raise NotSent
            try:
                return self._client.send(job.message, observer=job)
            except WasslyAuthError:
                # Another thread, or another task of the account, may have replaced the token meanwhile. That must not
                # stop a list; wrong credentials are refused by the device list too.
                if doubts_credentials or self.refuses or not self._credentials_are_good():
                    raise
                doubts_credentials = True
            except (WasslyRateLimited, WasslyUnavailable) as error:
                attempt += 1
                asked = error.retry_after
                if (asked or 0.0) > MAX_RETRY_AFTER:
                    # This concerns every message. The broadcast waits, not the threads.
                    self._pace.hold(asked or 0.0)
                    raise
                gives_up = attempt == _ATTEMPTS
                if asked is not None or not gives_up:
                    wait = _BACKOFF[attempt - 1] if asked is None else asked
                    log.warning("Pausing for %.1f s, because a message was not accepted: %s", wait, error)
                    # The wait that Wassly asks for applies to the other messages too, even if this one is given up.
                    self._pace.hold(wait)
                if gives_up:
                    raise

    def _credentials_are_good(self) -> bool:
        try:
            self._client.list_devices()
        except WasslyError:
            return False
        return True
