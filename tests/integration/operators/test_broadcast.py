"""The broadcast against the sandbox: who gets what, what is reported about the others, and what the next try does."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]

from airflow_provider_wassly.airflow_compat import (
    config,
    exceptions,
    masking,
    metrics,
    object_storage,
    tasks,
    variables,
)
from airflow_provider_wassly.broadcast import progress, senders
from airflow_provider_wassly.broadcast.run import WasslyBroadcastIncomplete
from airflow_provider_wassly.client import WasslyDeviceDisconnected, WasslyError
from airflow_provider_wassly.client import numbers as client_numbers
from airflow_provider_wassly.client.transport.auth import Tokens
from airflow_provider_wassly.hooks.wassly import WasslyHook
from airflow_provider_wassly.operators.broadcast import WasslyBroadcastOperator
from airflow_provider_wassly.sandbox import Sandbox
from airflow_provider_wassly.sandbox.service.state import ServiceState
from tests.support.kept import HAS_TASK_STATE_STORE, Kept
from tests.support.log import Log
from tests.support.signals import signalled
from tests.support.storages import attach
from tests.support.task import Stopped, Task
from tests.support.variables import Variables

try:
    from airflow.sdk import ObjectStoragePath
except ImportError:  # Airflow 2.11
    from airflow.io.path import ObjectStoragePath  # type: ignore[no-redef, import-not-found]

FAIL = type(exceptions.fail_exception(""))
QUOTA = "wassly_quota__wassly_default"

pytestmark = pytest.mark.usefixtures("wassly_default")


def number(row: int) -> str:
    return f"+4477009{row:05}"


def people(count: int, **columns: Any) -> list[dict[str, Any]]:
    """Return rows with the numbers of rows 1 to ``count``."""
    return [{"contact_mobile_number": number(row), "name": f"Ann {row}", **columns} for row in range(1, count + 1)]


def sent_to(box: Sandbox) -> list[str]:
    return sorted(message.contact_mobile_number for message in box.messages)


def numbers(first: int, last: int) -> list[str]:
    return [number(row) for row in range(first, last + 1)]


def texts(box: Sandbox) -> dict[str, str | None]:
    return {message.contact_mobile_number: message.message for message in box.messages}


def read(report: Path) -> list[dict[str, str]]:
    with report.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def a_task(state: Kept | None = None, listeners: list[Callable[[Any, bool], None]] | None = None) -> Task:
    return Task(
        WasslyBroadcastOperator,
        state,
        listeners,
        message="Hello {{ recipient.name }}",
        messages_per_minute=None,
        on_device_disconnected="fail",  # tests do not wait
    )


@pytest.fixture(scope="module")
def shared_box() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def box(shared_box: Sandbox) -> Sandbox:
    """One sandbox for all of these tests, reset for each."""
    Tokens.forget_all()
    shared_box.reset()
    return shared_box


@pytest.fixture(autouse=True)
def airflow(monkeypatch: pytest.MonkeyPatch) -> Variables:
    # A test takes as long as Wassly's answers, not as long as the pace.
    monkeypatch.setattr(senders, "_BACKOFF", (0.01, 0.01))
    return Variables(monkeypatch)


@pytest.fixture(params=["state", "variables"] if HAS_TASK_STATE_STORE else ["variables"])
def task(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Task:
    """A task, with each kind of store that this Airflow can have."""
    listeners: list[Callable[[Any, bool], None]] = []
    monkeypatch.setattr(tasks, "listen_for_end", listeners.append)
    return a_task(Kept() if request.param == "state" else None, listeners)


@pytest.fixture
def one_task(monkeypatch: pytest.MonkeyPatch) -> Task:
    """A task with this Airflow's kind of record, for tests that are not about the record."""
    listeners: list[Callable[[Any, bool], None]] = []
    monkeypatch.setattr(tasks, "listen_for_end", listeners.append)
    return a_task(Kept() if HAS_TASK_STATE_STORE else None, listeners)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Log:
    return Log(caplog, capsys)


