"""The package's metadata, for installing and building it."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "airflow_provider_wassly"

#: Imported only where they are always installed: for Airflow 2.11's form, by pytest itself, or by
#: type checkers.
WITHOUT_DECLARATION = {
    "connection/form.py": {"flask_appbuilder", "flask_babel", "wtforms"},
    "pytest_plugin.py": {"pytest"},
    "client/transport/wire.py": {"_typeshed"},
}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    toml: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    values: dict[str, Any] = toml.loads((ROOT / "pyproject.toml").read_text())
    return values


def names(requirements: list[str]) -> set[str]:
    """Return the normalised names of the distributions."""
    return {re.split(r"[^A-Za-z0-9._-]", text)[0].lower().replace("_", "-") for text in requirements}


def imports(path: Path) -> Iterator[str]:
    """Yield the top-level names that a file imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def distribution(name: str) -> str:
    """Return the distribution that provides this import name."""
    return {"airflow": "apache-airflow", "phonenumbers": "phonenumberslite"}.get(name, name.replace("_", "-"))


def test_everything_that_is_imported_is_declared(project: dict[str, Any]) -> None:
    needed = names(project["project"]["dependencies"])
    sandbox = names(project["project"]["optional-dependencies"]["sandbox"])
    missing = set()
    for path in PACKAGE.rglob("*.py"):
        where = path.relative_to(PACKAGE).as_posix()
        declared = needed | (sandbox if where.startswith("sandbox/") else set())
        for name in set(imports(path)) - WITHOUT_DECLARATION.get(where, set()):
            if name in sys.stdlib_module_names or name == PACKAGE.name:
                continue
            if distribution(name) not in declared:
                missing.add((where, name))
    assert missing == set()


def test_no_dependency_is_declared_that_is_not_imported(project: dict[str, Any]) -> None:
    imported = {distribution(name) for path in PACKAGE.rglob("*.py") for name in imports(path)}
    assert names(project["project"]["dependencies"]) <= imported


def test_the_build_needs_a_backend_that_reads_the_license_files(project: dict[str, Any]) -> None:
    assert isinstance(project["project"]["license-files"], list)  # PEP 639
    (backend,) = project["build-system"]["requires"]
    lowest = re.fullmatch(r"hatchling>=(\d+)\.(\d+)", backend)
    assert lowest is not None
    assert (int(lowest[1]), int(lowest[2])) >= (1, 26)
