"""The part of ``make up`` that needs no running Airflow."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
from airflow.configuration import conf

ROOT = Path(__file__).parents[2]


@pytest.fixture
def up(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("up")


def test_the_button_that_tests_a_connection_is_on(up: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert conf.get("core", "test_connection") != "Enabled"
    for name, value in up.settings(8080).items():
        monkeypatch.setenv(name, value)
    assert conf.get("core", "test_connection") == "Enabled"
