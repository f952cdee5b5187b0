"""
The default text of a notification, for contexts that Airflow passes to callbacks.

The contexts are taken from real runs of Airflow 2.11, 3.0, 3.1, 3.2 and 3.3 with the LocalExecutor. Attributes that
raised an exception there do so here.
"""

from __future__ import annotations

import enum
import sys
import types
import unicodedata
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_wassly.airflow_compat import masking, tasks, versions
from airflow_provider_wassly.notifications.default_message import default_message

UTC = timezone.utc
BASE = "https://airflow.example/team"
RUN = "scheduled__2026-01-01T00:00:00+00:00"
RUN_IN_URL = "scheduled__2026-01-01T00%3A00%3A00%2B00%3A00"
LOGICAL_DATE = datetime(2026, 1, 1, tzinfo=UTC)
START = datetime(2026, 11, 25, 22, 38, 42, 805790, tzinfo=UTC)
TASK_URL = f"{BASE}/dags/mixed/runs/{RUN_IN_URL}/tasks/bad?try_number=2"


class State(str, enum.Enum):
    """States as in Airflow's objects; its database has plain text."""

    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"
    UP_FOR_RETRY = "up_for_retry"


class Fake:
    """An object with the given attributes. Reading a missing one, or one that is an exception, raises."""

    def __init__(self, **attributes: Any) -> None:
        self._attributes = attributes

    def __getattr__(self, name: str) -> Any:
        value = self._attributes.get(name, AttributeError(name))
        if isinstance(value, BaseException):
            raise value
        return value


@pytest.fixture(autouse=True)
def base_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", BASE)
    monkeypatch.setenv("AIRFLOW__WEBSERVER__BASE_URL", BASE)


@pytest.fixture
def airflow_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "IS_AIRFLOW_2", True)
    monkeypatch.setattr(versions, "VERSION", (2, 11))


@pytest.fixture
def airflow_3_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "IS_AIRFLOW_2", False)
    monkeypatch.setattr(versions, "VERSION", (3, 0))


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """The states of a run's tasks, as Airflow 3.1 and later give them to a DAG callback; filled by the test."""
    monkeypatch.setattr(versions, "IS_AIRFLOW_2", False)
    monkeypatch.setattr(versions, "VERSION", (3, 1))
    told: dict[str, str | None] = {}

    class RuntimeTaskInstance:
        @staticmethod
        def get_task_states(dag_id: str, run_ids: list[str]) -> dict[str, dict[str, str | None]]:
            assert (dag_id, run_ids) == ("mixed", [RUN])
            return {RUN: told}

    runner: Any = types.ModuleType("task_runner")
    runner.RuntimeTaskInstance = RuntimeTaskInstance
    monkeypatch.setitem(sys.modules, "airflow.sdk.execution_time.task_runner", runner)
    return told


def dag_run(**attributes: Any) -> Fake:
    return Fake(
        **{
            "dag_id": "mixed",
            "run_id": RUN,
            "state": State.RUNNING,
            "logical_date": LOGICAL_DATE,
            "start_date": datetime(2026, 11, 25, 22, 38, 24, tzinfo=UTC),
            "end_date": None,
            **attributes,
        }
    )


def task_instance(**attributes: Any) -> Fake:
    """A task's second and last try, in its own process."""
    return Fake(
        **{
            "dag_id": "mixed",
            "task_id": "bad",
            "run_id": RUN,
            "map_index": -1,
            "state": State.FAILED,
            "try_number": 2,
            "max_tries": 1,
            "start_date": START,
            "end_date": START + timedelta(seconds=83),
            "log_url": TASK_URL,
            **attributes,
        }
    )


def context(ti: Any = None, run: Any = None, **more: Any) -> dict[str, Any]:
    return {
        "dag": Fake(dag_id="mixed", task_ids=["bad", "good", "mapped", "mapped_in_name"]),
        "dag_run": run or dag_run(),
        "run_id": RUN,
        "logical_date": LOGICAL_DATE,
        "ti": ti or task_instance(),
        **more,
    }


def test_a_task_failed() -> None:
    assert default_message(context(exception=ValueError("first line\nsecond line"))) == (
        "❌ *Task failed*: `bad`\n"
        "DAG `mixed`, try 2 of 2, after 1 min 23 s\n"
        "`ValueError: first line`\n"
        "Logical date: 2026-01-01 00:00 UTC\n"
        f"Run: `{RUN}`\n"
        f"{TASK_URL}"
    )


