"""
Airflow's scheduler as the adversary: whatever it does with a task, nobody gets a second message, nobody is forgotten.

Attempts run in steps. Between any two steps, Airflow kills them, gives them up although they live, runs them again,
retries, clears or recreates them under the same names; writes fail before or after they take effect; retries, list,
recipient and text change. A campaign also waits, for hours, daily limits and devices, and gives up its worker slot
meanwhile: then its trigger fires, also twice, or it times out, is marked as failed, or is cleared.

One thing is left out: no other process runs between checking who else has written and the write, or the departure, that
follows. Airflow has no atomic operation that could prevent that.
"""

from __future__ import annotations

import inspect
import itertools
import json
import logging
import math
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta, timezone
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from airflow_provider_wassly.airflow_compat import exceptions, metrics, tasks, variables, versions
from airflow_provider_wassly.broadcast import recipients as recipients_module
from airflow_provider_wassly.broadcast import record as record_module
from airflow_provider_wassly.broadcast.record import BroadcastRecord
from airflow_provider_wassly.client import (
    Device,
    OutgoingMessage,
    SendObserver,
    SendReceipt,
    WasslyDeviceDisconnected,
    WasslyError,
)
from airflow_provider_wassly.hooks.wassly import WasslyHook
from airflow_provider_wassly.operators.broadcast import WasslyBroadcastOperator
from airflow_provider_wassly.operators.send_message import WasslySendMessageOperator
from airflow_provider_wassly.records import send_record as state
from airflow_provider_wassly.records.send_record import SendRecord
from tests.support.kept import Kept
from tests.support.scheduler import KINDS, Kind, Process, TaskInstance
from tests.support.service import FATES, Service

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2.11
    from airflow.models.dag import DAG  # type: ignore[no-redef]

FAIL = type(exceptions.fail_exception(""))
TaskDeferred = versions.first_of("TaskDeferred", "airflow.sdk.exceptions", "airflow.exceptions")
EXAMPLES = int(os.environ.get("EXAMPLES", "5"))
ALIKE = settings(
    max_examples=EXAMPLES,
    stateful_step_count=25,
    suppress_health_check=list(HealthCheck),
    database=None,
    # The same examples each time. Others: SEED=random.
    derandomize=os.environ.get("SEED") != "random",
    # Hypothesis's explain phase traces every line, which takes minutes.
    phases=[Phase.generate],
)

fates = st.sampled_from(["accept"] * 6 + list(FATES))
steps = st.integers(0, 25)
failing: st.SearchStrategy[dict[int, bool]] = st.one_of(
    st.just({}), st.just({}), st.dictionaries(st.integers(0, 5), st.booleans(), max_size=2)
)


#: After these the outcome is unknown, or a bug hides it.
DOUBTFUL = {"accept, answer lost", "lose it, answer lost", "accept, then a bug", "a bug"}


#: After these the message was accepted, or may have been.
POSSIBLE = DOUBTFUL | {"accept", "accept after a new token"}


#: Workers that send in parallel.
WORKERS = 2


def number(place: int) -> str:
    return f"+4477009003{place:02}"


class Wassly(Service):
    """The service, as seen by one process."""

    def __init__(self, airflow: Airflow, process: Process) -> None:
        super().__init__(process.clock)
        self._airflow = airflow
        self._process = process
        self.on_event = self._let_others_come_in_between
        #: The messages that left, by the number of the call: from which device, when, and the outcome.
        self.left: dict[int, tuple[str, datetime, str]] = {}
        self._device = ""

    def _let_others_come_in_between(self, what: str) -> None:
        if what == "departed":
            self.left[len(self.calls)] = self._device, self.clock.now(), self.met[-1]
        self._process.pause()

    def list_devices(self) -> list[Device]:
        if not self._airflow.offline:
            return super().list_devices()
        self.event("devices")
        return [
            Device(None, None, "connected" if until <= self.clock.now() else "disconnected", None, name)
            for name, until in self._airflow.offline.items()
        ]

    def send(self, message: OutgoingMessage, *, observer: SendObserver | None = None) -> SendReceipt:
        if self.clock.now() < self._airflow.offline.get(message.instance_id, self.clock.now()):
            raise WasslyDeviceDisconnected("disconnected", status=200)
        self._device = message.instance_id
        return super().send(message, observer=observer)

    def _accept(self, message: OutgoingMessage) -> int | None:
        self._airflow.accepted.append((self._process, message.contact_mobile_number))
        return super()._accept(message)