def after(seconds: float) -> Callable[[], bool]:
    """Return a function that tells whether a time has passed."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def stop() -> None:
    raise Stopped


class Storage(MemoryFileSystem):  # type: ignore[misc]
    """Each open gets its own stream, as with real storages but not with the memory file system."""

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        return io.BytesIO(self.cat(path)) if "r" in mode else super().open(path, mode, **options)


# Who gets what.


def test_everybody_gets_their_own_text(box: Sandbox, one_task: Task) -> None:
    ended = one_task.run(recipients=people(3), message="Hello {{ recipient.name }}, it is {{ ds }}")
    assert texts(box) == {number(row): f"Hello Ann {row}, it is 2026-11-24" for row in (1, 2, 3)}
    assert ended.returned is not None
    assert ended.returned.pop("duration") < 60
    assert ended.returned.pop("messages_per_minute") > 0
    assert ended.returned == {
        "recipients": 3,
        "accepted": 3,
        "failed": 0,
        "invalid": 0,
        "unknown": 0,
        "duplicate": 0,
        "excluded": 0,
        "not_sent": 0,
        "remaining_conversations": 997,
        "report": None,
    }


def test_the_order_is_that_of_the_list(box: Sandbox, one_task: Task) -> None:
    one_task.run(recipients=people(20))
    assert [message.contact_mobile_number for message in box.messages] == numbers(1, 20)


def test_as_many_are_on_their_way_as_there_are_workers(box: Sandbox, one_task: Task) -> None:
    box.latency = 0.5
    ended = one_task.run(recipients=people(8), max_workers=4)
    assert ended.counts == {"accepted": 8}
    calls = [call for call in box.calls if call.endpoint == "send"]
    at_once = [sum(a.started_at <= b.started_at < (a.finished_at or b.started_at) for a in calls) for b in calls]
    assert max(at_once) == 4
    assert box.logins == 1


CSV = '\ufeffcontact_mobile_number;name;note\n\n+447700900001;Ann 1;"a; b"\r\n+447700900002;Ann 2;\u202bمرحبا\n\n'
JSON_LINES = '{"contact_mobile_number": "+447700900001", "name": "Ann 1", "note": "a; b"}\n\n' + json.dumps(
    {"contact_mobile_number": "+447700900002", "name": "Ann 2", "note": "\u202bمرحبا"}
)


JSON_ARRAY = f"[{JSON_LINES}]".replace("\n\n", ",\n")


@pytest.mark.parametrize("content", [CSV, JSON_LINES, JSON_ARRAY], ids=["csv", "json-lines", "json-array"])
@pytest.mark.parametrize("uri", [False, True], ids=["path", "uri"])
def test_a_list_from_a_file(box: Sandbox, one_task: Task, tmp_path: Path, content: str, uri: bool) -> None:
    (tmp_path / "2026-11-24.list").write_text(content, newline="")
    folder = f"file://{tmp_path}" if uri else str(tmp_path)
    ended = one_task.run(recipients=folder + "/{{ ds }}.list", message="{{ recipient.name }}: {{ recipient.note }}")
    assert ended.counts == {"accepted": 2}
    assert texts(box) == {"+447700900001": "Ann 1: a; b", "+447700900002": "Ann 2: \u202bمرحبا"}


def test_a_list_of_numbers(box: Sandbox, one_task: Task) -> None:
    assert one_task.run(recipients=numbers(1, 3), message="Hi").counts == {"accepted": 3}
    assert sent_to(box) == numbers(1, 3)


def test_list_files_and_report_in_an_object_storage(box: Sandbox, one_task: Task) -> None:
    storage = Storage()
    attach("memory", "store_1", storage)
    storage.pipe("/bucket/list.csv", b"contact_mobile_number,file\n+447700900001,a\n+447700900002,b\n")
    storage.pipe("/bucket/a.pdf", b"for one")
    storage.pipe("/bucket/b.pdf", b"for two")
    ended = one_task.run(
        recipients=ObjectStoragePath("memory://bucket/list.csv", conn_id="store_1"),
        document="memory://bucket/{{ recipient.file }}.pdf",
        report="memory://bucket/reports/{{ ds }}.csv",
        attachment_conn_id="store_1",
        message=None,
    )
    assert ended.counts == {"accepted": 2}
    assert {message.document and message.document.bytes for message in box.messages} == {b"for one", b"for two"}
    assert ended.summary["report"] == "memory://bucket/reports/2026-11-24.csv"
    lines = storage.cat("/bucket/reports/2026-11-24.csv").decode("utf-8-sig").splitlines()
    assert lines == [
        "row,contact_mobile_number,outcome,conversation_id,reason,line",
        "1,+44…0001,accepted,1,,2",
        "2,+44…0002,accepted,2,,3",
    ]


def test_files_and_names_of_their_own(box: Sandbox, one_task: Task, tmp_path: Path) -> None:
    for name in ("1.pdf", "2.pdf", "1.png"):
        (tmp_path / name).write_text(f"content of {name}")
    rows = [
        {"contact_mobile_number": number(1), "invoice": "1", "picture": "1.png", "name": "فاتورة"},
        {"contact_mobile_number": number(2), "invoice": "2", "picture": "1.png", "name": "Rechnung"},
    ]
    ended = one_task.run(
        recipients=rows,
        message=None,
        document=tmp_path / "{{ recipient.invoice }}.pdf",
        document_name="{{ recipient.name }} {{ ds }}.pdf",
        media=tmp_path / "{{ recipient.picture }}",
        media_name="{{ recipient.invoice }}.png",
    )
    assert ended.counts == {"accepted": 2}
    first, second = box.messages
    assert first.document is not None
    assert second.document is not None
    assert first.media is not None
    assert second.media is not None
    assert (first.document.name, first.document.bytes) == ("فاتورة 2026-11-24.pdf", b"content of 1.pdf")
    assert (second.document.name, second.document.bytes) == ("Rechnung 2026-11-24.pdf", b"content of 2.pdf")
    assert (first.media.name, first.media.content_type, first.media.bytes) == (
        "1.png",
        "image/png",
        b"content of 1.png",
    )
    assert (second.media.name, second.media.bytes) == ("2.png", b"content of 1.png")


def test_what_can_be_called_is_called_for_each_recipient(box: Sandbox, one_task: Task, tmp_path: Path) -> None:
    for row in (1, 2):
        (tmp_path / f"Ann {row}.pdf").write_text(f"for {row}")

    def named(end: str) -> Callable[..., str]:
        return lambda context, jinja_env: f"{context['recipient']['name']} at {context['ds']}{end}"

    ended = one_task.run(
        recipients=people(3),
        message=lambda context, jinja_env: jinja_env.from_string("Hello {{ recipient.name }}").render(context),
        document=lambda context, jinja_env: tmp_path / f"{context['recipient'].name}.pdf",
        document_name=named(".pdf"),
        media=lambda context, jinja_env: str(tmp_path / "Ann 1.pdf") if context["recipient"].name == "Ann 2" else None,
        media_name=named(".png"),
    )
    assert ended.counts == {"accepted": 2, "invalid": 1}  # there is no file for the third
    assert texts(box) == {number(1): "Hello Ann 1", number(2): "Hello Ann 2"}
    first, second = box.messages
    assert first.document is not None
    assert second.document is not None
    assert second.media is not None
    assert (first.document.name, first.document.bytes) == ("Ann 1 at 2026-11-24.pdf", b"for 1")
    assert (second.document.name, second.document.bytes) == ("Ann 2 at 2026-11-24.pdf", b"for 2")
    assert first.media is None
    assert second.media.name == "Ann 2 at 2026-11-24.png"


def test_a_call_that_fails_for_one_stops_no_other(box: Sandbox, one_task: Task, log: Log) -> None:
    def by_row(context: Any, jinja_env: Any) -> Any:
        row = context["recipient"].row
        return "Hi" if row == 1 else 1 / 0 if row == 2 else 5 if row == 3 else f"Hi {context['recipient'].colour}"

    ended = one_task.run(recipients=[{**person, "row": row} for row, person in enumerate(people(4), 1)], message=by_row)
    assert ended.counts == {"accepted": 1, "invalid": 3}
    assert texts(box) == {number(1): "Hi"}
    assert "Row 2 (+44…0002) is invalid: message: ZeroDivisionError: division by zero" in log.text
    assert "Row 3 (+44…0003) is invalid: message: must be text, not int" in log.text
    assert "Row 4 (+44…0004) is invalid: message: this row has no value in column 'colour'" in log.text


def test_an_object_storage_path_can_be_a_template_of_each_recipient(
    box: Sandbox, one_task: Task, tmp_path: Path
) -> None:
    for row in (1, 2):
        (tmp_path / f"Ann {row}.pdf").write_text(f"for {row}")
    document = ObjectStoragePath(f"file://{tmp_path}") / "{{ recipient.name }}.pdf"
    ended = one_task.run(recipients=people(2), document=document)
    assert ended.counts == {"accepted": 2}
    found = {message.contact_mobile_number: message.document for message in box.messages}
    assert {to: document and document.bytes for to, document in found.items()} == {
        number(1): b"for 1",
        number(2): b"for 2",
    }


def test_one_file_for_all(box: Sandbox, one_task: Task, tmp_path: Path) -> None:
    (tmp_path / "flyer.pdf").write_bytes(bytes(range(256)) * 4000)
    one_task.run(recipients=people(12), document=tmp_path / "flyer.pdf", max_workers=4)
    assert sent_to(box) == numbers(1, 12)
    assert len({message.document and message.document.sha256 for message in box.messages}) == 1
    assert {message.document and message.document.size for message in box.messages} == {1024000}


def test_columns_that_say_who_sends_and_what_they_are_called(one_task: Task) -> None:
    with Sandbox(devices=["default", "param", "column"]) as box, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_WASSLY_DEFAULT", box.connection)
        rows = [
            {"contact_mobile_number": number(1), "contact_name": "Ann", "instance_id": "column"},
            {"contact_mobile_number": number(2), "contact_name": "", "instance_id": " "},
            {"contact_mobile_number": number(3)},
        ]
        one_task.run(recipients=rows, message="Hello", instance_id="{{ 'param' }}")
        assert [(message.instance_id, message.contact_name) for message in box.messages] == [
            ("column", "Ann"),
            ("param", None),
            ("param", None),
        ]
        one_task.clear()
        one_task.run(recipients=rows[2:], message="Hello")
        assert box.messages[-1].instance_id == "default"


def test_a_message_file(box: Sandbox, one_task: Task, tmp_path: Path) -> None:
    (tmp_path / "base.j2").write_text("*{% block body %}{% endblock %}*")
    (tmp_path / "invoice.j2").write_text(
        "{% extends 'base.j2' %}{% block body %}{{ recipient.name }} at {{ ds }}{% endblock %}"
    )
    one_task.dag_options = {"template_searchpath": str(tmp_path)}
    one_task.run(recipients=people(2), message="invoice.j2")
    assert texts(box) == {number(1): "*Ann 1 at 2026-11-24*", number(2): "*Ann 2 at 2026-11-24*"}


def test_filters_macros_and_settings_of_the_dag(box: Sandbox, one_task: Task) -> None:
    one_task.dag_options = {
        "user_defined_filters": {"euro": lambda cents: f"{int(cents) / 100:.2f} €"},
        "user_defined_macros": {"shop": "The shop", "greet": lambda name: f"Dear {name}"},
        "jinja_environment_kwargs": {"trim_blocks": True},
    }
    one_task.run(
        recipients=people(1, cents="1250"),
        message="{% if true %}\n{{ greet(recipient.name) }}, {{ recipient.cents | euro }}. {{ shop }}{% endif %}",
    )
    assert texts(box) == {number(1): "Dear Ann 1, 12.50 €. The shop"}


def test_native_objects_change_nothing_but_the_list(box: Sandbox, one_task: Task) -> None:
    one_task.dag_options = {
        "render_template_as_native_obj": True,
        "user_defined_macros": {"everybody": people(2, text="[1, 2]")},
    }
    ended = one_task.run(recipients="{{ everybody }}", message="{{ recipient.text }}")
    assert ended.counts == {"accepted": 2}
    assert texts(box) == {number(1): "[1, 2]", number(2): "[1, 2]"}


def test_what_stands_in_the_list_is_no_template(box: Sandbox, one_task: Task, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("contact_mobile_number,name\n+447700900001,{{ ds }} {% raw\n")
    one_task.run(recipients=str(tmp_path / "list.csv"))
    assert texts(box) == {number(1): "Hello {{ ds }} {% raw"}


def test_columns_with_names_that_python_uses_otherwise(box: Sandbox, one_task: Task) -> None:
    rows = [
        {
            "contact_mobile_number": number(1),
            "items": "7",
            "get": "g",
            "_id": "i",
            "two words": "w",
            "nested": [{"x": 5}],
        }
    ]
    one_task.run(
        recipients=rows,
        message="{{ recipient.items }} {{ recipient.get }} {{ recipient._id }} {{ recipient['two words'] }} "
        "{{ recipient.nested[0].x }} {{ recipient.none | default('-') }}",
    )
    assert texts(box) == {number(1): "7 g i w 5 -"}


def test_a_number_in_several_spellings_gets_one_message(box: Sandbox, one_task: Task, tmp_path: Path) -> None:
    spellings = [number(1), "+44 7700 900-001", "00447700900001", number(2), " +44 (7700) 900001 "]
    rows = [{"contact_mobile_number": spelling, "name": str(row)} for row, spelling in enumerate(spellings, 1)]
    ended = one_task.run(recipients=rows, report=tmp_path / "report.csv")
    assert texts(box) == {number(1): "Hello 1", number(2): "Hello 4"}
    assert ended.counts == {"accepted": 2, "duplicate": 3}
    assert [line["outcome"] for line in read(tmp_path / "report.csv")] == [
        "accepted", "duplicate", "duplicate", "accepted", "duplicate",
    ]  # fmt: skip


def test_a_list_that_can_be_read_only_once_is_read_whole_or_refused(box: Sandbox, one_task: Task) -> None:
    ended = one_task.run(recipients=iter(people(3)))
    if ended.returned is None:
        assert isinstance(ended.error, FAIL)
        assert sent_to(box) == []
    else:
        assert ended.counts == {"accepted": 3}
        assert sent_to(box) == numbers(1, 3)


# What is wrong with some.

WRONG = [
    ({}, "the row: contact_mobile_number is missing"),
    (
        {"contact_mobile_number": "2.01E+11"},
        "contact_mobile_number: a spreadsheet turned this number into exponent form",
    ),
    ({"contact_mobile_number": 447700900123}, "contact_mobile_number: must be text with country code, not int"),
    ({"contact_mobile_number": "0170 1234567"}, "contact_mobile_number: has no country code"),
    ({"contact_mobile_number": ""}, "contact_mobile_number: empty"),
    ({"contact_mobile_number": number(9), "contact_name": 7}, "contact_name: must be text, not int"),
    ({"contact_mobile_number": number(9), "instance_id": 7}, "instance_id: must be text, not int"),
    (["+447700900001"], "the row: each recipient must be a number or a dict with contact_mobile_number; got list"),
    ("no number", "contact_mobile_number: contains letters"),
]


@pytest.mark.parametrize(("row", "reason"), WRONG, ids=[reason for _, reason in WRONG])
def test_a_row_that_is_wrong_stops_no_other(
    box: Sandbox, one_task: Task, tmp_path: Path, row: Any, reason: str
) -> None:
    ended = one_task.run(recipients=[*people(1), row, *people(2)[1:]], message="Hi", report=tmp_path / "report.csv")
    assert sent_to(box) == numbers(1, 2)
    assert ended.counts == {"accepted": 2, "invalid": 1}
    assert isinstance(ended.error, FAIL)
    assert "2 of 3 accepted, 1 " in str(ended.error)
    _, line, _ = read(tmp_path / "report.csv")
    assert line["outcome"] == "invalid"
    assert line["reason"].startswith(reason)


def test_a_column_that_is_missing_names_row_and_column(box: Sandbox, one_task: Task, log: Log) -> None:
    rows = people(3, invoice="7")
    del rows[1]["invoice"]
    ended = one_task.run(recipients=rows, message="Invoice {{ recipient.invoice }}")
    assert ended.counts == {"accepted": 2, "invalid": 1}
    assert sent_to(box) == [number(1), number(3)]
    assert "Row 2 (+44…0002) is invalid: message: this row has no value in column 'invoice'; its columns" in log.text


@pytest.mark.parametrize("field", ["message", "document", "document_name", "media", "media_name"])
def test_a_column_that_is_missing_is_named_wherever_it_stands(
    box: Sandbox, one_task: Task, tmp_path: Path, log: Log, field: str
) -> None:
    (tmp_path / "a").write_text("a")
    given = {"document": str(tmp_path / "a"), "media": str(tmp_path / "a"), field: "{{ recipient.colour }}"}
    rows = people(2)
    rows[0]["colour"] = str(tmp_path / "a")
    ended = one_task.run(recipients=rows, **given)
    assert ended.counts == {"accepted": 1, "invalid": 1}
    assert sent_to(box) == [number(1)]
    assert f"{field}: this row has no value in column 'colour'" in log.text


@pytest.mark.parametrize(
    "message",
    [
        "{{ recipient.name.first }}",
        "{{ 1 / recipient.zero }}",
        "{{ recipient.name + 1 }}",
        "{{ recipient.name | cut }}",
    ],
)
def test_a_template_that_fails_for_one_stops_no_other(box: Sandbox, one_task: Task, message: str) -> None:
    def cut(name: str) -> str:
        raise RuntimeError(f"{name} is too long")

    one_task.dag_options = {"user_defined_filters": {"cut": cut}}
    rows = people(3, zero=0)
    rows[1]["bad"] = "yes"
    ended = one_task.run(
        recipients=rows, message=f"{{% if recipient.bad is defined %}}{message}{{% else %}}Hi{{% endif %}}"
    )
    assert ended.counts == {"accepted": 2, "invalid": 1}
    assert sent_to(box) == [number(1), number(3)]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("Hello {{ recipient.name ", "message: unexpected end of template"),
        ("Hello {{ recipient.name | unheard_of }}", "message: No filter named 'unheard_of'"),
        ("no-such.j2", "message: .*no-such.j2"),
    ],
)
def test_a_template_that_is_wrong_for_all_fails_at_once(box: Sandbox, one_task: Task, message: str, words: str) -> None:
    ended = one_task.run(recipients=people(3), message=message)
    assert isinstance(ended.error, FAIL)
    with pytest.raises(FAIL, match=words):
        raise ended.error
    assert box.calls == []


def test_a_path_that_is_empty_for_one_is_not_taken_for_no_file(
    box: Sandbox, one_task: Task, tmp_path: Path, log: Log
) -> None:
    (tmp_path / "a.pdf").write_text("content")
    rows = [*people(1, file=str(tmp_path / "a.pdf")), *people(2, file="")[1:]]
    ended = one_task.run(recipients=rows, document="{{ recipient.file }}")
    assert ended.counts == {"accepted": 1, "invalid": 1}
    assert "Row 2 (+44…0002) is invalid: document: an empty path" in log.text


def test_files_that_are_missing_or_empty(box: Sandbox, one_task: Task, tmp_path: Path, log: Log) -> None:
    (tmp_path / "Ann 1.pdf").write_text("content")
    (tmp_path / "Ann 2.pdf").touch()
    ended = one_task.run(recipients=people(3), document=tmp_path / "{{ recipient.name }}.pdf", max_failures=2)
    assert ended.counts == {"accepted": 1, "invalid": 2}
    assert "Row 2 (+44…0002) is invalid: document: Ann 2.pdf is empty" in log.text
    assert f"Row 3 (+44…0003) is invalid: document: no such file: {tmp_path}/Ann 3.pdf" in log.text


@pytest.mark.parametrize(
    "arguments",
    [
        {"document": ["a", "b"]},
        {"document": {"path": "a"}},
        {"document": 5},
        {"document": "{{ ds }}", "document_name": 5},
    ],
)
def test_a_value_of_a_wrong_type_is_an_error_that_names_it(
    box: Sandbox, one_task: Task, arguments: dict[str, Any], tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("2026-11-24").write_text("content")
    ended = one_task.run(recipients=people(1), **arguments)
    assert isinstance(ended.error, FAIL)
    name, value = list(arguments.items())[-1]
    wanted = "text" if name == "document_name" else "a path, a URI or an ObjectStoragePath"
    assert f"{name}: must be {wanted}, not {type(value).__name__}" in log.text
    assert box.messages == []


@pytest.mark.parametrize(
    ("recipients", "words"),
    [
        ([], "recipients: empty; there is nobody to send to"),
        (None, "recipients: must be a list of dicts or of numbers, or the path of a file; got NoneType"),
        (
            {"contact_mobile_number": "+447700900001"},
            "recipients: must be a list of dicts or of numbers, or the path of a file; got dict",
        ),
        ("[{'contact_mobile_number': '+447700900001'}]", "recipients: got text that looks like a list"),
        ("/no/such/list.csv", "recipients: no such file: /no/such/list.csv"),
        ("no-such.csv", f"recipients: no such file: no-such.csv (in the working directory, {os.getcwd()})"),
    ],
)
def test_no_list_is_an_error_before_anything_else(box: Sandbox, one_task: Task, recipients: Any, words: str) -> None:
    ended = one_task.run(recipients=recipients)
    assert isinstance(ended.error, FAIL)
    assert words in str(ended.error)
    assert box.calls == []


@pytest.mark.parametrize(
    ("wrong", "allowed", "succeeds"),
    [(1, 0, False), (1, 1, True), (2, 1, False), (3, 0.3, True), (4, 0.3, False), (1, 0.0, False), (0, 0.0, True)],
)
def test_how_many_may_fail(box: Sandbox, one_task: Task, wrong: int, allowed: float, succeeds: bool) -> None:
    rows = people(10)
    for row in rows[:wrong]:
        row["contact_mobile_number"] = "nonsense"
    ended = one_task.run(recipients=rows, max_failures=allowed)
    assert (ended.returned is not None) is succeeds
    assert ended.summary["invalid"] == wrong
    assert len(box.messages) == 10 - wrong


def test_a_share_is_what_it_says(box: Sandbox, one_task: Task) -> None:
    # 0.29 * 100 is less than 29 in floating-point numbers.
    rows = [{"contact_mobile_number": "nonsense" if row <= 29 else number(row)} for row in range(1, 101)]
    ended = one_task.run(recipients=rows, message="Hi", max_failures=0.29)
    assert ended.returned is not None, ended.error
    assert ended.counts == {"accepted": 71, "invalid": 29}


def test_failed_unknown_and_invalid_count_together_and_duplicates_do_not(box: Sandbox, one_task: Task) -> None:
    box.fail_next("http_413", to=number(1))
    box.fail_next("http_500", to=number(2))
    rows = [*people(5), {"contact_mobile_number": "nonsense"}, *people(1)]
    ended = one_task.run(recipients=rows, message="Hi", max_failures=2)
    assert ended.counts == {"accepted": 3, "failed": 1, "unknown": 1, "invalid": 1, "duplicate": 1}
    assert "3 of 7 accepted, 1 failed, 1 invalid, 1 unknown, 1 duplicate (3 failures, allowed: 2)" in str(ended.error)


# Checking all of it first.


def test_nothing_leaves_if_a_row_is_wrong_and_everything_is_to_be_right(
    box: Sandbox, one_task: Task, tmp_path: Path
) -> None:
    (tmp_path / "Ann 1.pdf").write_text("content")
    rows = [*people(2, invoice="7"), {"contact_mobile_number": "nonsense"}, *people(1)]
    ended = one_task.run(
        recipients=rows,
        message="Invoice {{ recipient.invoice }}",
        document=tmp_path / "{{ recipient.name }}.pdf",
        validate_first=True,
    )
    assert isinstance(ended.error, FAIL)
    for part in (
        "3 rows are wrong (validate_first)",
        f"row 2 (+44…0002): document: no such file: {tmp_path}/Ann 2.pdf",
        "row 3 (no…se): message: this row has no value in column 'invoice'",
        "row 4 (+44…0001): message: this row has no value in column 'invoice'",
    ):
        assert part in str(ended.error)
    assert box.calls == []


def test_a_long_list_of_what_is_wrong_is_cut(one_task: Task) -> None:
    rows = [*people(500), *people(501, invoice="7")[500:]]
    ended = one_task.run(recipients=rows, message="{{ recipient.invoice }}", validate_first=True)
    assert "500 rows are wrong (validate_first)" in str(ended.error)
    assert "row 20 (" in str(ended.error)
    assert "row 21 (" not in str(ended.error)
    assert str(ended.error).count("; and 480 more") == 1


def test_when_everything_is_right_everything_is_sent(box: Sandbox, task: Task) -> None:
    first = task.run(recipients=[*people(2), {"contact_mobile_number": "x", "name": ""}], validate_first=True)
    assert isinstance(first.error, FAIL)
    # Nothing was sent, so the list may change.
    task.clear()
    assert task.run(recipients=people(3), validate_first=True).counts == {"accepted": 3}
    assert sent_to(box) == numbers(1, 3)


def test_what_was_begun_is_not_checked_again(box: Sandbox, task: Task, tmp_path: Path) -> None:
    for row in range(1, 5):
        (tmp_path / f"Ann {row}.pdf").write_text("content")
    box.fail_next("device_disconnected", to=number(3))
    arguments = {"recipients": people(4), "document": tmp_path / "{{ recipient.name }}.pdf", "validate_first": True}
    assert task.run(**arguments).counts == {"accepted": 2, "not_sent": 2}
    # It is no longer needed, and other threads wait for their turn.
    (tmp_path / "Ann 1.pdf").unlink()
    box.connect_device("sandbox-instance")
    assert task.run(**arguments).counts == {"accepted": 4}
    assert sent_to(box) == numbers(1, 4)


# Who has opted out.


@pytest.mark.parametrize(
    "content",
    [
        "+44 (0)7700 900-002\n00447700900004\n",
        "contact_mobile_number;since\n+447700900002;2026\n'+44-7700-900-004;2026\n",
        '["+447700900002", {"contact_mobile_number": "+447700900004"}]',
    ],
    ids=["text", "csv", "json-array"],
)
def test_who_has_opted_out_gets_no_message(box: Sandbox, task: Task, tmp_path: Path, content: str, log: Log) -> None:
    (tmp_path / "2026-11-24.list").write_text(content)
    rows = [*people(5), {"contact_mobile_number": "0044 7700 900002", "name": "Ann"}]
    arguments = {"recipients": rows, "exclude": f"file://{tmp_path}/{{{{ ds }}}}.list", "on_duplicate": "send"}
    ended = task.run(**arguments)
    assert ended.counts == {"accepted": 3, "excluded": 3}
    assert sent_to(box) == [number(1), number(3), number(5)]
    assert number(2) not in log.text


# The quota.


@pytest.mark.parametrize("workers", [1, 4])
def test_the_reserve_is_not_touched_although_nobody_knew_the_quota(workers: int, task: Task) -> None:
    with Sandbox(conversations=7) as box, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_WASSLY_DEFAULT", box.connection)
        box.latency = 0.02
        arguments = {"recipients": people(10), "max_workers": workers, "reserve_conversations": 2}
        ended = task.run(**arguments)
        assert (box.conversations, len(box.messages)) == (2, 5)
        assert ended.counts == {"accepted": 5, "not_sent": 5}
        # The answers may have come in another order.
        assert 2 <= ended.summary["remaining_conversations"] < 2 + workers
        # So that the task's retries are used: somebody may top up.
        assert isinstance(ended.error, WasslyError)
        assert "2 conversations remain and 2 are reserved" in str(ended.error)
        box.conversations = 100
        assert isinstance(task.run(**arguments).error, WasslyError)
        assert len(box.messages) == 5
        WasslyHook().forget_quota()
        assert task.run(**arguments).counts == {"accepted": 10}
        assert sent_to(box) == numbers(1, 10)


def test_a_recorded_quota_that_is_too_low_lets_nothing_leave(box: Sandbox, one_task: Task) -> None:
    one_task.run(recipients=people(1))
    ended = a_task().run(recipients=people(3), reserve_conversations=999)
    assert len(box.messages) == 1
    assert ended.counts == {"not_sent": 3}
    assert "999 conversations remain and 999 are reserved" in str(ended.error)
    assert "call hook.forget_quota()" in str(ended.error)


def test_a_recorded_quota_that_is_old_says_nothing(box: Sandbox, one_task: Task, airflow: Variables) -> None:
    one_task.run(recipients=people(1))
    box.conversations = 1001
    airflow.wait(hours=36)
    ended = a_task().run(recipients=people(3), reserve_conversations=999)
    # The answer to the first message has the true figure.
    assert ended.counts == {"accepted": 2, "not_sent": 1}
    assert box.conversations == 999


def test_without_a_reserve_the_quota_may_be_used_up(one_task: Task) -> None:
    with Sandbox(conversations=3) as box, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_WASSLY_DEFAULT", box.connection)
        ended = one_task.run(recipients=people(30))
        assert len(box.messages) == 3
        # Not all 27 are tried.
        assert ended.summary["accepted"] == 3
        assert 10 <= ended.summary["failed"] <= 12
        assert isinstance(ended.error, WasslyError)
        assert "10 recipients in a row failed" in str(ended.error)


def test_the_quota_is_recorded(box: Sandbox, one_task: Task, airflow: Variables) -> None:
    one_task.run(recipients=people(3))
    reading = json.loads(airflow.values[QUOTA])
    assert (reading["remaining_conversations"], reading["instance_id"]) == (997, "sandbox-instance")


# What stops the whole run.


@pytest.mark.parametrize("workers", [1, 4])
def test_credentials_that_are_not_accepted_any_more(box: Sandbox, task: Task, workers: int, tmp_path: Path) -> None:
    box.fail_next("unauthorized", to=number(8), times=4)
    arguments = {"recipients": people(20), "max_workers": workers, "report": tmp_path / "report.csv"}
    ended = task.run(**arguments)
    assert isinstance(ended.error, FAIL)
    assert "Check the connection's apikey, token, login and password" in str(ended.error)
    outcomes = [line["outcome"] for line in read(tmp_path / "report.csv")]
    assert outcomes.count("accepted") == len(box.messages) < 20
    assert set(outcomes) == {"accepted", "not_sent"}
    assert outcomes[7] == "not_sent"
    task.clear()
    assert task.run(**arguments).counts == {"accepted": 20}
    assert sent_to(box) == numbers(1, 20)


def test_a_token_that_expires_stops_nothing(box: Sandbox, one_task: Task) -> None:
    box.fail_next("token_expired", to=number(5))
    assert one_task.run(recipients=people(20), max_workers=4).counts == {"accepted": 20}
    assert box.logins == 2


def test_a_token_that_is_lost_again_before_it_was_used(box: Sandbox, one_task: Task) -> None:
    """As when several tasks of one account log in at once, and each login invalidates the other's token."""
    box.fail_next("unauthorized", to=number(5), times=2)
    assert one_task.run(recipients=people(20), max_workers=4).counts == {"accepted": 20}
    assert sent_to(box) == numbers(1, 20)