def test_a_task_will_be_retried() -> None:
    ti = task_instance(state=State.UP_FOR_RETRY, try_number=1, end_date=START + timedelta(seconds=2))
    assert default_message(context(ti, exception=ValueError("x"))).splitlines()[:3] == [
        "🔁 *Task failed, will be retried*: `bad`",
        "DAG `mixed`, try 1 of 2, after 2 s",
        "`ValueError: x`",
    ]


@pytest.mark.parametrize(
    ("state", "head"),
    [
        (State.SUCCESS, "✅ *Task succeeded*: `bad`"),
        (State.RUNNING, "▶️ *Task started*: `bad`"),
        (State.SKIPPED, "⏭️ *Task skipped*: `bad`"),
        ("skipped", "⏭️ *Task skipped*: `bad`"),
        ("deferred", "ℹ️ *Task deferred*: `bad`"),
    ],
)
def test_what_else_a_task_can_do(state: str, head: str) -> None:
    # From Airflow 3.0 on, the exception is None if nothing failed.
    ti = task_instance(state=state, try_number=1, max_tries=0, end_date=None)
    lines = default_message(context(ti, exception=None)).splitlines()
    assert lines[:2] == [head, "DAG `mixed`, try 1 of 1"]
    assert len(lines) == 5


@pytest.mark.parametrize(
    ("try_number", "max_tries", "head"),
    [(1, 1, "🔁 *Task failed, will be retried*"), (2, 1, "❌ *Task failed*"), (1, 0, "❌ *Task failed*")],
)
def test_a_task_was_killed_and_the_dag_processor_tells(try_number: int, max_tries: int, head: str) -> None:
    ti = task_instance(
        state=None,
        try_number=try_number,
        max_tries=max_tries,
        start_date=AttributeError("'RuntimeTaskInstance' object has no attribute 'start_date'"),
        end_date=None,
    )
    assert default_message(context(ti)).splitlines() == [
        f"{head}: `bad`",
        f"DAG `mixed`, try {try_number} of {max_tries + 1}",
        "Logical date: 2026-01-01 00:00 UTC",
        f"Run: `{RUN}`",
        TASK_URL,
    ]


def test_a_task_was_killed_on_airflow_2() -> None:
    # There, the exception is a string.
    ti = task_instance(state=State.UP_FOR_RETRY, try_number=1)
    killed = "{'DAG Id': 'mixed', 'Task Id': 'bad', 'Hostname': 'vm'}"
    assert default_message(context(ti, exception=killed)).splitlines()[2] == f"`{killed}`"


def test_a_mapped_task_is_told_with_its_index() -> None:
    ti = task_instance(task_id="mapped", map_index=3, log_url=f"{BASE}/dags/mixed/runs/x/tasks/mapped/mapped/3")
    assert default_message(context(ti)).startswith("❌ *Task failed*: `mapped[3]`\n")
    assert default_message(context(task_instance(map_index=0))).startswith("❌ *Task failed*: `bad[0]`\n")


def test_a_run_without_a_logical_date() -> None:
    without = context(run=dag_run(logical_date=None), logical_date=None)
    assert "Logical date" not in default_message(without)
    assert f"Run: `{RUN}`" in default_message(without)


@pytest.mark.parametrize(
    ("seconds", "took"),
    [
        (0.4, "after 0 s"),
        (59.6, "after 1 min 0 s"),
        (3599, "after 59 min 59 s"),
        (3600, "after 1 h 0 min"),
        (93784, "after 26 h 3 min"),
        (-1, "after 0 s"),
    ],
)
def test_how_long_it_took(seconds: float, took: str) -> None:
    ti = task_instance(end_date=START + timedelta(seconds=seconds))
    assert default_message(context(ti)).splitlines()[1] == f"DAG `mixed`, try 2 of 2, {took}"


