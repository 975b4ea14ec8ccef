"""Requests: a tenant taken from one by hand, and routes that need none but use one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import islice

from tenancy.doctor.code.project import Project, opens_scope, parameters
from tenancy.doctor.code.sources import Function, Source, last
from tenancy.doctor.findings import Finding, Rule

TENANT_FROM_BODY = Rule(
    "TEN407",
    "tenant-from-body",
    "error",
    "Whoever sends the request writes the tenant into it: any member of one tenant can name another.",
)
EXEMPT_USES_TENANT = Rule(
    "TEN408",
    "exempt-view-uses-session",
    "error",
    "The route runs without a tenant, so it fails at its first use, or somebody makes it work by opening a scope.",
)
SCOPE_FROM_REQUEST = Rule(
    "TEN409",
    "scope-from-request",
    "error",
    "The scope decides whose rows are seen, and here the sender decides the scope.",
)
RULES = (TENANT_FROM_BODY, EXEMPT_USES_TENANT, SCOPE_FROM_REQUEST)

_NAMES = {"tenant_id", "tenant", "tenant_slug", "tenantid"}
_PARTS = {"json", "form", "args", "values", "data", "headers", "cookies", "view_args", "get_json"}
_INCOMING = re.compile(
    r"(In|Input|Request|Create|Update|Patch|Payload|Body|Form|Filter|Query)$|^(New|Create|Update)[A-Z]"
)
_SCHEMAS = {"BaseModel", "SQLModel", "Schema", "FlaskForm", "Struct", "TypedDict"}


def examine(source: Source, _project: Project) -> Iterator[Finding]:
    for subscript in source.all(ast.Subscript):
        yield from _taken(source, subscript)
    for call in source.all(ast.Call):
        yield from _taken(source, call)
        if last(source.dotted(call.func)) in ("tenant_scope", "account_scope"):
            yield from _scope(source, call)
    for model in source.all(ast.ClassDef):
        yield from _schema(source, model)
    for function in source.functions():
        yield from _exempt(source, function)


def _taken(source: Source, node: ast.Subscript | ast.Call) -> Iterator[Finding]:
    """Find `request.json["tenant_id"]` and `body.get("tenant_id")`."""
    if isinstance(node, ast.Subscript):
        container, key = node.value, node.slice
    elif isinstance(node.func, ast.Attribute) and node.func.attr in ("get", "pop", "getlist") and node.args:
        container, key = node.func.value, node.args[0]
    else:
        return
    if not isinstance(key, ast.Constant) or str(key.value).lower().replace("-", "_") not in _NAMES | {"x_tenant_id"}:
        return
    if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
        return
    if _is_of_request(source, container):
        yield TENANT_FROM_BODY.finding(
            source.name,
            f"the tenant is read from {ast.unparse(container)}",
            remedy="use current_tenant(); let a resolver find the tenant, and refuse one in the body",
            line=node.lineno,
        )


def _schema(source: Source, node: ast.ClassDef) -> Iterator[Finding]:
    if not _INCOMING.search(node.name) or not any(last(source.dotted(base)) in _SCHEMAS for base in node.bases):
        return
    for statement in node.body:
        target = statement.target if isinstance(statement, ast.AnnAssign) else None
        if isinstance(target, ast.Name) and target.id in _NAMES - {"tenant"}:
            yield TENANT_FROM_BODY.finding(
                source.name,
                f"{node.name} accepts {target.id} from the sender",
                remedy=f"remove {target.id} from {node.name}: rows take the tenant in scope",
                line=statement.lineno,
            )


def _scope(source: Source, call: ast.Call) -> Iterator[Finding]:
    function = source.function_of(call)
    if not call.args or _is_in_platform_scope(source, call):
        return
    routed = set(parameters(function)) if function is not None and _is_routed(source, function) else set()
    if _is_of_request(source, call.args[0], routed=frozenset(routed)):
        yield SCOPE_FROM_REQUEST.finding(
            source.name,
            f"{last(source.dotted(call.func))} is opened for what the request says: {ast.unparse(call.args[0])}",
            remedy="let Tenancy(resolvers=...) open the scope; staff act inside platform_scope(actor=..., reason=...)",
            line=call.lineno,
        )


def _exempt(source: Source, function: Function) -> Iterator[Finding]:
    for decorator in function.decorator_list:
        if not (isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Attribute)):
            continue
        owner = source.dotted(decorator.func.value)
        if decorator.func.attr != "exempt" or not owner or opens_scope(source, function):
            continue
        uses = (
            node
            for node in ast.walk(function)
            if isinstance(node, ast.Attribute) and node.attr in ("session", "tenant")
            if source.dotted(node.value) == owner
        )
        for node in islice(uses, 1):
            yield EXEMPT_USES_TENANT.finding(
                source.name,
                f"{function.name} is exempt, and uses {owner}.{node.attr}",
                remedy="remove @exempt, or read what needs no tenant through a lookup",
                line=node.lineno,
            )


def _is_of_request(source: Source, node: ast.expr, *, routed: frozenset[str] = frozenset(), depth: int = 3) -> bool:
    """Tell whether any part of an expression comes out of the request, by name or through a variable."""
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and part.attr in _PARTS:
            if last(source.dotted(part.value)) == "request":
                return True
        elif isinstance(part, ast.Name):
            if part.id in routed:
                return True
            values = list(source.bindings(part)) if depth else []
            if any(_is_of_request(source, value, routed=routed, depth=depth - 1) for value in values):
                return True
    return False


def _is_routed(source: Source, function: Function) -> bool:
    names = [source.dotted(node.func) for node in function.decorator_list if isinstance(node, ast.Call)]
    return any("." in name and last(name) in ("route", "get", "post", "put", "patch", "delete") for name in names)


def _is_in_platform_scope(source: Source, call: ast.Call) -> bool:
    """Tell whether staff act here: a platform scope around it, or before it in the same `with`."""
    return any(
        isinstance(part, ast.Call) and last(source.dotted(part.func)) == "platform_scope"
        for outer in source.above(call)
        if isinstance(outer, ast.With | ast.AsyncWith)
        for item in outer.items
        for part in ast.walk(item.context_expr)
    )
