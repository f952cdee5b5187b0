"""The faults that can be simulated, and the rules that decide which calls they affect."""

from __future__ import annotations

import dataclasses
import random
import re
import threading
from itertools import count
from typing import Literal

from airflow_provider_wassly.sandbox.service.changes import Changes

ENDPOINTS = ("login", "devices", "send")


@dataclasses.dataclass(frozen=True)
class Kind:
    """
    The properties of a kind of fault.

    :param does: what the caller gets, and whether the message is recorded by default.
    :param reads: how much of the request's body is read.
    :param records: whether the call's work is done despite the fault, by default.
    :param can_be_early: whether the answer can be sent before the body is read.
    :param retry_after: whether the answer has a ``Retry-After`` header.
    :param answers_normally: whether the answer is the normal one, which requires the work to be done.
    :param only_send: whether the fault applies only to the send endpoint.
    """

    does: str
    reads: Literal["nothing", "half", "all"] = "all"
    records: bool = False
    can_be_early: bool = False
    retry_after: bool = False
    answers_normally: bool = False
    only_send: bool = False


#: The message is recorded only where the text says so. ``record`` of :class:`Fault` overrides that.
FAULTS: dict[str, Kind] = {
    "http_500": Kind("500 with JSON", can_be_early=True),
    "http_502_html": Kind("502 with a gateway's HTML page", can_be_early=True),
    "http_413": Kind("413 with a gateway's HTML page", can_be_early=True),
    "http_429": Kind("429 with Retry-After", can_be_early=True, retry_after=True),
    "unauthorized": Kind("401; the token stays valid", can_be_early=True),
    "token_expired": Kind("401; all tokens become invalid"),
    "redirect_to_login": Kind("302 to a login page", can_be_early=True),
    "rejected": Kind("200 with success: false"),
    "device_disconnected": Kind("200 with success: false; the device stays disconnected", only_send=True),
    "not_json": Kind("200 with an HTML page; the message is recorded", records=True),
    "truncated_json": Kind("200 with half of the JSON and a matching length; the message is recorded", records=True),
    "short_body": Kind("200, cut off at half of the announced length; the message is recorded", records=True),
    "drops_attachment": Kind(
        "accepted and recorded without its files; message_type is text",
        records=True,
        answers_normally=True,
        only_send=True,
    ),
    "maintenance": Kind("503 with Retry-After", can_be_early=True, retry_after=True),
    "hang_after_accept": Kind("the message is recorded, but no answer comes", records=True),
    "hang_before_body": Kind("the body is not read, and no answer comes", reads="nothing"),
    "hang_mid_body": Kind("half of the body is read, then no answer comes", reads="half"),
    "reset_before_body": Kind("a TCP reset after the headers", reads="nothing"),
    "reset_mid_body": Kind("a TCP reset after half of the body", reads="half"),
    "reset_after_body": Kind("the message is recorded, then a TCP reset", records=True),
    "close_idle": Kind(
        "a normal answer; a moment later the connection closes without notice", records=True, answers_normally=True
    ),
}


