"""SQL written as text: on tenant tables outside a scope, settings that outlive it, and text built at run time."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tenancy.doctor.code.engines import origin
from tenancy.doctor.code.project import Project, is_in_scope
from tenancy.doctor.code.sources import Source, last
from tenancy.doctor.findings import Finding, Rule

RAW_SQL = Rule(
    "TEN401",
    "raw-sql-outside-scope",
    "error",
    "SQL on a connection that carries no tenant reads nobody's rows, or, by another role, everybody's.",
)
SESSION_SETTING = Rule(
    "TEN402",
    "session-wide-setting",
    "error",
    "A pooled connection keeps the setting when it goes to the next request, which may be another tenant's.",
)
BUILT_SQL = Rule(
    "TEN412",
    "sql-built-at-run-time",
    "error",
    "Whoever has a hand in the text can write SQL of their own, and bind another tenant from within it.",
)
RULES = (RAW_SQL, SESSION_SETTING, BUILT_SQL)

_RUNS = {"execute", "exec_driver_sql", "executemany", "scalar", "scalars", "stream", "copy"}
_SQL = re.compile(
    r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH|MERGE|CREATE|ALTER|DROP|GRANT|REVOKE|TRUNCATE|SET|CALL|COPY|LOCK|VALUES|DO)\b",
    re.IGNORECASE,
)
_TABLE = re.compile(
    r"\b(?P<verb>FROM|JOIN|INTO|UPDATE|TRUNCATE(?:\s+TABLE)?|COPY|USING)\s+(?:ONLY\s+)?"
    r'(?P<table>(?:"?\w+"?\.)?"?\w+"?)(?P<call>\s*\()?',
    re.IGNORECASE,
)
_NO_TABLES = ("pg_", "information_schema", "tenancy.", "unnest", "select", "lateral", "set ")
_SET = re.compile(
    r"(?:^|;)\s*SET\s+(?!LOCAL\b|TRANSACTION\b|CONSTRAINTS\b)(?:SESSION\s+)?(?P<name>[\w.]+(?:\s+AUTHORIZATION)?)", re.I
)
_SET_CONFIG = re.compile(r"\bset_config\s*\([^()]*(?:\([^()]*\)[^()]*)*,\s*(?:false|'f'|'false'|'off')\s*\)", re.I)
_PRESET = re.compile(r"-c\s*app\.(?:tenant_id|account_id|platform_session)\b")
_OURS = re.compile(r"app\.\w+|role|row_security|search_path|session", re.I)


def examine(source: Source, project: Project) -> Iterator[Finding]:
    for call in source.all(ast.Call):
        name = source.dotted(call.func)
        method = call.func.attr if isinstance(call.func, ast.Attribute) else last(name)
        if method == "set_config" and name.endswith("func.set_config"):
            yield from _function_call(source, call)
        if not call.args or method not in {*_RUNS, "text"}:
            continue
        argument = call.args[0]
        if method == "text" and not name.startswith(("sqlalchemy", "text")):
            continue
        is_migration = name.startswith(("alembic.op.", "op."))
        yield from _settings(source, argument, is_migration=is_migration)
        if not is_migration:
            yield from _built(source, argument, is_text=method == "text")
        if method != "text":
            yield from _raw(source, project, call, argument)
    for node in source.all(ast.Constant):
        if isinstance(node.value, str) and _PRESET.search(node.value):
            yield SESSION_SETTING.finding(
                source.name,
                "connection options preset a scope",
                remedy="remove the option and open the scope in code: with tenant_scope(tenant): ...",
                line=node.lineno,
            )


def text_of(source: Source, node: ast.expr, depth: int = 3) -> str | None:
    """Return the SQL an expression is known to be, with `{}` for what is put in at run time; None when unknown."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.Constant(value=bytes() as raw):
            return raw.decode(errors="replace")
        case ast.JoinedStr():
            return "".join(
                str(part.value) if isinstance(part, ast.Constant) else (_constant(source, part) or "{}")
                for part in node.values
            )
        case ast.BinOp(op=ast.Add()):
            left, right = text_of(source, node.left, depth), text_of(source, node.right, depth)
            return None if left is None and right is None else f"{left or '{}'}{right or '{}'}"
        case ast.BinOp(op=ast.Mod()):
            return text_of(source, node.left, depth)
        case ast.Call(func=ast.Attribute(attr="format", value=value)):
            return text_of(source, value, depth)
        case ast.Call() if node.args and last(source.dotted(node.func)) in ("text", "SQL"):
            return text_of(source, node.args[0], depth)
        case ast.Name() if depth:
            return next(
                (sql for value in source.bindings(node) if (sql := text_of(source, value, depth - 1)) is not None),
                None,
            )
    return None


