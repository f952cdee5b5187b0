"""
What the package's metadata takes from the README and from the repository's address, at each build.

The address has one place: ``repository`` in ``pyproject.toml``, under ``[tool.hatch.metadata.hooks.custom]``. While it
is empty, the long description names the files that the README links to, and the metadata has no link to the repository.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

#: For those who read a description without links. ``scripts/check_package.py`` checks that it is true.
WHERE_THE_FILES_ARE = "The files that this page names are in the source distribution."

#: A code block, code in a line, or a link or picture, whose text may hold code, brackets and a picture.
_PIECE = re.compile(
    r"""
      ^[ ]*(?P<fence>`{3,}|~{3,}).*?(?:^[ ]*(?P=fence)[`~]*[ ]*$|\Z)
    | (?<![`\\])(?P<ticks>`+)(?!`)(?:(?!\n[ ]*\n).)+?(?<!`)(?P=ticks)(?!`)
    | (?<!\\)(?P<picture>!?)\[(?P<text>(?:[^][`]|`[^`]+`|!?\[[^][]*\](?:\([^()]*\))?)*)\]
      \((?P<target>[^()\s]+)(?P<title>\s+"[^"]*")?\)
    """,
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)
_ABSOLUTE = re.compile(r"[a-z][a-z0-9+.-]*:|//|#", re.IGNORECASE)


def long_description(readme: str, repository: str, version: str) -> str:
    """
    Return the README as a page that is read away from the repository.

    Links of the form ``[text](path)`` and pictures become absolute if the address of the repository is known, and else
    plain text that names the file. Reference links and HTML stay as they are: keep them out of the README.

    :param repository: its address on GitHub; empty while there is none.
    :param version: of the package, whose tag (``v…``) the links lead to.
    """
    page = _PIECE.sub(lambda piece: _away_from_the_repository(piece, repository, version), readme)
    return page if repository or page == readme else f"{page.rstrip()}\n\n{WHERE_THE_FILES_ARE}\n"


def urls(repository: str, version: str) -> dict[str, str]:
    """
    Return the links that PyPI shows beside the description.

    :param repository: as in :func:`long_description`.
    :param version: as there.
    """
    wassly = {"Wassly": "https://docs.wassly.com"}
    if not repository:
        return wassly
    return {
        "Source": repository,
        "Documentation": f"{repository}/tree/v{version}/docs",
        "Examples": f"{repository}/tree/v{version}/example_dags",
        "Changelog": f"{repository}/blob/v{version}/CHANGELOG.md",
        "Issues": f"{repository}/issues",
        **wassly,
    }


def _away_from_the_repository(piece: re.Match[str], repository: str, version: str) -> str:
    target, picture = piece["target"], piece["picture"]
    if target is None:
        return piece[0]
    text = _PIECE.sub(lambda inner: _away_from_the_repository(inner, repository, version), piece["text"])
    if not _ABSOLUTE.match(target):
        if not repository:
            path = target.partition("#")[0]
            return text if path in text else f"{text} (`{path}`)".lstrip()
        target = f"{repository}/{'raw' if picture else 'blob'}/v{version}/{target}"
    return f"{picture}[{text}]({target}{piece['title'] or ''})"


def get_metadata_hook() -> type:
    """Return what hatchling calls."""
    # Here, because only a build has hatchling.
    from hatchling.metadata.plugin.interface import MetadataHookInterface

    class MetadataHook(MetadataHookInterface):
        def update(self, metadata: dict[str, Any]) -> None:
            repository, version = self.config["repository"].rstrip("/"), metadata["version"]
            readme = Path(self.root, "README.md").read_text(encoding="utf-8")
            metadata["readme"] = {
                "content-type": "text/markdown",
                "text": long_description(readme, repository, version),
            }
            metadata["urls"] = urls(repository, version)

    return MetadataHook
