from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_wassly.airflow_compat.exceptions import skip_exception
from airflow_provider_wassly.notifications.wassly import WasslyNotifier
from airflow_provider_wassly.operators.broadcast import WasslyBroadcastOperator
from airflow_provider_wassly.operators.send_message import WasslySendMessageOperator

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2.11
    from airflow.models.dag import DAG  # type: ignore[no-redef]

NUMBER = "+447700900123"


def dag(**options: Any) -> DAG:
    return DAG("reports", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), **options)


def rendered(context: dict[str, Any], dag_options: Any = None, **arguments: Any) -> Any:
    with dag(**(dag_options or {})) as owner:
        task = WasslySendMessageOperator(task_id="send", **{"contact_mobile_number": NUMBER, **arguments})
    task.render_template_fields({"dag": owner, "task": task, **context})  # type: ignore[typeddict-item]
    return task


def test_every_documented_field_is_a_template() -> None:
    names = [
        "contact_mobile_number",
        "message",
        "contact_name",
        "document",
        "document_name",
        "document_content_type",
        "media",
        "media_name",
        "media_content_type",
        "instance_id",
        "wassly_conn_id",
    ]
    task = rendered({"ds": "2026-11-24"}, **{name: f"{name} {{{{ ds }}}}" for name in names})
    assert {name: getattr(task, name) for name in names} == {name: f"{name} 2026-11-24" for name in names}


def test_a_pathlib_path_is_rendered_like_a_text() -> None:
    task = rendered({"ds": "2026-11-24"}, document=Path("/data") / "{{ ds }}.pdf", media=Path("/data/{{ ds }}.png"))
    assert (task.document, task.media) == ("/data/2026-11-24.pdf", "/data/2026-11-24.png")


@pytest.mark.parametrize("native", [False, True])
def test_what_looks_like_a_number_stays_text(native: bool) -> None:
    task = rendered(
        {"params": {"to": "+447700900123", "text": "[1, 2]"}},
        {"render_template_as_native_obj": native},
        contact_mobile_number="{{ params.to }}",
        message="{{ params.text }}",
        instance_id="{{ 12345678 }}",
    )
    assert (task.contact_mobile_number, task.message, task.instance_id) == ("+447700900123", "[1, 2]", "12345678")


def test_a_message_ending_in_j2_is_read_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "base.j2").write_text("*{% block title %}{% endblock %}*")
    (tmp_path / "report.j2").write_text("{% extends 'base.j2' %}{% block title %}Report of {{ ds }}{% endblock %}")
    task = rendered({"ds": "2026-11-24"}, {"template_searchpath": str(tmp_path)}, message="report.j2")
    assert task.message == "*Report of 2026-11-24*"


def test_no_other_field_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "order.j2").write_text("content")
    task = rendered(
        {},
        {"template_searchpath": str(tmp_path)},
        message="Hello",
        document="order.j2",
        media="order.sql",
        document_name="order.j2",
        contact_name="order.j2",
    )
    assert (task.document, task.media, task.document_name, task.contact_name) == (
        "order.j2",
        "order.sql",
        "order.j2",
        "order.j2",
    )


def test_a_template_file_that_is_missing_is_an_error_that_names_it() -> None:
    with pytest.raises(Exception, match=r"no-such\.j2"):
        rendered({}, message="no-such.j2")


@settings(max_examples=30, deadline=None)
@given(st.text().filter(lambda text: not re.search(r"\{[{%#]", text)))
def test_text_without_markup_is_rendered_as_it_is(text: str) -> None:
    # Jinja itself removes one line break at the end, and knows only \n.
    plain = text.replace("\r", "").rstrip("\n") + "."
    assert rendered({}, message=plain).message == plain


@pytest.mark.parametrize("message", [None, ""])
def test_a_message_with_nothing_in_it_shows_when_the_dag_is_parsed(message: str | None) -> None:
    with pytest.raises(ValueError, match="message is required if there is neither document nor media"):
        WasslySendMessageOperator(task_id="send", contact_mobile_number="+447700900123", message=message)
    files: list[dict[str, Any]] = [{"document": "/a.pdf"}, {"media": "/a.png"}]
    for file in files:
        WasslySendMessageOperator(task_id="send", contact_mobile_number="+447700900123", message=message, **file)


def test_a_wrong_on_empty_attachment_shows_when_the_dag_is_parsed() -> None:
    with pytest.raises(ValueError, match="on_empty_attachment must be 'fail' or 'skip', not 'ignore'"):
        WasslySendMessageOperator(
            task_id="send",
            contact_mobile_number=NUMBER,
            on_empty_attachment="ignore",  # type: ignore[arg-type]
        )


def test_an_empty_attachment_can_skip_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WASSLY_DEFAULT", '{"conn_type": "wassly", "extra": {"apikey": "k", "token": "t"}}')
    empty = tmp_path / "empty.csv"
    empty.touch()
    task = WasslySendMessageOperator(
        task_id="send", contact_mobile_number=NUMBER, document=str(empty), on_empty_attachment="skip"
    )
    with pytest.raises(type(skip_exception("")), match=r"^Nothing was sent: document empty\.csv is empty"):
        task.execute({})


def test_what_a_field_holds_is_text_that_airflow_can_write_down() -> None:
    # Airflow 3 refuses a subclass of str when a DAG is parsed.
    send = WasslySendMessageOperator(task_id="send", contact_mobile_number=NUMBER, message="text.j2", document="a.j2")
    broadcast = WasslyBroadcastOperator(task_id="list", recipients="{{ var.json.people }}", message="text.j2")
    notifier = WasslyNotifier(contact_mobile_number="+447700900123", message="text.j2")
    held = (send.message, send.document, broadcast.recipients, broadcast.message, notifier.message)
    assert [type(value) for value in held] == [str] * 5


def test_only_a_message_names_a_template_file(tmp_path: Path) -> None:
    (tmp_path / "same.j2").write_text("from the file")
    options = {"template_searchpath": str(tmp_path)}
    task = rendered({}, options, message="same.j2", document="same.j2", contact_name="same.j2")
    assert (task.message, task.document, task.contact_name) == ("from the file", "same.j2", "same.j2")
    # In whatever order Airflow renders the fields.
    with dag(**options) as owner:
        other = WasslySendMessageOperator(task_id="other", contact_mobile_number="same.j2", message="same.j2")
    other.template_fields = tuple(reversed(other.template_fields))
    other.render_template_fields({"dag": owner, "task": other})
    assert (other.message, other.contact_mobile_number) == ("from the file", "same.j2")
