"""
Which versions of Airflow and Python are supported, and which of them the tests have passed on.

Every run of whole test folders records in ``.results`` what passed, and with which code. ``python -m tests.matrix``
shows the results, and fails if a required one is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / ".results"
SOURCES = ("airflow_provider_wassly", "example_dags", "tests", "constraints", "pyproject.toml")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


@dataclass(frozen=True, order=True)
class Combination:
    """
    An Airflow on a Python.

    :param folders: the test folders that it passes.
    """

    airflow: str
    python: str
    folders: tuple[str, ...] = ("unit", "integration")

    @property
    def name(self) -> str:
        """Its name in files and on the command line."""
        return f"{self.airflow}-py{self.python}"


FOLDERS = ("unit", "integration", "e2e", "celery")
#: The environment with the lowest versions of the package's dependencies.
LOWEST = Combination("2.11.0", "3.11")
COMBINATIONS = (
    LOWEST,
    Combination("2.11.2", "3.11", FOLDERS[:3]),
    Combination("3.0.6", "3.11"),
    Combination("3.1.8", "3.11"),
    Combination("3.2.2", "3.11"),
    Combination("3.3.2", "3.10"),
    Combination("3.3.2", "3.11", FOLDERS),
    Combination("3.3.2", "3.12"),
    Combination("3.3.2", "3.13"),
    Combination("3.4.0b2", "3.12", FOLDERS[:3]),
)


def asked_of(combination: Combination) -> tuple[str, ...]:
    """
    Return the test folders that the matrix runs. The Celery tests have a separate command.

    If ``QUICK`` is set, these are the tests that a pull request needs: the integration tests only on the oldest and the
    newest Airflow, the end-to-end tests only on the one of ``make test``.
    """
    folders = tuple(folder for folder in combination.folders if folder != "celery")
    if not os.environ.get("QUICK") or "celery" in combination.folders:
        return folders
    return ("unit", "integration") if combination.airflow in ("2.11.2", "3.4.0b2") else ("unit",)


def fingerprint() -> str:
    """Return a digest of the current code and tests."""
    digest = hashlib.sha256()
    for source in SOURCES:
        paths = [ROOT / source] if (ROOT / source).is_file() else sorted((ROOT / source).rglob("*"))
        for path in paths:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(ROOT)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def seen(name: str) -> dict[str, int]:
    """Return how many tests have passed in each folder with the current code, in this combination."""
    try:
        noted = json.loads((RESULTS / f"{name}.json").read_text())
    except FileNotFoundError:
        return {}
    passed: dict[str, int] = noted["passed"] if noted["code"] == fingerprint() else {}
    return passed


def note(airflow: str, passed: Mapping[str, int]) -> None:
    """Record that all tests of these folders have passed, in this process's Python."""
    combination = Combination(airflow, f"{sys.version_info[0]}.{sys.version_info[1]}")
    RESULTS.mkdir(exist_ok=True)
    noted = {"code": fingerprint(), "passed": {**seen(combination.name), **passed}}
    (RESULTS / f"{combination.name}.json").write_text(json.dumps(noted))


def table() -> str:
    """Return the documentation's table of tested combinations, as Markdown."""
    lines = ["| Airflow | Python | " + " | ".join(FOLDERS) + " |", "|---|---|" + ":-:|" * len(FOLDERS)]
    for combination in COMBINATIONS:
        dependencies = ", with the lowest versions of all dependencies" if combination == LOWEST else ""
        marks = ("✓" if folder in combination.folders else "" for folder in FOLDERS)
        lines.append(f"| {combination.airflow}{dependencies} | {combination.python} | " + " | ".join(marks) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """
    Print how many tests have passed.

    :return: the exit status: 1 if a required result is missing.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("--without", nargs="+", default=[], metavar="COMBINATION", help="not tried on this machine")
    parser.add_argument("--just", metavar="FOLDER", choices=FOLDERS, help="what was asked for, not the whole matrix")
    options = parser.parse_args(arguments)
    missing = False
    print(f"{'Airflow':10}{'Python':9}{''.join(f'{folder:14}' for folder in FOLDERS)}")
    for combination in COMBINATIONS:
        passed = seen(combination.name)
        asked = () if options.just or combination.name in options.without else asked_of(combination)
        missing |= not passed.keys() >= set(asked)
        cells = [str(passed.get(folder, "NOT PASSED" if folder in asked else "-")) for folder in FOLDERS]
        remark = "this Python is not here" if combination.name in options.without else ""
        print(
            f"{combination.airflow:10}{combination.python:9}{''.join(f'{cell:14}' for cell in cells)}{remark}".rstrip()
        )
    if options.just:
        missing = not any(options.just in seen(combination.name) for combination in COMBINATIONS)
    return int(missing)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