@pytest.mark.parametrize("workers", [1, 4])
def test_a_device_that_is_disconnected_and_comes_back(box: Sandbox, task: Task, workers: int) -> None:
    box.fail_next("device_disconnected", to=number(6))
    ended = task.run(recipients=people(20), max_workers=workers)
    assert isinstance(ended.error, WasslyDeviceDisconnected)
    assert len(box.messages) < 20
    assert ended.counts == {"accepted": len(box.messages), "not_sent": 20 - len(box.messages)}
    box.connect_device("sandbox-instance")
    assert task.run(recipients=people(20), max_workers=workers).counts == {"accepted": 20}
    assert sent_to(box) == numbers(1, 20)


def test_a_device_that_is_disconnected_keeps_the_rows_of_others_going(one_task: Task) -> None:
    on, off = "one", "two"
    with Sandbox(devices=[on, off]) as box, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_WASSLY_DEFAULT", box.connection)
        box.disconnect_device(off)
        rows = [{**row, "instance_id": off if place % 2 == 0 else on} for place, row in enumerate(people(40))]
        ended = one_task.run(recipients=rows)
        assert isinstance(ended.error, WasslyDeviceDisconnected)
        assert ended.counts == {"accepted": 20, "not_sent": 20}
        assert len([call for call in box.calls if call.endpoint == "devices"]) == 1
        box.connect_device(off)
        assert one_task.run(recipients=rows).counts == {"accepted": 40}
        assert sent_to(box) == numbers(1, 40)


