from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_wassly.sensors.device import WasslyDeviceSensor
from airflow_provider_wassly.sensors.quota import WasslyQuotaSensor

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2.11
    from airflow.models.dag import DAG  # type: ignore[no-redef]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"min_remaining_conversations": -1}, "min_remaining_conversations must be a positive integer, not -1"),
        ({"min_remaining_conversations": 0}, "min_remaining_conversations must be a positive integer, not 0"),
        ({"min_remaining_conversations": 1.5}, "min_remaining_conversations must be a positive integer, not 1.5"),
        ({"min_remaining_conversations": "200"}, "min_remaining_conversations must be a positive integer, not '200'"),
        ({"min_remaining_conversations": True}, "min_remaining_conversations must be a positive integer, not True"),
        ({"max_age": 0}, "max_age must be greater than 0, not 0"),
        ({"max_age": timedelta(-1)}, "max_age must be greater than 0"),
        ({"max_age": "36h"}, "max_age must be a timedelta or a number of seconds, not '36h'"),
        ({"probe_interval": 0}, "probe_interval must be greater than 0, not 0"),
        ({"probe_interval": float("nan")}, "probe_interval must be"),
        ({"max_age": float("inf")}, "max_age must be"),
        ({"max_age": True}, "max_age must be a timedelta"),
        ({"on_unknown": "ignore"}, "on_unknown must be 'proceed', 'wait' or 'fail', not 'ignore'"),
        ({"soft_fail": True, "never_fail": True}, "mutually exclusive"),
    ],
)
def test_bad_values_fail_when_the_dag_is_parsed(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        WasslyQuotaSensor(task_id="quota", **{"min_remaining_conversations": 200, **arguments})


def test_durations_are_seconds_or_timedeltas() -> None:
    sensor = WasslyQuotaSensor(
        task_id="quota", min_remaining_conversations=1, max_age=90.5, probe_interval=timedelta(minutes=2)
    )
    assert (sensor.max_age, sensor.probe_interval) == (timedelta(seconds=90.5), timedelta(minutes=2))


@pytest.mark.parametrize("native", [False, True])
def test_templated_fields_are_text(native: bool) -> None:
    with DAG(
        "dag", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), render_template_as_native_obj=native
    ):
        quota = WasslyQuotaSensor(
            task_id="quota",
            min_remaining_conversations=1,
            probe_to="+4917{{ number }}",
            probe_message="{{ number }}",
            instance_id="{{ number }}",
            wassly_conn_id="wassly_{{ number }}",
        )
        device = WasslyDeviceSensor(task_id="device", instance_id="{{ number }}", wassly_conn_id="{{ number }}")
    context: Any = {"number": "01234567"}
    for sensor in (quota, device):
        sensor.render_template_fields(context)
    assert (quota.probe_to, quota.probe_message) == ("+491701234567", "01234567")
    assert (quota.instance_id, quota.wassly_conn_id) == ("01234567", "wassly_01234567")
    assert (device.instance_id, device.wassly_conn_id) == ("01234567", "01234567")
