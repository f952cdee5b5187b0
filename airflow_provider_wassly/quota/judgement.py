"""What a reading means to somebody who waits for quota."""

from __future__ import annotations

import logging
from datetime import timedelta
from enum import Enum
from typing import Literal

from airflow_provider_wassly.quota.reading import QuotaReading


class Verdict(Enum):
    """What a reading means to somebody who waits for quota."""

    ENOUGH = "enough"
    WAIT = "wait"
    #: Only a probe can tell.
    PROBE = "probe"
    FAIL = "fail"


def judge(
    reading: QuotaReading | None,
    *,
    needed: int,
    max_age: timedelta,
    probing: bool,
    on_unknown: Literal["proceed", "wait", "fail"],
) -> tuple[Verdict, str, int]:
    """
    Decide what a reading means; also return it in words, and the level at which that is logged.

    :param reading: the recorded one, ``None`` if there is none.
    :param needed: how many conversations must remain.
    :param max_age: how old a reading may be to be trusted.
    :param probing: whether a probe may be sent.
    :param on_unknown: what the absence of a reading means when there is no probing.
    """
    if reading is None:
        what = f"no reading yet, {needed} needed"
        if probing:
            return Verdict.PROBE, f"Quota unknown: {what}; only a probe can tell", logging.INFO
        return {
            "proceed": (Verdict.ENOUGH, f"Quota unknown: {what}; going on, the send itself will tell", logging.WARNING),
            "wait": (Verdict.WAIT, f"Waiting: {what}; something must be sent with this connection", logging.INFO),
            "fail": (Verdict.FAIL, f"Quota unknown: {what} (on_unknown='fail')", logging.ERROR),
        }[on_unknown]
    what = f"{reading.remaining_conversations} left (reading {_in_words(reading.age)} old), {needed} needed"
    enough = reading.remaining_conversations >= needed
    fresh = reading.age < max_age
    if enough and fresh:
        return Verdict.ENOUGH, f"Quota OK: {what}", logging.INFO
    if probing:
        return Verdict.PROBE, f"Quota {'too old' if enough else 'too low'}: {what}; only a probe can tell", logging.INFO
    too_old = f"older than max_age ({_in_words(max_age)})"
    if enough:
        return Verdict.ENOUGH, f"Quota OK, but {too_old}: {what}", logging.WARNING
    if fresh:
        return Verdict.WAIT, f"Waiting, quota too low: {what}", logging.INFO
    return (
        Verdict.WAIT,
        f"Waiting, quota too low: {what}; the reading is {too_old}, so that only a message that is sent, a probe "
        "(probe_to) or hook.forget_quota() can end this",
        logging.WARNING,
    )


def _in_words(duration: timedelta) -> str:
    """Return a duration in its two largest units: ``5 s``, ``3 min 20 s``, ``1 d 12 h``."""
    left = round(duration.total_seconds())
    parts = []
    for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, seconds)
        if number:
            parts.append(f"{number} {unit}")
    return " ".join(parts[:2]) or "0 s"