def test_an_instance_that_the_account_does_not_have_keeps_the_rows_of_others_going(one_task: Task) -> None:
    with Sandbox(devices=["one"]) as box, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_WASSLY_DEFAULT", box.connection)
        rows = [{**row, "instance_id": "ohne" if place < 20 else "one"} for place, row in enumerate(people(40))]
        ended = one_task.run(recipients=rows)
        assert isinstance(ended.error, FAIL)
        assert "the account has no instance ohne; its instances: one" in str(ended.error)
        assert ended.counts == {"accepted": 20, "not_sent": 20}
        assert len([call for call in box.calls if call.endpoint == "send"]) <= 22
        one_task.clear()
        assert one_task.run(recipients=[{**row, "instance_id": "one"} for row in rows]).counts == {"accepted": 40}
        assert sent_to(box) == numbers(1, 40)


def test_a_message_that_wassly_does_not_take_is_not_sent_to_everybody(box: Sandbox, task: Task, log: Log) -> None:
    box.fail_next("http_413", times=1000)
    ended = task.run(recipients=people(300))
    assert isinstance(ended.error, FAIL)
    assert "the first 20 recipients were all refused for the same reason, so the recipients are not the cause: " in str(
        ended.error
    )
    assert "Clearing the task resumes without sending to anyone twice" in str(ended.error)
    assert "retry" not in str(ended.error)
    calls = Counter(call.endpoint for call in box.calls)
    assert 20 <= calls["send"] <= 22
    assert calls["devices"] == 1
    box.clear_faults()
    task.clear()
    assert task.run(recipients=people(300)).counts["accepted"] >= 298


