"""The cost of importing the package in a DAG file, in a process that has already imported Airflow."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

#: Forks for each program, so that every one starts with Airflow imported and nothing from the others.
FORKS = """
import json, os, sys
try:
    from airflow.sdk import DAG, BaseNotifier, BaseOperator, BaseSensorOperator
except ImportError:  # 2.11 and 3.0
    from airflow_provider_wassly.airflow_compat import bases
    from airflow.models.dag import DAG
    BaseOperator, _, _ = bases.BaseOperator, bases.BaseSensorOperator, bases.BaseNotifier
BaseOperator(task_id="plain")  # Airflow itself imports more for the first operator
for name, program in json.load(sys.stdin).items():
    sys.stdout.flush()
    if os.fork():
        os.wait()
        continue
    before = set(sys.modules)
    told = {}
    exec(program, {"told": told})
    told["modules"] = sorted(set(sys.modules) - before)
    print("told:", json.dumps({name: told}), flush=True)
    os._exit(0)
"""

PROGRAMS = {
    "send": "import airflow_provider_wassly.operators.send_message",
    "broadcast": """
from airflow_provider_wassly.operators.broadcast import WasslyBroadcastOperator
WasslyBroadcastOperator(task_id="send", recipients="list.csv", message="{{ recipient.name }}")
""",
    "notifier": "import airflow_provider_wassly.notifications.wassly",
    "sensors": """
from airflow_provider_wassly.sensors.device import WasslyDeviceSensor
from airflow_provider_wassly.sensors.quota import WasslyQuotaSensor
WasslyQuotaSensor(task_id="quota", min_remaining_conversations=1)
told["by default"] = WasslyDeviceSensor(task_id="device").deferrable
""",
    "deferrable sensors": """
import os
os.environ["AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE"] = "True"
from airflow_provider_wassly.sensors.device import WasslyDeviceSensor
told["by default"] = WasslyDeviceSensor(task_id="a").deferrable
told["if wanted"] = WasslyDeviceSensor(task_id="b", deferrable=False).deferrable
""",
}


@pytest.fixture(scope="module")
def told() -> dict[str, dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS], input=json.dumps(PROGRAMS), capture_output=True, text=True
    )
    lines = [json.loads(line.partition(" ")[2]) for line in done.stdout.splitlines() if line.startswith("told: ")]
    assert len(lines) == len(PROGRAMS), done.stderr
    return {name: of_one for line in lines for name, of_one in line.items()}


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_library_is_loaded_that_the_dag_processor_does_not_need(
    told: dict[str, dict[str, list[str]]], name: str
) -> None:
    modules = told[name]["modules"]
    assert {module.partition(".")[0] for module in modules} <= {"airflow", "airflow_provider_wassly"}
    assert "airflow_provider_wassly.triggers.base" not in modules  # costs 5 ms


def test_sensors_are_deferrable_if_airflow_says_so(told: dict[str, dict[str, bool]]) -> None:
    assert told["sensors"]["by default"] is False
    assert (told["deferrable sensors"]["by default"], told["deferrable sensors"]["if wanted"]) == (True, False)