def test_a_dag_failed_on_airflow_2(airflow_2: None) -> None:
    instances = [("bad", "failed"), ("good", "success"), ("mapped", "success"), ("mapped", "failed"),
                 ("mapped", "success"), ("mapped", "failed"), ("downstream", "upstream_failed")]  # fmt: skip
    run = dag_run(
        state="failed",
        end_date=datetime(2026, 11, 25, 22, 39, 17, tzinfo=UTC),
        get_task_instances=lambda: [Fake(task_id=task_id, state=state) for task_id, state in instances],
    )
    # Airflow adds a task that is not necessarily the one that failed.
    ti = task_instance(task_id="downstream", state="upstream_failed", try_number=0, max_tries=0)
    assert default_message(context(ti, run, reason="task_failure")) == (
        "❌ *DAG failed*: `mixed`, after 53 s\n"
        "3 of 7 tasks failed: `mapped` (2 of 4), `bad`\n"
        "Logical date: 2026-01-01 00:00 UTC\n"
        f"Run: `{RUN}`\n"
        f"{BASE}/dags/mixed/grid?dag_run_id={RUN_IN_URL}"
    )


def test_a_dag_failed_on_airflow_3(states: dict[str, str | None]) -> None:
    states |= {"bad": "failed", "good": "success", "mapped_0": "success", "mapped_1": "failed", "mapped_2": "failed",
               "mapped_in_name": "skipped", "downstream": None}  # fmt: skip
    ti = task_instance(state=None, max_tries=0, start_date=AttributeError("start_date"), end_date=None)
    run = dag_run(state=State.FAILED, end_date=datetime(2026, 11, 25, 22, 38, 49, tzinfo=UTC))
    told = context(ti, run, reason="task_failure")
    told["dag"] = Fake(dag_id="mixed", task_ids=["bad", "good", "mapped", "mapped_in_name", "downstream"])
    assert default_message(told) == (
        "❌ *DAG failed*: `mixed`, after 25 s\n"
        "3 of 7 tasks failed: `mapped` (2 of 3), `bad`\n"
        "Logical date: 2026-01-01 00:00 UTC\n"
        f"Run: `{RUN}`\n"
        f"{BASE}/dags/mixed/runs/{RUN_IN_URL}"
    )


def test_a_dag_failed_on_airflow_3_0_which_tells_next_to_nothing(airflow_3_0: None) -> None:
    minimal = {"dag": Fake(dag_id="mixed", task_ids=["bad"]), "run_id": RUN, "reason": "task_failure"}
    assert default_message(minimal) == (f"❌ *DAG failed*: `mixed`\nRun: `{RUN}`\n{BASE}/dags/mixed/runs/{RUN_IN_URL}")


def test_a_dag_succeeded(states: dict[str, str | None]) -> None:
    states |= {"good": "success", "bad": "failed"}
    run = dag_run(state=State.SUCCESS, end_date=datetime(2026, 11, 25, 23, 38, 24, tzinfo=UTC))
    ti = task_instance(state=None, max_tries=0, start_date=AttributeError("start_date"), end_date=None)
    assert default_message(context(ti, run, reason="success")) == (
        "✅ *DAG succeeded*: `mixed`, after 1 h 0 min\n"
        "Logical date: 2026-01-01 00:00 UTC\n"
        f"Run: `{RUN}`\n"
        f"{BASE}/dags/mixed/runs/{RUN_IN_URL}"
    )


def test_a_dag_failed_for_another_reason_than_its_tasks(states: dict[str, str | None]) -> None:
    states |= {"bad": "skipped", "good": "running"}
    text = default_message(context(run=dag_run(state=State.FAILED), reason="timed_out"))
    assert text.splitlines()[:2] == ["❌ *DAG failed*: `mixed`", "Reason: `timed_out`"]


@pytest.mark.parametrize(("count", "others"), [(6, "1 other"), (7, "2 others"), (400, "395 others")])
def test_many_failed_tasks_are_named_in_part(states: dict[str, str | None], count: int, others: str) -> None:
    names = [f"task_{number:03}" for number in range(count)]
    states |= dict.fromkeys(names, "failed")
    told = context(run=dag_run(state=State.FAILED), reason="task_failure")
    told["dag"] = Fake(dag_id="mixed", task_ids=names)
    assert default_message(told).splitlines()[1] == (
        f"{count} of {count} tasks failed: `task_000`, `task_001`, `task_002`, `task_003`, `task_004` and {others}"
    )


def test_what_airflow_does_not_tell_of_the_tasks_is_left_out(states: dict[str, str | None]) -> None:
    states["bad"] = "success"
    told = context(run=dag_run(state=State.FAILED), reason="task_failure")
    assert "tasks failed" not in default_message(told)
    told["run_id"] = "another, for which Airflow raises"
    assert default_message(told).startswith("❌ *DAG failed*: `mixed`\n")