class Airflow(RuleBasedStateMachine):
    """The moves of the adversary."""

    kind: ClassVar[Kind]
    operator: ClassVar[type[Any]]

    def __init__(self) -> None:
        super().__init__()
        self.ti = TaskInstance()
        self.variables, self.states = Kept(), Kept()
        self.variables.is_shared = True
        self.variables.on_event = self._let_others_come_in_between
        self.states.on_event = self._access_state
        self.live: Process | None = None
        self.others: list[Process] = []
        self.all: list[Process] = []
        self.accepted: list[tuple[Process, str]] = []
        self.listeners: list[Callable[[Any, bool], None]] = []
        #: The process whose end is reported.
        self.ending: Process | None = None
        #: What must not get two messages. It changes when Airflow may send again.
        self.chain = 0
        self.clears = 0
        self.fails_after = False
        self.loses_reports = False
        #: The answer of the task's retry policy when it fails (3.4).
        self.reschedules = False
        #: The time of day for all processes.
        self.now = datetime(2026, 11, 24, tzinfo=timezone.utc)
        #: When each device that is disconnected is back.
        self.offline: dict[str, datetime] = {}
        #: What the task waits for without a worker slot.
        self.deferral: Any = None
        #: What a daily limit counts for.
        self.records = 0

    # What Airflow does

    @precondition(lambda self: self.live is None and self.ti.state in ("scheduled", "up_for_retry"))
    @rule(fates=st.lists(fates, max_size=6), writes=failing, fails_early=st.booleans())
    def begin(self, fates: list[str], writes: dict[int, bool], fails_early: bool = False, again: bool = False) -> None:
        self.ti.begin(again)
        self._start(fates, writes, fails_early)

    @precondition(lambda self: self.kind.runs_again)
    @rule(answer=st.booleans())
    def let_the_retry_policy_answer_reschedule(self, answer: bool) -> None:
        self.reschedules = answer

    @precondition(lambda self: self.live is None and self.ti.state == "up_for_reschedule")
    @rule(fates=st.lists(fates, max_size=6), writes=failing)
    def run_the_same_try_again(self, fates: list[str], writes: dict[int, bool]) -> None:
        self.ti.begin(again=True)
        self._start(fates, writes, False)

    @precondition(lambda self: self.live is not None)
    @rule(steps=steps)
    def go_on(self, steps: int) -> None:
        self._go_on(self.live, steps)

    @precondition(lambda self: self.live is not None)
    @rule()
    def go_on_to_the_end(self) -> None:
        self._go_on(self.live, 10_000)

    @precondition(lambda self: self.live is not None)
    @rule(steps=steps)
    def kill(self, steps: int) -> None:
        self._go_on(self.live, steps, stops_anywhere=True)
        if self.live is not None:
            self._lose()

    @precondition(lambda self: self.live is not None and len(self.others) < 2)
    @rule()
    def give_up_although_it_lives(self) -> None:
        process = self.live
        assert process is not None
        self._let_it_look(process)
        self.others.append(process)
        process.clock.advance(60)
        self._lose()

    @precondition(lambda self: self.others)
    @rule(steps=steps)
    def one_that_was_given_up_goes_on(self, steps: int) -> None:
        process = self.others[0]
        if self.kind.has_instances:
            # On Airflow 3 it was asleep; otherwise it would have been killed.
            process.clock.advance(60)
        self._go_on(process, steps)
        if process.is_over:
            self.others.remove(process)

    @rule()
    def clear(self) -> None:
        if self.live is not None:
            self._lose()
        self.deferral = None
        self.ti.clear()
        self.clears += 1
        if self.kind.clears_state:
            self.states.values.clear()
        self.cleared()

    @precondition(lambda self: self.live is None)
    @rule(whole_run=st.booleans(), looks=st.booleans())
    def make_again(self, whole_run: bool, looks: bool) -> None:
        if whole_run:
            self.states.values.clear()
        self.ti.make_again(whole_run)
        self.deferral = None
        self.chain += 1
        self.records += 1
        self.ti.begin(again=False)
        self._start([], {}, fails_early=True)
        assert self.live is not None
        if whole_run and not self.kind.has_instances and not looks:
            self._lose()
        else:
            # From its second try on, a recreated task instance looks the same, so its first try has to check.
            self._go_on(self.live, 10_000)

    @rule(fails=st.booleans())
    def let_post_execute_fail(self, fails: bool) -> None:
        self.fails_after = fails

    @rule(loses=st.booleans())
    def lose_the_reports_of_what_ends(self, loses: bool) -> None:
        self.loses_reports = loses

    @rule(retries=st.integers(0, 3))
    def edit_the_retries(self, retries: int) -> None:
        self.ti.retries = retries

    # The tasks

    def arguments(self) -> dict[str, Any]:
        raise NotImplementedError

    def cleared(self) -> None:
        raise NotImplementedError

    def check(self, process: Process, returned: Any, error: BaseException | None, pushed: dict[str, Any]) -> None:
        raise NotImplementedError

    def goes_on_with(self, process: Process, other: Process) -> bool:
        """Return whether an attempt may resume from another one's record."""
        if other.chain == process.chain:
            return True
        # After a clear with lowered retries that were raised since, a chain looks like the previous one.
        return self._looks_like_a_retry(process, other) and not self._looks_cleared(process, other)

    def is_in_doubt(self, process: Process) -> bool:
        """Return whether anything that it resumes from can have caused doubt."""
        return any(
            # It cannot know whether it may resume from the record.
            (process.failing and other.wassly.calls and self.goes_on_with(process, other))
            or (other.wassly.calls and self._looks_like_a_retry(process, other) and self._looks_cleared(process, other))
            or (
                self.goes_on_with(process, other)
                # A single failed write before the message leaves does no harm.
                and (not other.is_over or other.failing > (not other.wassly.calls) or set(other.wassly.met) & DOUBTFUL)
            )
            for other in self.all
        )

    def _looks_like_a_retry(self, process: Process, other: Process) -> bool:
        mine, its = process.ti, other.ti
        return bool(
            mine["made"] == its["made"]
            and mine["max_tries"] == its["max_tries"]
            and its["try_number"] < mine["try_number"]
        )

    def _looks_cleared(self, process: Process, other: Process) -> bool:
        """Return whether a clear in between, with its retries, could have led to the same maximum number of tries."""
        tries = process.ti["max_tries"] - process.ti["retries"]
        return bool(other.ti["try_number"] <= tries < process.ti["try_number"])

    def check_copies(self) -> None:
        raise NotImplementedError

    # The moves

    def _let_others_come_in_between(self, what: str) -> None:
        if Process.running is not None:
            Process.running.pause()

    def _access_state(self, what: str) -> None:
        process = Process.running or self.ending
        if process is None:
            return
        self._let_others_come_in_between(what)
        # Airflow is asked with the task instance's id.
        if what != "written" and process is not self.live and process.instance != self.ti.id:
            raise ConnectionError("404: no such task instance")

    def _start(self, fates: list[str], writes: dict[int, bool], fails_early: bool, deferral: Any = None) -> None:
        for kept in (self.variables, self.states):
            kept.writes.clear()
            kept.failing_writes = writes
        arguments = self.arguments()
        process = Process(lambda: self._attempt(process, fates, fails_early, deferral), self.ti.id, self.now)
        process.chain, process.clears, process.records = self.chain, self.clears, self.records
        process.ti = dict(vars(self.ti))
        process.arguments = arguments
        process.failing = len(writes)
        process.resumes = deferral
        process.step()
        self.live = process
        self.all.append(process)

    def _attempt(self, process: Process, fates: list[str], fails_early: bool, deferral: Any) -> Any:
        process.wassly = Wassly(self, process)
        every = itertools.chain(fates, itertools.repeat("accept"))
        process.wassly.fates = {number(place): Fates(every) for place in range(100)}
        process.pause()
        values = process.ti
        with DAG("campaign", schedule=None) as dag:
            operator = self.operator(task_id="send", retries=values["retries"], **process.arguments)
        pushed: dict[str, Any] = {}
        ti = SimpleNamespace(
            dag_id="campaign", run_id="run", task_id="send", map_index=-1, try_number=values["try_number"],
            max_tries=values["max_tries"], task=operator, xcom_push=lambda key, value: pushed.update({key: value}),
            id=process.instance if self.kind.has_instances else None,
        )  # fmt: skip
        if not self.kind.has_instances:
            ti.next_method = None if deferral is None else deferral.method_name
        context: Any = {"dag": dag, "task": operator, "ti": ti, "ds": "2026-11-24"}
        context["dag_run"] = SimpleNamespace(id=values["run"])
        if self.kind.keeps_state:
            context["task_state_store"] = self.states.task_state_store()
        returned, failure = None, None
        try:
            operator.render_template_fields(context)
            if fails_early:
                raise ValueError("it fails in pre_execute")
            # As Airflow's task runner does, without a warning.
            if deferral is None:
                returned = inspect.unwrap(type(operator).execute)(operator, context)
            else:
                # What is stored meanwhile is JSON.
                returned = operator.resume(context, None, **json.loads(json.dumps(deferral.kwargs)))
        except TaskDeferred as deferred:
            process.deferral = deferred
        except Exception as error:
            failure = error
        process.pause()
        return returned, failure, pushed, ti

    def _let_it_look(self, process: Process) -> None:
        """Airflow starts no try that it has given up."""
        while not (process.has_looked or process.is_over):
            process.step()

    def _go_on(self, process: Process | None, steps: int, stops_anywhere: bool = False) -> None:
        """Run a process, at least to the next point at which another one may run in between."""
        assert process is not None
        before = self.listeners
        self.listeners = process.listeners
        try:
            while not process.is_over and (steps > 0 or (process.is_in_one_piece and not stops_anywhere)):
                process.clock.advance(max(0.0, (self.now - process.clock.now()).total_seconds()))
                process.step()
                self.now = max(self.now, process.clock.now())
                self.check_copies()
                steps -= 1
        finally:
            self.listeners = before
        if process.is_over:
            self._end(process)

    def _end(self, process: Process) -> None:
        returned, failure, pushed, ti = process.ended
        self.check(process, returned, failure, pushed)
        is_live = process is self.live
        if process.deferral is not None:
            self._defer(process)
            return
        succeeded = failure is None and not (is_live and self.fails_after)
        is_noted = is_live and not self.loses_reports
        if not self.kind.has_instances and succeeded:
            is_noted = True  # Airflow 2 records the end of one that it has given up, and kills the running one
        # An attempt that was given up also learns of its own end. Airflow records a failure only after that.
        is_last = isinstance(failure, FAIL) or process.ti["try_number"] > process.ti["max_tries"]
        hears = is_last and self.ti.state in ("running", "failed") and not (is_live and self.reschedules)
        if is_noted:
            self.live = None
            if succeeded:
                self.ti.state = "success"
            elif self.reschedules:
                self.ti.state = "up_for_reschedule"
            else:
                self.ti.fail(not isinstance(failure, FAIL))
        if succeeded:
            hears = self.ti.state == "success"
        self.ending = process
        for tell in process.listeners if hears else []:
            tell(ti, succeeded)
        self.ending = None
        if is_noted and succeeded:
            self.succeeded()
        elif is_live and not is_noted:
            self._lose()

    def _defer(self, process: Process) -> None:
        if process is self.live and self.loses_reports:
            self._lose()
        elif process is self.live or not self.kind.has_instances:
            # Airflow 2 also defers for one that it has given up, and kills the running one.
            if process is not self.live and self.live is not None:
                self._lose()
            self.live = None
            self.deferral = process.deferral
            self.ti.defer()

    def _lose(self) -> None:
        """Airflow finds that a process no longer responds."""
        assert self.live is not None
        self.live.lost_after = len(self.live.wassly.calls)
        self.live = None
        self.ti.fail()

    def succeeded(self) -> None:
        pass

    def teardown(self) -> None:
        """Without an adversary, the task succeeds eventually."""
        if self.live is not None:
            self._lose()
        self.others = []
        for kept in (self.variables, self.states):
            kept.failing_writes = {}
        self.reschedules = False
        if self.ti.state == "up_for_reschedule":
            self.ti.state = "failed"
        self.fails_after = self.loses_reports = False
        for _ in range(30):
            if self.ti.state == "success":
                break
            if self.ti.is_over:
                self.repair()
                self.clear()
            self.continue_it()
            self._go_on(self.live, 10_000)
        assert self.ti.state == "success", f"it never ends: {self.all[-1].ended}"
        self.check_copies()

    def repair(self) -> None:
        pass

    def let_the_trigger_fire(self, fates: list[str], writes: dict[int, bool]) -> None:
        raise NotImplementedError

    def continue_it(self) -> None:
        """Begin the next try, or resume the one that waits."""
        (self.let_the_trigger_fire if self.ti.state == "deferred" else self.begin)([], {})