def test_a_service_that_is_away_is_not_asked_for_everybody(box: Sandbox, task: Task, log: Log) -> None:
    box.fail_next("maintenance", times=1000, retry_after="0")
    ended = task.run(recipients=people(50))
    box.clear_faults()
    assert isinstance(ended.error, WasslyError)
    # The next message can be on its way when the tenth is known to have failed.
    failed = ended.counts["failed"]
    assert failed in (10, 11)
    assert ended.counts == {"failed": failed, "not_sent": 50 - failed}
    assert "10 recipients in a row failed" in str(ended.error)
    assert task.run(recipients=people(50)).counts == {"accepted": 50}
    assert sent_to(box) == numbers(1, 50)


@pytest.mark.realtime
def test_too_many_requests_hold_all_workers(box: Sandbox, one_task: Task) -> None:
    box.latency = 0.05
    box.fail_next("http_429", to=number(5), retry_after="1")
    ended = one_task.run(recipients=people(16), max_workers=4)
    assert ended.counts == {"accepted": 16}
    (refused,) = [call for call in box.calls if call.fault == "http_429"]
    assert refused.finished_at is not None
    # Messages already on the way continue, and no other leaves.
    end = refused.finished_at + timedelta(seconds=0.95)
    assert sum(refused.finished_at < call.started_at < end for call in box.calls) <= 3


@pytest.mark.realtime
@pytest.mark.parametrize("arguments", [{}, {"max_workers": 4}])
def test_the_pace_is_kept(box: Sandbox, one_task: Task, arguments: dict[str, Any]) -> None:
    began = time.monotonic()
    one_task.run(recipients=people(6), messages_per_minute=600, jitter=0, **arguments)
    # Five gaps, of which the first can be a little shorter.
    assert time.monotonic() - began >= 0.49


# Unknown outcomes.


