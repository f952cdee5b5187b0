"""The provider info that Airflow reads."""

from __future__ import annotations

import importlib
import json
import logging
import pkgutil
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import airflow
import jsonschema  # type: ignore[import-untyped]
import pytest
from airflow.providers_manager import ProvidersManager

import airflow_provider_wassly
from airflow_provider_wassly.airflow_compat import bases
from airflow_provider_wassly.get_provider_info import get_provider_info


def test_it_is_valid_under_the_schema_of_the_installed_airflow() -> None:
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_airflow_finds_it_through_the_entry_point() -> None:
    (entry_point,) = [
        found
        for found in entry_points(group="apache_airflow_provider")
        if found.dist and found.dist.name == "airflow-provider-wassly"
    ]
    assert entry_point.load()() == get_provider_info()


def test_airflow_takes_it_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    manager = ProvidersManager()  # type: ignore[no-untyped-call]
    with caplog.at_level(logging.WARNING):
        assert manager.providers["airflow-provider-wassly"].version == airflow_provider_wassly.__version__
        assert manager.hooks["wassly"] is not None
    assert "wassly" not in caplog.text.lower()


@pytest.mark.parametrize("kind", ["operators", "sensors", "triggers"])
def test_every_module_is_listed(kind: str) -> None:
    name = f"airflow_provider_wassly.{kind}"
    try:
        package = importlib.import_module(name)
    except ModuleNotFoundError:
        there: set[str] = set()
    else:
        names = [module.name for module in pkgutil.iter_modules(package.__path__)]
        there = {f"{name}.{module}" for module in names if not module.startswith("_")}
    info: dict[str, Any] = get_provider_info()
    assert {module for entry in info.get(kind, []) for module in entry["python-modules"]} == there


def test_every_notifier_is_listed() -> None:
    package = importlib.import_module("airflow_provider_wassly.notifications")
    there = {
        f"{module.name}.{found.__name__}"
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
        for found in vars(importlib.import_module(module.name)).values()
        if isinstance(found, type) and issubclass(found, bases.BaseNotifier) and found.__module__ == module.name
    }
    assert there
    assert set(get_provider_info()["notifications"]) == there


def test_what_is_listed_can_be_imported() -> None:
    info = get_provider_info()
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for entry in info.get(kind, []):
            for module in entry["python-modules"]:
                importlib.import_module(module)
    for path in [entry["hook-class-name"] for entry in info["connection-types"]] + info.get("notifications", []):
        module, _, name = path.rpartition(".")
        assert getattr(importlib.import_module(module), name)


def test_the_secrets_are_password_inputs() -> None:
    (connection_type,) = get_provider_info()["connection-types"]
    fields = connection_type["conn-fields"]
    secret = {name for name, field in fields.items() if field["schema"].get("format") == "password"}
    assert secret == {"apikey", "token", "proxies"}


def test_what_is_required_stands_first_and_the_rest_is_marked_as_advanced() -> None:
    (connection_type,) = get_provider_info()["connection-types"]
    fields = connection_type["conn-fields"]
    section = {name: field["schema"].get("section") for name, field in fields.items()}
    assert list(fields)[:4] == ["apikey", "instance_id", "token", "default_region"]
    assert [section[name] for name in list(fields)[:4]] == [None] * 4
    assert {section[name] for name in list(fields)[4:]} == {"Advanced"}
    # Airflow 3.2+ treats a field whose type does not allow null as required.
    required = {name for name, field in fields.items() if "null" not in field["schema"]["type"]}
    assert required == {"apikey"}
    labels = connection_type["ui-field-behaviour"]["relabeling"]
    assert {name for name, label in labels.items() if "advanced" in label} == {"port", "schema"}


def test_the_form_is_valid_under_the_schema_for_providers_of_the_installed_airflow() -> None:
    """Airflow validates only its own providers with this schema; a version may ignore what the schema forbids."""
    schema = json.loads((Path(airflow.__file__).parent / "provider.yaml.schema.json").read_text())
    jsonschema.validate(get_provider_info()["connection-types"], schema["properties"]["connection-types"])
