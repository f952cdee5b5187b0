"""
What a release shows on PyPI, and what stops one that is not ready.

The long description is the README without links that lead nowhere.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
ADDRESS = "https://github.com/example/wassly"


def load(path: Path) -> ModuleType:
    """Import a file that belongs to no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hatch_build = load(ROOT / "hatch_build.py")
check_package = load(ROOT / "scripts" / "check_package.py")
check_release = load(ROOT / "scripts" / "check_release.py")

LINKS = {
    "a page": ("See [the broadcast](docs/broadcast.md).", "See the broadcast (`docs/broadcast.md`)."),
    "a part of a page": ("[limits](docs/broadcast.md#limits)", "limits (`docs/broadcast.md`)"),
    "the file's own name": ("[CONTRIBUTING.md](CONTRIBUTING.md)", "CONTRIBUTING.md"),
    "the file's own name as code": ("[`docs/sandbox.md`](docs/sandbox.md)", "`docs/sandbox.md`"),
    "code in its text": ("[a `x[0]`, b](docs/a.md)", "a `x[0]`, b (`docs/a.md`)"),
    "brackets in its text": ("[a [b] c](docs/a.md)", "a [b] c (`docs/a.md`)"),
    "a text over two lines": ("[two\nlines](docs/a.md)", "two\nlines (`docs/a.md`)"),
    "a title": ('[a](docs/a.md "A page")', "a (`docs/a.md`)"),
    "two in a line": ("[a](docs/a.md), [b](docs/b.md)", "a (`docs/a.md`), b (`docs/b.md`)"),
    "in a table": ("| [a](docs/a.md) | `b` |", "| a (`docs/a.md`) | `b` |"),
    "a picture": ("![The inbox](docs/inbox.png)", "The inbox (`docs/inbox.png`)"),
    "a picture without a text": ("![](docs/inbox.png)", "(`docs/inbox.png`)"),
    "a picture that is a link": (
        "[![The inbox](docs/inbox.png)](docs/sandbox.md)",
        "The inbox (`docs/inbox.png`) (`docs/sandbox.md`)",
    ),
    "after a lonely backtick": ("a ` b\n\n[a](docs/a.md) `c`", "a ` b\n\na (`docs/a.md`) `c`"),
    "after an open block that ended": ("```\nx\n```\n\n[a](docs/a.md)", "```\nx\n```\n\na (`docs/a.md`)"),
}


@pytest.mark.parametrize(("readme", "expected"), LINKS.values(), ids=LINKS)
def test_without_an_address_a_link_names_its_file(readme: str, expected: str) -> None:
    page = hatch_build.long_description(readme, "", "1.2.3")
    assert page == f"{expected}\n\n{hatch_build.WHERE_THE_FILES_ARE}\n"


@pytest.mark.parametrize(
    "readme",
    [
        "[Wassly](https://docs.wassly.com), [mail](mailto:a@example.com), [below](#guarantees)\n",
        "![badge](https://example.com/badge.svg)\n",
        "no link at all, a [bracket] (and another)\n",
        "`[a](docs/a.md)` and ``[b](docs/b.md) ` ``\n",
        "```python\nx = y[0](z)  # [a](docs/a.md)\n```\n",
        "~~~\n[a](docs/a.md)\n~~~\n",
        "  ```text\n  [a](docs/a.md)\n  ```\n",
        "````\n```\n[a](docs/a.md)\n```\n````\n",
        "\\[a](docs/a.md)\n",
    ],
)
@pytest.mark.parametrize("repository", ["", ADDRESS])
def test_what_is_no_link_to_a_file_stays(readme: str, repository: str) -> None:
    assert hatch_build.long_description(readme, repository, "1.2.3") == readme


@pytest.mark.parametrize(
    ("readme", "expected"),
    [
        ("[a](docs/a.md#b)\n", f"[a]({ADDRESS}/blob/v1.2.3/docs/a.md#b)\n"),
        ('[a](docs/a.md "A page")\n', f'[a]({ADDRESS}/blob/v1.2.3/docs/a.md "A page")\n'),
        ("![a](docs/a.png)\n", f"![a]({ADDRESS}/raw/v1.2.3/docs/a.png)\n"),
        (
            "[![a](docs/a.png)](docs/a.md)\n",
            f"[![a]({ADDRESS}/raw/v1.2.3/docs/a.png)]({ADDRESS}/blob/v1.2.3/docs/a.md)\n",
        ),
        (
            "[![a](docs/a.png)](https://example.com)\n",
            f"[![a]({ADDRESS}/raw/v1.2.3/docs/a.png)](https://example.com)\n",
        ),
    ],
)
def test_with_an_address_a_link_leads_to_the_file_of_this_version(readme: str, expected: str) -> None:
    assert hatch_build.long_description(readme, ADDRESS, "1.2.3") == expected


