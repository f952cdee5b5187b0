"""
Run the tests: ``python -m tests [FOLDER …]``; all but those with Celery by default.

Unit, integration and browser tests run side by side and in random order, the seed of which is printed. The others have
the machine for themselves, because what they wait for is done by processes of their own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

from tests import matrix

SIDE_BY_SIDE = ("unit", "integration", "browser")
ONE_BY_ONE = ("e2e",)
#: What is measured is configured in pyproject.toml.
COVERAGE = ("--cov", "--cov-report=term:skip-covered")
#: Percent that all of those together reach.
FLOOR = 96


def main(arguments: Sequence[str]) -> int:
    """Return the exit status: that of the first part that fails."""
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
