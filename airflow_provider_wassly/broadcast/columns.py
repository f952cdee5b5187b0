"""What the templates of a message refer to: columns of the list, and other names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import jinja2
from jinja2 import meta, nodes

#: Filters and tests that let a template work without the column in front of them.
_DEFAULTS = ("default", "d")
_TESTS = ("defined", "undefined")


def columns_needed(tree: nodes.Template) -> set[str]:
    """
    Return the columns that a template cannot be rendered without, as far as it names them.

    A column is not needed if the template has a default for it, or tests whether it is there.

    :param tree: the template's syntax tree.
    """
    if any(name.name == "recipient" for name in tree.find_all(nodes.Name) if name.ctx in ("store", "param")):
        return set()  # the template gives the name to something else
    named = {name for node in tree.find_all((nodes.Getattr, nodes.Getitem)) if (name := _column(node)) is not None}
    return named - set(_optional(tree))


def unknown_names(tree: nodes.Template, env: jinja2.Environment, known: Iterable[str]) -> set[str]:
    """
    Return the names that a template uses but nothing defines; none if the DAG renders undefined names as empty.

    :param tree: the template's syntax tree.
    :param env: its environment.
    :param known: the names in its context.
    """
    if not issubclass(env.undefined, jinja2.StrictUndefined):
        return set()
    guarded = {
        node.node.name
        for node in tree.find_all((nodes.Filter, nodes.Test))
        if node.name in (*_DEFAULTS, *_TESTS) and isinstance(node.node, nodes.Name)
    }
    return meta.find_undeclared_variables(tree) - {*known, *env.globals, "recipient"} - guarded


def is_the_same_for_all(tree: nodes.Template) -> bool:
    """Tell whether a template renders the same text for every recipient."""
    return "recipient" not in meta.find_undeclared_variables(tree) and not any(meta.find_referenced_templates(tree))


def _optional(tree: nodes.Template) -> Iterator[str]:
    for node in tree.find_all((nodes.Filter, nodes.Test)):
        if node.name in (*_DEFAULTS, *_TESTS) and (name := _column(node.node)) is not None:
            yield name
    for comparison in tree.find_all(nodes.Compare):
        for operand in comparison.ops:
            if operand.op in ("in", "notin") and _is_recipient(operand.expr) and _text(comparison.expr) is not None:
                yield str(_text(comparison.expr))


def _column(node: nodes.Node | None) -> str | None:
    """Return the column that an expression names, ``None`` if it names none."""
    if isinstance(node, nodes.Getattr) and _is_recipient(node.node):
        return node.attr
    if isinstance(node, nodes.Getitem) and _is_recipient(node.node):
        return _text(node.arg)
    return None


def _is_recipient(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Name) and node.name == "recipient"


def _text(node: nodes.Node) -> str | None:
    return node.value if isinstance(node, nodes.Const) and isinstance(node.value, str) else None
