"""How many conversations remain, according to replies that arrive in any order."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_wassly.client import SendReceipt, WasslyError


@dataclass(frozen=True)
class Exchange:
    """
    A message and its outcome.

    :param departed_at: when it left, by any clock.
    :param answered_at: when the reply arrived, by the same clock.
    :param outcome: a receipt, an error, or anything else for a message that did not leave.
    """

    departed_at: float
    answered_at: float
    outcome: object

    @property
    def told(self) -> int | None:
        """The number in the reply, ``None`` if it has none."""
        return self.outcome.remaining_conversations if isinstance(self.outcome, SendReceipt) else None

    @property
    def may_have_taken_one(self) -> bool:
        """Whether it may have used a conversation."""
        outcome = self.outcome
        return isinstance(outcome, SendReceipt) or (isinstance(outcome, WasslyError) and outcome.accepted is None)


class Remaining:
    """
    Finds the reply with the latest number, and counts the conversations that it does not include yet.

    :param reserve: how many conversations to keep; ``None`` to use them all.
    :param recorded: the number known before the first message, ``None`` if there is none.
    """

    def __init__(self, reserve: int | None, recorded: int | None) -> None:
        self._reserve = reserve
        self._recorded = recorded
        self._latest: Exchange | None = None
        #: When the messages ended that may have used a conversation that the latest reply does not include.
        self._untold: list[float] = []
        self._is_accepted = False

    @property
    def number(self) -> int | None:
        """The latest number, ``None`` if there is none."""
        return self._recorded if self._latest is None else self._latest.told

    @property
    def in_doubt(self) -> int:
        """How many of them may be used already."""
        return len(self._untold)

    @property
    def is_never_told(self) -> bool:
        """Whether messages were accepted but no reply said how many conversations remain."""
        return self._is_accepted and self._latest is None

    def room(self, most: int, out: int) -> int:
        """
        Return how many messages may be announced.

        :param most: the upper limit.
        :param out: how many are announced and not back yet; each can use a conversation.
        """
        if self._reserve is None:
            return most
        if self._latest is None:
            # The number is not known yet. The reply to one message tells it.
            most = 0 if out or self._is_accepted else 1
        if self.number is None:
            return most
        return min(most, self.number - self.in_doubt - self._reserve - out)

    def note(self, exchange: Exchange) -> bool:
        """Note the outcome of a message; return whether its reply has the latest number."""
        self._is_accepted = self._is_accepted or isinstance(exchange.outcome, SendReceipt)
        if exchange.told is not None and self._is_later(exchange):
            self._latest = exchange
            self._untold = [answered_at for answered_at in self._untold if answered_at > exchange.departed_at]
            return True
        is_untold = self._latest is None or exchange.answered_at > self._latest.departed_at
        if self._reserve is not None and exchange.told is None and exchange.may_have_taken_one and is_untold:
            self._untold.append(exchange.answered_at)
        return False

    def _is_later(self, exchange: Exchange) -> bool:
        latest = self._latest
        if latest is None or exchange.departed_at > latest.answered_at:
            return True
        if exchange.answered_at < latest.departed_at:
            return False
        # They were in flight at the same time. The numbers only fall.
        return (exchange.told or 0) <= (latest.told or 0)
