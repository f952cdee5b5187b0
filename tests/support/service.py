"""A Wassly in memory that records what it accepted. It has the client's interface."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from airflow_provider_wassly.client import (
    Device,
    MessageParameters,
    OutgoingMessage,
    SendObserver,
    SendReceipt,
    WasslyAuthError,
    WasslyDeviceDisconnected,
    WasslyError,
    WasslyOutcomeUnknown,
    WasslyRateLimited,
    WasslyRejected,
    WasslyUnavailable,
)
from airflow_provider_wassly.client.clock import SYSTEM, Clock
from airflow_provider_wassly.client.messages import prepare

#: What Wassly can do with a message -> whether it accepts it.
FATES = {
    "accept": True,
    "accept after a new token": True,
    "accept, answer lost": True,
    "lose it, answer lost": False,
    "accept, then a bug": True,
    "a bug": False,
    "no connection": False,
    "too many requests": False,
    "refuse for now": False,
    "refuse": False,
    "file changed": False,
    "wrong key": False,
    "device disconnected": False,
}
#: After these there is an answer with the remaining quota.
TOLD = {"accept", "accept after a new token"}

#: The exceptions that these raise.
ERRORS: dict[str, Callable[[], Exception]] = {
    "a bug": lambda: RuntimeError("a bug"),
    "accept, then a bug": lambda: RuntimeError("a bug"),
    "accept, answer lost": lambda: WasslyOutcomeUnknown("no answer came"),
    "lose it, answer lost": lambda: WasslyOutcomeUnknown("no answer came"),
    "too many requests": lambda: WasslyRateLimited("slower", retry_after=0.0),
    "refuse for now": lambda: WasslyRejected("not now", status=200),
    "refuse": lambda: WasslyRejected("never", status=422),
    "file changed": lambda: WasslyUnavailable("the connection failed before the request was complete"),
    "wrong key": lambda: WasslyAuthError("wrong key", status=401),
    "device disconnected": lambda: WasslyDeviceDisconnected("disconnected", status=200),
}


class Service:
    """
    Wassly and its client, for use from many threads of a clock.

    :param clock: the clock for the time that answers take.
    :param delivered: the recipients of messages that it has already accepted.
    """

    default_region: str | None = None

    def __init__(self, clock: Clock = SYSTEM, delivered: list[str] | None = None) -> None:
        self.clock = clock
        #: The recipients of the accepted messages, and the messages.
        self.delivered = list(delivered or [])
        self.messages: list[OutgoingMessage] = []
        #: The recipients of messages that are on the way and will be accepted if they arrive.
        self.on_the_way: list[str] = []
        #: What to do with the next messages to each number, in order.
        self.fates: dict[str, list[str]] = {}
        #: The ``Retry-After`` of the next answers, to any recipient, in order.
        self.asks_to_wait: list[float] = []
        #: All calls: recipient, time and outcome.
        self.calls: list[str] = []
        self.called_at: list[float] = []
        self.met: list[str] = []
        #: Seconds between the departure of a message and the answer.
        self.latency = 0.0
        #: The device list; ``None`` if it is refused.
        self.devices: list[Device] | None = None
        self.remaining: int | None = None
        self.conversations = itertools.count(1)
        #: Called with ``call``, ``departed`` and ``delivered``.
        self.on_event: Callable[[str], None] = lambda what: None

    def event(self, what: str) -> None:
        self.on_event(what)

    def list_devices(self) -> list[Device]:
        self.event("devices")
        if self.devices is None:
            raise WasslyAuthError("wrong key", status=401)  # fetched only after a message got such an answer
        return self.devices

    def prepare(self, parameters: MessageParameters) -> OutgoingMessage:
        return prepare(parameters)

    def send(
        self,
        message: OutgoingMessage,
        *,
        observer: SendObserver | None = None,
    ) -> SendReceipt:
        watched = observer or SendObserver()
        try:
            receipt = self._answer(message, watched)
        except WasslyError as error:
            if error.accepted is False:
                watched.refused(error)
            raise
        watched.accepted(receipt)
        return receipt

    def _answer(self, message: OutgoingMessage, observer: SendObserver) -> SendReceipt:
        to = message.contact_mobile_number
        fate = self.fates[to].pop(0) if self.fates.get(to) else "accept"
        self.calls.append(to)
        self.called_at.append(self.clock.monotonic())
        self.met.append(fate)
        self.event("call")
        if self.asks_to_wait:
            observer.departing()
            raise WasslyRateLimited("slower", retry_after=self.asks_to_wait.pop(0))
        if fate == "no connection":
            raise WasslyUnavailable("no connection")
        observer.departing()
        if fate == "accept after a new token":
            self.event("departed")
            observer.refused(WasslyAuthError("the token has ended", status=401))
            observer.departing()
        is_accepted = FATES[fate]
        if is_accepted:
            self.on_the_way.append(to)
        self.event("departed")
        if self.latency:
            self.clock.sleep(self.latency)
        remaining = None
        if is_accepted:
            remaining = self._accept(message)
        if fate in ERRORS:
            raise ERRORS[fate]()
        return SendReceipt("text", next(self.conversations), remaining)

    def _accept(self, message: OutgoingMessage) -> int | None:
        to = message.contact_mobile_number
        self.on_the_way.remove(to)
        self.delivered.append(to)
        self.messages.append(message)
        if self.remaining is not None:
            self.remaining -= 1
        remaining = self.remaining
        self.event("delivered")
        return remaining