def test_the_links_beside_the_description_follow_from_the_address() -> None:
    assert hatch_build.urls("", "1.2.3") == {"Wassly": "https://docs.wassly.com"}
    assert hatch_build.urls(ADDRESS, "1.2.3") == {
        "Source": ADDRESS,
        "Documentation": f"{ADDRESS}/tree/v1.2.3/docs",
        "Examples": f"{ADDRESS}/tree/v1.2.3/example_dags",
        "Changelog": f"{ADDRESS}/blob/v1.2.3/CHANGELOG.md",
        "Issues": f"{ADDRESS}/issues",
        "Wassly": "https://docs.wassly.com",
    }


def test_only_a_build_needs_hatchling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hatchling", None)
    assert load(ROOT / "hatch_build.py").get_metadata_hook


PROBLEMS = {
    '<a href="docs/a.md">a</a>': ["a dead link: docs/a.md"],
    '<a href="/docs/a.md">a</a>': ["a dead link: /docs/a.md"],
    '<a href="#user-content-b">a</a><h2 id="user-content-a">A</h2>': ["a link to a missing heading: b"],
    '<img src="docs/a.png">': ["a picture without an https URL: docs/a.png"],
    '<img src="http://example.com/a.png">': ["a picture without an https URL: http://example.com/a.png"],
    "<img>": ["a picture without an https URL: "],
    "<p>[a](docs/a b.md)</p>": ["an unrendered link: [a](docs/a b.md)"],
    '<p><code>x</code> [a](b c)</p><img src="d">': [
        "a picture without an https URL: d",
        "an unrendered link:  [a](b c)",
    ],
    '<a href="https://example.com">a</a> <a href="mailto:a@example.com">a</a>': [],
    '<a href="#user-content-a">a</a><h2 id="user-content-a">A</h2>': [],
    '<img src="https://example.com/a.png">': [],
    "<pre><span>[a](b c)</span></pre> <code>[a](b c)</code>": [],
}


@pytest.mark.parametrize(("html", "problems"), PROBLEMS.items())
def test_the_check_finds_what_leads_nowhere(html: str, problems: list[str]) -> None:
    assert check_package.problems_of_page(html) == problems


def test_the_check_follows_the_links_between_the_files_of_an_sdist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_package, "render", lambda markdown: markdown)
    files = {
        "README.md": b'<a href="docs/a.md#b">a</a><a href="example_dags">b</a><a href="#c">c</a><a href="https://d">d</a>',
        "docs/a.md": b'<a href="../README.md">up</a><img src="a%20b.png">',
        "docs/a b.png": b"",
        "example_dags/a.py": b"",
    }
    check_package.check_links_between_files("x.tar.gz", files)
    for missing, page in {"docs/a b.png": "docs/a.md", "docs/a.md": "README.md"}.items():
        with pytest.raises(SystemExit, match=rf"^missing from x\.tar\.gz: {missing}, which {page} links to$"):
            check_package.check_links_between_files("x.tar.gz", {n: c for n, c in files.items() if n != missing})


CODE = '"""A package."""\n\n__version__ = "1.2.3"\n'
CHANGELOG = "# Changelog\n\n## 1.2.3 (2026-12-01)\n\n- New.\n\n## 1.2.2 (2026-11-01)\n"


@pytest.mark.parametrize(
    ("tag", "changelog", "expected"),
    [
        ("v1.2.3", CHANGELOG, ""),
        ("v1.2.4", CHANGELOG, "the tag is v1.2.4, the version in airflow_provider_wassly/__init__.py is 1.2.3"),
        ("1.2.3", CHANGELOG, "the tag is 1.2.3, the version in airflow_provider_wassly/__init__.py is 1.2.3"),
        (
            "v1.2.3",
            CHANGELOG.replace("2026-12-01", "unreleased"),
            "CHANGELOG.md starts with '1.2.3 (unreleased)', not with 1.2.3 and the release date",
        ),
        (
            "v1.2.3",
            CHANGELOG.replace("## 1.2.3 (2026-12-01)\n\n- New.\n\n", ""),
            "CHANGELOG.md starts with '1.2.2 (2026-11-01)', not with 1.2.3 and the release date",
        ),
        ("v1.2.3", "# Changelog\n", "CHANGELOG.md starts with '', not with 1.2.3 and the release date"),
    ],
)
def test_a_release_needs_one_version_everywhere(tag: str, changelog: str, expected: str) -> None:
    assert check_release.obstacle(tag, CODE, changelog) == expected


def test_a_release_reads_the_version_and_the_changelog_of_this_repository() -> None:
    with pytest.raises(SystemExit, match=r"^the tag is v0, the version in .* is \d+\.\d+\.\d+"):
        check_release.main("v0")
