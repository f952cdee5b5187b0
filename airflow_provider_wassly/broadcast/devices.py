"""The sending devices of a broadcast: which rows each of them sends to, and what it waits for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

from airflow_provider_wassly.broadcast.pace import Pace
from airflow_provider_wassly.broadcast.recipients import Row
from airflow_provider_wassly.broadcast.record import Chunk
from airflow_provider_wassly.broadcast.senders import Job
from airflow_provider_wassly.client import WasslyError

T = TypeVar("T")

#: The column that names a row's device.
INSTANCE_ID = "instance_id"


@dataclass(frozen=True)
class Wait:
    """
    Why nothing can leave, and for how long.

    :param reason: what the broadcast waits for.
    :param until: when it ends; ``None`` if that depends on the devices.
    :param instance_ids: the disconnected devices to wait for.
    :param error: the error that caused it, if there was one.
    """

    reason: str
    until: datetime | None = None
    instance_ids: tuple[str, ...] = ()
    error: WasslyError | None = field(default=None, compare=False)


def wait_for_first(waits: Sequence[Wait]) -> Wait:
    """Return one wait for several, which ends when the first of them does."""
    return Wait(
        "; ".join(dict.fromkeys(wait.reason for wait in waits)),
        min((wait.until for wait in waits if wait.until is not None), default=None),
        tuple(dict.fromkeys(name for wait in waits for name in wait.instance_ids)),
        next((wait.error for wait in waits if wait.error is not None), None),
    )


class Assignment:
    """
    Which device sends to which row.

    Rows that name no device are shared out by their place in the list, so that a row keeps its device in every attempt.

    :param instance_ids: the devices for rows that name none.
    """

    def __init__(self, instance_ids: Sequence[str]) -> None:
        self.shared = tuple(instance_ids)

    def of(self, row: Row) -> str:
        """Return the instance id of a row's device; an empty string if neither the row nor the task names one."""
        named = str(row.values.get(INSTANCE_ID) or "").strip()
        return named or self.shared[(row.position - 1) % len(self.shared)]


@dataclass(eq=False)
class SendingDevice(Generic[T]):
    """
    A device and its rows.

    :param instance_id: its instance id, an empty string if there is none.
    :param pace: its pace.
    :param left: how many rows it still has to send to.
    """

    instance_id: str
    pace: Pace
    left: int
    #: The rows that are not read yet, in the order of the list.
    rows: Iterator[T] = field(default=iter(()), init=False)
    is_exhausted: bool = field(default=False, init=False)
    #: Rendered and not announced yet.
    ready: list[Job[T]] = field(default_factory=list, init=False)
    #: Read and not rendered yet, or to be rendered again after a wait.
    next_rows: list[T] = field(default_factory=list, init=False)
    #: Why it sends nothing more in this attempt.
    failure: WasslyError | None = field(default=None, init=False)
    #: The error that showed that it is disconnected; ``None`` once it is back.
    disconnection: WasslyError | None = field(default=None, init=False)
    #: The chunk of the list that it has reached.
    chunk: Chunk | None = field(default=None, init=False)
    #: What it waited for at the last look.
    wait: Wait | None = field(default=None, init=False)
    waits_since: datetime = field(default=datetime.max, init=False)

    @property
    def has_rows(self) -> bool:
        """Whether there is a row that has been read and not announced yet."""
        return bool(self.ready or self.next_rows)

    def put_back(self, rows: Sequence[T]) -> None:
        """Let rows have their turn again, before the rows after them."""
        self.next_rows[:0] = rows

    def unprepare(self) -> None:
        """Discard the rendered messages, so that they are rendered again after a wait."""
        self.put_back([job.row for job in self.ready])
        self.ready.clear()