class Fates:
    """What Wassly does with each message in turn, to any recipient."""

    def __init__(self, every: Iterator[str]) -> None:
        self._every = every

    def pop(self, place: int) -> str:
        return next(self._every)


class Sending(Airflow):
    """A task that sends one message."""

    operator = WasslySendMessageOperator

    def __init__(self) -> None:
        super().__init__()
        self.to = 0
        self.text = "Hello"

    def arguments(self) -> dict[str, Any]:
        return {"contact_mobile_number": number(self.to), "message": self.text}

    @precondition(lambda self: self.live and self.kind.has_instances and not self.kind.keeps_state and not self.others)
    @rule(fates=st.lists(fates, max_size=3))
    def deliver_it_twice(self, fates: list[str]) -> None:
        assert self.live is not None
        self._let_it_look(self.live)
        self.others.append(self.live)
        self._start(fates, {}, False)

    @rule(to=st.integers(0, 1))
    def edit_the_recipient(self, to: int) -> None:
        self.to = to

    @rule()
    def edit_the_text(self) -> None:
        self.text += "!"

    def cleared(self) -> None:
        self.chain += 1

    def check(self, process: Process, returned: Any, error: BaseException | None, pushed: dict[str, Any]) -> None:
        of_chain = [to for sender, to in self.accepted if self.goes_on_with(process, sender)]
        own = [to for sender, to in self.accepted if sender is process]
        if returned is not None:
            assert returned["outcome"] == "accepted"
            assert process.arguments["contact_mobile_number"] in of_chain, "it says accepted and nobody has got it"
        told = error.summary if isinstance(error, WasslyError) else str(error)
        if told.startswith("UNKNOWN"):
            assert self.is_in_doubt(process), "it says unknown and there is nothing to doubt"
        if told.startswith(("NOT ", "Nothing was sent")):
            assert own == [], told

    def check_copies(self) -> None:
        copies = Counter(sender.chain for sender, _ in self.accepted)
        assert max(copies.values(), default=0) <= 1, copies


