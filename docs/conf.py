"""How Sphinx builds the documentation: ``make docs``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docutils.nodes import Element, Node
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent

# Autodoc imports Airflow, which writes its settings to its home.
os.environ["AIRFLOW_HOME"] = str(DOCS / "_build" / "airflow")

from airflow_provider_wassly import __version__  # noqa: E402

project = "airflow-provider-wassly"
release = version = __version__
html_title = f"{project} {release}"
html_theme = "furo"
html_copy_source = html_show_copyright = False
exclude_patterns = ["_build"]

extensions = ["myst_parser", "sphinx.ext.autodoc"]
#: Headings can be linked to as on GitHub: page.md#what-is-assumed.
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

nitpick_ignore_regex = [
    # Of Python and Airflow: their inventories would have to come from the network.
    ("py:.*", r"(airflow|bases|collections|datetime|os|pathlib|re|typing)\..*|timedelta|Airflow\w+"),
    # Not in the reference.
    ("py:.*", r"Clock|StoredToken|message"),
]

#: Pages whose first line, a link to a file of the repository's root, gives way to that file.
FROM_ROOT = {
    "index": "README.md",
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "security": "SECURITY.md",
}


def read_from_root(app: Sphinx, page: str, source: list[str]) -> None:
    """Put a file of the root in place of the link to it, with its own links as they are from here."""
    if page not in FROM_ROOT:
        return
    file = ROOT / FROM_ROOT[page]
    app.env.note_dependency(file)
    pages = {ROOT / name: DOCS / f"{page}.md" for page, name in FROM_ROOT.items()}

    def from_here(link: re.Match[str]) -> str:
        path, hash_sign, anchor = link[1].partition("#")
        target = pages.get(ROOT / path, ROOT / path)
        return f"]({os.path.relpath(target, DOCS)}{hash_sign}{anchor})"

    text = re.sub(r"\]\((?!#|[a-z]+:)([^)\s]+)\)", from_here, file.read_text())
    _, _, rest = source[0].partition("\n")
    source[0] = text + rest


def find_by_short_name(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: Element) -> Node | None:
    """Resolve a reference that a docstring makes by a name alone, if one thing in the reference has that name."""
    if node.get("refdomain") != "py":
        return None
    domain = env.get_domain("py")
    name = node["reftarget"]
    found = {entry.node_id: full for full, entry in domain.objects.items() if full.endswith(f".{name}")}
    if len(found) != 1:
        return None
    (full,) = found.values()
    return domain.resolve_xref(env, node["refdoc"], app.builder, node["reftype"], full, node, text)


def setup(app: Sphinx) -> None:
    """Let Sphinx call what is above."""
    app.connect("source-read", read_from_root)
    app.connect("missing-reference", find_by_short_name)
