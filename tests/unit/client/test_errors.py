from __future__ import annotations

import copy
import pickle

import pytest

from airflow_provider_wassly.client import (
    WasslyAttachmentError,
    WasslyAuthError,
    WasslyConfigError,
    WasslyDeviceDisconnected,
    WasslyError,
    WasslyInstanceUnknown,
    WasslyInvalidMessage,
    WasslyOutcomeUnknown,
    WasslyRateLimited,
    WasslyRejected,
    WasslyUnavailable,
)

ERRORS: list[WasslyError] = [
    WasslyConfigError("host: is not a URL"),
    WasslyInvalidMessage("empty", field="message"),
    WasslyAttachmentError("report.pdf has become shorter"),
    WasslyAuthError("not authenticated", status=401),
    WasslyAuthError("no login"),
    WasslyRejected("rejected", status=422, reason="Invalid", errors={"instance_id": ["is invalid"]}),
    WasslyRejected("rejected", status=200),
    WasslyDeviceDisconnected("rejected", status=200, reason="not connected"),
    WasslyInstanceUnknown("rejected", status=422),
    WasslyRateLimited("too many", retry_after=3.5),
    WasslyUnavailable("refused"),
    WasslyUnavailable("maintenance", retry_after=60),
    WasslyOutcomeUnknown("no answer"),
]
each = pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)


def test_every_error_is_tried_here() -> None:
    def all_of(kind: type[WasslyError]) -> set[type[WasslyError]]:
        below = [error for error in kind.__subclasses__() if error.__module__ == WasslyError.__module__]
        return {kind}.union(*map(all_of, below))

    assert {type(error) for error in ERRORS} == all_of(WasslyError) - {WasslyError}


@each
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_can_be_moved_between_processes(error: WasslyError, protocol: int) -> None:
    for moved in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error), copy.deepcopy(error)):
        assert type(moved) is type(error)
        assert str(moved) == str(error)
        assert moved.args == error.args
        assert vars(moved) == vars(error)
        assert (moved.summary, moved.accepted, moved.may_pass) == (error.summary, error.accepted, error.may_pass)


@each
def test_the_summary_says_what_is_known_and_what_to_do(error: WasslyError) -> None:
    if error.accepted is None:
        known = "UNKNOWN whether Wassly accepted it"
    elif isinstance(error, (WasslyConfigError, WasslyInvalidMessage)):
        known = "Nothing was sent"
    else:
        known = "NOT accepted by Wassly"
    assert error.summary == (f"{known}: {error}. {error.advice}" if error.advice else f"{known}: {error}.")
    assert "\n" not in error.summary


def test_only_an_error_whose_message_says_what_to_do_gives_no_advice() -> None:
    without = {type(error) for error in ERRORS if not error.advice}
    assert without == {WasslyConfigError, WasslyInvalidMessage, WasslyRejected}


def test_only_an_unknown_outcome_may_have_been_accepted() -> None:
    assert {type(error) for error in ERRORS if error.accepted is not False} == {WasslyOutcomeUnknown}


def test_what_may_pass_without_anybody_changing_anything() -> None:
    assert [type(error).__name__ for error in ERRORS if error.may_pass] == [
        "WasslyRejected",  # success: false, which may be temporary
        "WasslyDeviceDisconnected",
        "WasslyRateLimited",
        "WasslyUnavailable",
        "WasslyUnavailable",
    ]


def test_a_device_that_is_not_connected_is_a_rejection() -> None:
    assert issubclass(WasslyDeviceDisconnected, WasslyRejected)
    assert issubclass(WasslyInstanceUnknown, WasslyRejected)


def test_the_details_are_kept() -> None:
    error = WasslyRejected("rejected", status=422, reason="Invalid", errors={"a": ("b",)})
    assert (error.status, error.reason, error.errors) == (422, "Invalid", {"a": ["b"]})
    assert WasslyInvalidMessage("empty", field="message").field == "message"
    assert WasslyRateLimited("too many", retry_after=3.5).retry_after == 3.5
