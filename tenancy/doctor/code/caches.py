"""Caches: what is kept under a key that does not name the tenant is served to the next one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tenancy.doctor.code.project import Project, parameters, speaks_of_tenant, touches_tenant_data
from tenancy.doctor.code.sources import Function, Source, last
from tenancy.doctor.findings import Finding, Rule

KEY_WITHOUT_TENANT = Rule(
    "TEN405",
    "cache-key-without-tenant",
    "error",
    "The first tenant's answer is kept under a key that the second tenant asks for too.",
)
PROCESS_CACHE = Rule(
    "TEN406",
    "process-cache-on-tenant-data",
    "error",
    "The process remembers one tenant's answer and gives it to every other one, without asking the database.",
)
RULES = (KEY_WITHOUT_TENANT, PROCESS_CACHE)

_CACHES = re.compile(r"(^|_)(cache|redis|memcache|memcached)$", re.IGNORECASE)
_KEYED = {"get", "set", "add", "setex", "get_or_set", "incr", "hget", "hset"}
_DECORATORS = {"cached", "memoize"}
_PROCESS = {
    "functools.lru_cache",
    "functools.cache",
    "cachetools.cached",
    "cachetools.func.lru_cache",
    "cachetools.func.ttl_cache",
    "async_lru.alru_cache",
}


def examine(source: Source, _project: Project) -> Iterator[Finding]:
    for call in source.all(ast.Call):
        if isinstance(call.func, ast.Attribute) and call.func.attr in _KEYED and call.args:
            yield from _key(source, call, call.func.value)
    for function in source.functions():
        for decorator in function.decorator_list:
            yield from _decorated(source, function, decorator)


def _key(source: Source, call: ast.Call, receiver: ast.expr) -> Iterator[Finding]:
    function = source.function_of(call)
    if not _CACHES.search(last(source.dotted(receiver))) or not touches_tenant_data(source, function or source.tree):
        return
    keys = [call.args[0]]
    if isinstance(call.args[0], ast.Name):
        keys = list(source.bindings(call.args[0]))
    for key in keys:
        if isinstance(key, ast.Constant | ast.JoinedStr | ast.BinOp) and not speaks_of_tenant(key):
            yield KEY_WITHOUT_TENANT.finding(
                source.name,
                f"the cache key {ast.unparse(key)} does not name the tenant",
                remedy='begin the key with the tenant: f"{require_tenant()}:..."',
                line=call.lineno,
            )
            return


def _decorated(source: Source, function: Function, decorator: ast.expr) -> Iterator[Finding]:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = source.dotted(called)
    # A parameter that names the tenant is a part of the key.
    if any("tenant" in parameter for parameter in parameters(function)) or speaks_of_tenant(decorator):
        return
    if not touches_tenant_data(source, function):
        return
    if name in _PROCESS:
        yield PROCESS_CACHE.finding(
            source.name,
            f"{function.name} reads tenant data and is remembered by {last(name)}",
            remedy=f"remove @{last(name)}, or make the tenant's id a parameter and open its scope inside",
            line=decorator.lineno,
        )
    elif (
        isinstance(called, ast.Attribute)
        and called.attr in _DECORATORS
        and _CACHES.search(last(source.dotted(called.value)))
    ):
        yield KEY_WITHOUT_TENANT.finding(
            source.name,
            f"{function.name} reads tenant data and is kept by @{name}, whose key does not name the tenant",
            remedy="make the tenant's id a parameter, or pass a make_cache_key that begins with require_tenant()",
            line=decorator.lineno,
        )