class Broadcasting(Airflow):
    """A task that sends to a list."""

    operator = WasslyBroadcastOperator

    def __init__(self) -> None:
        super().__init__()
        self.places: list[int] = [0, 1, 2, 3, 4]
        self.restarts = False
        self.has_restarted = False
        #: A row that was changed, and its other number.
        self.changed: tuple[int, int] | None = None

    @initialize(restarts=st.booleans())
    def choose(self, restarts: bool) -> None:
        self.restarts = restarts
        self.has_restarted |= restarts

    def arguments(self) -> dict[str, Any]:
        return {
            "recipients": [{"contact_mobile_number": number(place)} for place in self.places],
            "message": "Hello",
            "messages_per_minute": None,
            "max_workers": WORKERS,
            "max_failures": 99,
            "on_outcome_unknown": "ignore",
            "on_clear": "restart" if self.restarts else "resume",
        }

    @precondition(lambda self: len(self.places) < 8)
    @rule()
    def add_a_row(self) -> None:
        self.places = [*self.places, 10 + len(self.places)]

    @rule(place=st.integers(0, 4))
    def correct_a_row_that_was_not_sent_to(self, place: int) -> None:
        may_have = {to for process in self.all for to in process.wassly.calls}
        # If it was killed or could not write, only its record shows what it was about to send.
        may_have_more = any(not process.is_over or process.failing for process in self.all)
        if self.live is None and not may_have_more and number(self.places[place]) not in may_have:
            self.places = [*self.places[:place], 50 + place, *self.places[place + 1 :]]

    @precondition(lambda self: self.changed is None)
    @rule(place=st.integers(0, 4))
    def change_a_row_whoever_was_sent_to(self, place: int) -> None:
        self.changed = place, 70 + place
        self._swap_the_changed_row()

    def _swap_the_changed_row(self) -> None:
        assert self.changed is not None
        place, other = self.changed
        self.changed = place, self.places[place]
        self.places = [*self.places[:place], other, *self.places[place + 1 :]]

    def cleared(self) -> None:
        if self.restarts:
            self.chain += 1

    def succeeded(self) -> None:
        self.chain += 1
        self.records += 1

    def check(self, process: Process, returned: Any, error: BaseException | None, pushed: dict[str, Any]) -> None:
        summary = returned or pushed.get("return_value")
        accepted = {to for sender, to in self.accepted if sender.chain == process.chain}
        # After a clear with retries that make the chains look alike, it resumes instead of starting over.
        ever = {to for _, to in self.accepted} if self.has_restarted else accepted
        told = error.summary if isinstance(error, WasslyError) else str(error)
        own = [to for sender, to in self.accepted if sender is process]
        if "sent nothing" in told or "Nothing was sent" in told or told.startswith("NOT "):
            assert own == [], told
        if summary is None or "failed" not in summary or self.others or process is not self.live:
            return
        listed = {row["contact_mobile_number"] for row in process.arguments["recipients"]}
        assert summary["accepted"] <= len(ever & listed)
        accepted &= listed
        assert summary["accepted"] + summary["unknown"] >= len(accepted), (summary, accepted)
        lost = [
            other
            for other in self.all
            if other.chain == process.chain and (other.lost_after is not None or other.failing)
        ]
        # These may have announced messages that they did not get to send.
        possible = summary["recipients"] - len(self.certain(process)) + 2 * WORKERS * len(lost)
        assert summary["unknown"] <= possible, (summary, process.wassly.calls)
        if not any(self._looks_like_a_retry(process, other) for other in self.all if other.clears != process.clears):
            # Clearing releases what had failed permanently.
            tried = {to for other in self.all if other.clears == process.clears for to in other.wassly.calls}
            assert summary["failed"] <= len(tried & listed), (summary, tried)

    def certain(self, process: Process) -> set[str]:
        """Return the recipients whose outcome must be known."""
        certain: dict[str, bool] = {}
        for other in self.all:
            if other.chain == process.chain:
                calls = list(zip(other.wassly.calls, other.wassly.met, strict=True))
                # A lost process may lack the answers to its last messages, or their record.
                noted = len(calls) if other.lost_after is None else other.lost_after - 2 * WORKERS
                for place, (to, fate) in enumerate(calls):
                    was_noted = place < noted
                    certain[to] = was_noted and not other.failing and fate not in DOUBTFUL
        return {to for to, is_certain in certain.items() if is_certain and to in map(number, self.places)}

    def check_copies(self) -> None:
        copies = Counter((sender.chain, to) for sender, to in self.accepted)
        assert max(copies.values(), default=0) <= 1, copies

    def repair(self) -> None:
        self.restarts = False
        *_, last = self.all
        if self.changed is not None and last.ended and "recipients: in rows" in str(last.ended[1]):
            self._swap_the_changed_row()


