"""The counts of a broadcast so far."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, get_args

from airflow_provider_wassly.broadcast.report import Outcome
from airflow_provider_wassly.client.clock import Clock


@dataclass
class Tally:
    """The outcomes of a broadcast so far, out of ``total`` recipients."""

    total: int
    clock: Clock
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    #: How many of the failed may succeed on a retry.
    may_pass: int = 0
    #: How many messages this attempt got accepted.
    sent: int = 0
    remaining_conversations: int | None = None
    began: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.clock.monotonic()

    @property
    def seconds(self) -> float:
        """The seconds since it began."""
        return self.clock.monotonic() - self.began

    @property
    def per_minute(self) -> float:
        """How many messages per minute this attempt has sent."""
        return self.sent / self.seconds * 60 if self.seconds else 0.0

    @property
    def done(self) -> int:
        """How many recipients have an outcome, from this attempt or an earlier one."""
        return self.outcomes.total() - self.outcomes["not_sent"]

    @property
    def counts(self) -> dict[str, int]:
        """How many recipients have each outcome."""
        known: dict[str, int] = {
            outcome: self.outcomes[outcome] for outcome in get_args(Outcome) if outcome != "not_sent"
        }
        return {**known, "not_sent": self.total - sum(known.values())}

    def failures(self, *, with_unknown: bool) -> int:
        """
        Return how many recipients count as failures.

        :param with_unknown: whether unknown outcomes count.
        """
        unknown = self.outcomes["unknown"] if with_unknown else 0
        return self.outcomes["failed"] + self.outcomes["invalid"] + unknown

    def counts_in_words(self) -> str:
        """Return the counts in words: ``293 of 300 accepted, 7 failed``."""
        counts = self.counts
        words = [f"{counts.pop('accepted')} of {self.total} accepted"]
        return ", ".join(words + [f"{number} {name.replace('_', ' ')}" for name, number in counts.items() if number])

    def summary(self) -> dict[str, Any]:
        """Return the summary that the task returns."""
        return {
            "recipients": self.total,
            **self.counts,
            "remaining_conversations": self.remaining_conversations,
            "duration": round(self.seconds, 1),
            "messages_per_minute": round(self.per_minute, 1),
        }