@pytest.mark.parametrize("due", [datetime(2026, 11, 25, 22, 38, 26, tzinfo=UTC), "2026-11-25T22:38:26.034565Z"])
def test_a_deadline_was_missed(monkeypatch: pytest.MonkeyPatch, due: Any) -> None:
    monkeypatch.setattr(versions, "IS_AIRFLOW_2", False)
    run = {"dag_id": "late", "dag_run_id": RUN, "logical_date": "2026-01-01T00:00:00Z", "state": "running",
           "start_date": "2026-11-25T22:38:24.109647Z", "end_date": None}  # fmt: skip
    deadline = {"id": "01a214dc-2f54-7d96-9912-8ce51ee6c834", "deadline_time": due}
    assert default_message({"dag_run": run, "deadline": deadline}) == (
        "⏰ *Deadline missed*: `late`\n"
        "Due 2026-11-25 22:38 UTC, run state: running\n"
        "Logical date: 2026-01-01 00:00 UTC\n"
        f"Run: `{RUN}`\n"
        f"{BASE}/dags/late/runs/{RUN_IN_URL}"
    )


def test_a_deadline_with_a_time_that_cannot_be_read() -> None:
    text = default_message({"dag_run": {"dag_id": "late"}, "deadline": {"deadline_time": "soon"}})
    assert text == "⏰ *Deadline missed*: `late`\nDue soon"


def test_an_sla_was_missed_on_airflow_2() -> None:
    told = {"dag": Fake(dag_id="mixed"), "task_list": "bad on 2026-01-01T00:00:00+00:00", "blocking_task_list": "",
            "slas": [Fake(task_id="bad")], "blocking_tis": []}  # fmt: skip
    assert default_message(told) == "⏰ *SLA missed*: `mixed`"


def test_a_time_in_another_zone_is_told_in_utc() -> None:
    egypt = timezone(timedelta(hours=2))
    told = context(run=dag_run(logical_date=datetime(2026, 1, 1, 1, 30, tzinfo=egypt)))
    assert "Logical date: 2025-12-31 23:30 UTC" in default_message(told)


def test_of_an_exception_only_the_first_line_is_told_and_only_its_beginning() -> None:
    def line(exception: Any) -> str:
        return default_message(context(exception=exception)).splitlines()[2]

    assert line(KeyError("a\nb")) == r"`KeyError: 'a\nb'`"
    assert line(RuntimeError("\n\n  the first\tline  \r\nsecond\n")) == "`RuntimeError: the first line`"
    assert line(RuntimeError("half a character: \udcff")) == "`RuntimeError: half a character: ?`"
    assert line(RuntimeError()) == "`RuntimeError`"
    assert line(RuntimeError("  \n ")) == "`RuntimeError`"
    assert line(RuntimeError("use `ls`")) == "`RuntimeError: use 'ls'`"
    cut = line(RuntimeError("x" * 10_000))
    assert len(cut) == 202
    assert cut.endswith("xxx…`")
    exactly = "x" * (200 - len("RuntimeError: "))
    assert line(RuntimeError(exactly)) == f"`RuntimeError: {exactly}`"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("\x1b[1;31mno such table\x1b[0m: orders", "no such table: orders"),
        ("\x1b[38;5;196mred\x1b[m \x1b]8;;https://example.com\x1b\\link\x1b]8;;\x07", "red link"),
        ("\x9b31mred\x9b0m", "red"),
        ("100 %\x08\x08", "100 %"),
        ("a\x00b\x7fc", "abc"),
        ("an end\x1b", "an end"),
        ("half a character: \udcff", "half a character: ?"),
        ("👩‍💻 عربي\u200f", "👩‍💻 عربي\u200f"),
    ],
)
def test_what_a_terminal_would_obey_is_left_out(written: str, read: str) -> None:
    error = RuntimeError(written)
    assert default_message(context(exception=error)).splitlines()[2] == f"`RuntimeError: {read}`"
    assert default_message(context(task_instance(task_id=written))).splitlines()[0].endswith(f"`{read}`")


def test_codes_do_not_hide_a_secret() -> None:
    masking.mask_secret_here("hunter-4-of-the-notifier")
    error = RuntimeError("password hunter-4\x1b[0m-of-the\x00-notifier is wrong")
    assert default_message(context(exception=error)).splitlines()[2] == "`RuntimeError: password *** is wrong`"


