"""Connections made past `create_tenant_engine`, and where a connection in the code comes from."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Literal

from tenancy.doctor.code.project import Project
from tenancy.doctor.code.sources import Function, Source, last
from tenancy.doctor.findings import Finding, Rule

PLAIN_ENGINE = Rule(
    "TEN403",
    "plain-engine",
    "error",
    "A connection made past the library carries no tenant, and nobody checks what its role may see.",
)
RULES = (PLAIN_ENGINE,)

Origin = Literal["plain", "tenant"]

_PLAIN = {
    "sqlalchemy.create_engine",
    "sqlalchemy.engine.create_engine",
    "sqlalchemy.engine_from_config",
    "sqlalchemy.ext.asyncio.create_async_engine",
    "sqlmodel.create_engine",
    "psycopg.connect",
    "psycopg.Connection.connect",
    "psycopg.AsyncConnection.connect",
    "psycopg.ClientCursor",
    "psycopg.AsyncClientCursor",
    "psycopg_pool.ConnectionPool",
    "psycopg_pool.AsyncConnectionPool",
    "psycopg2.connect",
    "asyncpg.connect",
    "asyncpg.create_pool",
    "pg8000.connect",
}
_TENANT = {"create_tenant_engine", "create_async_tenant_engine", "guard_engine"}
_PASSES_ON = {"connect", "begin", "raw_connection", "cursor", "execution_options", "begin_nested", "connection"}


def examine(source: Source, _project: Project) -> Iterator[Finding]:
    if any(name == "alembic.context" or name == "alembic.env" for name in source.imports.values()):
        return  # a migration environment: its engine is the migrator's
    for call in source.all(ast.Call):
        name = source.dotted(call.func)
        if name in _PLAIN and not _is_guarded(source, call) and not _is_sqlite(call):
            yield PLAIN_ENGINE.finding(
                source.name,
                f"{last(name) if 'create' in name else name} makes connections without a tenant",
                remedy="use create_tenant_engine(url); for administration, ignore this line and say so",
                line=call.lineno,
            )


def origin(source: Source, node: ast.expr, depth: int = 6) -> Origin | None:
    """Tell what a connection was made by: an engine that carries the tenant, or something that does not."""
    if depth == 0:
        return None
    match node:
        case ast.Await(value=value):
            return origin(source, value, depth - 1)
        case ast.Call():
            name = source.dotted(node.func)
            if name in _PLAIN:
                return "plain"
            if last(name) in _TENANT:
                return "tenant"
            if isinstance(node.func, ast.Attribute) and node.func.attr in _PASSES_ON:
                return origin(source, node.func.value, depth - 1)
        case ast.Name():
            for value in source.bindings(node):
                if (found := origin(source, value, depth - 1)) is not None:
                    return found
            return "tenant" if node.id.endswith("engine") else None
        case ast.Attribute(attr=attr) if attr.endswith("engine"):
            return "tenant"
    return None


def _is_guarded(source: Source, call: ast.Call) -> bool:
    """Tell whether the new engine is handed to guard_engine, at once or by the name it is given."""
    parent = source.parents.get(call)
    names = (
        {target.id for target in parent.targets if isinstance(target, ast.Name)}
        if isinstance(parent, ast.Assign)
        else set()
    )
    place = next((outer for outer in source.above(call) if isinstance(outer, Function)), source.tree)
    return any(
        given is call or (isinstance(given, ast.Name) and given.id in names)
        for other in ast.walk(place)
        if isinstance(other, ast.Call) and last(source.dotted(other.func)) in ("guard_engine", "guard_sessions")
        for given in other.args
    )


def _is_sqlite(call: ast.Call) -> bool:
    first = call.args[0] if call.args else None
    return isinstance(first, ast.Constant) and str(first.value).startswith("sqlite")
