"""
Run the tests: ``python -m tests [FOLDER …]``. Default: all but the Celery tests.

Unit, integration and browser tests run in parallel and in random order; the seed is printed. The others run one after
another, because they start many processes and wait for them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

from tests import matrix

SIDE_BY_SIDE = ("unit", "integration", "browser")
ONE_BY_ONE = ("e2e",)
#: pyproject.toml configures what is measured.
COVERAGE = ("--cov", "--cov-report=term:skip-covered")
#: The minimum coverage of these together, in percent.
FLOOR = 96


def main(arguments: Sequence[str]) -> int:
    """Return the exit status of the first part that fails, or 0."""
    parser = argparse.ArgumentParser(prog="python -m tests", description=__doc__)
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="of tests; by default all but celery")
    parser.add_argument("--coverage", action="store_true", help="of what runs side by side")
    options = parser.parse_args(arguments)
    if unknown := set(options.folders) - {*SIDE_BY_SIDE, *matrix.FOLDERS}:
        parser.error(f"no such folder of tests: {', '.join(sorted(unknown))}")
    wanted = options.folders or [*SIDE_BY_SIDE, *ONE_BY_ONE]
    side_by_side = [f"tests/{folder}" for folder in wanted if folder in SIDE_BY_SIDE]
    others = [f"tests/{folder}" for folder in wanted if folder not in SIDE_BY_SIDE]
    coverage = [*COVERAGE, *([f"--cov-fail-under={FLOOR}"] if {*SIDE_BY_SIDE} <= {*wanted} else [])]
    parts = []
    if side_by_side:
        parts.append(["-n", "auto", "--dist", "worksteal", *(coverage if options.coverage else ()), *side_by_side])
    if others:
        parts.append(["-p", "no:randomly", *others])
    for part in parts:
        if status := subprocess.run([sys.executable, "-m", "pytest", *part]).returncode:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
