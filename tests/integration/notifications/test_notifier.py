"""The notifier against the sandbox: who gets the message, within what time, and what is reported about the others."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib
import io
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]

from airflow_provider_wassly.airflow_compat import masking, metrics, variables
from airflow_provider_wassly.client import (
    WasslyError,
    WasslyInvalidMessage,
    WasslyOutcomeUnknown,
    WasslyRateLimited,
    WasslyRejected,
    WasslyUnavailable,
)
from airflow_provider_wassly.client.transport.auth import Tokens
from airflow_provider_wassly.hooks.wassly import WasslyHook
from airflow_provider_wassly.notifications import delivery
from airflow_provider_wassly.notifications.delivery import WasslyNotificationError
from airflow_provider_wassly.notifications.wassly import WasslyNotifier
from airflow_provider_wassly.sandbox import Sandbox
from airflow_provider_wassly.sandbox.service.state import ServiceState
from tests.support.airflow_cli import VERSION
from tests.support.storages import attach
from tests.support.variables import Variables

NUMBERS = [f"+4477009001{number:02}" for number in range(25)]
CONTEXT: Any = {"run_id": "a run"}
QUOTA = "wassly_quota__wassly_default"

pytestmark = pytest.mark.usefixtures("wassly_default")

Connect = Callable[..., None]


@pytest.fixture
def box(own_box: Sandbox) -> Sandbox:
    """A sandbox for each test: an abandoned call may outlive its test."""
    return own_box


@pytest.fixture
def connect(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Add keys to the connection's extra."""

    def make(**extra: Any) -> None:
        connection = json.loads(box.connection)
        connection["extra"] |= extra
        monkeypatch.setenv("AIRFLOW_CONN_WASSLY_DEFAULT", json.dumps(connection))

    return make


def notify(numbers: Any, **arguments: Any) -> None:
    WasslyNotifier(contact_mobile_number=numbers, **{"message": "Hello", **arguments}).notify(CONTEXT)


def error_of(numbers: Any, **arguments: Any) -> WasslyError:
    with pytest.raises(WasslyError) as raised:
        notify(numbers, **arguments)
    return raised.value


def end_of_all_threads() -> None:
    """Wait for a call's remaining threads."""
    for thread in threading.enumerate():
        if thread.name.startswith("wassly-notifier"):
            thread.join(30)
            assert not thread.is_alive()


def recipients(box: Sandbox) -> list[str]:
    return sorted(message.contact_mobile_number for message in box.messages)


def test_everybody_gets_the_message_at_the_same_time(box: Sandbox) -> None:
    box.latency = 1
    notify(NUMBERS[:10])
    assert recipients(box) == NUMBERS[:10]
    assert {message.message for message in box.messages} == {"Hello"}
    sends = [call for call in box.calls if call.endpoint == "send"]
    assert max(call.started_at for call in sends) < min(call.finished_at for call in sends if call.finished_at)
    assert box.logins == 1


def test_more_recipients_than_threads(box: Sandbox) -> None:
    notify(NUMBERS)
    assert recipients(box) == NUMBERS
    assert box.logins == 1


def test_a_number_in_two_spellings_gets_one_message(box: Sandbox) -> None:
    notify(["+44 7700 900100", "00447700900100", NUMBERS[0], NUMBERS[1]])
    assert recipients(box) == NUMBERS[:2]


def test_what_fails_for_one_does_not_concern_the_others(box: Sandbox) -> None:
    box.fail_next("rejected", to=NUMBERS[1])
    box.fail_next("http_500", to=NUMBERS[2])
    error = error_of(NUMBERS[:5])
    assert recipients(box) == [NUMBERS[0], NUMBERS[3], NUMBERS[4]]
    assert isinstance(error, WasslyNotificationError)
    assert {who: type(failure) for who, failure in error.failures.items()} == {
        "recipient 2 (+44…0101)": WasslyRejected,
        "recipient 3 (+44…0102)": WasslyOutcomeUnknown,
    }
    assert str(error).startswith("2 of 5 recipients: NOT notified: recipient 2 (+44…0101): ")
    assert "; UNKNOWN whether notified: recipient 3 (+44…0102): " in str(error)


@pytest.mark.realtime
@pytest.mark.parametrize("fault", ["http_429", "maintenance"])
def test_what_was_not_accepted_and_may_pass_is_sent_again(box: Sandbox, fault: str) -> None:
    box.fail_next(fault)
    notify(NUMBERS[0])
    assert [call.endpoint for call in box.calls] == ["login", "send", "send"]
    assert recipients(box) == NUMBERS[:1]