@pytest.mark.parametrize("fault", ["http_500", "hang_after_accept", "reset_after_body", "not_json"])
def test_an_unknown_outcome_fails_the_task_and_is_left_alone(
    box: Sandbox, task: Task, fault: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    connection = json.loads(box.connection)
    connection["extra"]["read_timeout"] = 0.3
    monkeypatch.setenv("AIRFLOW_CONN_WASSLY_DEFAULT", json.dumps(connection))
    box.fail_next(fault, to=number(2), record=True)
    arguments = {"recipients": people(3), "report": tmp_path / "report.csv"}
    ended = task.run(**arguments)
    assert isinstance(ended.error, FAIL)
    assert ended.counts == {"accepted": 2, "unknown": 1}
    assert [line["outcome"] for line in read(tmp_path / "report.csv")] == ["accepted", "unknown", "accepted"]
    for clear in (False, True):
        if clear:
            task.clear()
        again = task.run(**arguments)
        assert again.counts == {"accepted": 2, "unknown": 1}
        assert sent_to(box) == numbers(1, 3)


def test_an_unknown_outcome_can_be_ignored(box: Sandbox, task: Task) -> None:
    box.fail_next("http_500", to=number(2))
    ended = task.run(recipients=people(3), on_outcome_unknown="ignore")
    assert ended.returned is not None
    assert ended.counts == {"accepted": 2, "unknown": 1}
    assert sent_to(box) == [number(1), number(3)]


def test_an_unknown_outcome_can_be_sent_again(box: Sandbox, task: Task) -> None:
    box.fail_next("http_500", to=number(2), record=True)
    arguments = {"recipients": people(3), "on_outcome_unknown": "retry"}
    ended = task.run(**arguments)
    # So that the task's retries are used.
    assert isinstance(ended.error, WasslyError)
    assert ended.counts == {"accepted": 2, "unknown": 1}
    assert task.run(**arguments).counts == {"accepted": 3}
    assert Counter(sent_to(box)) == {number(1): 1, number(2): 2, number(3): 1}


# The report and the summary.


def test_the_report(box: Sandbox, one_task: Task, tmp_path: Path) -> None:
    box.fail_next("rejected", to=number(2))
    rows = [*people(2), {"contact_mobile_number": "+44 7700 900001"}, {"contact_mobile_number": "12"}, *people(3)[2:]]
    ended = one_task.run(recipients=rows, message="Hi", max_failures=2, report=tmp_path / "{{ ds }}.csv")
    assert ended.summary["report"] == str(tmp_path / "2026-11-24.csv")
    assert os.listdir(tmp_path) == ["2026-11-24.csv"]
    lines = [list(line.values()) for line in read(tmp_path / "2026-11-24.csv")]
    assert [line[:4] for line in lines] == [
        ["1", "+44…0001", "accepted", "1"],
        ["2", "+44…0002", "failed", ""],
        ["3", "+44…0001", "duplicate", ""],
        ["4", "12", "invalid", ""],
        ["5", "+44…0003", "accepted", "2"],
    ]
    assert "Rejected by the sandbox" in lines[1][4]
    assert "has no country code" in lines[3][4]


def test_the_report_with_whole_numbers(one_task: Task, tmp_path: Path) -> None:
    rows = [*people(1), {"contact_mobile_number": "+44 7700 900001"}, {"contact_mobile_number": "12"}]
    one_task.run(recipients=rows, message="Hi", report=tmp_path / "report.csv", report_numbers="full")
    assert [line["contact_mobile_number"] for line in read(tmp_path / "report.csv")] == [
        number(1), "+44 7700 900001", "12",
    ]  # fmt: skip


def test_a_report_is_the_list_of_the_next_broadcast(box: Sandbox, one_task: Task, tmp_path: Path) -> None:
    rows = [
        *people(2),
        {"contact_mobile_number": "+44-7700-900-003"},
        {"contact_mobile_number": "＋44 (0)7700/900004"},
        {"contact_mobile_number": "12"},
        {"contact_mobile_number": "+44-7700-900-005"},
    ]
    box.fail_next("http_413", to=number(2))
    box.fail_next("http_413", to=number(3))
    box.fail_next("http_500", to=number(4))
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    common = {"message": "Hi", "report_numbers": "full", "exclude": [number(5)]}
    ended = one_task.run(recipients=rows, report=first, max_failures=5, **common)
    assert ended.counts == {"accepted": 1, "failed": 2, "invalid": 1, "unknown": 1, "excluded": 1}
    assert read(first)[2]["contact_mobile_number"] == "'+44-7700-900-003"
    # Those of one outcome, as the guide filters them.
    failed = [row["contact_mobile_number"] for row in read(first) if row["outcome"] == "failed"]
    one_task.make_again()
    assert one_task.run(recipients=failed, **common).counts == {"accepted": 2}
    assert sent_to(box) == numbers(1, 3)
    # All of them, its columns in the message.
    one_task.make_again()
    box.reset()
    common["message"] = "{{ recipient.outcome }}"
    assert one_task.run(recipients=first, report=second, max_failures=1, **common).counts == {
        **{"accepted": 4, "invalid": 1, "excluded": 1}
    }
    assert texts(box) == {number(1): "accepted", number(2): "failed", number(3): "failed", number(4): "unknown"}
    assert [row["contact_mobile_number"] for row in read(second)] == [
        row["contact_mobile_number"] for row in read(first)
    ]


def test_a_report_that_hides_the_numbers_is_no_list(box: Sandbox, one_task: Task, tmp_path: Path) -> None:
    one_task.run(recipients=people(2), report=tmp_path / "report.csv")
    one_task.make_again()
    before = len(box.calls)
    ended = one_task.run(recipients=tmp_path / "report.csv", message="Hi")
    assert isinstance(ended.error, FAIL)
    assert str(ended.error) == (
        "Nothing was sent: recipients: the numbers are shortened (+44…0123), as in a report with "
        'report_numbers="short"; write that report with report_numbers="full", or pass its unsent file.'
    )
    assert len(box.calls) == before


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("no-such-folder/report.csv", "no such folder:"),
        (".", "it is a folder"),
        ("/proc/report.csv", "report: /proc/report.csv cannot be written"),
        ("unheardof://bucket/report.csv", "report: unheardof://bucket/report.csv cannot be written"),
    ],
)
def test_a_report_that_cannot_be_written_lets_nothing_leave(
    box: Sandbox, one_task: Task, tmp_path: Path, place: str, words: str
) -> None:
    ended = one_task.run(recipients=people(2), report=place if ":" in place else str(tmp_path / place))
    assert isinstance(ended.error, FAIL)
    assert words in str(ended.error)
    assert box.calls == []


def test_a_report_that_cannot_be_written_any_more_is_written_by_a_retry(
    box: Sandbox, task: Task, tmp_path: Path
) -> None:
    folder = tmp_path / "reports"
    folder.mkdir()
    arguments = {"recipients": people(3), "report": folder / "report.csv"}
    with signalled(lambda: len(box.messages) > 1, folder.rmdir):
        box.latency = 0.1
        ended = task.run(**arguments)
    assert isinstance(ended.error, WasslyError)
    assert f": could not save {folder}/report.csv (" in str(ended.error)
    assert ended.counts == {"accepted": 3}
    folder.mkdir()
    assert task.run(**arguments).counts == {"accepted": 3}
    assert [line["outcome"] for line in read(folder / "report.csv")] == ["accepted"] * 3
    assert sent_to(box) == numbers(1, 3)


def test_what_a_task_that_failed_has_done_can_be_pulled(box: Sandbox, one_task: Task, tmp_path: Path) -> None:
    box.fail_next("http_413", to=number(2))
    ended = one_task.run(recipients=people(3), report=tmp_path / "report.csv")
    assert isinstance(ended.error, FAIL)
    pushed = ended.pushed["return_value"]
    assert {
        name: pushed[name] for name in ("recipients", "accepted", "failed", "remaining_conversations", "report")
    } == {
        "recipients": 3,
        "accepted": 2,
        "failed": 1,
        "remaining_conversations": 998,
        "report": str(tmp_path / "report.csv"),
    }


