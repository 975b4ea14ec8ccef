"""The tenant's column on each table, and numbers that all tenants share."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tenancy.doctor.catalog.guards import Catalog, Guard
from tenancy.doctor.checks import Check, rules_of
from tenancy.doctor.findings import Finding, Rule
from tenancy.rls import quote
from tenancy.tables import TENANT_KEY

TENANT_NULLABLE = Rule(
    "TEN120",
    "tenant-nullable",
    "error",
    "A row without a tenant belongs to nobody: no policy shows it, and no composite foreign key checks it.",
)
TENANT_TYPE = Rule(
    "TEN121",
    "tenant-type",
    "error",
    "The policies compare a UUID; another type needs a cast, which loses the index, and spells one tenant in two ways.",
)
TENANT_DEFAULT = Rule(
    "TEN122",
    "tenant-default",
    "warning",
    "A constant default gives rows to one fixed tenant when the writer forgot to say whose they are.",
)
PUBLIC_NUMBER = Rule(
    "TEN130",
    "public-number",
    "note",
    "Numbers drawn from a sequence that all tenants share tell each of them how busy the others are.",
)

# A constant, with any casts: 'text'::uuid. Calls have a parenthesis after a name.
_CONSTANT = re.compile(r"\(?'[^']*'(?:::[\w. ]+)*\)?(?:::[\w. ]+)*")


def examine_tenant_columns(catalog: Catalog) -> Iterator[Finding]:
    """Look at the type, NULLs and default of the tenant's column on every guarded table."""
    for oid, guard in catalog.guards.items():
        column, table = catalog.tenant_columns.get(oid), guard.relation.sql_name
        if column is None:
            continue
        label = f"column {table}.{TENANT_KEY}"
        if not column.is_required:
            remedy = f"ALTER TABLE {table} ALTER COLUMN {TENANT_KEY} SET NOT NULL;"
            yield TENANT_NULLABLE.finding(label, "it may be NULL", remedy=remedy)
        if column.type != "uuid":
            remedy = f"ALTER TABLE {table} ALTER COLUMN {TENANT_KEY} TYPE uuid USING {TENANT_KEY}::uuid;"
            yield TENANT_TYPE.finding(label, f"its type is {column.type}, not uuid", remedy=remedy)
        if column.default is not None and _CONSTANT.fullmatch(column.default):
            remedy = f"ALTER TABLE {table} ALTER COLUMN {TENANT_KEY} DROP DEFAULT;"
            yield TENANT_DEFAULT.finding(label, "its default is a constant", remedy=remedy)


def examine_numbers(catalog: Catalog) -> Iterator[Finding]:
    """Look for sequences that number the rows of all tenants."""
    for numbering in catalog.sequences:
        guard = catalog.guards.get(numbering.table)
        if guard is None or guard.parent is not None or _is_accepted(guard, numbering.column):
            continue
        label = f"column {guard.relation.sql_name}.{quote(numbering.column)}"
        yield PUBLIC_NUMBER.finding(
            label,
            "its numbers come from one sequence for all tenants",
            remedy='mapped_column(..., info={"across_tenants": "why all may know"})  # or a key of type UUID',
        )


def _is_accepted(guard: Guard, column: str) -> bool:
    known = guard.model.c.get(column) if guard.model is not None else None
    return known is not None and bool(known.info.get("across_tenants"))


CHECKS = (
    Check((TENANT_NULLABLE, TENANT_TYPE, TENANT_DEFAULT), examine_tenant_columns),
    Check((PUBLIC_NUMBER,), examine_numbers),
)
RULES: tuple[Rule, ...] = rules_of(CHECKS)