def test_codes_are_no_part_of_the_length_of_an_error() -> None:
    error = RuntimeError("\x1b[0m" * 1000 + "x" * (200 - len("RuntimeError: ")))
    assert default_message(context(exception=error)).splitlines()[2].endswith("xxx`")


def test_secrets_are_not_told() -> None:
    masking.mask_secret_here("hunter-2-of-the-notifier")
    error = RuntimeError("cannot log in with hunter-2-of-the-notifier")
    assert default_message(context(exception=error)).splitlines()[2] == "`RuntimeError: cannot log in with ***`"


def test_no_part_of_a_secret_is_told_when_it_is_cut() -> None:
    masking.mask_secret_here("-----BEGIN KEY-----\nabcdefgh\n-----END KEY-----")
    of_lines = RuntimeError("bad key: -----BEGIN KEY-----\nabcdefgh\n-----END KEY-----")
    assert default_message(context(exception=of_lines)).splitlines()[2] == "`RuntimeError: bad key: ***`"
    masking.mask_secret_here("hunter-3-of-the-notifier")
    at_the_end = RuntimeError("x" * (190 - len("RuntimeError: ")) + "hunter-3-of-the-notifier")
    assert "hunter" not in default_message(context(exception=at_the_end))


def test_what_cannot_be_redacted_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def redact(text: str) -> str:
        raise RuntimeError("No SecretsMasker found")

    monkeypatch.setattr(masking, "redact", redact)
    text = default_message(context(exception=ValueError("perhaps a secret")))
    assert text.startswith("❌ *Task failed*: `bad`\n")
    assert "perhaps" not in text


class Broken(Exception):
    """An exception whose text raises, like those of libraries that expect arguments."""

    def __str__(self) -> str:
        raise TypeError("not enough arguments for format string")


def test_an_exception_without_a_text_leaves_the_rest_of_the_message() -> None:
    text = default_message(context(exception=Broken()))
    assert text.startswith("❌ *Task failed*: `bad`\nDAG `mixed`, try 2 of 2")
    assert text.endswith(TASK_URL)


def test_times_that_do_not_go_together_leave_the_rest_of_the_message() -> None:
    ti = task_instance(start_date=START.replace(tzinfo=None))
    assert default_message(context(ti)).splitlines()[:2] == ["❌ *Task failed*: `bad`", "DAG `mixed`, try 2 of 2"]


@pytest.mark.parametrize("nothing", [None, {}, {"dag": None, "ti": None}, {"params": {}}])
def test_of_nothing_nothing_is_claimed(nothing: Any) -> None:
    text = default_message(nothing)
    assert text
    assert "failed" not in text
    assert "succeeded" not in text
    assert "None" not in text


class Odd:
    """Raises on every use."""

    def _raise(self, *args: Any) -> Any:
        raise RuntimeError("odd")

    __str__ = __format__ = __bool__ = __eq__ = __hash__ = __len__ = __iter__ = __getitem__ = __le__ = __sub__ = _raise

    def __repr__(self) -> str:
        return "Odd()"


KEYS = ["dag", "dag_run", "ti", "task_instance", "run_id", "logical_date", "reason", "exception", "deadline", "slas"]
ATTRIBUTES = ["dag_id", "dag_run_id", "task_id", "run_id", "map_index", "state", "try_number", "max_tries",
              "start_date", "end_date", "log_url", "logical_date", "task_ids", "deadline_time", "get_task_instances",
              "value"]  # fmt: skip

# Names in Airflow have at most 250 characters.
plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=250),
    st.text("`\n\r*_ ", max_size=10),
    st.datetimes(timezones=st.sampled_from([None, UTC, timezone(timedelta(hours=14))])),
    st.sampled_from([*State, "failed", "up_for_retry", "task_failure", "timed_out"]),
    st.builds(lambda make: make(), st.sampled_from([Odd, Broken, lambda: ValueError("a`b\nc"), object, bytes])),
)
collections = st.one_of(plain, st.lists(plain, max_size=3), st.dictionaries(st.sampled_from(ATTRIBUTES), plain))


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        plain,
        st.dictionaries(
            st.sampled_from(KEYS),
            st.one_of(
                collections,
                st.dictionaries(st.sampled_from(ATTRIBUTES), collections).map(lambda values: Fake(**values)),
            ),
        ),
    )
)
def test_whatever_is_missing_or_raises_there_is_a_text_that_can_be_sent(anything: Any) -> None:
    for limit in (4096, 1024):
        text = default_message(anything, limit)
        assert 0 < len(text.strip()) <= len(text) <= limit
        for line in text.split("\n"):
            assert line.count("`") % 2 == 0
            assert line.strip()
            assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in line)


