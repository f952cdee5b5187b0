"""Decide from a reading whether a sensor has to wait for quota."""

from __future__ import annotations

import logging
from datetime import timedelta
from enum import Enum
from typing import Literal

from airflow_provider_wassly.quota.reading import QuotaReading


class Verdict(Enum):
    """What a sensor should do after a reading."""

    ENOUGH = "enough"
    WAIT = "wait"
    #: Only a probe can show whether enough conversations remain.
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
    Decide what a sensor should do after a reading.

    :param reading: the saved reading, ``None`` if there is none.
    :param needed: how many conversations must remain.
    :param max_age: from this age on, a reading is not trusted.
    :param probing: whether a probe may be sent.
    :param on_unknown: what to do without a reading if no probe may be sent.
    :return: the verdict, the same in words, and the log level for the words.
    """
    if reading is None:
        what = f"no reading yet, {needed} needed"
        if probing:
            return Verdict.PROBE, f"Quota unknown: {what}; only a probe can show it", logging.INFO
        return {
            "proceed": (
                Verdict.ENOUGH,
                f"Proceeding with unknown quota: {what}; sending will show it",
                logging.WARNING,
            ),
            "wait": (Verdict.WAIT, f"Waiting: {what}; send a message with this connection to get one", logging.INFO),
            "fail": (Verdict.FAIL, f"Quota unknown: {what} (on_unknown='fail')", logging.ERROR),
        }[on_unknown]
    what = f"{reading.remaining_conversations} left (reading {_duration_text(reading.age)} old), {needed} needed"
    enough = reading.remaining_conversations >= needed
    fresh = reading.age < max_age
    if enough and fresh:
        return Verdict.ENOUGH, f"Quota OK: {what}", logging.INFO
    if probing:
        problem = "reading too old" if enough else "too low"
        return Verdict.PROBE, f"Quota {problem}: {what}; only a probe can show it", logging.INFO
    too_old = f"the reading is older than max_age ({_duration_text(max_age)})"
    if enough:
        return Verdict.ENOUGH, f"Quota OK: {what}; but {too_old}", logging.WARNING
    if fresh:
        return Verdict.WAIT, f"Waiting, quota too low: {what}", logging.INFO
    return (
        Verdict.WAIT,
        f"Waiting, quota too low: {what}; {too_old}, so only a sent message, a probe (probe_to) or hook.forget_quota() "
        "can end the wait",
        logging.WARNING,
    )


def _duration_text(duration: timedelta) -> str:
    """Return a duration in its two largest units: ``5 s``, ``3 min 20 s``, ``1 d 12 h``."""
    left = round(duration.total_seconds())
    parts = []
    for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, seconds)
        if number:
            parts.append(f"{number} {unit}")
    return " ".join(parts[:2]) or "0 s"
