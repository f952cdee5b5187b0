"""Broadcasts with real threads: interrupted at every point, and checked for leftover threads."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_wassly.broadcast import record as record_module
from airflow_provider_wassly.broadcast import run as run_module
from airflow_provider_wassly.broadcast import senders as senders_module
from airflow_provider_wassly.client import WasslyError
from airflow_provider_wassly.client.clock import SYSTEM
from airflow_provider_wassly.records.signals import in_one_piece
from tests.support.broadcast import Broadcast, World, number, people


@pytest.fixture(autouse=True)
def small_and_fast(small_chunks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(senders_module, "_BACKOFF", (0.0, 0.0))


class Interruption(BaseException):
    """Stands for what Airflow's signal handlers raise: for execution_timeout, and for SIGTERM on Airflow 2."""


def interrupt_at(line: int, watched: tuple[Any, ...]) -> Callable[..., Any]:
    """Return a trace function that raises once, at the n-th executed line of certain modules."""
    files = {module.__file__ for module in watched}
    count = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        if frame.f_code.co_filename not in files:
            return None
        # No signal interrupts an uninterruptible section.
        if event == "line" and not is_within(frame, in_one_piece):
            count += 1
            if count == line:
                raise Interruption
        return trace

    return trace


def is_within(frame: Any, function: Callable[..., Any]) -> bool:
    while frame is not None and frame.f_code is not function.__code__:
        frame = frame.f_back
    return frame is not None


def interrupted_everywhere(step: int, **options: Any) -> Iterator[tuple[World, bool]]:
    """Yield what remains for each point of interruption, and whether the broadcast was already winding up."""
    # The trace function of the coverage measurement, which would otherwise end here for the whole process.
    before = sys.gettrace()
    for line in range(1, 100_000, step):
        world = World(clock=SYSTEM)
        world.fates = {number(1): ["no connection"], number(2): ["refuse"], number(3): ["lose it, answer lost"]}
        broadcast = Broadcast(world, people(7), **options)
        sys.settrace(interrupt_at(line, (run_module, senders_module, record_module)))
        try:
            broadcast.go()
            return
        except Interruption as interruption:
            sys.settrace(before)
            frames = []
            traceback = interruption.__traceback__
            while traceback is not None:
                frames.append(traceback.tb_frame.f_code.co_name)
                traceback = traceback.tb_next
            # However it ends, it reports what it did.
            counted = broadcast.run.tally.counts
            assert counted["accepted"] == len(world.delivered), f"counted: {counted}"
            # The last frame is the trace function's.
            yield world, "_wind_up" in frames or frames[-2] == "run"
        finally:
            sys.settrace(before)


@pytest.mark.parametrize("max_workers", [1, 3])
def test_an_interruption_at_any_place_leaves_nobody_unknown_whose_outcome_is_known(max_workers: int) -> None:
    places = 0
    for world, was_winding_up in interrupted_everywhere(29, max_workers=max_workers):
        places += 1
        sent = Counter(world.delivered)
        assert max(sent.values(), default=0) <= 1
        recorded = world.outcomes()
        if was_winding_up:
            assert recorded.count("?") <= 2 * max_workers
        else:
            assert "?" not in recorded
            for place in range(7):
                known = recorded[place : place + 1] or "."
                assert (known == "a") == (sent[number(place)] == 1), f"row {place + 1} is called {known}"
                assert known != "u" or place == 3
        retry = Broadcast(world, people(7), 2, max_workers=max_workers).go()
        assert max(Counter(world.delivered).values()) == 1
        assert set(retry.outcomes()) <= {"accepted", "failed", "unknown"}
    assert places > 30


def test_no_thread_is_left_behind() -> None:
    def threads() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name.startswith("wassly-")}

    before = threads()
    deadline = time.monotonic() + 5
    world = World(clock=SYSTEM)
    Broadcast(world, people(3), max_workers=3).go()
    broken = Broadcast(world, people(3), 2, max_workers=3)
    world.kept.values["wassly_broadcast__0"] = "{"
    with pytest.raises(WasslyError):
        broken.go()
    while threads() - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not threads() - before
