from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from airflow.serialization import serialized_objects

from airflow_provider_wassly.operators.broadcast import _PER_RECIPIENT, WasslyBroadcastOperator

try:
    from airflow.sdk import DAG, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task  # type: ignore[no-redef, attr-defined]
    from airflow.models.dag import DAG  # type: ignore[no-redef]

PEOPLE = [
    {"contact_mobile_number": "+447700900101", "name": "Amira"},
    {"contact_mobile_number": "+447700900102", "name": "Björn"},
]


def dag(**options: Any) -> DAG:
    return DAG("campaign", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), **options)


def broadcast(**arguments: Any) -> WasslyBroadcastOperator:
    return WasslyBroadcastOperator(**{"task_id": "send", "recipients": PEOPLE, "message": "Hello", **arguments})


def rendered(context: dict[str, Any], dag_options: Any = None, **arguments: Any) -> WasslyBroadcastOperator:
    with dag(**(dag_options or {})) as owner:
        operator = broadcast(**arguments)
    operator.render_template_fields({"dag": owner, "task": operator, **context})  # type: ignore[typeddict-item]
    return operator


# Parameters.


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("messages_per_minute", 0, "messages_per_minute must be a number above 0, or None, not 0"),
        ("messages_per_minute", -1, "messages_per_minute must be a number above 0, or None, not -1"),
        ("messages_per_minute", "10", "messages_per_minute must be a number above 0, or None, not '10'"),
        ("messages_per_minute", True, "messages_per_minute must be a number above 0, or None, not True"),
        ("messages_per_minute", float("nan"), "messages_per_minute must be a number above 0, or None, not nan"),
        ("messages_per_minute", float("inf"), "messages_per_minute must be a number above 0, or None, not inf"),
        ("jitter", -0.1, "jitter must be a number from 0 to 1, not -0.1"),
        ("jitter", 1.5, "jitter must be a number from 0 to 1, not 1.5"),
        ("jitter", None, "jitter must be a number from 0 to 1, not None"),
        ("max_workers", 0, "max_workers must be a whole number of at least 1, not 0"),
        ("max_workers", 2.0, "max_workers must be a whole number of at least 1, not 2.0"),
        ("max_workers", True, "max_workers must be a whole number of at least 1, not True"),
        ("reserve_conversations", -1, "reserve_conversations must be a whole number of at least 0, not -1"),
        ("reserve_conversations", 0.5, "reserve_conversations must be a whole number of at least 0, not 0.5"),
        ("max_failures", -1, "max_failures must be a whole number of at least 0, or a share such as 0.01, not -1"),
        ("max_failures", -0.5, "max_failures must be a whole number of at least 0, or a share such as 0.01, not -0.5"),
        ("max_failures", 1.0, "max_failures must be a whole number of at least 0, or a share such as 0.01, not 1.0"),
        ("max_failures", "5%", "max_failures must be a whole number of at least 0, or a share such as 0.01, not '5%'"),
        ("max_failures", None, "max_failures must be a whole number of at least 0, or a share such as 0.01, not None"),
        ("on_outcome_unknown", "skip", "on_outcome_unknown must be 'fail', 'retry' or 'ignore', not 'skip'"),
        ("report_numbers", "none", "report_numbers must be 'short' or 'full', not 'none'"),
        ("on_duplicate", "fail", "on_duplicate must be 'skip' or 'send', not 'fail'"),
        ("message", None, "message is required if there is neither document nor media"),
        ("message", "", "message is required if there is neither document nor media"),
    ],
)
def test_a_wrong_value_shows_when_the_dag_is_parsed(name: str, value: Any, error: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(error)}$"):
        broadcast(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("messages_per_minute", None),
        ("messages_per_minute", 0.5),
        ("jitter", 0),
        ("jitter", 1),
        ("max_workers", 8),
        ("reserve_conversations", 0),
        ("max_failures", 0.0),
        ("max_failures", 0.999),
        ("max_failures", 1),
    ],
)
def test_the_outermost_values_are_right(name: str, value: Any) -> None:
    assert getattr(broadcast(**{name: value}), name) == value


def test_a_list_is_required() -> None:
    with pytest.raises(Exception, match="recipients"):
        WasslyBroadcastOperator(task_id="send", message="Hello")  # type: ignore[call-arg]


def test_a_parameter_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(Exception, match="mesage"):
        broadcast(mesage="Hello")


def test_the_defaults_of_a_dag_apply() -> None:
    with dag(default_args={"messages_per_minute": 4, "max_workers": 3, "wassly_conn_id": "other"}):
        operator = broadcast(max_workers=2)
    assert (operator.messages_per_minute, operator.max_workers, operator.wassly_conn_id) == (4, 2, "other")


# Templates.


def test_what_concerns_all_recipients_is_a_template() -> None:
    names = ["recipients", "exclude", "report", "instance_id", "wassly_conn_id"]
    operator = rendered({"ds": "2026-11-24"}, **{name: f"{name} {{{{ ds }}}}" for name in names})
    assert {name: getattr(operator, name) for name in names} == {name: f"{name} 2026-11-24" for name in names}


