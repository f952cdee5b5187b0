"""What a broadcast task does from its first try to its end, and what it logs."""

from __future__ import annotations

import csv
import math
import os
from collections import Counter
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_wassly.airflow_compat import exceptions, metrics, tasks, templates
from airflow_provider_wassly.broadcast import progress as progress_module
from airflow_provider_wassly.broadcast.run import WasslyBroadcastIncomplete
from airflow_provider_wassly.client import Device, WasslyDeviceDisconnected, WasslyError
from airflow_provider_wassly.hooks.wassly import WasslyHook
from airflow_provider_wassly.operators.broadcast import WasslyBroadcastOperator
from tests.support.kept import HAS_TASK_STATE_STORE, Kept
from tests.support.log import Log
from tests.support.service import Service
from tests.support.task import Stopped, Task
from tests.support.variables import Variables

try:
    from airflow.sdk import task as airflow_task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task as airflow_task  # type: ignore[no-redef, attr-defined]

FAIL = type(exceptions.fail_exception(""))


def number(row: int) -> str:
    return f"+4477009{row:05}"


def people(count: int, **columns: Any) -> list[dict[str, Any]]:
    return [{"contact_mobile_number": number(row), "name": f"Ann {row}", **columns} for row in range(1, count + 1)]


@pytest.fixture(params=["state", "variables"] if HAS_TASK_STATE_STORE else ["variables"])
def task(request: pytest.FixtureRequest, service: Service, monkeypatch: pytest.MonkeyPatch) -> Task:
    """A broadcast task, for each kind of store that this Airflow can have."""
    listeners: list[Callable[[Any, bool], None]] = []
    monkeypatch.setattr(tasks, "listen_for_end", listeners.append)
    state = Kept() if request.param == "state" else None
    return Task(WasslyBroadcastOperator, state, listeners, message="Hello {{ recipient.name }}", jitter=0)


def read(report: Path) -> list[list[str]]:
    with report.open(newline="", encoding="utf-8-sig") as file:
        return [row[:3] for row in csv.reader(file)][1:]


def test_everybody_gets_their_own_text_at_the_pace(task: Task, service: Service, tmp_path: Path) -> None:
    ended = task.run(recipients=people(11), report=tmp_path / "{{ ds }}.csv")
    assert {message.contact_mobile_number: message.texts["message"] for message in service.messages} == {
        number(row): f"Hello Ann {row}" for row in range(1, 12)
    }
    # Ten gaps of six seconds, of which the first is a little shorter.
    assert ended.summary["duration"] == pytest.approx(60, abs=1)
    assert ended.summary["report"] == str(tmp_path / "2026-11-24.csv")
    assert read(tmp_path / "2026-11-24.csv") == [[str(row), f"+44…{row:04}", "accepted"] for row in range(1, 12)]


def test_files_and_names_are_those_of_each_recipient(task: Task, service: Service, tmp_path: Path) -> None:
    for row in (1, 2):
        (tmp_path / f"Ann {row}.pdf").write_text("content")
        (tmp_path / f"Ann {row}.png").write_text("content")
    task.run(
        recipients=people(2),
        document=tmp_path / "{{ recipient.name }}.pdf",
        document_name="Invoice of {{ recipient.name }}.pdf",
        document_content_type="application/x-of-{{ recipient.name | replace(' ', '') }}",
        media=tmp_path / "{{ recipient.name }}.png",
        media_name="Photo",
    )
    assert [
        {name: (file.name, file.content_type) for name, file in message.files.items()} for message in service.messages
    ] == [
        {
            "document": (f"Invoice of Ann {row}.pdf", f"application/x-of-Ann{row}"),
            "media": ("Photo.png", "image/png"),
        }
        for row in (1, 2)
    ]


def test_a_row_names_its_device_or_else_the_task_or_else_the_connection(task: Task, service: Service) -> None:
    rows = people(3)
    rows[0]["instance_id"] = "of the row"
    rows[1]["instance_id"] = " "
    task.run(recipients=rows, instance_id="of the task")
    assert [message.instance_id for message in service.messages] == ["of the row", "of the task", "of the task"]


def test_a_message_file_is_rendered_for_each(task: Task, service: Service, tmp_path: Path) -> None:
    (tmp_path / "text.j2").write_text("Dear {{ recipient.name }}, it is {{ ds }}")
    task.dag_options = {"template_searchpath": str(tmp_path)}
    task.run(recipients=people(1), message="text.j2")
    assert service.messages[0].texts["message"] == "Dear Ann 1, it is 2026-11-24"