@pytest.mark.realtime
@pytest.mark.parametrize("fault", ["http_429", "maintenance"])
def test_a_login_that_may_pass_is_tried_again(box: Sandbox, fault: str) -> None:
    box.fail_next(fault, endpoint="login")
    notify(NUMBERS[:3])
    assert recipients(box) == NUMBERS[:3]
    assert box.logins == 1


def test_a_longer_wait_than_there_is_time_for_is_an_error_at_once(box: Sandbox) -> None:
    box.fail_next("http_429", retry_after="60")
    assert isinstance(error_of(NUMBERS[0]), WasslyRateLimited)
    assert [call.endpoint for call in box.calls] == ["login", "send"]
    assert box.messages == []


@pytest.mark.parametrize("fault", ["http_500", "reset_after_body", "not_json", "rejected"])
def test_nothing_else_is_repeated(box: Sandbox, fault: str) -> None:
    box.fail_next(fault)
    error_of(NUMBERS[0])
    assert len([call for call in box.calls if call.endpoint == "send"]) == 1


def test_a_recipient_who_is_not_allowed(box: Sandbox, connect: Connect) -> None:
    connect(allowed_recipients=[NUMBERS[0]])
    error = error_of(NUMBERS[:2])
    assert recipients(box) == [NUMBERS[0]]
    assert str(error) == (
        "1 of 2 recipients: NOT notified: recipient 2 (+44…0101): contact_mobile_number: "
        "+44…0101 is not in the connection's allowed_recipients"
    )
    assert isinstance(error_of(NUMBERS[1]), WasslyInvalidMessage)


class Storage(MemoryFileSystem):  # type: ignore[misc]
    """Each open gets its own stream, as with real storages but not with the memory file system."""

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        return io.BytesIO(self.cat(path)) if mode == "rb" else super().open(path, mode, **options)


def test_files_go_to_everybody_whole(box: Sandbox, tmp_path: Path) -> None:
    content = bytes(range(256)) * 4000
    (tmp_path / "تقرير.pdf").write_bytes(content)
    storage = Storage()
    attach("memory", "notifier_1", storage)
    storage.pipe("/bucket/chart.png", content[::-1])
    notify(NUMBERS[:8], document=tmp_path / "تقرير.pdf", media="memory://notifier_1@bucket/chart.png")
    assert recipients(box) == NUMBERS[:8]
    for message in box.messages:
        assert message.document is not None
        assert message.media is not None
        assert (message.document.name, message.media.name) == ("تقرير.pdf", "chart.png")
        assert message.document.sha256 == hashlib.sha256(content).hexdigest()
        assert message.media.sha256 == hashlib.sha256(content[::-1]).hexdigest()


def test_the_timeouts_of_the_connection_do_not_count(box: Sandbox, connect: Connect) -> None:
    connect(read_timeout=0.1)
    box.latency = 0.5
    notify(NUMBERS[0])
    assert recipients(box) == NUMBERS[:1]


# The time limit.


