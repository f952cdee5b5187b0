"""Signals that arrive in the middle of a read or a write."""

from __future__ import annotations

import gc
import inspect
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_wassly.records import signals as _signals
from airflow_provider_wassly.records.signals import in_one_piece

#: The number of signals in the longest test; for more, set SIGNALS=10000.
CALLS = int(os.environ.get("SIGNALS", "2000"))

THREE = (signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2)


class Interruption(BaseException):
    """What a signal handler raises."""


@pytest.fixture
def handle() -> Iterator[Callable[..., None]]:
    """Install a handler; restore the previous one afterwards."""
    before = {signum: signal.getsignal(signum) for signum in THREE}

    def install(handler: Any, *signums: int) -> None:
        for signum in signums or (signal.SIGUSR1,):
            signal.signal(signum, handler)

    yield install
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.fixture
def without_garbage_collection() -> Iterator[None]:
    """Python drops a signal handler's exception during a garbage collector callback, such as Hypothesis's."""
    gc.disable()
    yield
    gc.enable()


def interrupt(signum: int, frame: Any) -> None:
    raise Interruption


def come(signum: int = signal.SIGUSR1) -> None:
    """Send this process a signal, and give Python time to handle it."""
    os.kill(os.getpid(), signum)
    time.sleep(0)


def is_within(function: Callable[..., Any]) -> bool:
    """Return whether it is being called."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code is not function.__code__:
        frame = frame.f_back
    return frame is not None


@pytest.mark.realtime
@pytest.mark.parametrize("signums", [THREE[:1], THREE], ids=["one at a time", "three at a time"])
def test_thousands_of_signals_hang_lose_and_double_nothing(
    signums: tuple[int, ...], handle: Callable[..., None], without_garbage_collection: None
) -> None:
    handled: Counter[int] = Counter()
    begun = done = raised = caught = 0
    is_sending = False

    def handler(signum: int, frame: Any) -> None:
        nonlocal raised, is_sending
        handled[signum] += 1
        if signum == signal.SIGALRM:
            is_sending = True
            for other in signums[1:]:
                os.kill(os.getpid(), other)
            is_sending = False
        if is_within(in_one_piece) and not is_sending:
            raised += 1
            raise Interruption

    def start() -> None:
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 1.5e-4))

    def access() -> None:
        nonlocal begun, done
        begun += 1
        for _ in range(20):
            pass
        done += 1

    handle(handler, *signums)
    chance = random.Random(1)
    calls = CALLS // len(signums)
    for call in range(1, calls + 1):
        work: Callable[[], None] = start
        while handled.total() < call * len(signums):
            try:
                in_one_piece(work)
            except Interruption:
                caught += 1
            work = access
            # Whenever the signals came, every started operation was completed.
            assert begun == done
        assert handled == dict.fromkeys(signums, call)
    assert raised >= caught > calls / 2
    assert len(signums) > 1 or raised == caught
    assert begun > calls / 5


def test_a_handler_runs_when_all_is_done_and_what_it_raises_is_raised(handle: Callable[..., None]) -> None:
    done = []
    handle(interrupt)

    def access() -> None:
        come()
        done.append("all of it")

    with pytest.raises(Interruption):
        in_one_piece(access)
    assert done == ["all of it"]


@pytest.mark.parametrize("signums", [THREE[:1], THREE], ids=["one", "three"])
def test_an_access_is_made_even_if_a_signal_comes_while_handlers_are_being_parked(
    signums: tuple[int, ...], handle: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = list(signums)

    class Signals:
        def __iter__(self) -> Iterator[int]:
            for signum in THREE:
                if left:
                    come(left.pop())
                yield signum

    def access() -> None:
        done.append("all of it")
        raise ConnectionError("no answer")

    done: list[str] = []
    monkeypatch.setattr(_signals, "_SIGNALS", Signals())
    handle(interrupt, *THREE)
    with pytest.raises(Interruption):
        in_one_piece(access)
    assert done == ["all of it"]
    assert not left
    assert [signal.getsignal(signum) for signum in THREE] == [interrupt] * 3


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), ValueError("a bug"), SystemExit(3)])
def test_no_error_of_a_handler_is_swallowed(error: BaseException, handle: Callable[..., None]) -> None:
    def fail(signum: int, frame: Any) -> None:
        raise error

    handle(fail)
    with pytest.raises(type(error)) as raised:
        in_one_piece(come)
    assert raised.value is error


def test_a_handler_that_raises_nothing_changes_nothing(handle: Callable[..., None]) -> None:
    told: list[tuple[int, str]] = []
    handle(lambda signum, frame: told.append((signum, frame.f_code.co_name)))

    def access() -> int:
        come()
        assert told == []
        return 7

    assert in_one_piece(access) == 7
    # With the line at which it came, as Python reports it.
    assert told == [(signal.SIGUSR1, "come")]


def test_an_error_in_the_middle_is_raised_and_a_handler_goes_before_it(handle: Callable[..., None]) -> None:
    def access() -> None:
        come()
        raise ConnectionError("no answer")

    handle(lambda signum, frame: None)
    with pytest.raises(ConnectionError):
        in_one_piece(access)
    handle(interrupt)
    with pytest.raises(Interruption) as raised:
        in_one_piece(access)
    assert isinstance(raised.value.__context__, ConnectionError)


def test_one_within_another_waits_for_the_outer_one(handle: Callable[..., None]) -> None:
    handle(interrupt)
    done = []

    def outer() -> None:
        in_one_piece(come)
        done.append("all of it")

    with pytest.raises(Interruption):
        in_one_piece(outer)
    assert done == ["all of it"]


def test_several_handlers_run_although_the_first_raises(handle: Callable[..., None]) -> None:
    told: list[int] = []

    def handler(signum: int, frame: Any) -> None:
        told.append(signum)
        raise Interruption

    handle(handler, *THREE)

    def access() -> None:
        for signum in THREE:
            come(signum)

    with pytest.raises(Interruption):
        in_one_piece(access)
    assert told == list(THREE)


def test_afterwards_all_handlers_are_as_before(handle: Callable[..., None]) -> None:
    handle(interrupt)
    handle(signal.SIG_IGN, signal.SIGUSR2)
    in_one_piece(int)  # replaces what an earlier test's handler interrupted
    before = {signum: signal.getsignal(signum) for signum in signal.valid_signals()}
    with pytest.raises(Interruption):
        in_one_piece(come)
    assert {signum: signal.getsignal(signum) for signum in signal.valid_signals()} == before


def test_a_handler_that_is_installed_meanwhile_stays(handle: Callable[..., None]) -> None:
    handle(signal.default_int_handler)
    in_one_piece(lambda: handle(interrupt))
    assert signal.getsignal(signal.SIGUSR1) is interrupt


def test_in_another_thread_nothing_has_to_be_done(handle: Callable[..., None]) -> None:
    handle(interrupt)
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(in_one_piece(lambda: 7))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [7] * 3