class Campaigning(Broadcasting):
    """A task that sends to a list from two devices, for two minutes of each day, and waits in between."""

    HOURS = ("09:00", "09:02")
    DEVICES = ("one", "two")
    PER_DAY = 2

    def __init__(self) -> None:
        super().__init__()
        self.now = datetime(2026, 11, 24, 8, 40, tzinfo=timezone.utc)
        self.leaves_slot = True

    def arguments(self) -> dict[str, Any]:
        # Some rows in a block name a device, the others share both.
        rows = [
            {"contact_mobile_number": number(place), "instance_id": "two" if index < 2 else None}
            for index, place in enumerate(self.places)
        ]
        return {
            **super().arguments(),
            "recipients": rows,
            "messages_per_minute": 2,
            "send_between": self.HOURS,
            "timezone": "UTC",
            "max_per_day": self.PER_DAY,
            "instance_ids": list(self.DEVICES),
            "deferrable": self.leaves_slot,
        }

    @rule(leaves_slot=st.booleans())
    def edit_whether_it_leaves_its_slot(self, leaves_slot: bool) -> None:
        self.leaves_slot = leaves_slot

    @precondition(lambda self: self.live is not None and self.live.wassly is not None)
    @rule()
    def ask_it_to_wait(self) -> None:
        assert self.live is not None
        self.live.wassly.asks_to_wait.append(3600.0)

    @rule(device=st.sampled_from(DEVICES), seconds=st.sampled_from([20, 200, 100_000]))
    def disconnect(self, device: str, seconds: int) -> None:
        self.offline = {
            name: self.now + timedelta(seconds=seconds) if name == device else self.offline.get(name, self.now)
            for name in self.DEVICES
        }

    @precondition(lambda self: self.ti.state == "deferred")
    @rule(fates=st.lists(fates, max_size=6), writes=failing)
    def let_the_trigger_fire(self, fates: list[str], writes: dict[int, bool]) -> None:
        arguments = self.deferral.trigger.serialize()[1]
        moment = datetime.fromisoformat(str(arguments.get("moment") or arguments["deadline"]))
        back = [self.offline.get(name, self.now) for name in arguments.get("instance_ids", ())]
        self.now = max(self.now, min([moment, *back]))
        deferral, self.deferral = self.deferral, None
        self.ti.begin(again=True)
        self._start(fates, writes, False, deferral)

    @precondition(lambda self: self.ti.state == "deferred")
    @rule()
    def let_the_deferral_time_out(self) -> None:
        deferral, self.deferral = self.deferral, None
        self.ti.begin(again=True)
        # It reads the record, then fails.
        self._start([], {}, True, deferral)
        self._go_on(self.live, 10_000)

    @precondition(lambda self: self.ti.state == "deferred")
    @rule()
    def mark_it_failed_while_it_waits(self) -> None:
        self.deferral = None
        self.ti.state = "failed"

    @precondition(lambda self: self.live and self.live.resumes and not self.kind.keeps_state and not self.others)
    @rule(fates=st.lists(fates, max_size=3))
    def handle_its_event_twice(self, fates: list[str]) -> None:
        assert self.live is not None
        self._let_it_look(self.live)
        self.others.append(self.live)
        self._start(fates, {}, False, self.live.resumes)

    def check_copies(self) -> None:
        super().check_copies()
        begin, end = map(time.fromisoformat, self.HOURS)
        possible: Counter[tuple[int, str, date]] = Counter()
        for process in self.all:
            for device, at, fate in process.wassly.left.values() if process.wassly is not None else ():
                assert begin <= at.time() < end, f"a message left at {at}"
                possible[process.records, device, at.date()] += fate in POSSIBLE
        assert max(possible.values(), default=0) <= self.PER_DAY, possible