def test_a_template_is_read_once_for_the_whole_list(
    task: Task, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    template_of = templates.template_of

    def reading(name: str, content: str, env: Any) -> Any:
        read.append(content)
        return template_of(name, content, env)

    (tmp_path / "1.pdf").write_text("content")
    monkeypatch.setattr(templates, "template_of", reading)
    document = f"{tmp_path}/{{{{ recipient.name[-1:] }}}}.pdf"
    names = {"document": document, "document_name": "for {{ recipient.name }}"}
    assert task.run(recipients=[people(1)[0], {**people(2)[1], "name": "Bea 1"}], **names).counts == {"accepted": 2}
    assert sorted(text for text in read if "recipient" in text) == sorted(
        ["Hello {{ recipient.name }}", *names.values()]
    )


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("{{ recipient.name ", "message: unexpected end of template"),
        ("{{ recipient.name | unheard_of }}", "message: No filter named 'unheard_of'"),
        ("no-such.j2", "message: .*no-such.j2"),
        (
            "Dear {{ recipient.nam }}",
            r"message: uses recipient\.nam, but the list has no such column; "
            "its columns: contact_mobile_number, name",
        ),
        (
            "{% if recipient['vip'] %}Dear{% endif %} you",
            r"message: uses recipient\.vip, but the list has no such col",
        ),
    ],
)
def test_a_template_that_is_wrong_for_all_fails_before_anything_is_sent(
    task: Task, service: Service, message: str, words: str
) -> None:
    ended = task.run(recipients=people(2), message=message)
    with pytest.raises(FAIL, match=words):
        raise ended.error
    assert service.calls == []


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"message": "Dear {{ recipent.name }}"}, "message: uses recipent, which is not defined"),
        ({"message": "{{ recipient.name }} {{ ds_nodashh }}"}, "message: uses ds_nodashh, which is not defined"),
        ({"message": "{{ 1 / 0 }}"}, "message: ZeroDivisionError"),
        ({"message": "   "}, "message: nothing to send: a message of white space only"),
        ({"message": 12}, "message: must be text, not int"),
        ({"document": "/nope.pdf"}, "document: no such file: /nope.pdf"),
        ({"document": "/nope.pdf", "message": "{{ recipient.name }}"}, "document: no such file: /nope.pdf"),
        ({"media": __file__, "media_content_type": "blah"}, "media_content_type: "),
    ],
)
def test_what_is_wrong_for_all_is_no_error_of_each_row(
    task: Task, service: Service, parameters: dict[str, Any], words: str
) -> None:
    ended = task.run(recipients=people(3), **parameters)
    assert isinstance(ended.error, FAIL)
    assert f"Nothing was sent: {words}" in str(ended.error)
    assert service.calls == []


