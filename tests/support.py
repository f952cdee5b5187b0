"""
Which Airflow and Python this package is for, and what of that has been seen to work.

Every run of whole folders of tests notes under ``.results`` what has passed, and with which code. ``python -m
tests.support`` shows it, and fails where something is missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
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

    :param folders: which of the tests it has to pass.
    """

    airflow: str
    python: str
    folders: tuple[str, ...] = ("unit", "integration")

    @property
    def name(self) -> str:
        """What it is called in files and on command lines."""
        return f"{self.airflow}-py{self.python}"


#: With the lowest versions of all that the package itself asks for.
LOWEST = Combination("2.11.0", "3.11")
ALL = ("unit", "integration", "e2e")
COMBINATIONS = (
    LOWEST,
    Combination("2.11.2", "3.11", ALL),
    Combination("3.0.6", "3.11"),
    Combination("3.1.8", "3.11"),
    Combination("3.2.2", "3.11"),
    Combination("3.3.2", "3.10"),
    Combination("3.3.2", "3.11", ALL),
    Combination("3.3.2", "3.12"),
    Combination("3.3.2", "3.13"),
)


def asked_of(combination: Combination) -> tuple[str, ...]:
    """
    Return which tests are run.

    With ``QUICK`` in the environment, with lowest versions and on other Pythons the unit tests only.
    """
    is_usual = combination.python == "3.11" and combination != LOWEST
    return combination.folders if is_usual or not os.environ.get("QUICK") else combination.folders[:1]


def fingerprint() -> str:
    """Return what stands for the code and its tests as they are now."""
    digest = hashlib.sha256()
    for source in SOURCES:
        paths = [ROOT / source] if (ROOT / source).is_file() else sorted((ROOT / source).rglob("*"))
        for path in paths:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(ROOT)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def seen(name: str) -> dict[str, int]:
    """Return how many tests have passed in each folder, with the code as it is now, in this combination."""
    try:
        noted = json.loads((RESULTS / f"{name}.json").read_text())
    except FileNotFoundError:
        return {}
    passed: dict[str, int] = noted["passed"] if noted["code"] == fingerprint() else {}
    return passed


def note(airflow: str, passed: Mapping[str, int]) -> None:
    """Note that these folders have passed whole, in this process's Python."""
    combination = Combination(airflow, f"{sys.version_info[0]}.{sys.version_info[1]}")
    RESULTS.mkdir(exist_ok=True)
    noted = {"code": fingerprint(), "passed": {**seen(combination.name), **passed}}
    (RESULTS / f"{combination.name}.json").write_text(json.dumps(noted))


def main(without: list[str]) -> int:
    """
    Print what was seen.

    :param without: combinations that cannot be tried on this machine.
    :return: the exit status: 1 where something is missing.
    """
    missing = False
    for combination in COMBINATIONS:
        passed = seen(combination.name)
        told = ", ".join(f"{passed[folder]} {folder}" for folder in combination.folders if folder in passed)
        if combination.name in without:
            told = told or f"not tried: there is no Python {combination.python} here"
        elif not passed.keys() >= set(asked_of(combination)):
            told, missing = f"NOT passed{f', only {told}' if told else ''}", True
        print(f"Airflow {combination.airflow:7} Python {combination.python:5} {told}")
    return int(missing)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