@pytest.mark.parametrize("missing", ["dag", "dag_run", "run_id", "logical_date", "ti"])
@pytest.mark.parametrize("reason", [{}, {"reason": "task_failure"}])
def test_each_key_can_be_missing(missing: str, reason: dict[str, str]) -> None:
    told = context(**reason)
    del told[missing]
    text = default_message(told)
    assert text.startswith(
        "❌ *DAG failed*" if reason else "ℹ️ *DAG*: `mixed`" if missing == "ti" else "❌ *Task failed*"
    )
    assert "None" not in text


@pytest.mark.parametrize("limit", [1024, 4096])
@pytest.mark.parametrize("letter", ["x", "é", "日", "🗞"])
@pytest.mark.parametrize("kind", ["task", "dag", "deadline"])
def test_the_longest_names_fit_a_message(states: dict[str, str | None], letter: str, kind: str, limit: int) -> None:
    name = letter * 250
    names = [f"{number:02}{name[2:]}" for number in range(50)]
    states |= dict.fromkeys(names, "failed")
    url = f"{BASE}/dags/{name}/runs/{quote(name)}/tasks/{name}?try_number=2"
    told = context(
        task_instance(dag_id=name, task_id=name, run_id=name, map_index=1000, log_url=url),
        dag_run(dag_id=name, run_id=RUN, dag_run_id=name, state=State.FAILED),
        exception=RuntimeError(name),
    )
    if kind == "dag":
        told |= {"dag": Fake(dag_id=name, task_ids=names), "reason": "task_failure"}
    if kind == "deadline":
        told = {"dag_run": {"dag_id": name, "dag_run_id": name, "state": name}, "deadline": {"deadline_time": name}}
    text, whole = default_message(told, limit), default_message(told, 100_000)
    assert 400 < len(text) <= limit
    assert text == whole or len(whole) > limit
    head, *_ = text.splitlines()
    assert head.startswith({"task": "❌ *Task f", "dag": "❌ *DAG f", "deadline": "⏰ *Deadline m"}[kind])
    for line in text.splitlines():
        assert line.count("`") % 2 == 0
        # The link is either complete or left out.
        assert not line.startswith("http") or line.endswith(("?try_number=2", quote(name, safe=""), RUN_IN_URL))


def test_what_fits_is_left_as_it_is() -> None:
    told = context(exception=RuntimeError("no such table"))
    whole = default_message(told)
    assert default_message(told, len(whole)) == whole
    shortened = default_message(told, len(whole) - 1)
    assert len(shortened) < len(whole)
    assert shortened.endswith(TASK_URL)


def test_the_page_of_a_task_on_airflow_3_0_which_forgets_a_slash(airflow_3_0: None) -> None:
    assert tasks.task_url(Fake(log_url=f"{BASE}dags/mixed/runs/x/tasks/y")) == f"{BASE}/dags/mixed/runs/x/tasks/y"
    assert tasks.task_url(Fake(log_url=f"{BASE}/dags/mixed")) == f"{BASE}/dags/mixed"
    assert tasks.task_url(Fake(log_url=None)) is None
    assert tasks.task_url(Fake()) is None


@pytest.mark.parametrize("base", ["", BASE, f"{BASE}/"])
def test_the_page_of_a_run(monkeypatch: pytest.MonkeyPatch, base: str) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base)
    monkeypatch.setenv("AIRFLOW__WEBSERVER__BASE_URL", base)
    for is_airflow_2, page in ((True, "grid?dag_run_id=a%2Fb%20c"), (False, "runs/a%2Fb%20c")):
        monkeypatch.setattr(versions, "IS_AIRFLOW_2", is_airflow_2)
        assert tasks.run_url("mixed", "a/b c") == (f"{BASE}/dags/mixed/{page}" if base else None)


def test_a_task_that_is_no_longer_in_the_dag_keeps_its_name(states: dict[str, str | None]) -> None:
    states |= {"load_orders": "failed", "mapped_0": "failed", "mapped_1": "success"}
    text = default_message(context(run=dag_run(state=State.FAILED), reason="task_failure"))
    assert "2 of 3 tasks failed: `load_orders`, `mapped` (1 of 2)" in text