@contextmanager
def one_piece() -> Iterator[None]:
    process = Process.running
    assert process is not None
    process.is_in_one_piece = True
    try:
        yield
    finally:
        process.is_in_one_piece = False


@pytest.fixture
def wired(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[type[Airflow]], None]]:
    """Let the package see a machine's Airflow, and the running process's Wassly."""

    current: list[Airflow] = []

    def wire(machine: type[Airflow]) -> None:
        extra = {"apikey": "the-api-key", "token": "the-token", "instance_id": "one", "record_quota": False}
        monkeypatch.setenv("AIRFLOW_CONN_WASSLY_DEFAULT", json.dumps({"conn_type": "wassly", "extra": extra}))
        monkeypatch.setattr(WasslyHook, "get_conn", lambda hook: Process.running.wassly)  # type: ignore[union-attr]
        kind = machine.kind
        init = machine.__init__

        def remember(self: Any) -> None:
            init(self)
            current[:] = [self]

        monkeypatch.setattr(machine, "__init__", remember)
        for name, value in {
            "can_reach_airflow": lambda: True,
            "runs_here": lambda ti: True,
            "count": lambda name, tags: None,
            "gauge": lambda name, value, tags: None,
            "get_variable": lambda key: current[0].variables.get(key),
            "set_variable": lambda key, value, description: current[0].variables.set(key, value),
            "delete_variable": lambda key: current[0].variables.delete(key),
            "listen_for_end": lambda tell: current[0].listeners.append(tell),
            "identity": lambda context: (
                (context["ti"].id, None) if kind.has_instances else (None, str(context["dag_run"].id))
            ),
            "CLEARING_KEEPS_TASK_STATE": not kind.clears_state,
            "OUTLIVES_ITS_SUPERVISOR": not kind.has_instances,
            "RUNS_TRIES_AGAIN": kind.runs_again,
            "never_expire": lambda: None,
        }.items():
            module = next(module for module in (metrics, tasks, variables, versions) if hasattr(module, name))
            monkeypatch.setattr(module, name, value)
        for module in (record_module, state):
            monkeypatch.setattr(module, "in_one_piece", lambda access: access())
        for module in (recipients_module, record_module):
            monkeypatch.setattr(module, "CHUNK", 2)
        monkeypatch.setattr(record_module, "_JOURNAL_SIZE", 2)

        def whole(function: Any) -> Any:
            def run(*arguments: Any, **keywords: Any) -> Any:
                with one_piece():
                    result = function(*arguments, **keywords)
                if Process.running is not None and function.__name__ == "look":
                    Process.running.has_looked = True
                return result

            return run

        for record, names in {
            BroadcastRecord: ("look", "begin", "write"),
            SendRecord: ("look", "departing", "accepted", "refused"),
        }.items():
            for name in names:
                monkeypatch.setattr(record, name, whole(getattr(record, name)))

    yield wire
    # Whatever killed processes still do when Python ends them must have no effect.
    current.clear()
    Process.unfinished.clear()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", [Sending, Broadcasting, Campaigning])
