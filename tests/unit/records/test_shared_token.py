"""The Variable with the token of the last login."""

from __future__ import annotations

import json
import logging
import re
import signal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_wassly.airflow_compat import masking, variables
from airflow_provider_wassly.records.shared_token import SharedToken
from tests.support.variables import Variables

KEY = "wassly_token__work"
CREDENTIALS = ("https://wassly.example", "the-api-key", "me@example.com", "pass-word")


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Variables:
    return Variables(monkeypatch)


def shared(*credentials: str | None) -> SharedToken:
    """Return the shared token as a process of its own has it."""
    return SharedToken("work", *(credentials or CREDENTIALS))


def test_a_saved_token_is_read_by_another_process(airflow: Variables) -> None:
    assert shared().read() is None
    shared().save("the-token")
    assert shared().read() == "the-token"
    assert list(airflow.values) == [KEY]


def test_a_new_token_replaces_the_saved_one(airflow: Variables) -> None:
    shared().save("token-1")
    one = shared()
    one.read()
    one.save("token-2")
    assert shared().read() == "token-2"


def test_a_token_that_was_read_or_saved_is_not_saved_again(airflow: Variables) -> None:
    one = shared()
    one.save("the-token")
    one.save("the-token")
    other = shared()
    other.read()
    other.save("the-token")
    assert airflow.writes == [KEY]


@pytest.mark.parametrize("position", range(4))
def test_a_token_of_other_credentials_is_not_used(
    airflow: Variables, caplog: pytest.LogCaptureFixture, position: int
) -> None:
    shared().save("the-token")
    others: list[str | None] = [*CREDENTIALS]
    others[position] = "other"
    assert shared(*others).read() is None
    others[position] = None
    assert shared(*others).read() is None
    shared(*others).save("another-token")
    assert shared(*others).read() == "another-token"
    assert shared().read() is None
    assert caplog.records == []


def test_nothing_of_the_credentials_is_saved(airflow: Variables) -> None:
    values = []
    for _ in range(2):
        shared().save("the-token")
        values.append(json.loads(airflow.values[KEY]))
    one, other = values
    assert one.keys() == {"version", "token", "fetched_with"}
    assert re.fullmatch("[0-9a-f]{8}:[0-9a-f]{8}", one["fetched_with"])
    assert one["fetched_with"] != other["fetched_with"], "no salt"
    assert not [secret for secret in CREDENTIALS if secret in repr(vars(shared())) + repr(values)]


@pytest.mark.parametrize("conn_id", ["team/wassly", "wassly ü", "w" * 240])
def test_a_conn_id_that_no_key_can_hold(airflow: Variables, conn_id: str) -> None:
    SharedToken(conn_id).save("the-token")
    (key,) = airflow.values
    assert re.fullmatch("wassly_token__[0-9a-f]{64}", key)
    assert SharedToken(conn_id).read() == "the-token"


GARBAGE = [
    "", "null", "7", "[]", "{}", "the-token", "[" * 100_000, '"the-token"',
    '{"token": "s3cret"}', '{"token": 7, "fetched_with": "a:b"}', '{"token": "s3cret", "fetched_with": 7}',
    '{"token": "s3cret\\nX: y", "fetched_with": "a:b"}', '{"token": "", "fetched_with": "a:b"}',
]  # fmt: skip


@pytest.mark.parametrize("text", GARBAGE)
def test_what_is_no_token_is_ignored_and_replaced(
    airflow: Variables, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    airflow.values[KEY] = text
    one = shared()
    assert one.read() is None
    (warning,) = caplog.records
    assert (warning.levelno, warning.getMessage()) == (
        logging.WARNING,
        f"Ignoring the Variable {KEY}: it does not contain a token",
    )
    one.save("the-token")
    assert shared().read() == "the-token"


JSON = st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda each: st.lists(each) | st.dictionaries(
    st.sampled_from(["token", "fetched_with", "version"]), each
))  # fmt: skip


@given(st.text() | JSON.map(json.dumps))
def test_nothing_that_somebody_else_wrote_is_taken_for_a_token(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        Variables(patch).values[KEY] = text
        assert shared().read() is None


def test_a_failure_of_airflow_is_a_warning_without_the_token(
    airflow: Variables, caplog: pytest.LogCaptureFixture
) -> None:
    masking.mask_secret("the-long-token")
    airflow.failure = ConnectionError("refused: the-long-token")
    assert shared().read() is None
    shared().save("the-long-token")
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        f"Could not read the shared token in the Variable {KEY}: ConnectionError: refused: ***",
        f"Could not save the shared token in the Variable {KEY}: ConnectionError: refused: ***",
    ]


def test_where_variables_cannot_be_reached_nothing_is_shared(
    airflow: Variables, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "airflow_provider_wassly")
    shared().save("the-token")
    monkeypatch.setattr(variables, "can_reach_airflow", lambda: False)
    airflow.reads.clear()
    airflow.writes.clear()
    assert shared().read() is None
    shared().save("another")
    assert (airflow.reads, airflow.writes) == ([], [])
    assert {(record.levelno, record.getMessage()) for record in caplog.records} == {
        (logging.DEBUG, "Not sharing the token: Airflow's Variables cannot be reached from here")
    }


def test_forgetting(airflow: Variables) -> None:
    one = shared()
    one.forget()
    one.save("the-token")
    one.forget()
    assert airflow.values == {}
    one.save("the-token")
    assert shared().read() == "the-token"
    airflow.failure = ConnectionError("Airflow's API does not answer")
    with pytest.raises(ConnectionError):
        one.forget()


def test_no_signal_interrupts_an_access(airflow: Variables) -> None:
    class Timeout(BaseException):
        pass

    def stop(*_: Any) -> None:
        raise Timeout

    airflow.on_event = lambda what: signal.raise_signal(signal.SIGUSR1)
    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(Timeout):
            shared().save("the-token")
        with pytest.raises(Timeout):
            shared().read()
    finally:
        signal.signal(signal.SIGUSR1, before)
    airflow.on_event = lambda what: None
    assert shared().read() == "the-token"
