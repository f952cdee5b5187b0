"""Every fault of the sandbox over real sockets: compares the client's verdict with what the service recorded."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tenacity

from airflow_provider_wassly.client import (
    WasslyAuthError,
    WasslyClient,
    WasslyDeviceDisconnected,
    WasslyError,
    WasslyOutcomeUnknown,
    WasslyRateLimited,
    WasslyRejected,
    WasslyUnavailable,
    client,
)
from airflow_provider_wassly.client.transport.auth import Tokens
from airflow_provider_wassly.sandbox import FAULTS, Sandbox

NUMBER = "+491701234567"
ROWS: list[tuple[str, ...]] = []

#: The error for each fault; a tuple where it depends on how much had been sent.
EXPECTED: dict[str, type[WasslyError] | tuple[type[WasslyError], ...] | None] = {
    "http_500": WasslyOutcomeUnknown,
    "http_502_html": WasslyOutcomeUnknown,
    "http_413": WasslyRejected,
    "http_429": WasslyRateLimited,
    "unauthorized": WasslyAuthError,
    "token_expired": None,
    "redirect_to_login": WasslyAuthError,
    "rejected": WasslyRejected,
    "device_disconnected": WasslyDeviceDisconnected,
    "not_json": WasslyOutcomeUnknown,
    "truncated_json": WasslyOutcomeUnknown,
    "short_body": WasslyOutcomeUnknown,
    "drops_attachment": None,
    "maintenance": WasslyUnavailable,
    "hang_after_accept": WasslyOutcomeUnknown,
    "hang_before_body": (WasslyOutcomeUnknown, WasslyUnavailable),
    "hang_mid_body": (WasslyOutcomeUnknown, WasslyUnavailable),
    "reset_before_body": (WasslyOutcomeUnknown, WasslyUnavailable),
    "reset_mid_body": (WasslyOutcomeUnknown, WasslyUnavailable),
    "reset_after_body": WasslyOutcomeUnknown,
    "close_idle": None,
}


def cases() -> Iterator[tuple[str, bool, bool | None]]:
    """Yield each fault, whether it is early, and whether the message is recorded despite it."""
    for name, kind in FAULTS.items():
        yield name, False, None
        if kind.can_be_early:
            yield name, True, None
        if kind.reads == "all" and not kind.answers_normally and not kind.records and name.startswith("http_5"):
            yield name, False, True
        if kind.records and not kind.answers_normally:
            yield name, False, False


def test_every_fault_has_an_expectation() -> None:
    assert set(EXPECTED) == set(FAULTS)


@pytest.fixture
def wassly(box: Sandbox, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[WasslyClient]:
    params = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    # Short where no answer comes, otherwise long enough for a busy machine.
    hangs = params.get("fault", "").startswith("hang")
    monkeypatch.setattr(client, "_BACKOFF", tenacity.wait_none())
    with WasslyClient(
        base_url=box.url,
        apikey="sandbox-apikey",
        email="sandbox@example.com",
        password="sandbox-password",
        read_timeout=0.5 if hangs else 20,
        max_attempts=2,
        max_retry_after=0.5,
    ) as wassly:
        yield wassly


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("documents") / "report.pdf"
    path.write_bytes(b"%PDF" + b"x" * 5 * 2**20)
    return path


@pytest.mark.parametrize("kept_alive", [False, True], ids=["fresh", "kept-alive"])
@pytest.mark.parametrize("with_file", [False, True], ids=["text", "5MiB"])
@pytest.mark.parametrize(
    ("fault", "early", "record"),
    [pytest.param(*case, id=f"{case[0]}{'-early' * case[1]}-{case[2]}") for case in cases()],
)
def test_what_is_said_is_true(
    box: Sandbox,
    wassly: WasslyClient,
    document: Path,
    fault: str,
    early: bool,
    record: bool | None,
    with_file: bool,
    kept_alive: bool,
) -> None:
    wassly.login()
    if kept_alive:
        wassly.send_message(contact_mobile_number=NUMBER, instance_id="sandbox-instance", message="before")
    before = len(box.messages)
    # As many times as the client may repeat, so that its error is about the fault.
    box.fail_next(fault, times=1 if fault in {"token_expired", "close_idle"} else 2, early=early, record=record)
    said: WasslyError | None = None
    try:
        wassly.send_message(
            contact_mobile_number=NUMBER,
            instance_id="sandbox-instance",
            message="hello",
            document=document if with_file else None,
        )
    except WasslyError as error:
        said = error
    recorded = len(box.messages) - before
    verdict = "accepted" if said is None else "no" if said.accepted is False else "unknown"
    ROWS.append(
        (
            fault + " early" * early,
            {None: "", True: "recorded", False: "not recorded"}[record],
            "5 MiB" if with_file else "text",
            "kept-alive" if kept_alive else "fresh",
            str(recorded),
            verdict if said is None else f"{verdict} ({type(said).__name__})",
        )
    )

    assert recorded <= 1, "one call made two messages"
    if verdict == "accepted":
        assert recorded == 1, "called accepted what was not recorded"
    if verdict == "no":
        assert recorded == 0, "called a recorded message not accepted"
    expected = EXPECTED[fault]
    if expected is None:
        assert said is None
    elif early and expected is WasslyOutcomeUnknown:
        # The answer came before the body had been sent, so nothing can have been accepted.
        assert isinstance(said, (WasslyUnavailable, WasslyOutcomeUnknown))
    else:
        assert isinstance(said, expected)


@pytest.mark.parametrize("fault", ["hang_before_body", "hang_mid_body", "reset_before_body", "reset_mid_body"])
def test_an_upload_that_no_buffer_can_hold_and_that_is_cut_is_called_not_accepted(
    box: Sandbox, wassly: WasslyClient, tmp_path: Path, fault: str
) -> None:
    large = tmp_path / "large.bin"
    with large.open("wb") as file:
        file.truncate(256 * 2**20)
    box.fail_next(fault, times=2)
    with pytest.raises(WasslyUnavailable):
        wassly.send_message(contact_mobile_number=NUMBER, instance_id="sandbox-instance", document=large)
    assert box.messages == []


def test_a_connection_that_was_closed_between_two_calls_costs_nothing(box: Sandbox, wassly: WasslyClient) -> None:
    for _ in range(5):
        box.fail_next("close_idle")
        wassly.send_message(contact_mobile_number=NUMBER, instance_id="sandbox-instance", message="again")
        time.sleep(0.2)
    assert len(box.messages) == 5


def test_a_connection_that_is_closed_while_the_next_call_leaves_makes_no_second_message(
    box: Sandbox, wassly: WasslyClient
) -> None:
    sent = 0
    for _ in range(20):
        box.fail_next("close_idle")
        before = len(box.messages)
        try:
            wassly.send_message(contact_mobile_number=NUMBER, instance_id="sandbox-instance", message="again")
            sent += 1
        except WasslyOutcomeUnknown:
            assert len(box.messages) <= before + 1
    assert sent <= len(box.messages) <= 20


@pytest.fixture(scope="module", autouse=True)
def matrix(pytestconfig: pytest.Config) -> Iterator[None]:
    yield
    Tokens.forget_all()
    if ROWS:
        with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print_matrix()


def print_matrix() -> None:
    heads = ("fault", "variant", "message", "connection", "recorded", "said")
    widths = [max(len(row[column]) for row in [heads, *ROWS]) for column in range(len(heads))]
    print()
    for row in [heads, *ROWS]:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    needless = [row for row in ROWS if row[5].startswith("unknown") and row[4] == "0"]
    known = itertools.groupby(sorted(row[0] for row in needless))
    print(f"\n{len(ROWS)} calls; 'unknown' although nothing was recorded: {len(needless)}")
    print("  " + ", ".join(f"{name} ×{len(list(rows))}" for name, rows in known))
