"""Sphinx extension: reads this project's docstrings, and lists alembic operations as revision files call them.

A docstring explains a parameter in a line `name: meaning`, and errors in a line `Raises: Error - when`;
continuation lines are indented. Here they become field lists.
"""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

_FIELD = re.compile(r"(?P<names>[a-z_]\w*(?:, [a-z_]\w*)*): (?P<text>.*)", re.DOTALL)
_RAISES = re.compile(r"Raises(?:, when made)?: (?P<kinds>[\w, ]+?)(?: - (?P<text>.*))?$", re.DOTALL)
_LABELS = ("Raises", "Returns:", "Source:")
_RETURNS = re.compile(r"Returns: (?P<text>.*)", re.DOTALL)


def as_fields(lines: list[str], parameters: frozenset[str]) -> list[str]:
    """Return the lines of a docstring, with its explanations of parameters and errors as fields."""
    found: list[str] = []
    for paragraph in "\n".join(lines).split("\n\n"):
        for sentence in _statements(paragraph, parameters):
            found += [*_field(sentence, parameters).splitlines(), ""]
    return found


def _statements(paragraph: str, parameters: frozenset[str]) -> list[str]:
    """Split a paragraph where a line, or a sentence, begins to explain another parameter."""
    if paragraph.startswith((" ", "-", "*")):
        return [paragraph]
    joined = re.sub(r"\n\s+", " ", paragraph)
    starts = "|".join(sorted(map(re.escape, parameters), key=len, reverse=True))
    if starts:
        joined = re.sub(rf"(?<=[.;]) (?=(?:{starts})(?:, (?:{starts}))*: )", "\n", joined)
    lines: list[str] = []
    for line in joined.split("\n"):
        if not lines or _begins_statement(line, after=lines[-1]):
            lines.append(line)
        else:
            lines[-1] += " " + line
    return lines


def _begins_statement(line: str, *, after: str) -> bool:
    """Tell whether a line goes on with the one before, or says something new."""
    is_after_field = bool(_FIELD.match(after)) and after.endswith(".")
    return bool(_FIELD.match(line)) or line.startswith(_LABELS) or (is_after_field and line[:1].isupper())


def _field(text: str, parameters: frozenset[str]) -> str:
    if raised := _RAISES.match(text):
        kinds = [kind.strip() for kind in raised["kinds"].split(",")]
        return "\n".join(f":raises {kind}: {raised['text'] or ''}" for kind in kinds)
    if returned := _RETURNS.match(text):
        return f":returns: {returned['text']}"
    explained = _FIELD.match(text)
    if explained and set(explained["names"].split(", ")) <= parameters:
        return f":param {explained['names'].replace(', ', ' and ')}: {explained['text'].rstrip(';')}"
    return text


def _parameters(thing: object) -> frozenset[str]:
    try:
        names = set(inspect.signature(thing).parameters)  # type: ignore[arg-type]  # autodoc passes callables
    except (TypeError, ValueError):
        names = set()
    if inspect.isclass(thing):
        names |= {name for name in vars(thing) if not name.startswith("_")} | set(getattr(thing, "__annotations__", {}))
    return frozenset(names)


def _process(_app: Sphinx, _what: str, _name: str, thing: Any, _options: Any, lines: list[str]) -> None:
    lines[:] = as_fields(lines, _parameters(thing))


def _shorten(
    _app: Sphinx, _what: str, _name: str, _thing: Any, _options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Leave out a result whose type nobody is meant to name."""
    return signature, None if returned and "._" in f".{returned}" else returned


class Operations(SphinxDirective):
    """List operations of a module of `tenancy.alembic` as `op.<name>(...)`, one `Class.method` a line."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        written: list[str] = []
        for line in self.content:
            module, class_name, method = line.strip().rsplit(".", 2)
            operation = getattr(getattr(importlib.import_module(module), class_name), method)
            written += self._written(method, operation)
        return self.parse_text_to_nodes(
            StringList(["```{eval-rst}", *written, "```"], source=self.get_source_info()[0])
        )

    def _written(self, name: str, operation: Any) -> list[str]:
        signature = inspect.signature(operation)
        taken = [p.replace(annotation=p.empty) for p in signature.parameters.values() if p.name != "operations"]
        shown = signature.replace(parameters=taken, return_annotation=signature.empty)
        # Every operation has a docstring; the build should stop at one without.
        lines = as_fields(inspect.getdoc(operation).splitlines(), frozenset(signature.parameters))  # type: ignore[union-attr]
        return [f".. py:function:: op.{name}{shown}", "", *("   " + line for line in lines), ""]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("operations", Operations)
    app.connect("autodoc-process-docstring", _process)
    app.connect("autodoc-process-signature", _shorten)
    return {"parallel_read_safe": True}