@pytest.mark.parametrize(
    "message",
    [
        "{{ greeting | default('Hello') }} {{ recipient.name }}",
        "{% if greeting is defined %}{{ greeting }}{% endif %} {{ recipient.name }}",
        # Runs without a logical date have no such names.
        "{% if dag_run.logical_date is defined %}{{ ts_nodash }}{% endif %} {{ recipient.name }}",
        "{% macro dear(recipient) %}Dear {{ recipient.nam }}{% endmacro %}{{ dear({'nam': 'Ann'}) }}",
        "{% set greeting = 'Hello' %}{{ greeting }} {{ range(3) | list }} {{ ds }}",
    ],
)
def test_names_that_a_template_can_do_without_or_makes_itself_may_be_unknown(
    task: Task, service: Service, message: str
) -> None:
    assert task.run(recipients=people(2), message=message).counts == {"accepted": 2}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"report": ""}, "report: the path is empty"),
        ({"unsent": "  "}, "unsent: the path is empty"),
        ({"report": 5}, "report: must be a path or a URI; got int"),
        ({"report": "list.csv"}, "report: the same file as recipients, which it would overwrite"),
        ({"unsent": "./list.csv"}, "unsent: the same file as recipients, which it would overwrite"),
        (
            {"exclude": "opt-outs.txt", "report": "./opt-outs.txt"},
            "report: the same file as exclude, which it would overwrite; give it its own path",
        ),
        (
            {"exclude": "opt-outs.txt", "unsent": "opt-outs.txt"},
            "unsent: the same file as exclude, which it would overwrite; give it its own path",
        ),
        ({"exclude": "missing.txt"}, "exclude: no such file: "),
        (
            {"exclude": ["+447700900001", "nobody"]},
            "exclude: 1 row cannot be read; correct it: row 2 (no…dy): contains",
        ),
        ({"unsent": "x.csv", "report": "x.csv"}, "unsent: the same file as report, which it would overwrite"),
    ],
)
def test_no_output_overwrites_the_list_or_another_one(
    task: Task,
    service: Service,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: dict[str, Any],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.csv").write_text(f"contact_mobile_number,name\n{number(1)},Ann\n")
    (tmp_path / "opt-outs.txt").write_text(f"{number(2)}\n")
    ended = task.run(recipients=str(tmp_path / "list.csv"), **arguments)
    assert isinstance(ended.error, FAIL)
    assert words in str(ended.error)
    assert service.calls == []


# Opt-outs.


def test_who_has_opted_out_gets_no_message_and_is_not_left_for_later(
    task: Task, service: Service, tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: Counter[str] = Counter()
    monkeypatch.setattr(metrics, "count", lambda name, number=1, *, tags: counted.update({name: number}))
    (tmp_path / "opt-outs.txt").write_text(f"{number(2)}\n00{number(4)[1:]}\n")
    rows = [*people(4), {"contact_mobile_number": "nonsense", "name": "Eve"}]
    ended = task.run(
        recipients=rows,
        exclude=tmp_path / "{{ 'opt-outs' }}.txt",
        max_failures=1,
        report=tmp_path / "report.csv",
        unsent=tmp_path / "unsent.csv",
    )
    assert ended.counts == {"accepted": 2, "invalid": 1, "excluded": 2}
    assert service.delivered == [number(1), number(3)]
    assert [row[2] for row in read(tmp_path / "report.csv")] == [
        *["accepted", "excluded", "accepted", "excluded", "invalid"]
    ]
    with (tmp_path / "unsent.csv").open(newline="", encoding="utf-8-sig") as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["Eve"]
    assert "Excluding 2 numbers (exclude)" in log.text
    assert "Broadcast ended: 2 of 5 accepted, 1 invalid, 2 excluded" in log.text
    assert number(2) not in log.text
    assert counted["wassly.messages.excluded"] == 2


def test_who_opts_out_between_two_attempts_gets_no_message(task: Task, service: Service, tmp_path: Path) -> None:
    service.fates = {number(2): ["device disconnected"]}
    opt_outs = tmp_path / "opt-outs.txt"
    opt_outs.write_text("")
    arguments = {"recipients": people(4), "exclude": opt_outs}
    assert task.run(**arguments).counts == {"accepted": 1, "not_sent": 3}
    opt_outs.write_text(number(3))
    assert task.run(**arguments).counts == {"accepted": 3, "excluded": 1}
    assert service.delivered == [number(1), number(2), number(4)]


def test_when_all_the_others_have_opted_out_they_are_not_said_to_have_been_sent_to(
    task: Task, service: Service, log: Log
) -> None:
    service.fates = {number(2): ["device disconnected"]}
    task.run(recipients=people(2))
    assert task.run(recipients=people(2), exclude=[number(2)]).counts == {"accepted": 1, "excluded": 1}
    assert "earlier attempts sent to everyone" not in log.text
    assert "Broadcast ended: 1 of 2 accepted, 1 excluded" in log.text


def test_an_attempt_that_cannot_read_the_opt_outs_any_more_sends_nothing_and_is_retried(
    task: Task, service: Service, tmp_path: Path
) -> None:
    service.fates = {number(2): ["device disconnected"]}
    opt_outs = tmp_path / "opt-outs.txt"
    opt_outs.write_text(number(3))
    arguments = {"recipients": people(3), "exclude": opt_outs}
    task.run(**arguments)
    opt_outs.unlink()
    error = task.run(**arguments).error
    assert isinstance(error, WasslyBroadcastIncomplete)
    assert str(error) == (
        f"Broadcast incomplete: exclude: no such file: {opt_outs} (earlier attempts: 1 accepted, 0 unknown). A retry, "
        "or clearing the task, resumes without sending to anyone twice."
    )
    opt_outs.write_text(number(3))
    assert task.run(**arguments).counts == {"accepted": 2, "excluded": 1}


def test_a_row_that_is_excluded_is_not_validated(task: Task, service: Service) -> None:
    arguments = {"recipients": [*people(2), {"contact_mobile_number": number(3)}], "validate_first": True}
    assert "1 row is wrong (validate_first): row 3" in str(task.run(**arguments).error)
    task.make_again()
    assert task.run(**arguments, exclude=[number(3)]).counts == {"accepted": 2, "excluded": 1}


def test_opt_outs_that_a_task_did_not_return_are_not_taken_for_none(task: Task, service: Service) -> None:
    task.dag_options = {"render_template_as_native_obj": True}
    ended = task.run(recipients=people(2), exclude="{{ none }}")
    assert isinstance(ended.error, FAIL)
    assert str(ended.error) == (
        "Nothing was sent: exclude: the task or template that it comes from returned None; return an empty list to "
        "exclude nobody."
    )
    assert service.calls == []
    task.make_again()
    assert task.run(recipients=people(2), exclude="{{ [] }}").counts == {"accepted": 2}


@pytest.mark.parametrize("unsent", ["unsent.csv", "unsent.jsonl"])
@pytest.mark.parametrize(
    ("content", "lost"),
    [
        (f"contact_mobile_number,name\n{number(1)},Smith, John\n", f"{number(1)},Smith, John"),
        (f'{{"contact_mobile_number": "{number(2)}"}}\n{{"contact_mobile_number": broken\n', "broken"),
        (f"contact_mobile_number,name,,\n{number(1)},Smith, John,\n", f"{number(1)},Smith, John,"),
    ],
)
def test_a_row_that_could_not_be_read_is_not_sent_to_from_the_list_of_the_unsent_and_kept_whole(
    task: Task, service: Service, tmp_path: Path, unsent: str, content: str, lost: str
) -> None:
    source, rest, again = tmp_path / "list.csv", tmp_path / unsent, tmp_path / f"again-{unsent}"
    source.write_text(content)
    task.run(recipients=source, unsent=rest, message="Hello")
    before = list(service.delivered)
    task.make_again()
    assert task.run(recipients=rest, unsent=again, message="Hello").counts == {"invalid": 1}
    assert service.delivered == before
    for path in (rest, again):
        assert lost in path.read_text().replace('""', '"').replace('\\"', '"')


def test_a_column_that_is_missing_is_named_for_files_and_template_files_too(
    task: Task, service: Service, tmp_path: Path
) -> None:
    (tmp_path / "text.j2").write_text("Dear {{ recipient.nam }}")
    (tmp_path / "list.csv").write_text(f"contact_mobile_number,name\n{number(1)},Ann\n")
    task.dag_options = {"template_searchpath": str(tmp_path)}
    for parameters in (
        {"message": "text.j2"},
        {"document": "/{{ recipient.nam }}.pdf"},
        {"media_name": "{{ recipient.nam }}"},
    ):
        for recipients in (people(3), tmp_path / "list.csv"):
            ended = task.run(recipients=recipients, **parameters)
            assert isinstance(ended.error, FAIL)
            assert f"{next(iter(parameters))}: uses recipient.nam, but the list has no such column" in str(ended.error)
    assert service.calls == []


@pytest.mark.parametrize(
    "message",
    [
        "Dear {{ recipient.nam | default('friend') }}",
        "Dear {{ recipient.nam | d('friend') | upper }}",
        "{% if recipient.nam is defined %}Dear {{ recipient.nam }}{% endif %} Hello",
        "{{ recipient['nam'] if 'nam' in recipient else 'Hello' }}",
        "{% for recipient in [{'nam': 'friend'}] %}{{ recipient.nam }}{% endfor %}",
        "{{ recipient[params.which | default('name')] if params is defined else 'Hello' }}",
    ],
)
def test_a_column_that_a_template_can_do_without_may_be_missing(task: Task, service: Service, message: str) -> None:
    assert task.run(recipients=people(2), message=message).counts == {"accepted": 2}


def test_a_column_that_only_some_rows_have_is_missing_in_the_others_only(task: Task, service: Service) -> None:
    rows = [*people(2), *people(3, nam="Bea")[2:]]
    ended = task.run(recipients=rows, message="Dear {{ recipient.nam }}")
    assert ended.counts == {"accepted": 1, "invalid": 2}


def test_rows_that_are_wrong_stop_no_other_and_count_as_failures(
    task: Task, service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows: list[Any] = [
        *people(2),
        "no row",
        {"contact_mobile_number": "12", "name": ""},
        {"contact_mobile_number": number(5)},
    ]
    arguments = {"recipients": rows, "report": tmp_path / "report.csv"}
    ended = task.run(**arguments)
    assert isinstance(ended.error, FAIL)
    assert "2 of 5 accepted, 3 invalid (3 failures, allowed: 0)" in str(ended.error)
    assert ended.counts == {"accepted": 2, "invalid": 3}
    assert [line[2] for line in read(tmp_path / "report.csv")] == ["accepted", "accepted", *["invalid"] * 3]
    assert "Row 5 (+44…0005) is invalid: message: this row has no value in column 'name'" in caplog.text
    assert "2 of 5 accepted, 3 invalid (3 failures, allowed: 59.9%)" in str(
        task.run(**arguments, max_failures=0.599).error
    )
    task.clear()
    assert task.run(**arguments, max_failures=3).returned is not None
    task.clear()
    assert task.run(**arguments, max_failures=0.7).returned is not None
    assert Counter(service.delivered) == {number(1): 2, number(2): 2}


def test_mapped_tasks_do_not_overwrite_the_reports_of_each_other(task: Task, tmp_path: Path) -> None:
    arguments = {"report": tmp_path / "{{ ds }}.csv", "unsent": f"file://{tmp_path}/unsent.jsonl"}
    for task.map_index in (0, 11):
        ended = task.run(recipients=[*people(1), {"contact_mobile_number": "12"}], **arguments)
        path = tmp_path / f"2026-11-24-{task.map_index}.csv"
        assert ended.summary["report"] == str(path)
        assert f"Report: {path}. Unsent: file://{tmp_path}/unsent-{task.map_index}.jsonl. " in str(ended.error)
        task.make_again()
    assert sorted(os.listdir(tmp_path)) == [
        "2026-11-24-0.csv",
        "2026-11-24-11.csv",
        "unsent-0.jsonl",
        "unsent-11.jsonl",
    ]


def test_a_table_is_refused_once_and_before_anything_is_sent(
    task: Task, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    def is_ambiguous(self: Any) -> bool:
        raise ValueError("The truth value of a DataFrame is ambiguous")

    # Has the interface of pandas' DataFrame.
    members = {"__module__": "pandas.core.frame", "__iter__": lambda self: iter(["a", "b"]), "__bool__": is_ambiguous}
    ended = task.run(recipients=type("DataFrame", (), members)())
    assert isinstance(ended.error, FAIL)
    assert 'got a pandas DataFrame; pass its rows: df.to_dict("records")' in str(ended.error)
    assert "Row 1" not in caplog.text
    assert service.calls == []


def test_nobody_is_called_none(task: Task, service: Service, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{**row, "name": name} for row, name in zip(people(3), ("Ann", None, float("nan")), strict=True)]
    ended = task.run(recipients=rows)
    assert ended.counts == {"accepted": 1, "invalid": 2}
    assert "Row 2 (+44…0002) is invalid: message: this row has no value in column 'name'" in caplog.text
    task.clear()
    assert task.run(recipients=rows, message="Hello {{ recipient.name or 'friend' }}").counts == {"accepted": 3}
    assert [message.texts["message"] for message in service.messages] == ["Hello Ann", "Hello friend", "Hello friend"]


def test_a_file_that_is_missing_for_one_names_no_number(
    task: Task, service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ended = task.run(recipients=people(1), document=tmp_path / "{{ recipient.contact_mobile_number }}.pdf")
    assert ended.counts == {"invalid": 1}
    assert "/+44…0001.pdf" in caplog.text
    assert number(1)[1:] not in caplog.text + str(ended.error)


@pytest.mark.parametrize(
    "arguments",
    [
        {"document": 5},
        {"document": ["a"]},
        {"document": "{{ ds }}", "document_name": 5},
        {"document": "{{ ds }}", "document_name": ["a"]},
        {"document": "{{ ds }}", "document_content_type": 5},
    ],
)
def test_a_value_of_a_wrong_type_is_named(
    task: Task, arguments: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(task.run(recipients=people(1), **arguments).error, FAIL)
    assert f"{list(arguments)[-1]}: must be " in caplog.text


def test_all_rows_are_checked_first_if_that_is_wanted(task: Task, service: Service) -> None:
    rows = [{"contact_mobile_number": "12", "name": ""} for _ in range(25)]
    ended = task.run(recipients=[*people(1), *rows], validate_first=True)
    assert isinstance(ended.error, FAIL)
    assert "25 rows are wrong (validate_first): row 2 (" in str(ended.error)
    assert str(ended.error).count("; and 5 more") == 1
    assert service.calls == []
    task.clear()
    # Nothing was sent, so the list may change.
    assert task.run(recipients=people(2), validate_first=True).counts == {"accepted": 2}


def test_what_is_wrong_with_a_file_is_found_by_its_line(task: Task, service: Service, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"name,contact_mobile_number\n\nAnn,{number(1)}\nBen,12\n")
    ended = task.run(recipients=tmp_path / "list.csv", validate_first=True)
    assert "1 row is wrong (validate_first): row 2, line 4 (" in str(ended.error)
    (tmp_path / "list.csv").write_text(f"name,contact_mobile_number\nAnn,{number(1)}\nBen,12\n")
    task.clear()
    task.run(recipients=tmp_path / "list.csv")
    (tmp_path / "list.csv").write_text(f"name,contact_mobile_number\nAnn,{number(3)}\nBen,12\n")
    ended = task.run(recipients=tmp_path / "list.csv")
    assert "in rows 1 to 2 (lines 2 to 3), numbers that were already sent to have changed" in str(ended.error)


def test_all_rows_are_checked_first_also_by_a_retry_of_an_attempt_that_had_sent_nothing(
    task: Task, service: Service
) -> None:
    task.airflow_answers = False  # it died before it started sending
    task.run(recipients="/no/such/list.csv", validate_first=True)
    task.airflow_answers = True
    rows = [*people(2), {"contact_mobile_number": "12", "name": ""}]
    assert "1 row is wrong (validate_first): row 3 (" in str(task.run(recipients=rows, validate_first=True).error)
    assert service.calls == []


@pytest.mark.parametrize(
    ("on_clear", "line", "copies"),
    [
        ("resume", "Resuming without sending to anyone twice: this task was cleared after it failed.", 1),
        ("restart", "Sending to everyone again: this task was cleared after it failed (on_clear='restart')", 2),
    ],
)
def test_a_task_that_was_cleared_says_which_of_the_two_it_does(
    task: Task, service: Service, log: Log, on_clear: str, line: str, copies: int
) -> None:
    service.fates = {number(2): ["refuse"]}
    task.run(recipients=people(2), on_clear=on_clear)
    assert line not in log.text
    task.clear()
    assert task.run(recipients=people(2), on_clear=on_clear).counts == {"accepted": 2}
    assert line in log.text
    assert service.delivered.count(number(1)) == copies


def test_a_device_that_was_disconnected_costs_a_try_and_no_message(task: Task, service: Service) -> None:
    service.fates = {number(3): ["device disconnected"]}
    ended = task.run(recipients=people(5), on_device_disconnected="fail")
    assert isinstance(ended.error, WasslyDeviceDisconnected)
    assert ended.counts == {"accepted": 2, "not_sent": 3}
    assert task.run(recipients=people(5)).counts == {"accepted": 5}
    assert service.delivered == [number(row) for row in range(1, 6)]


NIGHT = {"send_between": ("09:00", "20:00"), "timezone": "UTC"}  # the clock of the service begins at midnight


def test_a_closed_window_is_waited_for_in_place(task: Task, service: Service, log: Log) -> None:
    ended = task.run(recipients=people(2), **NIGHT)
    assert ended.counts == {"accepted": 2}
    assert service.clock.now().hour == 9
    assert "Waiting until today at 09:00, because it is outside the sending hours (09:00–20:00)" in log.text


def test_a_task_that_waits_gives_up_its_slot_and_resumes_in_the_same_try(
    task: Task, service: Service, tmp_path: Path, log: Log
) -> None:
    arguments = {
        "recipients": people(700),
        "report": tmp_path / "report.csv",
        "deferrable": True,
        "messages_per_minute": 1,
        **NIGHT,
    }
    assert task.run(**arguments).pushed["progress"]["waiting_for"] == "it is outside the sending hours (09:00–20:00)"
    assert service.delivered == []
    trigger = task.deferral.trigger
    assert type(trigger).__name__ == "DateTimeTrigger"
    assert trigger.moment.isoformat() == "2026-11-24T09:00:00+00:00"
    sleep_until(trigger.moment, service)
    progress = task.resume(trigger.moment, **arguments, send_on=["tue"]).pushed["progress"]
    assert progress["accepted"] == len(service.delivered) == pytest.approx(660, abs=1)
    assert progress["waiting_until"] == task.deferral.trigger.moment.isoformat() == "2026-12-01T09:00:00+00:00"
    assert len(read(tmp_path / "report.csv")) == progress["accepted"]
    sleep_until(task.deferral.trigger.moment, service)
    assert task.resume(**arguments).counts == {"accepted": 700}
    assert max(Counter(service.delivered).values()) == 1
    assert len(read(tmp_path / "report.csv")) == 700


def test_the_progress_is_up_to_date_at_the_end(task: Task, service: Service) -> None:
    progress = task.run(recipients=people(2), **NIGHT).pushed["progress"]
    assert (progress["accepted"], progress["not_sent"], progress["waiting_for"]) == (2, 0, None)


def test_a_process_that_runs_several_tries_keeps_the_record_of_the_last(task: Task, service: Service) -> None:
    task.has_own_processes = False
    ready: list[str] = []

    def message(context: Any, jinja_env: Any) -> str:
        if not ready:
            raise Stopped  # before anything is sent
        return "Hello"

    task.run(recipients=people(3))  # so that the next but one is the last try
    service.delivered.clear()
    task.make_again()
    task.run(recipients=people(6), message=message)
    task.run(recipients=people(6), message=message)
    ready.append("now")
    service.fates = {number(3): ["wrong key"]}
    task.run(recipients=people(6), message=message)
    task.clear()
    assert task.run(recipients=people(6), message=message).counts == {"accepted": 6}
    assert max(Counter(service.delivered).values()) == 1


def sleep_until(moment: datetime, service: Service) -> None:
    service.clock.sleep((moment - service.clock.now()).total_seconds())


def test_all_waits_together_are_bounded(task: Task, service: Service, log: Log) -> None:
    arguments = {
        "recipients": people(900),
        "wait_timeout": timedelta(hours=20),
        "messages_per_minute": 1,
        **NIGHT,
    }
    ended = task.run(**arguments)
    accepted = len(service.delivered)
    assert accepted == pytest.approx(660, abs=1)
    assert ended.counts == {"accepted": accepted, "not_sent": 900 - accepted}
    assert str(ended.error).startswith(
        f"Broadcast incomplete: {accepted} of 900 accepted, {900 - accepted} not sent: it is outside the sending "
        "hours (09:00–20:00); wait_timeout (20:00:00) allows no longer wait"
    )
    assert not isinstance(ended.error, FAIL)
    assert task.run(**arguments).counts == {"accepted": 900}


def test_a_device_is_waited_for(task: Task, service: Service, log: Log) -> None:
    service.fates = {number(3): ["device disconnected"]}
    service.devices = [Device(None, None, "disconnected", None, "one")]
    reconnected_at = service.clock.now() + timedelta(hours=1)

    def reconnect(what: str) -> None:
        if what == "devices" and service.clock.now() >= reconnected_at:
            service.devices = [Device(None, None, "connected", None, "one")]

    service.on_event = reconnect
    ended = task.run(recipients=people(5))
    assert ended.counts == {"accepted": 5}
    assert sorted(service.delivered) == [number(row) for row in range(1, 6)]
    assert service.clock.now() - reconnected_at < timedelta(minutes=2)
    assert "Waiting, because instance one is disconnected" in log.text


def test_a_device_is_waited_for_without_a_slot(task: Task, service: Service, log: Log) -> None:
    service.fates = {number(3): ["device disconnected"]}
    service.devices = [Device(None, None, "disconnected", None, "one")]
    task.run(recipients=people(5), deferrable=True)
    assert type(task.deferral.trigger).__name__ == "DeviceTrigger"
    assert task.deferral.trigger.instance_ids == ["one"]
    assert service.delivered == [number(1), number(2)]
    # It has looked once more by itself, because a short wait is not worth the change.
    assert service.clock.now() - datetime(2026, 11, 24, tzinfo=timezone.utc) > timedelta(minutes=1)
    assert task.resume(recipients=people(5), deferrable=True).counts == {"accepted": 5}
    assert max(Counter(service.delivered).values()) == 1


def test_a_limit_for_the_day_counts_all_tries(task: Task, service: Service, log: Log) -> None:
    service.fates = {number(5): ["wrong key"]}
    arguments = {"recipients": people(9), "max_per_day": 6, "messages_per_minute": None, "timezone": "UTC"}
    assert task.run(**arguments).counts == {"accepted": 5, "not_sent": 4}
    task.clear()
    began = service.clock.now()
    assert task.run(**arguments).counts == {"accepted": 9}
    first_day = [at for at in service.called_at if at < 24 * 3600]
    # A message that was refused does not count.
    assert len(first_day) == 6 + 1
    assert service.clock.now().date() > began.date()
    assert "Waiting until tomorrow at 00:00, because max_per_day (6) is reached" in log.text


def test_a_limit_for_the_day_counts_what_left_before_a_restart_too(task: Task, service: Service, log: Log) -> None:
    service.fates = {number(5): ["wrong key"]}
    arguments = {"max_per_day": 6, "messages_per_minute": None, "timezone": "UTC", "on_clear": "restart"}
    assert task.run(recipients=people(9), **arguments).counts == {"accepted": 5, "not_sent": 4}
    task.clear()
    assert task.run(recipients=people(6), **arguments).counts == {"accepted": 6}
    first_day = [at for at in service.called_at if at < 24 * 3600]
    assert len(first_day) == 5 + 1 + 1
    assert service.clock.now().date() == date(2026, 11, 25)


def test_a_task_that_resumes_without_its_record_sends_nothing(
    task: Task, service: Service, airflow: Variables, log: Log
) -> None:
    """As when a trigger's event is handled twice, and the first process that resumes succeeds."""
    arguments = {"recipients": people(5), "deferrable": True, **NIGHT}
    task.run(**arguments)
    deferral = task.deferral
    service.clock.sleep(9 * 3600)
    assert task.resume(**arguments).counts == {"accepted": 5}
    task.deferral = deferral
    ended = task.resume(**arguments)
    assert isinstance(ended.error, FAIL)
    assert "the send record of this attempt is gone" in str(ended.error)
    assert "This attempt sent nothing" in str(ended.error)
    assert len(service.delivered) == 5


def test_several_devices_share_the_rows_and_each_has_its_own_pace(task: Task, service: Service, log: Log) -> None:
    rows = people(20)
    rows[19]["instance_id"] = "three"
    task.run(recipients=rows, instance_ids=["one", "two"])
    devices = {message.contact_mobile_number: message.instance_id for message in service.messages}
    assert [devices[number(row)] for row in range(1, 21)] == ["one", "two"] * 9 + ["one", "three"]
    assert service.called_at[-1] - service.called_at[0] == pytest.approx(9 * 6, abs=1)
    assert "Sending to up to 20 recipients at 10 messages per minute from each of 3 devices: done today at" in log.text


def test_a_row_with_the_number_of_another_and_a_text_of_its_own_is_named(
    task: Task, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        {"contact_mobile_number": number(1), "name": "Ann"},
        {"contact_mobile_number": number(2), "name": "Bea"},
        {"contact_mobile_number": f"00{number(1)[1:]}", "name": "Ann"},
        {"contact_mobile_number": number(2), "name": "Bob"},
    ]
    assert task.run(recipients=rows).counts == {"accepted": 2, "duplicate": 2}
    ours = [record for record in caplog.records if record.name.startswith("airflow_provider_wassly.broadcast.")]
    assert [record.getMessage() for record in ours if record.levelname == "WARNING"] == [
        "Row 2 and row 4 have the same number (+44…0002) but different content: only the first valid one is sent "
        "(on_duplicate='skip')"
    ]


def test_of_many_such_rows_some_are_named_and_the_others_counted(
    task: Task, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"contact_mobile_number": number(1), "name": f"Ann {each}"} for each in range(50)]
    task.run(recipients=rows)
    ours = [record for record in caplog.records if record.name.startswith("airflow_provider_wassly.broadcast.")]
    lines = [record.getMessage() for record in ours if record.levelname == "WARNING"]
    assert len(lines) == 21
    assert lines[-1] == "29 more rows repeat the number of an earlier row with different content"


def test_each_row_gets_its_message_if_that_is_wanted(
    task: Task, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"contact_mobile_number": number(1), "name": name} for name in ("invoice 7", "invoice 8", "invoice 8")]
    rows.append({"contact_mobile_number": number(2), "name": "invoice 9"})
    service.fates = {number(2): ["refuse for now"]}
    arguments: dict[str, Any] = {"recipients": rows, "on_duplicate": "send"}
    assert task.run(**arguments).counts == {"accepted": 3, "failed": 1}
    assert "differ" not in caplog.text
    # Each has its own record, and the retry sends the rest.
    assert task.run(**arguments).counts == {"accepted": 4}
    texts = [message.texts["message"] for message in service.messages]
    assert texts == ["Hello invoice 7", "Hello invoice 8", "Hello invoice 8", "Hello invoice 9"]


@pytest.mark.parametrize(
    ("fates", "more"),
    [
        ({1: "wrong key"}, {}),
        ({1: "device disconnected"}, {}),
        ({1: "refuse"}, {}),
        ({1: "refuse for now"}, {}),
        ({1: "lose it, answer lost"}, {}),
        ({1: "lose it, answer lost"}, {"on_outcome_unknown": "retry"}),
        (dict.fromkeys(range(1, 31), "refuse"), {}),
        (dict.fromkeys(range(1, 31), "refuse for now"), {}),
        ({}, {"reserve_conversations": 10}),
    ],
    ids=str,
)
def test_a_retry_is_spoken_of_where_there_is_one(
    task: Task, service: Service, fates: dict[int, str], more: dict[str, Any]
) -> None:
    service.fates = {number(row): [fate] for row, fate in fates.items()}
    service.remaining = 11
    error = task.run(recipients=people(30), **more).error
    text = error.summary if isinstance(error, WasslyError) else str(error)
    assert "without sending to anyone twice" in text
    assert ("retry" in text or "retries" in text) is isinstance(error, WasslyError)


def test_credentials_that_are_wrong_fail_at_once(task: Task, service: Service) -> None:
    service.fates = {number(2): ["wrong key"]}
    ended = task.run(recipients=people(3))
    assert isinstance(ended.error, FAIL)
    assert ended.counts == {"accepted": 1, "not_sent": 2}


@pytest.mark.parametrize(
    ("choice", "succeeds", "uses_retries", "copies"),
    [("fail", False, False, 1), ("ignore", True, False, 1), ("retry", False, True, 2)],
)
def test_an_unknown_outcome_is_what_the_author_says(
    task: Task, service: Service, choice: str, succeeds: bool, uses_retries: bool, copies: int
) -> None:
    service.fates = {number(2): ["accept, answer lost"]}
    arguments = {"recipients": people(3), "on_outcome_unknown": choice}
    ended = task.run(**arguments)
    assert ended.counts == {"accepted": 2, "unknown": 1}
    assert (ended.returned is not None) is succeeds
    if not succeeds:
        assert isinstance(ended.error, WasslyError if uses_retries else FAIL)
        task.run(**arguments)
    assert service.delivered.count(number(2)) == copies


def test_a_task_that_succeeded_is_not_repeated_by_a_retry_and_is_by_clearing(task: Task, service: Service) -> None:
    task.airflow_answers = False  # killed before Airflow has written down the success
    first = task.run(recipients=people(3))
    task.airflow_answers = True
    assert task.run(recipients=people(3)).counts == first.counts == {"accepted": 3}
    assert len(service.delivered) == 3
    task.clear()
    assert task.run(recipients=people(4)).counts == {"accepted": 4}


def test_another_list_is_refused_before_anything_is_sent(task: Task, service: Service) -> None:
    service.fates = {number(2): ["device disconnected"]}
    task.run(recipients=people(3))
    ended = task.run(recipients=people(4)[1:])
    assert isinstance(ended.error, FAIL)
    assert str(ended.error).startswith(
        "This attempt sent nothing: recipients: in rows 1 to 3, numbers that were already sent to have changed "
        "(earlier attempts: 1 accepted, 0 unknown). Restore the rows"
    )
    assert ended.pushed["return_value"] == {"accepted": 1, "unknown": 0, "report": None}
    assert service.delivered == [number(1)]
    # It resumes with unsent rows corrected and new ones added at the end.
    corrected = [*people(1), *people(6)[3:]]
    assert task.run(recipients=corrected).counts == {"accepted": 4}
    assert service.delivered == [number(1), *map(number, range(4, 7))]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"recipients": "/no/such/list.csv"}, "recipients: no such file: /no/such/list.csv"),
        ({"report": "/no/such/folder/report.csv"}, "report: /no/such/folder/report.csv cannot be written"),
        ({"message": "{{ recipient.name"}, "message: unexpected end of template"),
    ],
)
def test_what_keeps_a_retry_from_sending_is_not_said_of_what_was_sent_before(
    task: Task, service: Service, arguments: dict[str, Any], words: str
) -> None:
    service.fates = {number(2): ["accept, answer lost"], number(3): ["device disconnected"]}
    task.run(recipients=people(4))
    ended = task.run(**{"recipients": people(4), **arguments})
    assert isinstance(ended.error, FAIL)
    assert str(ended.error).startswith(f"This attempt sent nothing: {words}")
    assert "(earlier attempts: 1 accepted, 1 unknown)" in str(ended.error)
    assert (ended.pushed["return_value"]["accepted"], ended.pushed["return_value"]["unknown"]) == (1, 1)