def test_whatever_the_scheduler_does(wired: Callable[[type[Airflow]], None], task: type[Airflow], kind: str) -> None:
    machine = type(f"{task.__name__}On{kind}", (task,), {"kind": KINDS[kind]})
    wired(machine)
    run_state_machine_as_test(machine, settings=ALIKE)


# Small scope: all combinations; EXAMPLES sets how many are tried.

#: A failing write: its number, and whether it takes effect anyway.
FAILING: list[dict[int, bool]] = [{}, *({place: effect} for place in range(5) for effect in (False, True))]
#: The maximum number of steps in an attempt.
STEPS = {Sending: 14, Broadcasting: 90, Campaigning: 90}
TO_THE_END = 10_000
#: The outcomes of an attempt's messages that lead to different records.
FATES_THAT_DIFFER = (
    "accept", "accept after a new token", "accept, answer lost", "lose it, answer lost", "refuse for now", "refuse",
)  # fmt: skip


def nothing(airflow: Any) -> None:
    pass


def lose_it(airflow: Any) -> None:
    if airflow.live is not None:
        airflow._lose()


def run_the_same_try_again(airflow: Any) -> None:
    if airflow.kind.runs_again and not airflow.ti.is_over:
        lose_it(airflow)
        airflow.ti.state = "up_for_reschedule"
        airflow.run_the_same_try_again([], {})
        airflow.go_on_to_the_end()


def make_again(whole_run: bool, looks: bool) -> Callable[[Any], None]:
    def act(airflow: Any) -> None:
        lose_it(airflow)
        airflow.make_again(whole_run, looks)

    return act


def end_its_wait(airflow: Any) -> None:
    """The deferral times out, or somebody marks the task as failed."""
    if airflow.ti.state == "deferred":
        airflow.let_the_deferral_time_out()
    if airflow.ti.state == "deferred":
        airflow.mark_it_failed_while_it_waits()


def handle_its_event_twice(airflow: Any) -> None:
    if airflow.ti.state == "deferred":
        airflow.let_the_trigger_fire([], {})
        airflow.go_on(20)
        if airflow.live is not None and not airflow.kind.keeps_state:
            airflow.handle_its_event_twice([])
            airflow.go_on(40)
            if airflow.others:
                airflow.one_that_was_given_up_goes_on(TO_THE_END)


BETWEEN: list[Callable[[Any], None]] = [
    nothing,
    lambda airflow: airflow.clear(),
    run_the_same_try_again,
    make_again(False, True),
    make_again(True, True),
    make_again(True, False),
    end_its_wait,
    handle_its_event_twice,
]
EDITS: dict[type[Airflow], list[Callable[[Any], None]]] = {
    Sending: [
        nothing,
        lambda airflow: airflow.edit_the_recipient(1),
        lambda airflow: airflow.edit_the_text(),
        lambda airflow: airflow.edit_the_retries(0),
        lambda airflow: airflow.edit_the_retries(2),
    ],
    Broadcasting: [
        nothing,
        lambda airflow: airflow.add_a_row(),
        lambda airflow: airflow.change_a_row_whoever_was_sent_to(1),
        lambda airflow: airflow.choose(True),
        lambda airflow: airflow.edit_the_retries(0),
    ],
}
EDITS[Campaigning] = [
    *EDITS[Broadcasting],
    lambda airflow: airflow.edit_whether_it_leaves_its_slot(False),
    lambda airflow: airflow.disconnect("two", 100_000),
]


