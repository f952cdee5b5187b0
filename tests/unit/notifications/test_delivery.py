"""Delivery to several recipients within the time limit, on a virtual clock. No network."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_wassly.client import (
    Attachment,
    MessageParameters,
    OutgoingMessage,
    SendObserver,
    SendReceipt,
    WasslyError,
    WasslyInvalidMessage,
    WasslyOutcomeUnknown,
    WasslyRateLimited,
    WasslyRejected,
    WasslyUnavailable,
)
from airflow_provider_wassly.files import locations as files
from airflow_provider_wassly.hooks.wassly import WasslyHook
from airflow_provider_wassly.notifications.delivery import WasslyNotificationError, notify_everybody
from tests.support.clock import VirtualClock
from tests.support.service import FATES, Service

NUMBERS = [f"+4477009001{number:02}" for number in range(25)]
#: Seconds; the limit is 14.
BUDGET = 14


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


class TimedService(Service):
    """A Wassly that does what the test says at each call, and records when messages left."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock)
        #: What happens before and after a message leaves, for each call in turn.
        self.script: list[tuple[float, WasslyError | None, float]] = []
        self.departures: list[float] = []

    def _answer(self, message: OutgoingMessage, observer: SendObserver) -> SendReceipt:
        if not self.script:
            return super()._answer(message, observer)
        self.called_at.append(self.clock.monotonic())
        before, error, after = self.script.pop(0)
        self.clock.sleep(before)
        observer.departing()
        self.departures.append(self.clock.monotonic())
        self.clock.sleep(after)
        if error is not None:
            raise error
        self.delivered.append(message.contact_mobile_number)
        return SendReceipt("text", 1, None)


@pytest.fixture
def service(clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> TimedService:
    made = TimedService(clock)
    monkeypatch.setattr(WasslyHook, "get_conn", lambda hook: made)
    connection = {"conn_type": "wassly", "extra": {"apikey": "key", "token": "token", "instance_id": "one"}}
    monkeypatch.setenv("AIRFLOW_CONN_WASSLY_DEFAULT", json.dumps(connection))
    return made


def notify(
    clock: VirtualClock, numbers: Any = tuple(NUMBERS[:1]), *, began: float | None = None, **arguments: Any
) -> float:
    """Return how long it took."""
    called_at = clock.monotonic()
    message = MessageParameters(**{"contact_mobile_number": None, "message": "Hello", **arguments})
    notify_everybody(numbers, message, wassly_conn_id="wassly_default", use_variables=False, began=began, clock=clock)
    return clock.monotonic() - called_at


def failure_of(clock: VirtualClock, numbers: Any = tuple(NUMBERS[:1]), **arguments: Any) -> tuple[WasslyError, float]:
    """Return the exception, and the seconds until it was raised."""
    began = clock.monotonic()
    with pytest.raises(WasslyError) as raised:
        notify(clock, numbers, **arguments)
    return raised.value, clock.monotonic() - began


def limited(seconds: float | None = None) -> WasslyError:
    return WasslyRateLimited("too many requests", retry_after=seconds)


def away(seconds: float | None = None) -> WasslyError:
    return WasslyUnavailable("maintenance", retry_after=seconds)


@pytest.mark.parametrize(
    ("refusals", "seconds"),
    [
        ([limited(1)], 1),
        ([limited(6)], 6),
        ([limited()], 1),
        ([away(3)], 3),
        ([away()], 1),
        ([away(), limited(), away()], 7),
        ([limited(0), limited(0)], 3),
    ],
)
def test_what_was_not_accepted_and_may_pass_is_sent_again(
    clock: VirtualClock, service: TimedService, refusals: list[WasslyError], seconds: float
) -> None:
    service.script = [(0, refusal, 0) for refusal in refusals] + [(0, None, 0)]
    assert notify(clock) == pytest.approx(seconds, abs=0.1)
    assert service.delivered == NUMBERS[:1]


@pytest.mark.parametrize(
    "answer",
    [
        WasslyOutcomeUnknown("no answer"),
        WasslyRejected("no quota", status=200),
        WasslyRejected("no such number", status=422),
    ],
)
def test_what_is_unknown_or_was_answered_no_is_not_sent_again(
    clock: VirtualClock, service: TimedService, answer: WasslyError
) -> None:
    service.script = [(0, answer, 0), (0, None, 0)]
    error, seconds = failure_of(clock)
    assert error is answer
    assert seconds < 0.1
    assert service.delivered == []


def test_what_cannot_pass_in_time_is_not_waited_for(clock: VirtualClock, service: TimedService) -> None:
    service.script = [(0, limited(15), 0), (0, None, 0)]
    error, seconds = failure_of(clock)
    assert isinstance(error, WasslyRateLimited)
    assert seconds < 0.1


@pytest.mark.parametrize("refusal", [limited(0), limited(), away()])
def test_a_service_that_stays_away_is_not_hammered(
    clock: VirtualClock, service: TimedService, refusal: WasslyError
) -> None:
    service.script = [(0, refusal, 0)] * 1000
    error, seconds = failure_of(clock)
    assert error is refusal
    assert seconds < BUDGET
    assert [round(moment - service.called_at[0]) for moment in service.called_at] == [0, 1, 3, 7]


def test_each_recipient_has_attempts_of_their_own(clock: VirtualClock, service: TimedService) -> None:
    service.fates = {NUMBERS[1]: ["too many requests"], NUMBERS[2]: ["no connection", "no connection"]}
    notify(clock, NUMBERS)
    assert sorted(service.delivered) == NUMBERS


def test_an_attempt_that_comes_too_late_does_not_leave(clock: VirtualClock, service: TimedService) -> None:
    # A login or an upload takes 20 s before the second message could leave.
    service.script = [(0, limited(1), 0), (20, None, 0)]
    error, seconds = failure_of(clock)
    assert isinstance(error, WasslyRateLimited)
    assert seconds == pytest.approx(BUDGET, abs=0.1)
    clock.sleep(60)
    assert (len(service.departures), service.delivered) == (1, [])


def test_an_attempt_that_gets_no_answer_is_unknown_whatever_the_first_one_met(
    clock: VirtualClock, service: TimedService
) -> None:
    service.script = [(0, limited(1), 0), (0, None, 60)]
    error, seconds = failure_of(clock)
    assert isinstance(error, WasslyOutcomeUnknown)
    assert seconds == pytest.approx(BUDGET, abs=0.1)


def test_what_was_spent_before_counts(clock: VirtualClock, service: TimedService) -> None:
    began = clock.monotonic()
    clock.advance(10)
    service.script = [(0, limited(3), 0), (0, None, 60)]
    error, seconds = failure_of(clock, began=began)
    assert isinstance(error, WasslyOutcomeUnknown)
    assert seconds == pytest.approx(BUDGET - 10, abs=0.1)


def test_whatever_happens_the_time_and_the_one_message_are_kept(
    clock: VirtualClock, service: TimedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(clock.monotonic())
    answer = Service._answer
    departures: dict[str, list[float]] = {}

    def slow_answer(self: Service, message: OutgoingMessage, observer: SendObserver) -> SendReceipt:
        clock.sleep(chance.choice([0, 0.5, 3, 12, 30]))
        self.latency = chance.choice([0, 0.5, 3, 12, 30])
        return answer(self, message, observer)

    monkeypatch.setattr(Service, "_answer", slow_answer)
    for _ in range(30):
        service.delivered.clear()
        service.fates = {number: chance.choices(sorted(FATES), k=5) for number in NUMBERS}
        departures.clear()
        service.on_event = lambda what: departures.setdefault(what, []).append(clock.monotonic())
        began = clock.monotonic()
        failures: dict[str, WasslyError] = {}
        try:
            notify(clock, NUMBERS)
        except WasslyNotificationError as error:
            failures = error.failures
        assert clock.monotonic() - began < BUDGET + 0.1
        told = clock.monotonic()
        clock.sleep(600)
        assert all(moment <= told for moment in departures.get("departed", []))
        assert len(set(service.delivered)) == len(service.delivered)
        verdicts: dict[str, bool | None] = dict.fromkeys(NUMBERS, True)
        verdicts |= {NUMBERS[int(who.split()[1]) - 1]: failure.accepted for who, failure in failures.items()}
        assert {number for number, verdict in verdicts.items() if verdict} <= set(service.delivered)
        assert not {number for number, verdict in verdicts.items() if verdict is False} & set(service.delivered)


# Files.


@pytest.fixture
def storage(clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], None]]:
    """What happens when a file is checked, by its name."""
    looks: dict[str, Callable[[], None]] = {}
    find = WasslyHook.attachment

    def slow_find(hook: WasslyHook, location: Any, **options: Any) -> Attachment:
        looks.get(Path(str(location)).name, lambda: None)()
        return find(hook, location, **options)

    monkeypatch.setattr(WasslyHook, "attachment", slow_find)
    return looks


