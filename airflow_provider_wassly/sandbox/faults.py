"""
The faults that can be asked for, and which call each of them hits.

=======================  ===================================================================================
``http_500``             500, JSON
``http_502_html``        502, a gateway's page
``http_413``             413, a gateway's page
``http_429``             429 with ``Retry-After``
``unauthorized``         401; the token stays good
``token_expired``        401, and all tokens are invalid from now on
``redirect_to_login``    302 to a login page
``rejected``             200, ``success`` is false
``device_disconnected``  the same, and the device is disconnected from now on
``not_json``             200, a page; the message is recorded
``truncated_json``       200, half of the answer with a length to match; the message is recorded
``short_body``           200, half of the length that was announced, then the end; the message is recorded
``drops_attachment``     accepted and recorded without its files, ``message_type`` is ``text``
``maintenance``          503 with ``Retry-After``
``hang_before_body``     the body is left unread, no answer comes
``hang_mid_body``        half of the body is read, no answer comes
``hang_after_accept``    the message is recorded, no answer comes
``reset_before_body``    a TCP reset after the headers
``reset_mid_body``       a TCP reset after half of the body
``reset_after_body``     the message is recorded, then a TCP reset
``close_idle``           a normal answer; a moment later the connection is closed, unannounced
=======================  ===================================================================================

Where nothing is said of recording, nothing is recorded. ``record`` of :class:`Fault` changes that.
"""

from __future__ import annotations

import dataclasses
import re
import threading
from typing import Literal

ENDPOINTS = ("login", "devices", "send")


@dataclasses.dataclass(frozen=True)
class Kind:
    """
    What is known of a fault before it is used.

    :param reads: how much of the request's body is read.
    :param records: whether the call's work is done in spite of the fault, unless told otherwise.
    :param can_be_early: whether the answer can leave before the body was read.
    :param retry_after: whether the answer carries ``Retry-After``.
    :param answers_normally: whether the answer is the true one, so that the work must be done.
    :param only_send: whether it makes sense for the send endpoint only.
    """

    reads: Literal["nothing", "half", "all"] = "all"
    records: bool = False
    can_be_early: bool = False
    retry_after: bool = False
    answers_normally: bool = False
    only_send: bool = False


FAULTS: dict[str, Kind] = {
    "http_500": Kind(can_be_early=True),
    "http_502_html": Kind(can_be_early=True),
    "http_413": Kind(can_be_early=True),
    "http_429": Kind(can_be_early=True, retry_after=True),
    "unauthorized": Kind(can_be_early=True),
    "token_expired": Kind(),
    "redirect_to_login": Kind(can_be_early=True),
    "rejected": Kind(),
    "device_disconnected": Kind(only_send=True),
    "not_json": Kind(records=True),
    "truncated_json": Kind(records=True),
    "short_body": Kind(records=True),
    "drops_attachment": Kind(records=True, answers_normally=True, only_send=True),
    "maintenance": Kind(can_be_early=True, retry_after=True),
    "hang_after_accept": Kind(records=True),
    "hang_before_body": Kind(reads="nothing"),
    "hang_mid_body": Kind(reads="half"),
    "reset_before_body": Kind(reads="nothing"),
    "reset_mid_body": Kind(reads="half"),
    "reset_after_body": Kind(records=True),
    "close_idle": Kind(records=True, answers_normally=True),
}