@pytest.fixture
def budget(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """Set the time limit of a notification, in seconds."""
    seconds: float = getattr(request, "param", 1.0)
    monkeypatch.setattr(delivery, "_BUDGET", seconds)
    return seconds


#: Enough for messages that nothing delays, on a busy machine.
ample = pytest.mark.parametrize("budget", [3.0], indirect=True)
#: Seconds; without the time limit, a call that hangs would take nine.
AT_MOST = 7


@ample
@pytest.mark.realtime
def test_who_gets_no_answer_in_time_is_unknown_and_the_others_are_not(box: Sandbox, budget: float) -> None:
    box.fail_next("hang_after_accept", to=NUMBERS[1])
    began = time.monotonic()
    error = error_of(NUMBERS[:3])
    assert time.monotonic() - began < AT_MOST
    assert str(error) == (
        "1 of 3 recipients: UNKNOWN whether notified: recipient 2 (+44…0101): "
        "no reply within the 3 s limit of a notification"
    )
    assert recipients(box) == NUMBERS[:3]


@pytest.mark.realtime
@pytest.mark.parametrize("numbers", [NUMBERS[:1], NUMBERS[:12]])
def test_a_login_that_hangs_is_a_message_that_was_not_sent(box: Sandbox, budget: float, numbers: list[str]) -> None:
    box.fail_next("hang_before_body", endpoint="login", times=100)
    began = time.monotonic()
    error = error_of(numbers)
    assert time.monotonic() - began < AT_MOST
    failures = error.failures.values() if isinstance(error, WasslyNotificationError) else [error]
    assert [(type(failure), failure.message) for failure in failures] == [
        (WasslyUnavailable, "could not send within the 1 s limit of a notification")
    ] * len(numbers)
    assert box.messages == []


@pytest.mark.realtime
def test_an_upload_that_hangs_is_a_message_that_was_not_sent(box: Sandbox, budget: float, tmp_path: Path) -> None:
    (tmp_path / "large.bin").write_bytes(bytes(32 * 1024 * 1024))
    box.fail_next("hang_mid_body")
    began = time.monotonic()
    assert isinstance(error_of(NUMBERS[0], document=tmp_path / "large.bin"), WasslyUnavailable)
    assert time.monotonic() - began < AT_MOST
    assert box.messages == []


@pytest.mark.realtime
def test_when_the_time_is_over_nothing_leaves_any_more(box: Sandbox, budget: float) -> None:
    box.latency = 1.5  # the end of the login, and so of the thread that would send after it
    assert isinstance(error_of(NUMBERS[0]), WasslyUnavailable)
    end_of_all_threads()
    assert box.logins == 1
    assert box.messages == []


@ample
@pytest.mark.realtime
def test_when_the_time_is_over_nothing_leaves_after_a_renewed_token_either(
    box: Sandbox, budget: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    notify(NUMBERS[0])
    box.expire_tokens()
    login = ServiceState.login

    def slow_login(store: ServiceState) -> str:
        store.configure(latency=budget + 0.5)
        return login(store)

    monkeypatch.setattr(ServiceState, "login", slow_login)
    error_of(NUMBERS[1])
    end_of_all_threads()
    assert box.logins == 2
    assert recipients(box) == NUMBERS[:1]


@ample
@pytest.mark.realtime
def test_who_is_said_not_to_be_notified_is_not_notified_later(
    box: Sandbox, budget: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_MAX_THREADS", 2)
    box.latency = 0.9
    error = error_of(NUMBERS)
    end_of_all_threads()
    assert isinstance(error, WasslyNotificationError)
    not_notified = {who for who, failure in error.failures.items() if failure.accepted is False}
    assert len(not_notified) > 10
    got_it = {f"recipient {NUMBERS.index(number) + 1} (+44…{number[-4:]})" for number in recipients(box)}
    assert got_it
    assert not got_it & not_notified
    assert len(error.failures) + len(got_it - set(error.failures)) == len(NUMBERS)
    # They cause no call to Wassly either.
    assert len([call for call in box.calls if call.endpoint == "send"]) <= len(NUMBERS) - len(not_notified)


@pytest.mark.realtime
def test_a_call_that_hangs_does_not_keep_the_process_alive(box: Sandbox) -> None:
    box.fail_next("hang_before_body", endpoint="login")
    script = """
from airflow_provider_wassly.notifications import delivery
from airflow_provider_wassly.notifications.wassly import WasslyNotifier
delivery._BUDGET = 1.0
try:
    WasslyNotifier(contact_mobile_number="+447700900123", message="Hello").notify({})
except Exception as error:
    print("ended:", error.message, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        # Airflow 2 logs to standard output.
        last = next(line for line in process.stdout if line.startswith("ended:"))
        ended = time.monotonic()
        assert process.wait(60) == 0
    assert last == "ended: could not send within the 1 s limit of a notification\n"
    # The thread would wait for nine seconds.
    assert time.monotonic() - ended < AT_MOST


# The credentials.


def test_a_rejected_token_is_renewed_within_the_call(box: Sandbox) -> None:
    notify(NUMBERS[:1])
    box.expire_tokens()
    notify(NUMBERS[1:6])
    assert recipients(box) == NUMBERS[:6]
    assert box.logins == 2


def test_airflow_is_called_in_the_calling_thread_alone(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    # Before 3.2, Airflow's answers to other threads can get lost.
    Variables(monkeypatch)
    called: list[tuple[str, str]] = []

    def noting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            called.append((name, threading.current_thread().name))
            return function(*args, **kwargs)

        return call

    names = {
        "mask_secret": masking,
        "get_variable": variables,
        "set_variable": variables,
        "count": metrics,
        "gauge": metrics,
    }
    for name, module in names.items():
        monkeypatch.setattr(module, name, noting(name, getattr(module, name)))
    get_connection = staticmethod(noting("get_connection", WasslyHook.get_connection))
    monkeypatch.setattr(WasslyHook, "get_connection", get_connection)
    box.fail_next("rejected", to=NUMBERS[2])
    error_of(NUMBERS[:5])
    assert {name for name, _ in called} == {*names, "get_connection"}
    assert {thread for _, thread in called} == {threading.current_thread().name}


def test_the_connection_of_a_storage_is_asked_for_in_the_calling_thread_alone(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, made_in = Storage(), []
    storage.pipe("/bucket/report.csv", b"1")

    def get_fs(scheme: str, conn_id: str | None = None, storage_options: Any = None) -> Storage:
        made_in.append((scheme, conn_id, threading.current_thread()))
        return storage

    # Airflow 3.0 and 3.1 have it in the first, 2.11 in both, and newer versions in the last.
    for name in ("airflow.io", "airflow.io.store", "airflow.sdk.io"):
        with contextlib.suppress(ImportError):
            module = importlib.import_module(name)
            if "get_fs" in vars(module):
                monkeypatch.setattr(module, "get_fs", get_fs)
    notify(NUMBERS[:2], document="memory://notifier_3@bucket/report.csv")
    assert made_in == [("memory", "notifier_3", threading.current_thread())]
    assert [message.document and message.document.bytes for message in box.messages] == [b"1", b"1"]


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tokens that the sandbox gave out."""
    tokens: list[str] = []
    login = ServiceState.login

    def noting_login(store: ServiceState) -> str:
        tokens.append(login(store))
        return tokens[-1]

    monkeypatch.setattr(ServiceState, "login", noting_login)
    return tokens


def test_a_token_that_another_thread_fetched_is_masked(
    box: Sandbox, fetched: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []
    mask_secret = masking.mask_secret

    def noting_mask(secret: str) -> None:
        asked.append(secret)
        mask_secret(secret)

    monkeypatch.setattr(masking, "mask_secret", noting_mask)
    caplog.set_level("DEBUG")
    notify(NUMBERS[:5])
    (token,) = fetched
    assert token in asked
    assert token not in masking.redact(f"before {token} after")
    assert token not in caplog.text
    assert NUMBERS[0][1:] not in caplog.text


def test_a_token_that_comes_when_the_time_is_over_is_masked_too(
    box: Sandbox, fetched: list[str], budget: float
) -> None:
    box.latency = 1.5
    error_of(NUMBERS[0])
    end_of_all_threads()
    (token,) = fetched
    assert token not in masking.redact(f"before {token} after")


# The quota and the metrics.


def test_the_quota_is_kept_once_and_the_lowest(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Variables(monkeypatch)
    written: list[str] = []
    set_variable = variables.set_variable

    def noting(key: str, value: str, description: str) -> None:
        written.append(key)
        set_variable(key, value, description)

    monkeypatch.setattr(variables, "set_variable", noting)
    notify(NUMBERS)
    assert written == [QUOTA]
    reading = json.loads(kept.values[QUOTA])
    assert (reading["remaining_conversations"], reading["instance_id"]) == (975, "sandbox-instance")


def test_the_quota_is_kept_when_others_fail_and_not_when_all_do(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = Variables(monkeypatch)
    box.fail_next("rejected")
    error_of(NUMBERS[0])
    assert variables.values == {}
    box.fail_next("rejected", to=NUMBERS[1])
    error_of(NUMBERS[:2])
    assert json.loads(variables.values[QUOTA])["remaining_conversations"] == 999


def test_a_quota_that_cannot_be_kept_changes_nothing(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    Variables(monkeypatch).failure = ConnectionError("Airflow's API does not answer")
    notify(NUMBERS[:2])
    assert recipients(box) == NUMBERS[:2]


def test_no_quota_is_kept_where_that_is_not_wanted(
    box: Sandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = Variables(monkeypatch)
    # A deadline alert can run where writing a Variable hangs.
    WasslyNotifier(contact_mobile_number=NUMBERS[0]).notify(
        {"deadline": {"id": "1"}}  # type: ignore[typeddict-unknown-key]
    )
    connect(record_quota=False)
    notify(NUMBERS[1])
    assert recipients(box) == NUMBERS[:2]
    assert variables.values == {}


def test_the_token_is_shared_where_that_is_wanted(
    box: Sandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", Fernet.generate_key().decode())
    variables = Variables(monkeypatch)
    connect(share_token=True, record_quota=False)
    # A deadline alert can run where writing a Variable hangs.
    WasslyNotifier(contact_mobile_number=NUMBERS[0]).notify(
        {"deadline": {"id": "1"}}  # type: ignore[typeddict-unknown-key]
    )
    assert variables.reads == variables.writes == []
    for number in NUMBERS[1:3]:
        Tokens.forget_all()
        notify(number)
    assert list(variables.values) == ["wassly_token__wassly_default"]
    assert (recipients(box), box.logins) == (NUMBERS[:3], 2)


def test_each_message_is_counted(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[tuple[str, dict[str, str]]] = []
    monkeypatch.setattr(metrics, "count", lambda name, tags: counted.append((name, tags)))
    box.fail_next("rejected", to=NUMBERS[1])
    box.fail_next("http_500", to=NUMBERS[2])
    error_of(NUMBERS[:4])
    tags = {"conn_id": "wassly_default"}
    assert sorted(counted, key=lambda entry: entry[0]) == [
        ("wassly.messages.accepted", tags),
        ("wassly.messages.accepted", tags),
        ("wassly.messages.not_accepted", tags),
        ("wassly.messages.unknown", tags),
    ]


# Deadline alerts.

DEADLINE: Any = {"dag_run": {"dag_id": "late", "dag_run_id": "a run"}, "deadline": {"deadline_time": "now"}}


def test_the_event_loop_goes_on_while_a_message_is_sent(box: Sandbox) -> None:
    box.latency = 0.5
    rounds: Counter[str] = Counter()

    async def both() -> None:
        sending = asyncio.ensure_future(WasslyNotifier(contact_mobile_number=NUMBERS[:3]).async_notify(DEADLINE))
        while not sending.done():
            await asyncio.sleep(0.01)
            rounds.update({call.endpoint for call in box.calls if not call.finished_at})
        await sending

    asyncio.run(both())
    # A blocked loop would not get through its first round, or not through the next one.
    assert rounds["login"] > 2
    assert rounds["send"] > 2
    assert recipients(box) == NUMBERS[:3]
    assert {str(message.message).splitlines()[0] for message in box.messages} == {"⏰ *Deadline missed*: `late`"}


def test_two_alerts_at_once_do_not_wait_for_each_other(box: Sandbox) -> None:
    notify(NUMBERS[0])
    box.latency = 1

    async def both() -> None:
        await asyncio.gather(
            *(WasslyNotifier(contact_mobile_number=number).async_notify(DEADLINE) for number in NUMBERS[1:3])
        )

    asyncio.run(both())
    first, second = [call for call in box.calls if call.endpoint == "send"][1:]
    assert first.finished_at is not None
    assert second.finished_at is not None
    assert first.started_at < second.finished_at
    assert second.started_at < first.finished_at


def test_what_fails_asynchronously_is_raised_too(box: Sandbox) -> None:
    box.fail_next("rejected")
    with pytest.raises(WasslyRejected):
        asyncio.run(WasslyNotifier(contact_mobile_number=NUMBERS[0]).async_notify(DEADLINE))


@pytest.mark.skipif(VERSION < (3, 1), reason="Airflow has deadline alerts since 3.1")
def test_the_trigger_of_a_deadline_alert_runs_it(box: Sandbox) -> None:
    name = "deadline.DeadlineCallbackTrigger" if VERSION == (3, 1) else "callback.CallbackTrigger"
    module, _, trigger = f"airflow.triggers.{name}".rpartition(".")

    async def states(**arguments: Any) -> list[str]:
        path = "airflow_provider_wassly.notifications.wassly.WasslyNotifier"
        kwargs = {**arguments, "context": dict(DEADLINE)}
        running = getattr(importlib.import_module(module), trigger)(path, kwargs)
        return [event.payload["state"] async for event in running.run()]

    assert asyncio.run(states(contact_mobile_number=NUMBERS[:2], message="{{ dag_run.dag_id }}")) == [
        "running",
        "success",
    ]
    assert recipients(box) == NUMBERS[:2]
    assert {message.message for message in box.messages} == {"late"}
    assert asyncio.run(states(contact_mobile_number="nonsense")) == ["running", "failed"]
