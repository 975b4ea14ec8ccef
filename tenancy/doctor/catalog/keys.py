"""Keys and foreign keys: whether each of them carries the tenant."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Constraint, Index, Table
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql.schema import ColumnCollectionConstraint

from tenancy.doctor.catalog.guards import Catalog, Guard
from tenancy.doctor.catalog.objects import Key, Relation
from tenancy.doctor.checks import Check, not_checked, rules_of
from tenancy.doctor.findings import Finding, Rule
from tenancy.errors import TenancyError
from tenancy.rls import quote
from tenancy.tables import TENANT_KEY

KEY_WITHOUT_TENANT = Rule(
    "TEN123",
    "key-without-tenant",
    "error",
    "A key over all tenants tells one tenant, by a conflict or a wait, that another has the value.",
)
KEY_ACROSS_TENANTS = Rule(
    "TEN124",
    "key-across-tenants",
    "warning",
    "A key over all tenants tells one that another has the value; only the models can say whether that is meant.",
)
FOREIGN_KEY_WITHOUT_TENANT = Rule(
    "TEN125",
    "foreign-key-without-tenant",
    "error",
    "A foreign key is checked past the policies, so without the tenant a row can point at another tenant's row.",
)
FOREIGN_KEY_NOT_VALIDATED = Rule(
    "TEN126",
    "foreign-key-not-validated",
    "warning",
    "Rows from before the foreign key may point at another tenant's rows, and nobody looked.",
)

_KINDS = {"p": "primary key", "u": "unique constraint", "x": "exclusion constraint", "f": "foreign key"}


def examine_keys(catalog: Catalog) -> Iterator[Finding]:
    """Look for keys of tenant tables that leave the tenant out."""
    for key in catalog.keys:
        guard = catalog.guards.get(key.table)
        if key.kind != "f" and not key.is_inherited and guard is not None and TENANT_KEY not in key.columns:
            label, definition = f"{_KINDS[key.kind]} {quote(key.name)}", _with_tenant(key.definition)
            remedy = f"DROP CONSTRAINT {quote(key.name)}, ADD CONSTRAINT {quote(key.name)} {definition};"
            remedy = f"ALTER TABLE {guard.relation.sql_name} {remedy}"
            yield from _examine_key(guard, key.name, key.columns, label=label, remedy=remedy)
    for index in catalog.indexes:
        guard = catalog.guards.get(index.table)
        is_key = index.is_unique and not index.is_constraint and not index.is_inherited
        if is_key and guard is not None and TENANT_KEY not in index.columns:
            label, definition = f"unique index {quote(index.name)}", _with_tenant(index.definition)
            remedy = f"DROP INDEX {catalog.index_name(index)}; {definition};"
            yield from _examine_key(guard, index.name, index.columns, label=label, remedy=remedy)


def _with_tenant(definition: str) -> str:
    """Return the text of a key or index with the tenant leading its columns."""
    lead = f"{TENANT_KEY} WITH =" if definition.startswith("EXCLUDE") else TENANT_KEY
    return definition.replace("(", f"({lead}, ", 1)


def _examine_key(guard: Guard, name: str, columns: tuple[str, ...], *, label: str, remedy: str) -> Iterator[Finding]:
    if guard.wanted.kind != "tenant" or TENANT_KEY not in guard.relation.columns:
        return  # the registry's keys span tenants by their nature, and accounts have no tenant
    if guard.model is not None and _is_meant(guard.model, name, columns):
        return
    table = guard.relation.sql_name
    shown = ", ".join(column or "(expression)" for column in columns)
    rule = KEY_WITHOUT_TENANT if guard.is_declared else KEY_ACROSS_TENANTS
    yield rule.finding(
        f"{label} on {table}",
        f"({shown}) leaves {TENANT_KEY} out",
        remedy=f'{remedy}  -- or, in the model: info={{"across_tenants": "why a value is taken for everyone"}}',
    )


def _is_meant(model: Table, name: str, columns: tuple[str, ...]) -> bool:
    """Whether the model says of this key that it spans tenants, whatever the server calls it."""
    declared: list[Constraint | Index] = [*model.constraints, *model.indexes]
    return any(
        key.info.get("across_tenants") and (key.name == name or tuple(c.name for c in key.columns) == columns)
        for key in declared
        if isinstance(key, ColumnCollectionConstraint | Index)
    )


def examine_foreign_keys(catalog: Catalog) -> Iterator[Finding]:
    """Look for foreign keys between tenant tables that leave the tenant out, and count the rows that use it."""
    faulty = [key for key in _foreign_keys(catalog) if not _carries_tenant(key)]
    counts, error = _violations(catalog, faulty)
    if error is not None:
        yield not_checked([FOREIGN_KEY_WITHOUT_TENANT], error)
    for key in faulty:
        child, parent = catalog.relations[key.table], catalog.relations[key.refers_to]
        counted = f"; {counts[key.oid]} rows point at another tenant's row" if key.oid in counts else ""
        what = f"({', '.join(key.columns)}) points at {parent.sql_name} without {TENANT_KEY}{counted}"
        remedy = _lifted(_foreign_key_sql(key, child, parent), child, parent)
        yield FOREIGN_KEY_WITHOUT_TENANT.finding(_label(key, child), what, remedy=remedy)


def examine_validation(catalog: Catalog) -> Iterator[Finding]:
    """Look for foreign keys between tenant tables that nobody validated, or that are not looked at."""
    for key in _foreign_keys(catalog):
        if key.is_disabled:
            child = catalog.relations[key.table]
            remedy = f"ALTER TABLE {child.sql_name} ENABLE TRIGGER ALL;"
            remedy += f" ALTER TABLE {catalog.relations[key.refers_to].sql_name} ENABLE TRIGGER ALL;"
            what = "its triggers are disabled, so it is not enforced"
            yield FOREIGN_KEY_NOT_VALIDATED.finding(_label(key, child), what, remedy=remedy)
    doubtful = [key for key in _foreign_keys(catalog) if not key.is_validated and _carries_tenant(key)]
    counts, error = _violations(catalog, doubtful)
    if error is not None:
        yield not_checked([FOREIGN_KEY_NOT_VALIDATED], error)
    for key in doubtful:
        child, parent = catalog.relations[key.table], catalog.relations[key.refers_to]
        counted = f"; {counts[key.oid]} rows point at nothing within their tenant" if key.oid in counts else ""
        statement = f"ALTER TABLE {child.sql_name} VALIDATE CONSTRAINT {quote(key.name)}"
        remedy = _lifted(statement, child, parent)
        yield FOREIGN_KEY_NOT_VALIDATED.finding(_label(key, child), f"it is NOT VALID{counted}", remedy=remedy)


def _foreign_keys(catalog: Catalog) -> Iterator[Key]:
    """Those between two tables with a tenant. The registry's own key is the tenant, so it needs no other."""
    for key in catalog.keys:
        if key.kind == "f" and not key.is_inherited and {key.table, key.refers_to} <= catalog.guards.keys():
            ends = (catalog.guards[key.table].relation, catalog.guards[key.refers_to].relation)
            if all(TENANT_KEY in relation.columns for relation in ends):
                yield key