@dataclasses.dataclass
class Fault:
    """
    A rule: the next calls to an endpoint, or a share of all calls, fail in this way.

    :param name: one of :data:`FAULTS`.
    :param times: how many calls fail. Default: 1, or no limit if there is a ``share``.
    :param share: the probability that a call fails, from 0 to 1: 0.25 for one call in four. Default: every call.
    :param to: apply the fault only to messages to this number, ``+`` and digits. Default: any number.
    :param endpoint: ``login``, ``devices`` or ``send``. Default: ``send``.
    :param record: whether the message is recorded despite the fault (for other endpoints: whether the call's work is
        done). Default: as :data:`FAULTS` says.
    :param early: whether to answer right after the headers and close the connection, like a gateway that rejects the
        body. Default: no.
    :param retry_after: the value of the ``Retry-After`` header, as text; ``""`` for no header. Default: ``"1"``.
    :raises ValueError: when a value is wrong or does not fit the fault.
    """

    name: str
    times: int | None = None
    to: str | None = None
    endpoint: str = "send"
    record: bool | None = None
    early: bool = False
    retry_after: str | None = None
    share: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or self.name not in FAULTS:
            raise ValueError(f"name: unknown fault {self.name!r}; choose from {', '.join(FAULTS)}")
        kind = FAULTS[self.name]
        if self.times is None and self.share is None:
            self.times = 1
        if self.times is not None and (
            not isinstance(self.times, int) or isinstance(self.times, bool) or self.times < 1
        ):
            raise ValueError(f"times must be a positive integer, not {self.times!r}")
        if self.share is not None and (
            not isinstance(self.share, int | float) or isinstance(self.share, bool) or not 0 < self.share <= 1
        ):
            raise ValueError(f"share must be greater than 0 and at most 1, not {self.share!r}")
        if not isinstance(self.endpoint, str) or self.endpoint not in ENDPOINTS:
            raise ValueError(f"endpoint must be one of {', '.join(ENDPOINTS)}, not {self.endpoint!r}")
        if kind.only_send and self.endpoint != "send":
            raise ValueError(f"endpoint: {self.name} applies only to the send endpoint")
        if not isinstance(self.early, bool):
            raise ValueError(f"early must be true or false, not {self.early!r}")
        if self.early and not kind.can_be_early:
            raise ValueError(f"early: {self.name} cannot answer before the body is read")
        if self.to is not None:
            if not isinstance(self.to, str) or not re.fullmatch(r"\+[0-9]{8,15}", self.to):
                raise ValueError(f"to must be a + followed by 8 to 15 digits, not {self.to!r}")
            if self.endpoint != "send":
                raise ValueError(f"to: calls to the {self.endpoint} endpoint have no recipient")
            if self.reads != "all":
                what = f"{self.name} with early" if self.early else self.name
                raise ValueError(f"to: {what} acts before the body, and so the recipient, is read")
        self._check_record(kind)
        self._check_retry_after(kind)

    def _check_record(self, kind: Kind) -> None:
        if self.record is None:
            self.record = kind.records
        if not isinstance(self.record, bool):
            raise ValueError(f"record must be true or false, not {self.record!r}")
        if self.record and self.reads != "all":
            raise ValueError(f"record: {self.name} acts before the whole message is read")
        if not self.record and kind.answers_normally:
            raise ValueError(f"record: {self.name} answers normally, so the message is always recorded")

    def _check_retry_after(self, kind: Kind) -> None:
        if self.retry_after is None:
            self.retry_after = "1" if kind.retry_after else ""
        if not isinstance(self.retry_after, str) or not re.fullmatch(r"[\x20-\x7e]*", self.retry_after):
            raise ValueError(f"retry_after must be one line of ASCII text, not {self.retry_after!r}")
        if self.retry_after and not kind.retry_after:
            raise ValueError(f"retry_after: {self.name} does not send this header")

    @property
    def reads(self) -> Literal["nothing", "half", "all"]:
        """How much of the request's body is read."""
        return "nothing" if self.early else FAULTS[self.name].reads


class Faults:
    """
    The active rules, oldest first. Thread-safe.

    :param changes: gets a report of every change.
    """

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._lock = threading.Lock()
        self._ids = count(1)
        self._rules: dict[int, Fault] = {}

    def add(self, fault: Fault) -> int:
        """Add a rule after the others; return its id."""
        with self._lock:
            rule_id = next(self._ids)
            self._rules[rule_id] = fault
        self._changes.note()
        return rule_id

    def remove(self, rule_id: int) -> bool:
        """Remove a rule; return whether it existed."""
        with self._lock:
            was_there = self._rules.pop(rule_id, None) is not None
        self._changes.note()
        return was_there

    def clear(self) -> None:
        """Remove all rules."""
        with self._lock:
            self._rules.clear()
        self._changes.note()

    @property
    def pending(self) -> dict[int, Fault]:
        """The active rules by id; ``times`` is the number of calls left."""
        with self._lock:
            return {rule_id: dataclasses.replace(rule) for rule_id, rule in self._rules.items()}

    def take_at_headers(self, endpoint: str) -> Fault | None:
        """
        Return the rule for a call of which only the headers were read.

        A rule that acts after the body leaves the decision to :meth:`take_after_body` if it depends on the recipient or
        on chance, or if an older rule does.
        """
        with self._lock:
            older_waits = False
            for rule_id, rule in self._rules.items():
                if rule.endpoint != endpoint:
                    continue
                if rule.reads == "all" and (rule.to is not None or rule.share is not None or older_waits):
                    older_waits = True
                elif _hits(rule):
                    return self._use(rule_id)
        return None

    def take_after_body(self, endpoint: str, to: str | None) -> Fault | None:
        """Return the rule for a call whose body was read."""
        with self._lock:
            for rule_id, rule in self._rules.items():
                if rule.endpoint == endpoint and rule.reads == "all" and rule.to in (None, to) and _hits(rule):
                    return self._use(rule_id)
        return None

    def _use(self, rule_id: int) -> Fault:
        rule = self._rules[rule_id]
        if rule.times is not None:
            rule.times -= 1
            if not rule.times:
                del self._rules[rule_id]
        self._changes.note()
        return rule


def _hits(rule: Fault) -> bool:
    return rule.share is None or random.random() < rule.share
