"""The keys of an existing table: read from the catalog, and rewritten with the tenant in them or without."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, text

from tenancy import rls
from tenancy.errors import MigrationError
from tenancy.tables import TENANT_KEY

_NAME = text("SELECT CAST(CAST(:name AS regclass) AS text)")
_CONSTRAINTS = text("""
    SELECT c.conname, c.contype::text, pg_get_constraintdef(c.oid), c.conrelid::regclass::text,
           c.confrelid::regclass::text,
           ARRAY(SELECT a.attname::text FROM unnest(c.conkey) WITH ORDINALITY k (n, i)
                 JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.n ORDER BY k.i),
           ARRAY(SELECT a.attname::text FROM unnest(c.confkey) WITH ORDINALITY k (n, i)
                 JOIN pg_attribute a ON a.attrelid = c.confrelid AND a.attnum = k.n ORDER BY k.i),
           EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.conrelid AND a.attname = 'tenant_id'
                   AND NOT a.attisdropped)
    FROM pg_constraint c
    WHERE c.contype IN ('p', 'u', 'x', 'f') AND c.conparentid = 0
      AND CAST(:table AS regclass) IN (c.conrelid, c.confrelid)
    ORDER BY c.contype = 'f', c.conname
""")
_UNIQUE_INDEXES = text("""
    SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid),
           EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attname = 'tenant_id'
                   AND a.attnum = ANY (i.indkey))
    FROM pg_index i
    WHERE i.indrelid = CAST(:table AS regclass) AND i.indisunique
      AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid)
    ORDER BY 1
""")


@dataclass(frozen=True)
class Constraint:
    """One key of a table, as the catalog has it; tables are SQL names."""

    name: str
    kind: Literal["p", "u", "x", "f"]
    definition: str
    table: str
    refers_to: str
    columns: tuple[str, ...]
    referred: tuple[str, ...]
    has_tenant: bool


@dataclass(frozen=True)
class Change:
    """A key to drop, and the text it comes back with."""

    drop: str
    create: str
    is_foreign_key: bool = False


def server_name(connection: Connection, table: str, schema: str | None) -> str:
    """Return a table's SQL name as the server writes it, so that it can be compared with what the catalog says."""
    return str(connection.execute(_NAME, {"name": rls.qualified(table, schema)}).scalar_one())


def read_constraints(connection: Connection, name: str) -> list[Constraint]:
    """Return the keys of a table and the foreign keys that point at it."""
    return [
        Constraint(conname, kind, definition, table, refers_to, tuple(columns), tuple(referred), has_tenant)
        for conname, kind, definition, table, refers_to, columns, referred, has_tenant in connection.execute(
            _CONSTRAINTS, {"table": name}
        )
    ]


def key_changes(
    connection: Connection,
    name: str,
    constraints: Sequence[Constraint],
    rewrite: Callable[[Constraint], str | None],
    *,
    keep: Sequence[str],
) -> Iterator[Change]:
    """Find the keys of a table, and the foreign keys pointing at it, that `rewrite` has another text for."""
    for constraint in constraints:
        is_pointing_here = constraint.kind == "f" and constraint.refers_to == name
        if constraint.name in keep or (constraint.kind == "f" and not is_pointing_here):
            continue
        definition = rewrite(constraint)
        if definition is not None:
            quoted = rls.quote(constraint.name)
            yield Change(
                f"ALTER TABLE {constraint.table} DROP CONSTRAINT {quoted}",
                f"ALTER TABLE {constraint.table} ADD CONSTRAINT {quoted} {definition}",
                is_foreign_key=is_pointing_here,
            )
    for index, definition, has_tenant in connection.execute(_UNIQUE_INDEXES, {"table": name}):
        adds = rewrite is with_tenant
        if index not in keep and has_tenant != adds:
            start = definition.index("(") + 1
            rest = definition[start:]
            rest = f"{TENANT_KEY}, {rest}" if adds else rest.removeprefix(f"{TENANT_KEY}, ")
            yield Change(f"DROP INDEX {index}", definition[:start] + rest)


def in_order(changes: Sequence[Change]) -> list[str]:
    """Order them: foreign keys go before the keys they rest on, and come back after them."""
    ordered = sorted(changes, key=lambda change: not change.is_foreign_key)
    return [change.drop for change in ordered] + [change.create for change in reversed(ordered)]


def with_tenant(constraint: Constraint) -> str | None:
    """Return the text of a key with the tenant leading it; None when it is in there already.

    Raises: MigrationError - the key cannot carry it.
    """
    if TENANT_KEY in constraint.columns:
        return None
    if constraint.kind == "x":
        raise _cannot_carry(constraint)
    definition = constraint.definition.replace("(", f"({TENANT_KEY}, ", 1)
    if constraint.kind != "f":
        return definition
    if constraint.referred != ("id",) or re.search(r"ON UPDATE SET", definition):
        raise _cannot_carry(constraint)
    definition = re.sub(r"(REFERENCES [^(]+)\(", rf"\1({TENANT_KEY}, ", definition, count=1)
    # Only the reference is blanked; MATCH FULL would refuse that, and means nothing for one column.
    definition = re.sub(r"ON DELETE SET (NULL|DEFAULT)(?! \()", _only(constraint), definition)
    return definition.replace(" MATCH FULL", "")


def _only(constraint: Constraint) -> str:
    return rf"ON DELETE SET \1 ({rls.quote(constraint.columns[0])})"


def without_tenant(constraint: Constraint) -> str | None:
    """Return the text of a key without the tenant; None when the tenant is not in it."""
    if TENANT_KEY not in constraint.columns:
        return None
    definition = constraint.definition.replace(f"({TENANT_KEY}, ", "(")
    return re.sub(r"(ON DELETE SET (?:NULL|DEFAULT)) \([^)]*\)", r"\1", definition)


def _cannot_carry(constraint: Constraint) -> MigrationError:
    return MigrationError(
        f"constraint {constraint.name!r} on {constraint.table!r} cannot be given the tenant: {constraint.definition}",
        hint="drop it before adopt_table, and create it with tenant_id afterwards",
    )