@pytest.fixture
def report(tmp_path: Path) -> Path:
    (tmp_path / "report.pdf").write_bytes(b"1")
    return tmp_path / "report.pdf"


@pytest.mark.parametrize("parameter", ["document", "media"])
def test_a_storage_that_does_not_answer_holds_up_nobody(
    clock: VirtualClock,
    service: TimedService,
    storage: dict[str, Callable[[], None]],
    report: Path,
    parameter: str,
) -> None:
    storage["report.pdf"] = lambda: clock.sleep(600)
    error, seconds = failure_of(clock, NUMBERS[:3], **{parameter: report})
    assert isinstance(error, WasslyInvalidMessage)
    assert str(error) == f"{parameter}: could not check {report} within the 14 s limit of a notification"
    assert seconds == pytest.approx(BUDGET, abs=0.1)
    clock.sleep(1000)
    assert service.calls == []


def test_the_look_at_a_file_takes_its_time_off_that_of_the_sending(
    clock: VirtualClock, service: TimedService, storage: dict[str, Callable[[], None]], report: Path
) -> None:
    storage["report.pdf"] = lambda: clock.sleep(5)
    assert notify(clock, document=report) == pytest.approx(5, abs=0.1)
    assert [message.files["document"].name for message in service.messages] == ["report.pdf"]
    service.script = [(0, None, 60)]
    error, seconds = failure_of(clock, document=report, media=report)
    assert isinstance(error, WasslyOutcomeUnknown)
    assert seconds == pytest.approx(BUDGET, abs=0.1)


def test_what_is_wrong_with_a_file_is_said_as_ever(
    clock: VirtualClock, service: TimedService, report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for location, reason in (
        (report.with_name("other.pdf"), "no such file: "),
        (report.parent, "a folder"),
        ("nonsense://bucket/file", "nonsense://bucket/file cannot be read: "),
        ("", "an empty path"),
        (5, "must be a path, a URI or an ObjectStoragePath, not int"),
    ):
        error, _ = failure_of(clock, document=location)
        assert isinstance(error, WasslyInvalidMessage)
        assert reason in str(error)

    def broken(location: Any) -> Any:
        raise RuntimeError("a defect")

    monkeypatch.setattr(files, "local_path", broken)
    monkeypatch.setattr("airflow_provider_wassly.files.attachments.local_path", broken)
    with pytest.raises(RuntimeError, match="a defect"):
        notify(clock, document=report)
    assert service.calls == []
