"""What has come of a broadcast so far, in numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, get_args

from airflow_provider_wassly.broadcast.report import Outcome
from airflow_provider_wassly.client.clock import Clock


@dataclass
class Tally:
    """What has come of the recipients so far, of whom there are ``total``."""

    total: int
    clock: Clock
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    #: Of the failed: those for whom another try may help.
    may_pass: int = 0
    #: Sent by this try.
    sent: int = 0
    remaining_conversations: int | None = None
    began: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.clock.monotonic()

    @property
    def seconds(self) -> float:
        """How long it has taken."""
        return self.clock.monotonic() - self.began

    @property
    def per_minute(self) -> float:
        """How many were sent in a minute, by this try."""
        return self.sent / self.seconds * 60 if self.seconds else 0.0

    @property
    def done(self) -> int:
        """How many recipients have come to an end of which this try, or an earlier one, knows."""
        return self.outcomes.total() - self.outcomes["not_sent"]

    @property
    def counts(self) -> dict[str, int]:
        """How many recipients have come to which end."""
        known: dict[str, int] = {
            outcome: self.outcomes[outcome] for outcome in get_args(Outcome) if outcome != "not_sent"
        }
        return {**known, "not_sent": self.total - sum(known.values())}

    def failures(self, *, with_unknown: bool) -> int:
        """
        Return how many recipients count as failed.

        :param with_unknown: whether those count whose outcome is unknown.
        """
        unknown = self.outcomes["unknown"] if with_unknown else 0
        return self.outcomes["failed"] + self.outcomes["invalid"] + unknown

    def counts_in_words(self) -> str:
        """Return the counts as a sentence has them."""
        counts = self.counts
        told = [f"{counts.pop('accepted')} of {self.total} accepted"]
        return ", ".join(told + [f"{number} {name.replace('_', ' ')}" for name, number in counts.items() if number])

    def summary(self) -> dict[str, Any]:
        """Return it as the task returns it."""
        return {
            "recipients": self.total,
            **self.counts,
            "remaining_conversations": self.remaining_conversations,
            "duration": round(self.seconds, 1),
            "messages_per_minute": round(self.per_minute, 1),
        }
