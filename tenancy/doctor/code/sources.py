"""Python source as the checks read it: parsed, never imported, with each name's origin and each node's parents."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

Node = TypeVar("Node", bound=ast.AST)
Function = ast.FunctionDef | ast.AsyncFunctionDef
_SKIPPED = {"__pycache__", "node_modules", "build", "dist", "site-packages"}


@dataclass(frozen=True, eq=False)
class Source:
    """One parsed file. `name` is its path from the working directory where it lies below that."""

    name: str
    text: str
    tree: ast.Module
    imports: dict[str, str] = field(default_factory=dict)
    parents: dict[ast.AST, ast.AST] = field(default_factory=dict)
    _nodes: dict[type[ast.AST], list[ast.AST]] = field(default_factory=dict)
    _assigned: dict[ast.AST, list[tuple[str, ast.expr]]] = field(default_factory=dict)

    def add(self, node: ast.AST) -> None:
        """Note a node while the tree is walked for the only time."""
        self._nodes.setdefault(type(node), []).append(node)
        self.parents.update(dict.fromkeys(ast.iter_child_nodes(node), node))

    def all(self, kind: type[Node]) -> list[Node]:
        """Return every node of exactly this kind."""
        return cast("list[Node]", self._nodes.get(kind, []))

    def dotted(self, node: ast.AST) -> str:
        """Return the full name of what an expression names, through this file's imports; "" for anything else."""
        if isinstance(node, ast.Name):
            return self.imports.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            value = self.dotted(node.value)
            return f"{value}.{node.attr}" if value else ""
        return ""

    def above(self, node: ast.AST) -> Iterator[ast.AST]:
        """Yield what the node lies in, innermost first."""
        while (parent := self.parents.get(node)) is not None:
            yield parent
            node = parent

    def function_of(self, node: ast.AST) -> Function | None:
        """Return the innermost function the node lies in."""
        return next((outer for outer in self.above(node) if isinstance(outer, Function)), None)

    def bindings(self, name: ast.Name) -> Iterator[ast.expr]:
        """Yield what a plain name was set to, in its function or else in the module."""
        places = [outer for outer in self.above(name) if isinstance(outer, Function | ast.Module)]
        for place in places:
            if place not in self._assigned:
                self._assigned[place] = list(_assignments(place))
            found = [value for target, value in self._assigned[place] if target == name.id]
            if found:
                yield from found
                return

    def functions(self) -> list[Function]:
        return [*self.all(ast.FunctionDef), *self.all(ast.AsyncFunctionDef)]


def parse(name: str, text: str) -> Source:
    """Parse one file.

    Raises: SyntaxError, ValueError - it is no Python of this interpreter's version.
    """
    tree = ast.parse(text, name)
    source = Source(name, text, tree)
    for node in ast.walk(tree):
        source.add(node)
        if isinstance(node, ast.Import):
            for alias in node.names:
                local = alias.asname or alias.name.partition(".")[0]
                source.imports[local] = alias.name if alias.asname else local
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                source.imports[alias.asname or alias.name] = f"{node.module or ''}.{alias.name}"
    return source


def files_of(places: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Yield each Python file with its name, in order; a folder that is hidden, or holds installed code, is left out."""
    for place in places:
        found = [place] if place.is_file() else sorted(place.rglob("*.py"))
        for path in found:
            inner = path.relative_to(place).parts if place.is_dir() else ()
            if not any(part.startswith(".") or part in _SKIPPED for part in inner):
                yield _name(path), path


def _name(path: Path) -> str:
    relative = os.path.relpath(path)
    return Path(path if relative.startswith("..") else relative).as_posix()


def last(dotted: str) -> str:
    """Return the last part of a dotted name."""
    return dotted.rpartition(".")[2]


def _assignments(place: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names set in a function or module, but not in the functions inside it."""
    for node in ast.iter_child_nodes(place):
        if isinstance(node, Function | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield target.id, node.value
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and isinstance(node.target, ast.Name) and node.value:
            yield node.target.id, node.value
        elif isinstance(node, ast.withitem) and isinstance(node.optional_vars, ast.Name):
            yield node.optional_vars.id, node.context_expr
        yield from _assignments(node)
