"""
Checks a wheel or sdist: what it installs, separately from the checkout, and how PyPI will show it.

Usage: ``python scripts/check_package.py dist/….whl``, in an environment with the package and PyPI's renderer,
``readme-renderer[md]``, installed. ``scripts/build_package.sh`` builds both packages and runs this for each.
"""

from __future__ import annotations

import email
import importlib
import importlib.metadata
import pkgutil
import posixpath
import sys
import tarfile
import zipfile
from email.message import Message
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

NAME = "airflow-provider-wassly"


def main(package: str) -> None:
    installed = check_installation(package)
    files = read(package)
    (metadata,) = (name for name in files if name == "PKG-INFO" or name.endswith(".dist-info/METADATA"))
    described = email.message_from_string(files[metadata].decode())
    check_description(package, described, installed)
    if package.endswith(".tar.gz"):
        check_links_between_files(package, files)
    print(f"{package}: version {described['Version']}, {len(files)} files, description and links OK")


def check_installation(package: str) -> Message:
    """
    Check the installed files, and that every module can be imported.

    :return: the metadata.
    """
    import airflow_provider_wassly

    checkout = Path(__file__).resolve().parent.parent
    here = Path(airflow_provider_wassly.__file__).resolve().parent
    if here.is_relative_to(checkout / "airflow_provider_wassly"):
        raise SystemExit(f"imported from the checkout ({here}), not from {package}")

    installed = importlib.metadata.distribution(NAME)
    names = {str(file) for file in installed.files or ()}
    expected = {
        str(path.relative_to(checkout))
        for path in (checkout / "airflow_provider_wassly").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    if missing := expected - names:
        raise SystemExit(f"missing from {package}: {sorted(missing)}")
    foreign = {name for name in names if not name.startswith(("airflow_provider_wassly/", "airflow_provider_wassly-"))}
    if foreign:
        raise SystemExit(f"unexpected files in {package}: {sorted(foreign)}")
    if not any(name.endswith("LICENSE") for name in names):
        raise SystemExit(f"missing from {package}: the license")

    for module in pkgutil.walk_packages(airflow_provider_wassly.__path__, "airflow_provider_wassly."):
        # These need an extra, or pytest. Other tests check the error without it.
        if ".sandbox" not in module.name and not module.name.endswith(".pytest_plugin"):
            importlib.import_module(module.name)
    (entry_point,) = importlib.metadata.entry_points(group="apache_airflow_provider", name="provider_info").select(
        module="airflow_provider_wassly.get_provider_info"
    )
    if (name := entry_point.load()()["package-name"]) != NAME:
        raise SystemExit(f"{package}: the provider info has the wrong package name {name!r}")
    return email.message_from_string(installed.read_text("METADATA") or "")


def read(package: str) -> dict[str, bytes]:
    """Return path -> content of a wheel or sdist; an sdist's top folder is left out of the paths."""
    if package.endswith(".whl"):
        with zipfile.ZipFile(package) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist()}
    with tarfile.open(package) as sdist:
        opened = {member.name.partition("/")[2]: sdist.extractfile(member) for member in sdist}
        return {name: file.read() for name, file in opened.items() if file}


def check_description(package: str, described: Message, installed: Message) -> None:
    """Check what PyPI shows: the long description and the project links."""
    if (kind := described["Description-Content-Type"]) != "text/markdown":
        raise SystemExit(f"{package}: the long description is {kind}, not text/markdown")
    if described.get_payload() != installed.get_payload():
        raise SystemExit(f"{package}: the long description changes when the package is installed")
    if problems := problems_of_page(render(str(described.get_payload()))):
        raise SystemExit(f"{package}: the long description has {'; '.join(problems)}")
    labels = [url.partition(", ") for url in described.get_all("Project-URL", [])]
    if broken := [label for label, _, url in labels if not url.startswith("https://")]:
        raise SystemExit(f"{package}: project links without an https URL: {broken}")


def check_links_between_files(package: str, files: dict[str, bytes]) -> None:
    """Check that the pages of an sdist link only to files in it."""
    folders = {posixpath.dirname(name) for name in files}
    for name in (name for name in files if name.endswith(".md")):
        page = Page(render(files[name].decode()))
        for target in page.links + page.pictures:
            path = unquote(urlsplit(target).path)
            if urlsplit(target).scheme or not path:
                continue
            path = posixpath.normpath(posixpath.join(posixpath.dirname(name), path))
            if path not in files and path not in folders:
                raise SystemExit(f"missing from {package}: {path}, which {name} links to")


def render(markdown: str) -> str:
    """Render Markdown as PyPI does."""
    from readme_renderer import markdown as renderer

    html = renderer.render(markdown)
    if not html:
        raise SystemExit("PyPI would show this page as plain text, without formatting")
    return str(html)


def problems_of_page(html: str) -> list[str]:
    """Return the broken links and pictures of a page."""
    page = Page(html)
    problems = []
    for target in page.links:
        if target.startswith("#"):
            if target[1:] not in page.ids:
                problems.append(f"a link to a missing heading: {target.removeprefix('#user-content-')}")
        elif urlsplit(target).scheme not in ("https", "http", "mailto"):
            problems.append(f"a dead link: {target}")
    problems += [f"a picture without an https URL: {url}" for url in page.pictures if not url.startswith("https://")]
    return problems + [f"an unrendered link: {text}" for text in page.texts if "](" in text]


class Page(HTMLParser):
    """The contents of a page: link targets, pictures, headings, and texts outside of code."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.pictures: list[str] = []
        self.ids: set[str] = set()
        self.texts: list[str] = []
        self._code = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Record a link, a picture or a heading."""
        values = {name: value or "" for name, value in attributes}
        self._code += tag in ("code", "pre")
        if "id" in values:
            self.ids.add(values["id"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "img":
            self.pictures.append(values.get("src", ""))

    def handle_endtag(self, tag: str) -> None:
        """Notice the end of code."""
        self._code -= tag in ("code", "pre")

    def handle_data(self, data: str) -> None:
        """Record a text."""
        if not self._code:
            self.texts.append(data)


if __name__ == "__main__":
    main(sys.argv[1])
