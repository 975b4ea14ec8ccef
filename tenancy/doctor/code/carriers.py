"""Work handed to a thread or a task: the scope does not go with it by itself."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tenancy.doctor.code.project import Project, opens_scope, touches_tenant_data
from tenancy.doctor.code.sources import Source, last
from tenancy.doctor.findings import Finding, Rule

NO_CARRIER = Rule(
    "TEN404",
    "work-without-scope",
    "warning",
    "A new thread begins in no scope, so its work fails; a helper that then opens one by guess mixes tenants.",
)
RULES = (NO_CARRIER,)

_POOLS = re.compile(r"(executor|pool|workers)$", re.IGNORECASE)
_POOL_CLASSES = {"ThreadPoolExecutor", "ProcessPoolExecutor", "ThreadPool"}


def examine(source: Source, project: Project) -> Iterator[Finding]:
    for call in source.all(ast.Call):
        handed = _handed_over(source, call)
        if handed is None:
            continue
        target, what = handed
        bodies = project.bodies(source, target)
        if any(touches_tenant_data(where, body) and not opens_scope(where, body) for where, body in bodies):
            yield NO_CARRIER.finding(
                source.name,
                f"{ast.unparse(target)} reads tenant data in {what}, and opens no scope",
                remedy="pass the tenant's id and open a scope in the function: with tenant_scope(tenant_id): ...",
                line=call.lineno,
            )


def _handed_over(source: Source, call: ast.Call) -> tuple[ast.expr, str] | None:
    """Return the callable that will run elsewhere, and where."""
    name = source.dotted(call.func)
    method = call.func.attr if isinstance(call.func, ast.Attribute) else last(name)
    if name in ("threading.Thread", "threading.Timer", "multiprocessing.Process"):
        number = 1 if method == "Timer" else None
        target = _argument(call, "function" if method == "Timer" else "target", number)
        return (target, f"a new {method.lower()}") if target is not None else None
    if method in ("submit", "map") and isinstance(call.func, ast.Attribute) and _is_pool(source, call.func.value):
        return (call.args[0], "a pool's thread") if call.args else None
    if method == "run_in_executor" and len(call.args) > 1:
        return call.args[1], "an executor's thread"
    is_forgotten = isinstance(source.parents.get(call), ast.Expr)
    if method in ("create_task", "ensure_future") and is_forgotten and call.args:
        started = call.args[0]
        return (started.func, "a task that nobody awaits") if isinstance(started, ast.Call) else None
    return None


def _argument(call: ast.Call, name: str, number: int | None) -> ast.expr | None:
    named = next((keyword.value for keyword in call.keywords if keyword.arg == name), None)
    if named is None and number is not None and len(call.args) > number:
        return call.args[number]
    return named


def _is_pool(source: Source, node: ast.expr) -> bool:
    if isinstance(node, ast.Name):
        made_by = [value for value in source.bindings(node) if isinstance(value, ast.Call)]
        if any(last(source.dotted(value.func)) in _POOL_CLASSES for value in made_by):
            return True
    return bool(_POOLS.search(last(source.dotted(node))))
