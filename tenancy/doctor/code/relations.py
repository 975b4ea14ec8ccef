"""Relations between tenant tables that leave the tenant out."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tenancy.doctor.code.project import Project
from tenancy.doctor.code.sources import Source, last
from tenancy.doctor.findings import Finding, Rule

PLAIN_RELATIONSHIP = Rule(
    "TEN410",
    "plain-relationship",
    "warning",
    "A plain relationship over a composite key blanks tenant_id when it is set to None, and the flush fails.",
)
PLAIN_FOREIGN_KEY = Rule(
    "TEN411",
    "plain-foreign-key",
    "error",
    "A foreign key by id alone accepts the id of another tenant's row, and tells whether it exists.",
)
RULES = (PLAIN_RELATIONSHIP, PLAIN_FOREIGN_KEY)

_WORDS = re.compile(r"\w+")


def examine(source: Source, project: Project) -> Iterator[Finding]:
    for node in source.all(ast.ClassDef):
        if node.name in project.classes:
            for call in (part for part in ast.walk(node) if isinstance(part, ast.Call)):
                name = last(source.dotted(call.func))
                if name in ("relationship", "backref"):
                    yield from _relationship(source, project, node, call)
                elif name == "ForeignKey":
                    yield from _foreign_key(source, project, node, call)


def _relationship(source: Source, project: Project, model: ast.ClassDef, call: ast.Call) -> Iterator[Finding]:
    target = next((name for name in _targets(source, call) if name in project.classes), None)
    if target is not None:
        yield PLAIN_RELATIONSHIP.finding(
            source.name,
            f"{model.name} relates to {target} by a plain relationship",
            remedy='use tenant_relationship("<foreign key column>"), which joins by tenant_id too',
            line=call.lineno,
        )


def _targets(source: Source, call: ast.Call) -> Iterator[str]:
    """Yield the class names a relationship may lead to: its first argument, and its annotation."""
    statement = next((outer for outer in source.above(call) if isinstance(outer, ast.stmt)), None)
    parts: list[ast.AST] = [*call.args[:1]]
    if isinstance(statement, ast.AnnAssign):
        parts.append(statement.annotation)
    for part in (inner for outer in parts for inner in ast.walk(outer)):
        if isinstance(part, ast.Name):
            yield part.id
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield from _WORDS.findall(part.value)


def _foreign_key(source: Source, project: Project, model: ast.ClassDef, call: ast.Call) -> Iterator[Finding]:
    first = call.args[0] if call.args else None
    if isinstance(first, ast.Constant) and isinstance(first.value, str):
        *_, table, column = ["", *first.value.split(".")]
        is_tenants = table in (project.tables or ()) and column != "tenant_id"
    elif isinstance(first, ast.Attribute) and isinstance(first.value, ast.Name):
        table = project.classes.get(first.value.id, "")
        is_tenants = bool(table)
    else:
        return
    if is_tenants:
        yield PLAIN_FOREIGN_KEY.finding(
            source.name,
            f"{model.name} refers to {table} without tenant_id",
            remedy=f'use TenantForeignKey("<column>", "{table}") in __table_args__',
            line=call.lineno,
        )
