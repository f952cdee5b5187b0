"""Text that a phone can display."""

from __future__ import annotations

import re

#: Terminal codes: colours, cursor moves, links. They start with ESC, or with the single character for ``ESC [``.
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x1b[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]"
    r"|\x9b[0-?]+[@-~]"
)
_LINE_BREAKS = re.compile(r"\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f]")


def plain_text(text: str) -> str:
    """
    Remove terminal codes and control characters, which the output of a failed tool is full of.

    Lone surrogates, which cannot be sent, become question marks.
    """
    text = _LINE_BREAKS.sub("\n", _ESCAPES.sub("", text))
    return _CONTROLS.sub("", text).encode("utf-8", "replace").decode()
