"""Checks before a release that tag, version and changelog agree: ``python scripts/check_release.py v1.2.3``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(tag: str) -> None:
    code = (ROOT / "airflow_provider_wassly" / "__init__.py").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if reason := obstacle(tag, code, changelog):
        raise SystemExit(reason)
    print(f"{tag} can be released")


def obstacle(tag: str, code: str, changelog: str) -> str:
    """Return why this cannot be released, or an empty text."""
    version = next(iter(re.findall(r'^__version__ = "(.+)"$', code, re.MULTILINE)), "")
    if tag != f"v{version}":
        return f"the tag is {tag}, the version in airflow_provider_wassly/__init__.py is {version}"
    heading = next(iter(re.findall(r"^## (.+)$", changelog, re.MULTILINE)), "")
    if not re.fullmatch(rf"{re.escape(version)} \(\d{{4}}-\d\d-\d\d\)", heading):
        return f"CHANGELOG.md starts with {heading!r}, not with {version} and the release date"
    return ""


if __name__ == "__main__":
    main(sys.argv[1])
