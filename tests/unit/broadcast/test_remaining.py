"""How many conversations remain, in whatever order the answers arrive."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_wassly.broadcast.remaining import Exchange, Remaining
from airflow_provider_wassly.client import SendReceipt, WasslyOutcomeUnknown, WasslyRejected

MANY = 1_000_000


def accepted(left: int | None) -> SendReceipt:
    return SendReceipt("text", 1, left)


UNKNOWN = WasslyOutcomeUnknown("no answer")
REFUSED = WasslyRejected("no", status=422)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, int, int, str]]:
    """Draw messages, each with the times of departure, processing and reply, and the reply's figure."""
    messages = []
    for _ in range(draw(st.integers(1, 8))):
        left, taken, answered = sorted(draw(st.lists(st.integers(0, 40), min_size=3, max_size=3, unique=True)))
        kind = draw(st.sampled_from(["told", "told", "not told", "unknown", "lost", "refused"]))
        messages.append((left, taken, answered, kind))
    return messages


@settings(deadline=None)
@given(histories(), st.randoms())
def test_the_reserve_is_never_undercut_and_the_latest_number_is_found(
    messages: list[tuple[int, int, int, str]], random: Random
) -> None:
    left = 100
    exchanges = []
    latest = None
    for departed_at, _, answered_at, kind in sorted(messages, key=lambda message: message[1]):
        left -= kind in ("told", "not told", "unknown")
        if kind == "told":
            latest = left
        outcome = {"told": accepted(left), "not told": accepted(None), "refused": REFUSED}.get(kind, UNKNOWN)
        exchanges.append(Exchange(departed_at, answered_at, outcome))
    random.shuffle(exchanges)
    remaining = Remaining(10, None)
    for exchange in exchanges:
        remaining.note(exchange)
    assert remaining.number == latest
    if latest is not None:
        assert remaining.room(MANY, 0) <= left - 10
        perhaps = sum(kind in ("not told", "unknown", "lost") for *_, kind in messages)
        assert remaining.room(MANY, 0) >= left - 10 - perhaps


def test_what_is_on_the_way_counts() -> None:
    remaining = Remaining(10, None)
    remaining.note(Exchange(1, 2, accepted(30)))
    assert [remaining.room(5, out) for out in (0, 15, 18, 20, 21)] == [5, 5, 2, 0, -1]


def test_a_later_answer_ends_the_doubt_about_earlier_messages() -> None:
    remaining = Remaining(10, None)
    remaining.note(Exchange(1, 2, accepted(30)))
    remaining.note(Exchange(3, 4, UNKNOWN))
    remaining.note(Exchange(3, 6, UNKNOWN))
    assert (remaining.in_doubt, remaining.room(MANY, 0)) == (2, 18)
    remaining.note(Exchange(5, 7, accepted(28)))
    # The second one may have been processed after this one.
    assert (remaining.in_doubt, remaining.room(MANY, 0)) == (1, 17)


def test_a_top_up_is_seen_with_the_first_message_that_left_after_it() -> None:
    remaining = Remaining(10, None)
    assert remaining.note(Exchange(1, 2, accepted(30)))
    assert remaining.note(Exchange(3, 4, accepted(1000)))
    assert remaining.number == 1000
    # This one took long and could have been processed at any time in between, so it says less.
    assert remaining.note(Exchange(1.5, 5, accepted(29)))
    assert not remaining.note(Exchange(3.5, 6, accepted(999)))
    assert remaining.note(Exchange(7, 8, accepted(998)))
    # This one was answered before the other left.
    assert not remaining.note(Exchange(2, 6.5, accepted(28)))
    assert remaining.number == 998


@pytest.mark.parametrize(("recorded", "room"), [(None, 1), (100, 1), (11, 1), (10, 0), (3, -7)])
def test_before_the_first_answer_one_message_may_leave_if_that_is_not_known_to_be_too_many(
    recorded: int | None, room: int
) -> None:
    remaining = Remaining(10, recorded)
    assert remaining.room(5, 0) == room
    assert remaining.room(5, 1) <= 0
    assert not remaining.is_never_told
    remaining.note(Exchange(1, 2, REFUSED))
    assert remaining.room(5, 0) == room
    remaining.note(Exchange(3, 4, UNKNOWN))
    assert remaining.room(5, 0) == (1 if recorded in (None, 100) else room - 1)


def test_answers_that_never_tell() -> None:
    remaining = Remaining(10, 100)
    remaining.note(Exchange(1, 2, accepted(None)))
    assert remaining.is_never_told
    assert remaining.room(5, 0) == 0


def test_without_a_reserve_all_may_leave() -> None:
    remaining = Remaining(None, 0)
    assert remaining.room(5, 5) == 5
    remaining.note(Exchange(1, 2, accepted(0)))
    assert remaining.room(5, 5) == 5
    assert remaining.number == 0
