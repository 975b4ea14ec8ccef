"""All files of one examination together: which tables are tenants', which functions touch tenant data."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sqlalchemy import MetaData

from tenancy.doctor.code.sources import Function, Source, last
from tenancy.tables import tenant_tables

SCOPES = {"tenant_scope", "account_scope", "platform_scope"}
_ROUTES = {"route", "get", "post", "put", "patch", "delete"}
_SESSIONS = {"session", "db_session", "Session", "sessions"}
_OTHER_SESSIONS = {"flask", "requests", "httpx", "aiohttp", "boto3", "aioboto3", "pytest"}
_TENANT_NAMES = {"current_tenant", "require_tenant"}


@dataclass(frozen=True)
class Project:
    """tables: names of tenant tables; None when neither models nor metadata tell, and any table may be one.

    classes: names of the model classes that are tenant tables, with the name of the table.
    """

    sources: tuple[Source, ...]
    tables: frozenset[str] | None
    classes: dict[str, str]
    functions: dict[str, list[tuple[Source, Function]]]

    def bodies(self, source: Source, target: ast.expr) -> Iterator[tuple[Source, ast.AST]]:
        """Yield what a callable may run, as far as it stands in the examined code: in this file, or else in any."""
        if isinstance(target, ast.Lambda):
            yield source, target
        elif isinstance(target, ast.Call) and last(source.dotted(target.func)) == "partial" and target.args:
            yield from self.bodies(source, target.args[0])
        elif isinstance(target, ast.Name | ast.Attribute):
            name = target.id if isinstance(target, ast.Name) else target.attr
            found = self.functions.get(name, [])
            here = [(where, body) for where, body in found if where is source]
            if here or (isinstance(target, ast.Name) and target.id in source.imports):
                yield from here or found


def gather(sources: Iterable[Source], metadata: MetaData | None) -> Project:
    """Read what the checks need to know of all files before they look at one."""
    every = tuple(sources)
    classes = _tenant_classes(every)
    names = set(classes.values()) | ({table.name for table in tenant_tables(metadata)} if metadata else set())
    functions: dict[str, list[tuple[Source, Function]]] = {}
    for source in every:
        for function in source.functions():
            functions.setdefault(function.name, []).append((source, function))
    return Project(every, frozenset(names) or None, classes, functions)


def _tenant_classes(sources: tuple[Source, ...]) -> dict[str, str]:
    """Return the classes below TenantTable, by name, over all files."""
    bases: dict[str, set[str]] = {}
    tables: dict[str, str] = {}
    for source in sources:
        for node in source.all(ast.ClassDef):
            bases.setdefault(node.name, set()).update(last(source.dotted(base)) for base in node.bases)
            tables[node.name] = _table_name(node)
    tenants = {"TenantTable"}
    while more := {name for name, of in bases.items() if of & tenants} - tenants:
        tenants |= more
    return {name: tables[name] for name in tenants if tables.get(name)}


def _table_name(node: ast.ClassDef) -> str:
    for statement in node.body:
        if (
            isinstance(statement, ast.Assign)
            and isinstance(statement.value, ast.Constant)
            and any(isinstance(target, ast.Name) and target.id == "__tablename__" for target in statement.targets)
        ):
            return str(statement.value.value)
    return ""


# What code does --------------------------------------------------------------------------------------


def opens_scope(source: Source, body: ast.AST) -> bool:
    """Tell whether the code opens a scope of its own anywhere."""
    return any(isinstance(node, ast.Call) and last(source.dotted(node.func)) in SCOPES for node in ast.walk(body))


def is_in_scope(source: Source, node: ast.AST) -> bool:
    """Tell whether a scope is open at the node, as far as can be seen: opened around it, in its function, or by its
    being a view, which a request's scope surrounds.
    """
    functions = [outer for outer in source.above(node) if isinstance(outer, Function)]
    if any(opens_scope(source, function) or is_view(source, function) for function in functions):
        return True
    return any(
        opens_scope(source, item.context_expr)
        for outer in source.above(node)
        if isinstance(outer, ast.With | ast.AsyncWith)
        for item in outer.items
    )


def is_view(source: Source, function: Function) -> bool:
    """Tell whether the function answers requests: `@app.get("/people")` and its like, and not exempt."""
    decorators = [node for node in function.decorator_list if isinstance(node, ast.Call)]
    names = [source.dotted(node.func) for node in decorators]
    is_routed = any("." in name and last(name) in _ROUTES for name in names)
    return is_routed and not any(last(name) == "exempt" for name in names)


def touches_tenant_data(source: Source, body: ast.AST) -> bool:
    """Tell whether the code reads a tenant session or asks who the tenant is."""
    for node in ast.walk(body):
        if isinstance(node, ast.Name):
            if last(source.dotted(node)) in _TENANT_NAMES or (node.id in _SESSIONS and not _is_other(source, node)):
                return True
        elif isinstance(node, ast.Attribute) and node.attr in ("session", "tenant"):
            owner = last(source.dotted(node.value)).lower()
            if owner.endswith("tenancy") or (owner == "db" and node.attr == "session"):
                return True
    return False


def _is_other(source: Source, name: ast.Name) -> bool:
    """Tell whether a name for a session is one of HTTP, of cookies, or of a cloud, and so has no rows."""
    named = [source.dotted(name)]
    named += [source.dotted(value.func) for value in source.bindings(name) if isinstance(value, ast.Call)]
    return any(one.partition(".")[0] in _OTHER_SESSIONS for one in named)


def speaks_of_tenant(node: ast.AST) -> bool:
    """Tell whether any name, attribute or text in the expression has to do with a tenant."""
    for part in ast.walk(node):
        words = (getattr(part, "id", ""), getattr(part, "attr", ""), getattr(part, "arg", ""))
        if any("tenant" in str(word).lower() for word in words):
            return True
    return False


def parameters(function: Function | ast.Lambda) -> list[str]:
    """Return the names of all parameters."""
    given = function.args
    return [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