def _constant(source: Source, part: ast.expr) -> str | None:
    if isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Name) and part.value.id.isupper():
        return text_of(source, part.value)
    return None


def _raw(source: Source, project: Project, call: ast.Call, argument: ast.expr) -> Iterator[Finding]:
    sql = text_of(source, argument)
    receiver = call.func.value if isinstance(call.func, ast.Attribute) else None
    if sql is None or receiver is None or _SQL.match(sql) is None:
        return
    tables = [table for table in tables_in(sql) if project.tables is None or table in project.tables]
    kind = origin(source, receiver)
    if not tables or kind is None or (kind == "tenant" and is_in_scope(source, call)):
        return
    where = "on a connection that no scope reaches" if kind == "plain" else "in no scope, as far as this file shows"
    yield RAW_SQL.finding(
        source.name,
        f"SQL on {tables[0]} runs {where}",
        remedy="use a tenant session inside a scope: with tenant_scope(tenant), Session() as session: ...",
        line=call.lineno,
    )


def tables_in(sql: str) -> list[str]:
    """Return the tables a statement names, without schema; functions and the system's own are left out."""
    found = []
    for match in _TABLE.finditer(sql):
        name = match["table"].replace('"', "").lower()
        is_function = match["call"] is not None and match["verb"].upper() not in ("INTO", "COPY")
        if not is_function and not name.startswith(_NO_TABLES):
            found.append(last(name))
    return found


def _settings(source: Source, argument: ast.expr, *, is_migration: bool) -> Iterator[Finding]:
    sql = text_of(source, argument)
    if sql is None:
        return
    names = [match["name"] for match in _SET.finditer(sql)]
    if is_migration:  # its connection is closed at the end, so only what changes who may see what counts
        names = [name for name in names if _OURS.match(name)]
    if names:
        yield _outlives(source, argument, f"SET {names[0]} outlives the transaction")
    elif _SET_CONFIG.search(sql):
        yield _outlives(source, argument, "set_config(..., false) outlives the transaction")


def _function_call(source: Source, call: ast.Call) -> Iterator[Finding]:
    is_local = call.args[2] if len(call.args) > 2 else None
    if isinstance(is_local, ast.Constant) and not is_local.value:
        yield _outlives(source, call, "set_config(..., False) outlives the transaction")


def _outlives(source: Source, node: ast.expr, what: str) -> Finding:
    return SESSION_SETTING.finding(
        source.name,
        what,
        remedy="open a scope for the tenant; for another setting use SET LOCAL, or ALTER ROLE ... SET",
        line=node.lineno,
    )


def _built(source: Source, argument: ast.expr, *, is_text: bool) -> Iterator[Finding]:
    how = _how_built(source, argument, 2)
    sql = text_of(source, argument)
    if how is None or sql is None or not (is_text or _SQL.match(sql)):
        return
    yield BUILT_SQL.finding(
        source.name,
        f"SQL is put together {how}",
        remedy='bind the value: text("... WHERE name = :name"), {"name": name}; take names from Table objects',
        line=argument.lineno,
    )


def _how_built(source: Source, node: ast.expr, depth: int) -> str | None:
    match node:
        case ast.JoinedStr() if not all(_is_fixed(part) for part in node.values):
            return "by an f-string"
        case ast.BinOp(op=ast.Mod(), left=ast.Constant(value=str())) if not _is_fixed(node.right):
            return "by %"
        case ast.BinOp(op=ast.Add()):
            sides = (node.left, node.right)
            inner = next((how for side in sides if (how := _how_built(source, side, depth))), None)
            return inner or (None if all(map(_is_fixed, sides)) else "by +")
        case ast.Call(func=ast.Attribute(attr="format", value=ast.Constant(value=str()))):
            return "by str.format"
        case ast.Name() if depth:
            return next((how for value in source.bindings(node) if (how := _how_built(source, value, depth - 1))), None)
    return None


def _is_fixed(node: ast.expr) -> bool:
    """Tell whether an expression is the same at every run: a literal, or a name in capitals."""
    match node:
        case ast.Constant():
            return True
        case ast.FormattedValue(value=value):
            return _is_fixed(value)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.isupper()
        case ast.BinOp() | ast.JoinedStr():
            return all(_is_fixed(part) for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr))
        case ast.Call(func=func):
            return isinstance(func, ast.Name) and func.id in ("quote", "qualified", "quoted_name")
    return False
