"""How fast a broadcast sends."""

from __future__ import annotations

import random
import threading

from airflow_provider_wassly.client.clock import SYSTEM, Clock

#: Of a gap: how late a message may be for the next one not to move. More is not made up for.
_SLACK = 0.05


class Pace:
    """
    Gives out the moments at which messages may leave, to several threads.

    Steady: who comes late does not let the next ones leave faster.

    :param messages_per_minute: on average; ``None`` for as fast as the threads go.
    :param jitter: by what share of it each gap is shorter or longer, by chance. The average stays.
    :param clock: what the moments are read from and waited for by.
    """

    def __init__(
        self,
        messages_per_minute: float | None,
        jitter: float = 0.0,
        *,
        clock: Clock = SYSTEM,
    ) -> None:
        self.messages_per_minute = messages_per_minute
        self._gap = 60 / messages_per_minute if messages_per_minute else 0.0
        self._jitter = jitter
        self._clock = clock
        self._lock = threading.Lock()
        # The next slot, and by how much its message leaves before or after it. Slots are a gap apart whatever chance
        # does, so that the average is kept in short lists too.
        self._slot = 0.0
        self._shift = 0.0
        self._held_until = 0.0
        self._stopped = clock.event()

    def wait_for_turn(self) -> bool:
        """Wait until a message may leave; return whether it may, as opposed to :meth:`stop`."""
        while not self._stopped.is_set():
            with self._lock:
                now, due = self._clock.monotonic(), self._due()
                if now >= due:
                    lost = max(due, now - _SLACK * self._gap) - (self._slot + self._shift)
                    self._slot += lost + self._gap
                    self._shift = self._gap * self._jitter * random.uniform(-0.5, 0.5)
                    return True
            self._stopped.wait(due - now)
        return False

    def seconds_to_next(self, waiting: int) -> float:
        """Return how long a message will have to wait if others wait before it."""
        with self._lock:
            now = self._clock.monotonic()
            return max(self._due(), now) - now + waiting * self._gap

    def hold(self, seconds: float) -> None:
        """Let nothing leave for a time, because Wassly asked for it."""
        with self._lock:
            self._held_until = max(self._held_until, self._clock.monotonic() + seconds)

    def stop(self) -> None:
        """Let nothing leave any more; wake who waits."""
        self._stopped.set()

    def _due(self) -> float:
        return max(self._slot + self._shift, self._held_until)
