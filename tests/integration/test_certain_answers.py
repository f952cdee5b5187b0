"""Once Wassly has answered, the outcome is known, whatever happens to the calls that follow."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_wassly.airflow_compat import tasks
from airflow_provider_wassly.client import (
    MessageParameters,
    SendObserver,
    SendReceipt,
    WasslyAuthError,
    WasslyError,
    WasslyRejected,
)
from airflow_provider_wassly.hooks.wassly import WasslyHook
from airflow_provider_wassly.notifications import delivery
from airflow_provider_wassly.notifications.delivery import WasslyNotificationError
from airflow_provider_wassly.notifications.wassly import WasslyNotifier
from airflow_provider_wassly.operators.broadcast import WasslyBroadcastOperator
from airflow_provider_wassly.operators.send_message import WasslySendMessageOperator
from airflow_provider_wassly.sandbox import Sandbox
from tests.support.kept import HAS_TASK_STATE_STORE, Kept
from tests.support.log import Log
from tests.support.signals import signalled
from tests.support.task import Ended, Stopped, Task
from tests.support.variables import Variables

TO, OTHER = "+447700900301", "+447700900302"

#: How Wassly refuses, and the endpoint that is called next and does not answer.
ANSWERS = [("rejected", "devices"), ("device_disconnected", "devices"), ("unauthorized", "login")]


@pytest.fixture
def wassly(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """The sandbox as the connection ``wassly_default``, already logged in."""
    connection = json.loads(box.connection)
    connection["extra"]["read_timeout"] = 3
    monkeypatch.setenv("AIRFLOW_CONN_WASSLY_DEFAULT", json.dumps(connection))
    WasslyHook().get_conn().login()
    return box


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Log:
    return Log(caplog, capsys)


@pytest.fixture(params=["state", "variables"] if HAS_TASK_STATE_STORE else ["variables"])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Task]:
    """Return a function that creates a task; for each kind of store that this Airflow can have."""
    Variables(monkeypatch)
    listeners: list[Callable[[Any, bool], None]] = []
    monkeypatch.setattr(tasks, "listen_for_end", listeners.append)
    monkeypatch.setattr(tasks, "runs_here", lambda ti: True)
    state = Kept() if request.param == "state" else None
    return lambda operator, **arguments: Task(operator, state, listeners, message="Hello", **arguments)


def stopped_while_it_hangs(box: Sandbox, task: Task, answer: str, then: str) -> Ended:
    """Run a try that is refused and then stopped, as by ``execution_timeout``, during the next call."""

    def stop() -> None:
        raise Stopped

    box.fail_next(answer)
    box.fail_next("hang_before_body", endpoint=then)
    asked = len([call for call in box.calls if call.endpoint == then])
    with signalled(lambda: len([call for call in box.calls if call.endpoint == then]) > asked, stop):
        ended = task.run()
    assert isinstance(ended.error, Stopped)
    box.connect_device(box.devices[0].instance_id)
    return ended


@pytest.mark.parametrize(("answer", "then"), ANSWERS)
def test_a_task_that_is_stopped_after_a_no_sends_when_it_is_tried_again(
    answer: str, then: str, wassly: Sandbox, make: Callable[..., Task], log: Log
) -> None:
    task = make(WasslySendMessageOperator, contact_mobile_number=TO)
    stopped_while_it_hangs(wassly, task, answer, then)
    assert "UNKNOWN" not in log.text
    assert "NOT accepted by Wassly: " in log.text
    assert "After that, Stopped ended this attempt" in log.text
    assert task.run().returned
    assert [message.contact_mobile_number for message in wassly.messages] == [TO]


@pytest.mark.parametrize(("answer", "then"), ANSWERS)
def test_a_broadcast_that_is_stopped_after_a_no_sends_to_everybody_when_it_is_tried_again(
    answer: str, then: str, wassly: Sandbox, make: Callable[..., Task]
) -> None:
    task = make(
        WasslyBroadcastOperator,
        recipients=[{"contact_mobile_number": number} for number in (TO, OTHER)],
        messages_per_minute=None,
    )
    if then == "login":
        # A broadcast lists the devices before it concludes that its credentials are wrong.
        wassly.fail_next("unauthorized", endpoint="devices")
    ended = stopped_while_it_hangs(wassly, task, answer, then)
    assert ended.counts == {"not_sent": 2}
    assert task.run().counts == {"accepted": 2}
    assert sorted(message.contact_mobile_number for message in wassly.messages) == [TO, OTHER]


@pytest.mark.parametrize(("answer", "then"), ANSWERS)
@pytest.mark.parametrize("recipients", [[TO], [TO, "nobody"]], ids=["one", "several"])
def test_a_notification_whose_time_is_over_after_a_no_was_not_accepted(
    recipients: list[str],
    answer: str,
    then: str,
    wassly: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delivery, "_BUDGET", 1.0)
    wassly.fail_next(answer)
    wassly.fail_next("hang_before_body", endpoint=then)
    with pytest.raises(WasslyError) as raised:
        WasslyNotifier(contact_mobile_number=recipients, message="Hello").notify({})
    assert raised.value.accepted is False
    if isinstance(raised.value, WasslyNotificationError):
        assert "UNKNOWN" not in str(raised.value)
    else:
        assert isinstance(raised.value, (WasslyRejected, WasslyAuthError))


class Witness(SendObserver):
    """Records which calls the sandbox had received at each notification."""

    def __init__(self, box: Sandbox) -> None:
        self.told: list[tuple[str, list[str]]] = []
        self._box = box

    def _tell(self, what: str) -> None:
        self.told.append((what, [call.endpoint for call in self._box.calls]))

    def departing(self) -> None:
        super().departing()
        self._tell("departing")

    def refused(self, error: WasslyError) -> None:
        super().refused(error)
        self._tell(type(error).__name__)

    def accepted(self, receipt: SendReceipt) -> None:
        super().accepted(receipt)
        self._tell("accepted")


@pytest.mark.parametrize(
    ("faults", "told"),
    [
        ([], [("accepted", ["send"])]),
        (["rejected"], [("WasslyRejected", ["send"])]),
        (["http_413"], [("WasslyRejected", ["send"])]),
        (["device_disconnected"], [("WasslyRejected", ["send"])]),
        (["unauthorized"], [("WasslyAuthError", ["send"]), ("accepted", ["send", "login", "send"])]),
        (["http_429"], [("WasslyRateLimited", ["send"]), ("accepted", ["send", "send"])]),
        (["maintenance"], [("WasslyUnavailable", ["send"]), ("accepted", ["send", "send"])]),
        (["reset_mid_body"], [("WasslyUnavailable", ["send"]), ("accepted", ["send", "send"])]),
        (["http_500"], []),
        (["not_json"], []),
        (["hang_after_accept"], []),
    ],
    ids=lambda value: "-".join(value) if value and isinstance(value[0], str) else "",
)
def test_an_observer_is_told_before_anything_else_happens(
    faults: list[str], told: list[tuple[str, list[str]]], wassly: Sandbox, tmp_path: Any
) -> None:
    hook = WasslyHook(client_options={"read_timeout": 1})
    document = tmp_path / "report.pdf"
    document.write_bytes(b"x" * 20_000_000)
    for fault in faults:
        wassly.fail_next(fault, retry_after="0" if fault in ("http_429", "maintenance") else None)
    before = len(wassly.calls)
    witness = Witness(wassly)
    ended = "accepted"
    try:
        hook.send(
            hook.prepare(MessageParameters(TO, document=document)),
            observer=witness,
        )
    except WasslyError as error:
        ended = "no" if error.accepted is False else "unknown"
    seen = [(what, calls[before:]) for what, calls in witness.told if what != "departing"]
    assert seen == told
    assert ended == ("unknown" if not told else "accepted" if told[-1][0] == "accepted" else "no")
    assert witness.in_doubt == (ended == "unknown")
    assert (witness.receipt is not None) == (ended == "accepted")
    assert (witness.refusal is not None) == (ended == "no")