@dataclasses.dataclass
class Fault:
    """
    A rule: the next calls of an endpoint fail in this way.

    :param name: one of :data:`FAULTS`.
    :param times: for how many calls.
    :param to: only for messages to this number.
    :param endpoint: ``login``, ``devices`` or ``send``.
    :param record: whether the message is recorded in spite of the fault (for the other endpoints: whether the
        call's work is done). ``None`` takes the fault's own default.
    :param early: answer right after the headers and close the connection, as a gateway does that does not
        want the body.
    :param retry_after: the text of ``Retry-After``, default ``"1"``; ``""`` leaves the header out.
    :raises ValueError: when a value is wrong or does not go with the fault.
    """

    name: str
    times: int = 1
    to: str | None = None
    endpoint: str = "send"
    record: bool | None = None
    early: bool = False
    retry_after: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or self.name not in FAULTS:
            raise ValueError(f"name: there is no fault {self.name!r}; there are: {', '.join(FAULTS)}")
        kind = FAULTS[self.name]
        if not isinstance(self.times, int) or isinstance(self.times, bool) or self.times < 1:
            raise ValueError(f"times must be a whole number from 1 up, not {self.times!r}")
        if not isinstance(self.endpoint, str) or self.endpoint not in ENDPOINTS:
            raise ValueError(f"endpoint must be one of {', '.join(ENDPOINTS)}, not {self.endpoint!r}")
        if kind.only_send and self.endpoint != "send":
            raise ValueError(f"endpoint: {self.name} is for the send endpoint only")
        if not isinstance(self.early, bool):
            raise ValueError(f"early must be true or false, not {self.early!r}")
        if self.early and not kind.can_be_early:
            raise ValueError(f"early: {self.name} cannot be an answer that leaves before the body was read")
        if self.to is not None:
            if not isinstance(self.to, str) or not re.fullmatch(r"\+[0-9]{8,15}", self.to):
                raise ValueError(f"to must be a number with a leading + and 8 to 15 digits, not {self.to!r}")
            if self.endpoint != "send":
                raise ValueError(f"to: calls of the {self.endpoint} endpoint have no recipient")
            if self.reads != "all":
                what = f"{self.name} with early" if self.early else self.name
                raise ValueError(f"to: {what} strikes before the body, and so the recipient, was read")
        self._check_record(kind)
        self._check_retry_after(kind)

    def _check_record(self, kind: Kind) -> None:
        if self.record is None:
            self.record = kind.records
        if not isinstance(self.record, bool):
            raise ValueError(f"record must be true or false, not {self.record!r}")
        if self.record and self.reads != "all":
            raise ValueError(f"record: {self.name} strikes before the whole body, so the message, was read")
        if not self.record and kind.answers_normally:
            raise ValueError(f"record: {self.name} answers normally, so the message is always recorded")

    def _check_retry_after(self, kind: Kind) -> None:
        if self.retry_after is None:
            self.retry_after = "1" if kind.retry_after else ""
        if not isinstance(self.retry_after, str) or not re.fullmatch(r"[\x20-\x7e]*", self.retry_after):
            raise ValueError(f"retry_after must be a line of plain text, not {self.retry_after!r}")
        if self.retry_after and not kind.retry_after:
            raise ValueError(f"retry_after: the answer of {self.name} has no such header")

    @property
    def reads(self) -> Literal["nothing", "half", "all"]:
        """How much of the request's body is read."""
        return "nothing" if self.early else FAULTS[self.name].reads


class Faults:
    """The rules that wait for their call, oldest first. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Let a rule wait behind those that are there."""
        with self._lock:
            self._rules.append(fault)

    def clear(self) -> None:
        """Drop all rules."""
        with self._lock:
            self._rules.clear()

    @property
    def pending(self) -> list[Fault]:
        """The rules that wait, each with the number of ``times`` that are left."""
        with self._lock:
            return [dataclasses.replace(rule) for rule in self._rules]

    def take_at_headers(self, endpoint: str) -> Fault | None:
        """
        Find the rule for a call of which only the headers are known.

        A rule that can wait for the body waits when an older one may claim the call by its recipient.
        """
        with self._lock:
            older_names_recipient = False
            for rule in self._rules:
                if rule.endpoint == endpoint:
                    if rule.to is not None:
                        older_names_recipient = True
                    elif rule.reads != "all" or not older_names_recipient:
                        return self._use(rule)
        return None

    def take_after_body(self, endpoint: str, to: str | None) -> Fault | None:
        """Find the rule for a call whose recipient is known."""
        with self._lock:
            for rule in self._rules:
                if rule.endpoint == endpoint and rule.reads == "all" and rule.to in (None, to):
                    return self._use(rule)
        return None

    def _use(self, rule: Fault) -> Fault:
        rule.times -= 1
        if not rule.times:
            self._rules = [other for other in self._rules if other is not rule]
        return rule