def test_the_reserve_begins_with_what_was_recorded(task: Task, service: Service, airflow: Variables) -> None:
    service.remaining = 100
    WasslyHook()  # only a reading of this connection counts
    task.run(recipients=people(1), message="Hello")
    task.clear()
    ended = task.run(recipients=people(3), reserve_conversations=99)
    assert ended.counts == {"not_sent": 3}
    assert "99 conversations remain and 99 are reserved" in str(ended.error)
    airflow.wait(hours=37)
    task.clear()
    # Such an old reading is not trusted; the answer to the first message is.
    assert task.run(recipients=people(3), reserve_conversations=98).counts == {"accepted": 1, "not_sent": 2}


def test_a_report_that_cannot_be_saved_is_made_up_for_by_a_retry(task: Task, service: Service, tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    folder.mkdir()
    arguments = {"recipients": people(2), "report": folder / "report.csv"}

    def lose_the_folder(what: str) -> None:
        if what == "delivered" and folder.exists():
            folder.rmdir()

    service.on_event = lose_the_folder
    ended = task.run(**arguments)
    assert isinstance(ended.error, WasslyError)
    assert "2 of 2 accepted: " in str(ended.error)
    folder.mkdir()
    assert task.run(**arguments).counts == {"accepted": 2}
    assert len(read(folder / "report.csv")) == 2
    assert len(service.delivered) == 2


def test_a_summary_that_cannot_be_pushed_hides_nothing(task: Task, service: Service, log: Log) -> None:
    service.fates = {number(1): ["refuse"]}
    task.airflow_answers = False
    ended = task.run(recipients=people(2))
    assert "1 of 2 accepted, 1 failed" in str(ended.error)
    assert "Could not push the summary: ConnectionError" in log.text


def test_a_task_that_is_to_push_nothing_pushes_nothing(task: Task, service: Service) -> None:
    service.fates = {number(1): ["refuse"]}
    assert task.run(recipients=people(2), do_xcom_push=False).pushed == {}


def test_a_task_that_is_stopped_goes_on_where_it_was(task: Task, service: Service, log: Log) -> None:
    def stop(what: str) -> None:
        if what == "delivered" and len(service.delivered) == 2:
            task.kill()

    service.on_event = stop
    ended = task.run(recipients=people(5))
    assert str(ended.error) == (
        "Broadcast incomplete: 2 of 5 accepted, 3 not sent: the task is being stopped. "
        "A retry, or clearing the task, resumes without sending to anyone twice."
    )
    assert log.count("the task is being stopped") == 1
    assert ended.counts == {"accepted": 2, "not_sent": 3}
    assert len(service.delivered) == 2
    assert task.run(recipients=people(5)).counts == {"accepted": 5}
    assert len(service.delivered) == 5


def test_a_task_that_is_stopped_before_it_sends_sends_nothing(task: Task, service: Service) -> None:
    class Slow(list[Any]):
        """A slow list: the task is stopped while it is being read."""

        def __iter__(self) -> Any:
            task.kill()
            return super().__iter__()

    ended = task.run(recipients=Slow(people(3)))
    assert "0 of 3 accepted, 3 not sent: the task is being stopped" in str(ended.error)
    assert service.calls == []


def test_the_output_of_a_task_that_may_not_have_run_is_refused(task: Task, service: Service) -> None:
    class Unordered(WasslyBroadcastOperator):
        """As after ``partial``, where Airflow looks for upstream tasks only in template fields."""

        def __init__(self, **arguments: Any) -> None:
            @airflow_task
            def write() -> str:
                return "Hello"

            super().__init__(**arguments)
            self.message = write()

    ended = Task(Unordered, None, [], message="later").run(recipients=people(1))
    assert isinstance(ended.error, FAIL)
    assert "message: uses the output of write, but this task does not wait for it; set write >> send" in str(
        ended.error
    )


def test_progress_is_told_at_the_pace_of_the_clock(
    task: Task, service: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "_LINES", ((math.inf, 60.0),))
    task.run(recipients=people(31))  # three minutes of sending
    lines = [record.getMessage() for record in caplog.records if " of 31 recipients done: " in record.getMessage()]
    assert [line.split()[0] for line in lines] == ["11", "21"]
    assert ", done today at " in lines[0]