def ways(*choices: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Return combinations of one choice from each list, the same ones every time."""
    of_each = [list(choice) for choice in choices]
    total = math.prod(map(len, of_each))
    chance = random.Random(None if ALIKE.derandomize is False else 1)
    return [_way(number, of_each) for number in chance.sample(range(total), min(total, 2 * EXAMPLES))]


def _way(number: int, of_each: list[list[Any]]) -> tuple[Any, ...]:
    way = []
    for choices in of_each:
        number, index = divmod(number, len(choices))
        way.append(choices[index])
    return tuple(way)


EVERYWHERE = pytest.mark.parametrize(("task", "kind"), list(itertools.product(STEPS, KINDS)))


@pytest.fixture
def begun(wired: Callable[[type[Airflow]], None], task: type[Airflow], kind: str) -> Callable[..., Any]:
    """Return a function that creates an Airflow with a task's first attempt started."""
    machine = type(f"{task.__name__}On{kind}", (task,), {"kind": KINDS[kind]})
    wired(machine)

    def begin(fates: list[str], writes: dict[int, bool], retries: int = 1) -> Any:
        airflow: Any = machine()
        airflow.ti.retries = airflow.ti.max_tries = retries
        airflow.places = list(range(8))  # of which some are announced together
        airflow.begin(fates, writes)
        return airflow

    return begin


@EVERYWHERE
def test_three_attempts_that_die_at_every_point(begun: Callable[..., Any], task: type[Airflow]) -> None:
    """Two attempts are killed, after every number of steps, and every write fails once; the third runs undisturbed."""
    for first, writes, second in ways(range(STEPS[task]), FAILING, range(STEPS[task])):
        airflow = begun([], writes, retries=3)
        airflow.kill(first)
        if not airflow.ti.is_over:
            airflow.continue_it()
            airflow.kill(second)
        airflow.teardown()


@EVERYWHERE
def test_every_way_from_one_attempt_to_the_next(begun: Callable[..., Any], task: type[Airflow]) -> None:
    """An attempt stops anywhere, or ends; the task is edited; then Airflow makes every move that it can."""
    stops = [*range(STEPS[task]), TO_THE_END]
    every = ways(stops, FATES_THAT_DIFFER, FAILING, EDITS[task], BETWEEN, [False, True], [0, 1])
    for steps, fate, writes, edit, between, fails_after, retries in every:
        airflow = begun([fate], writes, retries)
        airflow.let_post_execute_fail(fails_after)
        airflow._go_on(airflow.live, steps, stops_anywhere=True)
        edit(airflow)
        between(airflow)
        airflow.teardown()


@EVERYWHERE
def test_one_that_was_given_up_goes_on_at_every_point(begun: Callable[..., Any], task: type[Airflow]) -> None:
    """An attempt pauses anywhere, another one starts, the first continues, and the other is killed."""
    every = ways(range(STEPS[task]), range(STEPS[task]), [1, 2, TO_THE_END], FATES_THAT_DIFFER, [False, True])
    for first, second, third, fate, is_cleared in every:
        airflow = begun([fate], {}, retries=3)
        airflow.go_on(first)
        if airflow.live is None:
            continue
        airflow.give_up_although_it_lives()
        if is_cleared:
            airflow.clear()
        airflow.continue_it()
        airflow.go_on(second)
        if airflow.others:
            airflow.one_that_was_given_up_goes_on(third)
        lose_it(airflow)
        airflow.teardown()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", [Broadcasting])
def test_a_value_of_a_record_that_is_lost_lets_nobody_get_a_second_message(begun: Callable[..., Any]) -> None:
    """An attempt stops anywhere, and a Variable other than the head is deleted."""
    for steps, place in ways(range(STEPS[Broadcasting]), range(5)):
        airflow = begun([], {})
        airflow.kill(steps)
        for kept in (airflow.variables, airflow.states):
            for key in sorted(key for key in kept.values if "head" not in key)[place : place + 1]:
                del kept.values[key]
        airflow.begin([], {})
        airflow.go_on_to_the_end()
        airflow.check_copies()


@pytest.mark.parametrize("kind", ["3.3"])
@pytest.mark.parametrize("task", [Broadcasting])
def test_a_long_journal_outlives_an_attempt_that_begins_in_front_of_it(
    begun: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt sends to the first row again, and is killed before it reaches the rows in the journal."""
    for module in (recipients_module, record_module):
        monkeypatch.setattr(module, "CHUNK", 4)
    monkeypatch.setattr(record_module, "_JOURNAL_SIZE", 5)
    for first, second in itertools.product(range(36, 56, 2), (11, 14, 17)):
        airflow = begun(["refuse for now"], {}, retries=3)
        airflow.go_on(first)
        if airflow.live is None:
            continue
        airflow.give_up_although_it_lives()
        airflow.begin([], {})
        airflow.go_on(second)
        if airflow.others:
            airflow.one_that_was_given_up_goes_on(TO_THE_END)
        lose_it(airflow)
        airflow.teardown()
