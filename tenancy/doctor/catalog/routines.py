"""Functions, triggers, operators and casts that act with somebody else's rights."""

from __future__ import annotations

from collections.abc import Iterator

from tenancy.doctor.catalog.guards import SCHEMA, Catalog
from tenancy.doctor.catalog.objects import Function
from tenancy.doctor.checks import Check, rules_of
from tenancy.doctor.findings import Finding, Rule
from tenancy.rls import quote
from tenancy.rls.functions import function_definitions
from tenancy.rls.signatures import BIND

DEFINER_FUNCTION = Rule(
    "TEN144",
    "definer-function",
    "error",
    "A SECURITY DEFINER function acts with its owner's rights for whoever may call it.",
)
DEFINER_TRIGGER = Rule(
    "TEN145",
    "definer-trigger",
    "error",
    "A trigger function that is SECURITY DEFINER acts with its owner's rights on each tenant's rows.",
)
PUBLIC_EXECUTE = Rule(
    "TEN146",
    "public-execute",
    "warning",
    "A function that PUBLIC may call is one more thing that injected SQL can use.",
)
LEAKPROOF_FUNCTION = Rule(
    "TEN147",
    "leakproof-function",
    "warning",
    "A LEAKPROOF function is run on rows before the policies hid them, and can tell what it saw.",
)
SHADOWING_OPERATOR = Rule(
    "TEN157",
    "shadowing-operator",
    "error",
    "An operator or cast between built-in types can take the place of the system's own in any statement.",
)


def examine_definers(catalog: Catalog) -> Iterator[Finding]:
    """Look for functions that lend runtime roles the rights of a stronger one."""
    for function in catalog.functions.values():
        callers = sorted({*function.callers} & {*catalog.exposed})
        if not function.is_definer or function.is_trigger or not callers or _is_library(catalog, function):
            continue
        if function.has_strong_owner or function.owner in _strong(catalog):
            what = f"it acts with the rights of {function.owner}, and {', '.join(callers)} may call it"
            yield DEFINER_FUNCTION.finding(function.label, what, remedy=_revoke(function, catalog))


def _strong(catalog: Catalog) -> set[str]:
    """Roles that own tenants' tables, or that policies treat in a special way."""
    roles = catalog.roles
    owners = {guard.relation.owner for guard in catalog.guards.values()}
    return owners | {roles.owner, roles.migrator, roles.lookup, roles.backup, roles.platform}


def _is_library(catalog: Catalog, function: Function) -> bool:
    """Functions of schema `tenancy` are compared with the library's text, where there is one."""
    if function.schema != SCHEMA:
        return False
    signatures = function_definitions(catalog.roles, catalog.flavour, signed=catalog.is_signed)
    known = {signature.partition("(")[0] for signature in signatures} | ({BIND} if catalog.is_signed else set())
    return function.name in known or function.owner == catalog.roles.lookup


def _revoke(function: Function, catalog: Catalog) -> str:
    named = f"{function.noun.upper()} {function.sql_name}"
    revoked = ", ".join(("PUBLIC", *catalog.runtime))
    return f"REVOKE EXECUTE ON {named} FROM {revoked};  -- or ALTER {named} SECURITY INVOKER;"


def examine_triggers(catalog: Catalog) -> Iterator[Finding]:
    """Look for triggers on guarded tables that act with somebody else's rights."""
    for trigger in catalog.triggers:
        guard, function = catalog.guards.get(trigger.table), catalog.functions.get(trigger.function)
        if guard is None or function is None or not function.is_definer or _is_library(catalog, function):
            continue
        if function.has_strong_owner or function.owner in _strong(catalog):
            yield DEFINER_TRIGGER.finding(
                f"trigger {quote(trigger.name)} on {guard.relation.label}",
                f"{function.sql_name} acts with the rights of {function.owner}",
                remedy=f"ALTER FUNCTION {function.sql_name} SECURITY INVOKER;",
            )


def examine_public_functions(catalog: Catalog) -> Iterator[Finding]:
    """Look for functions of the owner and of the lookup role that PUBLIC may call."""
    for function in catalog.functions.values():
        if (
            function.owner in (catalog.roles.owner, catalog.roles.lookup)
            and "PUBLIC" in function.callers
            and function.schema != SCHEMA
            and not (function.is_trigger or function.is_extension or function.is_definer)
        ):
            remedy = f"REVOKE EXECUTE ON {function.noun.upper()} {function.sql_name} FROM PUBLIC;"
            yield PUBLIC_EXECUTE.finding(function.label, "PUBLIC may call it", remedy=remedy)


def examine_leakproof(catalog: Catalog) -> Iterator[Finding]:
    """Look for functions, other than the server's, that somebody vouched for."""
    for function in catalog.functions.values():
        if function.is_leakproof:
            remedy = f"ALTER FUNCTION {function.sql_name} NOT LEAKPROOF;"
            yield LEAKPROOF_FUNCTION.finding(function.label, "it is marked LEAKPROOF", remedy=remedy)


def examine_shadows(catalog: Catalog) -> Iterator[Finding]:
    """Look for operators and casts between the server's own types that are not the server's own."""
    for kind, name in catalog.shadows:
        what = "it is not the server's, and is between the server's own types"
        yield SHADOWING_OPERATOR.finding(f"{kind} {name}", what, remedy=f"DROP {kind.upper()} {name};")


CHECKS = (
    Check((DEFINER_FUNCTION,), examine_definers),
    Check((DEFINER_TRIGGER,), examine_triggers),
    Check((PUBLIC_EXECUTE,), examine_public_functions),
    Check((LEAKPROOF_FUNCTION,), examine_leakproof),
    Check((SHADOWING_OPERATOR,), examine_shadows),
)
RULES: tuple[Rule, ...] = rules_of(CHECKS)