def test_what_concerns_one_recipient_is_not_rendered_too_early() -> None:
    texts = {name: f"{name} {{{{ recipient.x }}}} {{{{ ds }}}}" for name in _PER_RECIPIENT}
    operator = rendered({"ds": "2026-11-24"}, **texts)
    assert {name: getattr(operator, name) for name in texts} == texts


def test_a_pathlib_path_is_rendered_like_a_text() -> None:
    operator = rendered(
        {"ds": "2026-11-24"},
        recipients=Path("/data/{{ ds }}.csv"),
        exclude=Path("/data/{{ ds }}-opt-outs.txt"),
        report=Path("/data") / "{{ ds }}-report.csv",
        document=Path("/data/{{ recipient.file }}"),
        media=Path("/data/{{ recipient.picture }}"),
    )
    assert (operator.recipients, operator.report) == ("/data/2026-11-24.csv", "/data/2026-11-24-report.csv")
    assert operator.exclude == "/data/2026-11-24-opt-outs.txt"
    assert (operator.document, operator.media) == ("/data/{{ recipient.file }}", "/data/{{ recipient.picture }}")


def test_a_list_in_the_dag_is_rendered_as_text_also_among_native_objects() -> None:
    for native in (False, True):
        operator = rendered(
            {"params": {"to": "+447700900101"}},
            {"render_template_as_native_obj": native},
            recipients=[{"contact_mobile_number": "{{ params.to }}", "invoice": "007", "amount": 5}],
        )
        assert operator.recipients == [{"contact_mobile_number": "+447700900101", "invoice": "007", "amount": 5}]


def test_among_native_objects_a_template_can_stand_for_the_list_and_nothing_else_changes_its_type() -> None:
    operator = rendered(
        {"params": {"people": PEOPLE}},
        {"render_template_as_native_obj": True},
        recipients="{{ params.people }}",
        exclude="{{ params.people[1:] }}",
        instance_id="{{ 12345678 }}",
        report="{{ 20261124 }}",
    )
    assert operator.recipients == PEOPLE
    assert operator.exclude == PEOPLE[1:]
    assert (operator.instance_id, operator.report) == ("12345678", "20261124")


# Other tasks.


@pytest.mark.parametrize(
    "name",
    [
        *["recipients", "exclude", "message", "document", "document_name", "media", "media_name", "report"],
        "instance_id",
    ],
)
def test_the_output_of_a_task_is_waited_for(name: str) -> None:
    with dag():

        @task
        def made() -> str:
            return "made"

        operator = broadcast(**{name: made()})
    assert operator.upstream_task_ids == {"made"}


@pytest.mark.parametrize("name", ["recipients", "message", "document"])
def test_the_output_of_a_task_can_be_expanded_over(name: str) -> None:
    with dag():

        @task
        def made() -> list[str]:
            return ["made"]

        constant = {"recipients": PEOPLE, "message": "Hello"}
        constant.pop(name, None)
        operator = WasslyBroadcastOperator.partial(task_id="send", **constant).expand(**{name: made()})
    assert operator.upstream_task_ids == {"made"}


def test_a_wrong_name_in_partial_or_expand_shows_when_the_dag_is_parsed() -> None:
    with dag():
        with pytest.raises(TypeError, match="mesage"):
            WasslyBroadcastOperator.partial(task_id="send", mesage="Hello")
        partial = WasslyBroadcastOperator.partial(task_id="send", message="Hello")
        with pytest.raises(TypeError, match="recipient"):
            partial.expand(recipient=[PEOPLE])
        partial.expand(recipients=[PEOPLE])


def round_trip(of: DAG) -> Any:
    """Return the DAG as Airflow's scheduler and UI see it."""
    names = [name for name in ("DagSerialization", "SerializedDAG") if hasattr(serialized_objects, name)]
    serializer = getattr(serialized_objects, names[0])
    return serializer.from_dict(serializer.to_dict(of))


def test_a_dag_with_it_can_be_serialized() -> None:
    with dag() as owner:

        @task
        def made() -> list[Any]:
            return PEOPLE

        broadcast(task_id="listed", report="/data/{{ ds }}.csv")
        broadcast(task_id="fetched", recipients=made(), message="{{ recipient.name }}")
        WasslyBroadcastOperator.partial(task_id="mapped", message="Hello", max_workers=2).expand(
            recipients=[PEOPLE[:1], PEOPLE[1:]]
        )
    again = round_trip(owner)
    assert set(again.task_ids) == {"made", "listed", "fetched", "mapped"}
    listed = again.get_task("listed")
    assert (listed.recipients, listed.report) == (PEOPLE, "/data/{{ ds }}.csv")
    assert listed.task_type == "WasslyBroadcastOperator"
    assert again.get_task("fetched").upstream_task_ids == {"made"}
    assert again.get_task("mapped").partial_kwargs["message"] == "Hello"