def test_a_task_that_is_to_push_nothing_pushes_nothing(box: Sandbox, one_task: Task) -> None:
    box.fail_next("http_413", to=number(2))
    ended = one_task.run(recipients=people(3), do_xcom_push=False)
    assert isinstance(ended.error, FAIL)
    assert ended.pushed == {}


def test_that_the_summary_cannot_be_pushed_does_not_hide_what_happened(box: Sandbox, one_task: Task, log: Log) -> None:
    one_task.airflow_answers = False
    box.fail_next("http_413", to=number(2))
    ended = one_task.run(recipients=people(3))
    assert isinstance(ended.error, FAIL)
    assert "2 of 3 accepted, 1 " in str(ended.error)
    assert "Could not push the summary: ConnectionError: 409: the task was cleared" in log.text


# One try after the other.


def test_a_task_that_succeeded_is_not_repeated_by_a_retry_and_is_by_clearing(
    box: Sandbox, task: Task, airflow: Variables, log: Log
) -> None:
    # Its process is killed before Airflow has written down the success.
    task.airflow_answers = False
    first = task.run(recipients=people(3))
    assert first.counts == {"accepted": 3}
    task.airflow_answers = True
    assert task.run(recipients=people(3)).counts == {"accepted": 3}
    assert "Nothing left to send: earlier attempts sent to everyone" in log.text
    assert sent_to(box) == numbers(1, 3)
    assert [key for key in airflow.values if key != QUOTA] == []
    task.clear()
    # A list of its own, because it begins anew.
    assert task.run(recipients=people(5)[1:]).counts == {"accepted": 4}
    assert sent_to(box) == sorted(numbers(1, 3) + numbers(2, 5))


def test_what_failed_for_good_is_tried_again_after_clearing_only(box: Sandbox, task: Task) -> None:
    box.fail_next("http_413", to=number(2))
    box.fail_next("rejected", to=number(3))
    ended = task.run(recipients=people(4))
    # One of them may pass.
    assert isinstance(ended.error, WasslyError)
    assert ended.counts == {"accepted": 2, "failed": 2}
    retried = task.run(recipients=people(4))
    assert isinstance(retried.error, FAIL)
    assert retried.counts == {"accepted": 3, "failed": 1}
    assert sent_to(box) == [number(1), number(3), number(4)]
    task.clear()
    assert task.run(recipients=people(4)).counts == {"accepted": 4}
    assert sent_to(box) == numbers(1, 4)


def test_rows_that_were_wrong_are_looked_at_again(box: Sandbox, task: Task, tmp_path: Path) -> None:
    arguments = {"recipients": people(3), "document": tmp_path / "{{ recipient.name }}.pdf"}
    (tmp_path / "Ann 2.pdf").write_text("content")
    assert task.run(**arguments).counts == {"accepted": 1, "invalid": 2}
    (tmp_path / "Ann 1.pdf").write_text("content")
    (tmp_path / "Ann 3.pdf").write_text("content")
    task.clear()
    assert task.run(**arguments).counts == {"accepted": 3}
    assert sent_to(box) == numbers(1, 3)


def test_the_report_of_a_later_try_tells_of_all_tries(box: Sandbox, task: Task, tmp_path: Path) -> None:
    box.fail_next("device_disconnected", to=number(3))
    arguments = {"recipients": people(5), "report": tmp_path / "report.csv", "report_numbers": "full"}
    assert task.run(**arguments).counts == {"accepted": 2, "not_sent": 3}
    box.connect_device("sandbox-instance")
    ended = task.run(**arguments)
    by_number = {message.contact_mobile_number: str(message.conversation_id) for message in box.messages}
    assert [list(line.values())[:4] for line in read(tmp_path / "report.csv")] == [
        [str(row), number(row), "accepted", by_number[number(row)]] for row in range(1, 6)
    ]
    assert ended.summary["accepted"] == 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[::-1], "in rows 1 to 6, numbers that were already sent to have changed"),
        (lambda rows: rows[1:], "in rows 1 to 5, numbers that were already sent to have changed"),
        (lambda rows: rows[:1], "row 2 was sent to, but is gone"),
        (
            lambda rows: [{**rows[0], "contact_mobile_number": number(99)}, *rows[1:]],
            "in rows 1 to 6, numbers that were already sent to",
        ),
    ],
    ids=["order", "without its first", "shorter", "other"],
)
def test_another_list_is_not_taken_for_the_first_one(box: Sandbox, task: Task, change: Any, words: str) -> None:
    box.fail_next("device_disconnected", to=number(3))
    task.run(recipients=people(6))
    box.connect_device("sandbox-instance")
    ended = task.run(recipients=change(people(6)))
    assert isinstance(ended.error, FAIL)
    assert f"recipients: {words}" in str(ended.error)
    assert "(earlier attempts: 2 accepted, 0 unknown)" in str(ended.error)
    assert sent_to(box) == numbers(1, 2)
    task.clear()
    # The other columns may change.
    assert task.run(recipients=people(6, name="Bea")).counts == {"accepted": 6}
    assert sent_to(box) == numbers(1, 6)
    assert texts(box)[number(6)] == "Hello Bea"


# In the middle of sending.


@pytest.mark.realtime
@pytest.mark.parametrize("workers", [1, 3])
def test_a_timeout_leaves_nobody_of_whom_nobody_knows(box: Sandbox, task: Task, workers: int) -> None:
    box.latency = 0.1
    with signalled(lambda: len(box.messages) >= 4, stop):
        ended = task.run(recipients=people(30), max_workers=workers)
    assert isinstance(ended.error, Stopped)
    assert 4 <= len(box.messages) < 30
    box.latency = 0
    assert task.run(recipients=people(30), max_workers=workers).counts == {"accepted": 30}
    assert sent_to(box) == numbers(1, 30)


@pytest.mark.realtime
# A thread interrupted while it starts is started again, and Python complains about the second start.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_timeouts_at_any_moment(box: Sandbox, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    # Airflow runs each try in a separate process, so no try finds what another one's interruption left behind: a lock
    # of phonenumbers that is still locked, a module that is half imported.
    monkeypatch.setattr(client_numbers, "_without_trunk_prefix", client_numbers.ReadNumber)
    task.run(recipients=[])
    tries = 0
    while not task.has_succeeded:
        tries += 1
        try:
            # More time in each round, so that it ends on a slow machine too.
            with signalled(after(0.02 + 0.0037 * (tries % 7) + 0.001 * tries), stop):
                task.run(recipients=people(60), max_workers=3)
        except Stopped:  # before the try had begun, or after its end
            pass
    assert tries > 1
    assert sent_to(box) == numbers(1, 60)


@pytest.mark.realtime
@pytest.mark.parametrize("raises", [False, True], ids=["as on 3", "as on 2"])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_task_that_is_stopped_leaves_nobody_of_whom_nobody_knows(
    box: Sandbox, task: Task, workers: int, raises: bool
) -> None:
    before: list[int] = []

    def kill() -> None:
        before.append(len(box.messages))
        task.kill()
        if raises:
            raise Stopped

    box.latency = 0.1
    with signalled(lambda: len(box.messages) >= 4, kill):
        ended = task.run(recipients=people(12), max_workers=workers)
    assert isinstance(ended.error, Stopped if raises else WasslyBroadcastIncomplete)
    # The messages that were on the way.
    assert len(box.messages) <= before[0] + workers
    box.latency = 0
    assert task.run(recipients=people(12), max_workers=workers).counts == {"accepted": 12}
    assert sent_to(box) == numbers(1, 12)


@pytest.mark.realtime
def test_a_task_that_is_stopped_does_not_wait_for_an_answer_that_does_not_come(
    box: Sandbox, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "seconds_after_sigterm", lambda: 0.5)
    connection = json.loads(box.connection)
    connection["extra"]["read_timeout"] = 15
    monkeypatch.setenv("AIRFLOW_CONN_WASSLY_DEFAULT", json.dumps(connection))
    box.fail_next("hang_after_accept", to=number(3))
    killed_at: list[float] = []

    def kill() -> None:
        killed_at.append(time.monotonic())
        task.kill()

    with signalled(lambda: len(box.messages) >= 3, kill):
        ended = task.run(recipients=people(5))
        ended_at = time.monotonic()
    assert isinstance(ended.error, WasslyBroadcastIncomplete)
    assert ended_at - killed_at[0] < 10
    again = task.run(recipients=people(5))
    assert again.counts == {"accepted": 4, "unknown": 1}
    assert sent_to(box) == numbers(1, 5)


