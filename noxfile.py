"""
Runs the tests on every supported Airflow and Python: ``make test-matrix``.

Each environment gets the package versions of its Airflow's time. Tests that have already passed with exactly this code,
for example in ``make test``, are not run again.
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

#: Compile once here: where PYTHONDONTWRITEBYTECODE is set, every process would compile everything again.
COMPILED = "--compile-bytecode"
#: The cut-off date for the environment with the lowest versions, and the test tools that it needs.
DAY_OF_LOWEST = "2025-06-15"
TOOLS_OF_LOWEST = ("greenlet", "hypothesis", "pytest", "pytest-randomly", "pytest-timeout", "pytest-xdist", "statsd")


def interpreter(version: str) -> str | None:
    """Find a Python of this version, on the PATH or in pyenv; ``None`` without one."""

    def candidates() -> Iterator[str]:
        if found := shutil.which(f"python{version}"):
            yield found
        for path in sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"), reverse=True):
            yield str(path)

    # Run each candidate: a pyenv shim can exist without a Python behind it.
    return next(
        (path for path in candidates() if not subprocess.run([path, "-c", ""], capture_output=True).returncode), None
    )


PYTHONS = {version: interpreter(version) for version in matrix.PYTHONS}
HERE = [combination for combination in matrix.COMBINATIONS if PYTHONS[combination.python]]


@nox.session(venv_backend="none", default=False)
def environments(session: nox.Session) -> None:
    """Build all environments, several at a time, for ``nox -R`` to reuse."""

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
    """Run the tests that a combination has to pass."""
    folders = [folder for folder in matrix.asked_of(combination) if folder not in matrix.seen(combination.name)]
    if not folders:
        session.skip("already passed with exactly this code")
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
    """Show the results; fail if something is missing."""
    without = [combination.name for combination in matrix.COMBINATIONS if combination not in HERE]
    session.run(sys.executable, "-m", "tests.matrix", *(["--without", *without] if without else []))
