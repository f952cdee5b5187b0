"""The example DAGs, as Airflow's DAG processor parses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.serialization import serialized_objects

try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:  # Airflow before 3.2
    from airflow.models.dagbag import DagBag  # type: ignore[no-redef]

FILES = sorted((Path(__file__).parents[2] / "example_dags").glob("*.py"))
# Airflow 3.2 has separated reading from writing.
WRITER: Any = getattr(serialized_objects, "DagSerialization", None) or vars(serialized_objects)["SerializedDAG"]


def dags_of(file: Path) -> dict[str, Any]:
    bag = DagBag(str(file))
    assert bag.import_errors == {}
    dags: dict[str, Any] = bag.dags
    return dags


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_is_parsed_and_survives_being_stored(file: Path) -> None:
    dags = dags_of(file)
    assert dags.keys() == {file.stem}
    for dag in dags.values():
        read = WRITER.from_dict(json.loads(json.dumps(WRITER.to_dict(dag))))
        assert sorted(read.task_ids) == sorted(dag.task_ids)
        for task in dag.tasks:
            other = read.get_task(task.task_id)
            assert other.task_type == task.task_type
            assert list(other.template_fields) == list(task.template_fields)
            assert other.downstream_task_ids == task.downstream_task_ids