def test_a_task_that_is_stopped_before_it_begins_sends_nothing(box: Sandbox, one_task: Task) -> None:
    class Slow(list[Any]):
        """A slow list: the task is stopped while it is being read."""

        def __iter__(self) -> Iterator[Any]:
            one_task.kill()
            return super().__iter__()

    ended = one_task.run(recipients=Slow(people(3)))
    assert isinstance(ended.error, WasslyBroadcastIncomplete)
    assert box.messages == []


# What is logged, and what is not.


def test_the_log_says_how_long_it_will_take(box: Sandbox, one_task: Task, log: Log) -> None:
    with signalled(lambda: len(box.messages) >= 1, stop):
        one_task.run(recipients=people(90), messages_per_minute=10)
    assert re.search(
        r"Sending to up to 90 recipients at 10 messages per minute: done to\w+ at \d\d:\d\d, in about 0:09:00", log.text
    )


@pytest.mark.realtime
def test_progress_is_told_now_and_then(box: Sandbox, one_task: Task, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LINES", ((math.inf, 0.3),))
    box.latency = 0.05
    box.fail_next("http_413", to=number(1))
    ended = one_task.run(recipients=people(20), max_failures=1)
    # Some versions of Airflow print what others only log, and some do both.
    lines = list(
        dict.fromkeys(re.findall("[0-9]+ of 20 recipients done: .*?(?= \\[airflow|$)", log.text, re.MULTILINE))
    )
    assert 1 <= len(lines) <= ended.summary["duration"] / 0.3 + 2
    assert any(re.search("per minute, done to[a-z]+ at [0-9:]+, in about 0:00:0", line) for line in lines)
    assert "Broadcast ended: 19 of 20 accepted, 1 failed; 981 conversations remain" in log.text


def last(log: Log) -> str:
    """Return the last line of the log without Airflow's prefix and suffix."""
    text = log.text.strip().splitlines()[-1]
    return re.sub(r"^.*?\] +(?=\S)| \[airflow.*$", "", text)


@pytest.mark.parametrize("unsent", [{}, {"unsent": "unsent.csv"}])
def test_the_last_line_says_how_many_there_were_of_each_and_where_the_report_is(
    box: Sandbox, one_task: Task, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unsent: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    box.fail_next("http_413", to=number(1))
    report = tmp_path / "report.csv"
    places = f". Report: {report}" + (". Unsent: unsent.csv" if unsent else "")
    one_task.run(recipients=people(5), max_failures=1, report=report, **unsent)
    assert f"Broadcast ended: 4 of 5 accepted, 1 failed; 996 conversations remain{places}" in last(log)


def test_the_error_says_how_many_there_were_of_each_and_where_the_report_is(
    box: Sandbox, one_task: Task, tmp_path: Path
) -> None:
    box.fail_next("http_413", to=number(1))
    report = tmp_path / "report.csv"
    ended = one_task.run(recipients=people(5), report=report)
    assert f"4 of 5 accepted, 1 failed (allowed: 0). Report: {report}. " in str(ended.error)


def test_a_task_that_airflow_ends_says_so_too(box: Sandbox, one_task: Task, log: Log, tmp_path: Path) -> None:
    with signalled(lambda: len(box.messages) >= 1, stop):
        one_task.run(recipients=people(90), messages_per_minute=10, report=tmp_path / "report.csv")
    words = f"Broadcast ended: 1 of 90 accepted, 89 not sent; 999 conversations remain. Report: {tmp_path}/report.csv"
    assert words in log.text


def test_a_report_that_could_not_be_saved_is_not_where_the_error_says(
    box: Sandbox, one_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    ended = one_task.run(recipients=people(2), report=tmp_path / "report.csv")
    assert f": could not save {tmp_path}/report.csv (OSError: [Errno 28] No space left on device)" in str(ended.error)
    assert ". Report: " not in str(ended.error)


def test_no_number_no_text_and_no_secret_is_told_or_kept(
    box: Sandbox, task: Task, airflow: Variables, tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens: list[str] = []
    login = ServiceState.login

    def noting_login(store: ServiceState) -> str:
        tokens.append(login(store))
        return tokens[-1]

    monkeypatch.setattr(ServiceState, "login", noting_login)
    (tmp_path / number(1)).write_text("content")
    faults = ("http_500", "http_413", "rejected", "token_expired", "http_502_html")
    for row, fault in enumerate(faults, 2):
        box.fail_next(fault, to=number(row))
    for row in range(2, 10):
        (tmp_path / number(row)).write_text("content")
    box.fail_next("device_disconnected", to=number(7))
    one = task.run(
        recipients=people(9, secret="S3cret word"),
        message="{{ recipient.secret }}",
        document=tmp_path / "{{ recipient.contact_mobile_number }}",
        document_name="report.pdf",
        report=tmp_path / "report.csv",
        max_workers=2,
    )
    kept = json.dumps(airflow.values) + task.kept()
    assert "wassly_broadcast__0" in kept
    told = log.text + str(one.error) + repr(one.error) + json.dumps(one.pushed)
    assert "Row 3 (+44…0003) failed" in told
    assert len(tokens) == 2
    for text in (told, kept, (tmp_path / "report.csv").read_text()):
        for nobodys_business in ("7700900", "S3cret", "sandbox-apikey", "sandbox-password", "Ann ", *tokens):
            assert nobodys_business not in text


def test_a_number_in_a_path_is_shortened_too(box: Sandbox, one_task: Task, tmp_path: Path, log: Log) -> None:
    for first in (False, True):
        ended = one_task.run(
            recipients=people(2),
            document=tmp_path / "{{ recipient.contact_mobile_number }}.pdf",
            report=tmp_path / "report.csv",
            validate_first=first,
        )
        assert number(1)[1:] not in log.text + str(ended.error)
    assert "/+44…0001.pdf" in log.text
    assert number(1)[1:] not in (tmp_path / "report.csv").read_text()


def test_airflow_is_called_in_the_main_thread_or_while_it_waits(
    box: Sandbox, one_task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Before 3.2, Airflow's answers to other threads can get lost.
    called: list[tuple[str, str]] = []

    def noting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            called.append((name, threading.current_thread().name))
            return function(*args, **kwargs)

        return call

    names = {
        "mask_secret": masking,
        "get_variable": variables,
        "set_variable": variables,
        "object_storage_path": object_storage,
        "count": metrics,
        "gauge": metrics,
    }
    for name, module in names.items():
        monkeypatch.setattr(module, name, noting(name, getattr(module, name)))
    get_connection = staticmethod(noting("get_connection", WasslyHook.get_connection))
    monkeypatch.setattr(WasslyHook, "get_connection", get_connection)
    storage = Storage()
    attach("memory", "store_2", storage)
    storage.pipe("/bucket/flyer.pdf", b"content")
    box.fail_next("token_expired", to=number(9))
    box.fail_next("rejected", to=number(10))
    one_task.run(
        recipients=people(20),
        document="memory://bucket/flyer.pdf",
        attachment_conn_id="store_2",
        max_workers=4,
        reserve_conversations=5,
    )
    assert {name for name, _ in called} >= {*names, "get_connection"}
    here = threading.current_thread().name
    # The record has its own thread, and the main thread waits for it to end.
    assert {thread for _, thread in called} <= {here, "wassly-send-record"}
    assert {name for name, thread in called if thread != here} <= {"get_variable", "set_variable"}


def test_each_message_is_counted(box: Sandbox, one_task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: Counter[str] = Counter()
    monkeypatch.setattr(metrics, "count", lambda name, tags: counted.update([name]))
    box.fail_next("http_413", to=number(2))
    box.fail_next("http_500", to=number(3))
    one_task.run(recipients=[*people(4), {"contact_mobile_number": "nonsense"}], message="Hi")
    assert counted == {"wassly.messages.accepted": 2, "wassly.messages.not_accepted": 1, "wassly.messages.unknown": 1}
