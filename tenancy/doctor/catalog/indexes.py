"""Indexes: whether they begin with the tenant, and whether row-level security lets them be used."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tenancy.doctor.catalog.guards import Catalog, Guard
from tenancy.doctor.checks import Check, rules_of
from tenancy.doctor.findings import Finding, Rule
from tenancy.rls import POLICY_NAMES, quote
from tenancy.tables import TENANT_KEY

TENANT_INDEX_MISSING = Rule(
    "TEN127",
    "tenant-index-missing",
    "warning",
    "Every statement is limited to one tenant; without an index that begins with it, each reads the whole table.",
)
TENANT_CAST = Rule(
    "TEN128",
    "tenant-cast",
    "warning",
    "With a cast on the tenant column no index that begins with it can be used.",
)
INDEX_LOST = Rule(
    "TEN129",
    "index-lost",
    "note",
    "An operator that is not leakproof may only see rows that passed the policies, so its index is not used.",
)

# tenant_id::text, (tenant_id)::text, CAST(tenant_id AS text) as the server prints it
_CAST = re.compile(rf"\b{TENANT_KEY}\)?::")


def examine_tenant_indexes(catalog: Catalog) -> Iterator[Finding]:
    """Look for guarded tables on which no index begins with the column that guards them."""
    leading = {(index.table, index.columns[0]) for index in catalog.indexes if index.columns}
    for oid, guard in catalog.guards.items():
        key = guard.wanted.key
        if key in guard.relation.columns and (oid, key) not in leading and _holds_rows(guard):
            name = quote(f"ix_{guard.relation.name}_{key}")
            remedy = f"CREATE INDEX {name} ON {guard.relation.sql_name} ({quote(key)});"
            yield TENANT_INDEX_MISSING.finding(guard.relation.label, f"no index begins with {key}", remedy=remedy)


def _holds_rows(guard: Guard) -> bool:
    return guard.relation.kind == "r"


def examine_casts(catalog: Catalog) -> Iterator[Finding]:
    """Look for casts of the tenant's column in indexes, and in policies that are not the library's."""
    for index in catalog.indexes:
        if index.table in catalog.guards and _CAST.search(index.text):
            label = f"index {quote(index.name)} on {catalog.relations[index.table].sql_name}"
            remedy = f"DROP INDEX {catalog.index_name(index)};  -- then create it on {TENANT_KEY} itself"
            yield TENANT_CAST.finding(label, f"it casts {TENANT_KEY}", remedy=remedy)
    for oid, guard in catalog.guards.items():
        for policy in catalog.states[oid].policies:
            text = f"{policy.using} {policy.check}"
            if policy.name not in POLICY_NAMES and not policy.permissive and _CAST.search(text):
                label = f"policy {quote(policy.name)} on {guard.relation.label}"
                remedy = f"DROP POLICY {quote(policy.name)} ON {guard.relation.sql_name};"
                yield TENANT_CAST.finding(label, f"it casts {TENANT_KEY}", remedy=remedy)


def examine_lost_indexes(catalog: Catalog) -> Iterator[Finding]:
    """Look for indexes whose operators may not see rows before the policies did."""
    for index in catalog.indexes:
        guard = catalog.guards.get(index.table)
        is_lost = index.lost_classes or (index.is_lost_expression and not _CAST.search(index.text))
        if guard is None or index.is_inherited or not is_lost:
            continue
        parts = [f"operator class {name}" for name in dict.fromkeys(index.lost_classes)]
        parts += ["an expression over functions that are not leakproof"] if index.is_lost_expression else []
        yield INDEX_LOST.finding(
            f"index {quote(index.name)} on {guard.relation.sql_name}",
            f"row-level security keeps it from being used: {', '.join(parts)}",
            remedy=f"DROP INDEX {catalog.index_name(index)};  -- or store the value as plain text, numbers or dates",
        )


CHECKS = (
    Check((TENANT_INDEX_MISSING,), examine_tenant_indexes),
    Check((TENANT_CAST,), examine_casts),
    Check((INDEX_LOST,), examine_lost_indexes),
)
RULES: tuple[Rule, ...] = rules_of(CHECKS)
