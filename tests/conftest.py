"""A separate Airflow for all tests; the user's own is not touched."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import matrix

# Imported modules stay, and what a test creates is soon gone. Collecting garbage as often as Python does by default
# takes a tenth of the time of all unit tests.
gc.set_threshold(100_000, 10, 10)

# Before the first import of Airflow, which reads its environment then.
_HOME = tempfile.mkdtemp(prefix="wassly-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
for _name in [name for name in os.environ if name.startswith("AIRFLOW_")]:
    del os.environ[_name]
os.environ.update(
    AIRFLOW_HOME=_HOME,
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__DAGS_FOLDER=os.path.join(_HOME, "dags"),
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{_HOME}/airflow.db",
)

# How long an example takes depends on the machine's load.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

#: With one of these options, a run may not include all tests of a folder.
_PARTIAL = ("keyword", "markexpr", "collectonly", "deselect", "ignore", "ignore_glob", "lf", "stepwise")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Record which folders passed, if all of their tests were run."""
    config = session.config
    if hasattr(config, "workerinput"):  # a worker process, which knows only its own tests
        return
    if exitstatus or any(getattr(config.option, name, None) for name in _PARTIAL):
        return
    tests = Path(__file__).parent
    asked_for = {Path(config.invocation_params.dir, argument) for argument in config.args}
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    reports = reporter.stats.get("passed", [])
    passed = Counter(Path(config.rootpath, report.nodeid.partition("::")[0]) for report in reports)
    by_folder: Counter[str] = Counter()
    for path, number in passed.items():
        folder = path.relative_to(tests).parts[0]
        if asked_for & {tests, tests / folder}:
            by_folder[folder] += number
    if by_folder:
        matrix.note(version("apache-airflow"), by_folder)


def pytest_collection_finish() -> None:
    """Keep the garbage collector from scanning all of Airflow again and again."""
    gc.collect()
    gc.freeze()
