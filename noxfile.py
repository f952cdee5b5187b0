"""
The tests on every Airflow and Python that this package is for: ``make test-matrix``.

Each environment is installed as of its Airflow's time. What has passed with just this code before, in ``make test`` for
instance, is not run again.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nox

sys.path.insert(0, str(Path(__file__).parent))
from tests import matrix

nox.options.default_venv_backend = "uv"
nox.options.sessions = ["tests", "table"]
nox.options.error_on_missing_interpreters = False

#: uv leaves that to the first process; where PYTHONDONTWRITEBYTECODE is set, each would do it for itself.
COMPILED = "--compile-bytecode"
#: The day as of which the lowest versions are installed, and what the tests need beside them.
DAY_OF_LOWEST = "2025-06-15"
TOOLS_OF_LOWEST = ("greenlet", "hypothesis", "pytest", "pytest-randomly", "pytest-timeout", "pytest-xdist", "statsd")


def interpreter(version: str) -> str | None:
    """Find a Python of this version: on the PATH, or among those of pyenv."""

    def candidates() -> Iterator[str]:
        if found := shutil.which(f"python{version}"):
            yield found
        for path in sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"), reverse=True):
            yield str(path)

    # One of pyenv's shims is there whether or not pyenv would run it.
    return next(
        (path for path in candidates() if not subprocess.run([path, "-c", ""], capture_output=True).returncode), None
    )


PYTHONS = {version: interpreter(version) for version in matrix.PYTHONS}
HERE = [combination for combination in matrix.COMBINATIONS if PYTHONS[combination.python]]


@nox.session(venv_backend="none", default=False)
def environments(session: nox.Session) -> None:
    """Build the environments of all tests, several at a time; ``nox -R`` then uses them as they are."""

    def build(combination: matrix.Combination) -> str:
        command = [sys.executable, "-m", "nox", "--install-only", "--session", f"tests({combination.name})"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.stdout if done.returncode else ""

    with ThreadPoolExecutor(4) as pool:
        for output in pool.map(build, HERE):
            if output:
                session.error(output)


@nox.session
@nox.parametrize(
    "python,combination",
    [nox.param(PYTHONS[combination.python], combination, id=combination.name) for combination in HERE],
)
def tests(session: nox.Session, combination: matrix.Combination) -> None:
    """Run the tests that a combination is to pass."""
    folders = [folder for folder in matrix.asked_of(combination) if folder not in matrix.seen(combination.name)]
    if not folders:
        session.skip("has passed with just this code")
    if combination == matrix.LOWEST:
        day = f"--exclude-newer={DAY_OF_LOWEST}"
        airflow = f"apache-airflow=={combination.airflow}"
        session.install(COMPILED, "--resolution=lowest-direct", day, airflow, "-e", ".[sandbox]")
        session.install(COMPILED, day, *TOOLS_OF_LOWEST)
    else:
        session.install(COMPILED, "-e", ".[test]", f"--constraint=constraints/airflow-{combination.airflow}.txt")
    session.run("python", "-m", "tests", *folders)


@nox.session(venv_backend="none")
def table(session: nox.Session) -> None:
    """Show what has passed; fail if that is not all."""
    without = [combination.name for combination in matrix.COMBINATIONS if combination not in HERE]
    session.run(sys.executable, "-m", "tests.matrix", *(["--without", *without] if without else []))