def _carries_tenant(key: Key) -> bool:
    return (TENANT_KEY, TENANT_KEY) in zip(key.columns, key.referred, strict=True)


def _violations(catalog: Catalog, keys: list[Key]) -> tuple[dict[int, int], Exception | None]:
    """Count, in one query, the rows that each foreign key lets point out of their tenant.

    With row_security off, so that a role which would not see every row gets an error instead of a lower count.
    """
    if not keys:
        return {}, None
    statements = " UNION ALL ".join(_violation_sql(key, catalog) for key in keys)
    try:
        return {row[0]: row[1] for row in catalog.unfiltered_rows(statements)}, None
    except (SQLAlchemyError, TenancyError) as error:
        return {}, error


def _violation_sql(key: Key, catalog: Catalog) -> str:
    child, parent = catalog.relations[key.table].sql_name, catalog.relations[key.refers_to].sql_name
    pairs = list(zip(key.columns, key.referred, strict=True))
    joined = " AND ".join(f"p.{quote(there)} = c.{quote(here)}" for here, there in pairs)
    if _carries_tenant(key):
        present = " AND ".join(f"c.{quote(here)} IS NOT NULL" for here, _ in pairs)
        wrong = f"{present} AND NOT EXISTS (SELECT FROM {parent} p WHERE {joined})"
    else:
        other = f"p.{TENANT_KEY} IS DISTINCT FROM c.{TENANT_KEY}"
        wrong = f"EXISTS (SELECT FROM {parent} p WHERE {joined} AND {other})"
    return f"SELECT {key.oid}, count(*) FROM {child} c WHERE {wrong}"  # noqa: S608 - quoted names


def _label(key: Key, child: Relation) -> str:
    return f"{_KINDS[key.kind]} {quote(key.name)} on {child.sql_name}"


def _foreign_key_sql(key: Key, child: Relation, parent: Relation) -> str:
    pairs = [(a, b) for a, b in zip(key.columns, key.referred, strict=True) if b != TENANT_KEY]
    here, there = (", ".join(map(quote, (TENANT_KEY, *columns))) for columns in zip(*pairs, strict=True))
    return (
        f"ALTER TABLE {child.sql_name} DROP CONSTRAINT {quote(key.name)}, ADD CONSTRAINT {quote(key.name)}"
        f" FOREIGN KEY ({here}) REFERENCES {parent.sql_name} ({there})"
    )


def _lifted(statement: str, child: Relation, parent: Relation) -> str:
    """Return the migration that runs a statement which reads all tenants' rows of two tables."""
    tables = dict.fromkeys((child.name, parent.name))
    schema = f", schema={child.schema!r}" if child.schema != "public" else ""
    return f"with op.lift_force({', '.join(map(repr, tables))}{schema}):\n    op.execute({statement!r})"


CHECKS = (
    Check((KEY_WITHOUT_TENANT, KEY_ACROSS_TENANTS), examine_keys),
    Check((FOREIGN_KEY_WITHOUT_TENANT,), examine_foreign_keys),
    Check((FOREIGN_KEY_NOT_VALIDATED,), examine_validation),
)
RULES: tuple[Rule, ...] = rules_of(CHECKS)
