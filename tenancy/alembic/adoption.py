"""Existing tables: one with a lone `id` becomes a tenant table in place, rows, keys, policies and all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from alembic.operations import Operations
from alembic.operations.ops import MigrateOperation
from sqlalchemy import Connection, text

from tenancy import rls
from tenancy.alembic.execution import current_installation, online, run
from tenancy.alembic.guards import GuardTableOp
from tenancy.alembic.operations import TenancyOp
from tenancy.alembic.rows import lifted
from tenancy.errors import MigrationError
from tenancy.rls import GuardedTable
from tenancy.rls.migrations import send
from tenancy.tables import TENANT_KEY

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
_SEQUENCES = text("""
    SELECT c.relname FROM pg_depend d JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'S'
    WHERE d.refobjid = CAST(:table AS regclass) AND d.deptype IN ('a', 'i') ORDER BY 1
""")


class AdoptTableOp(TenancyOp):
    verb = "adopt_table"

    def __init__(
        self,
        table_name: str,
        *,
        tenant_id: UUID | str,
        across_tenants: Sequence[str] = (),
        lookup_columns: Sequence[str] = (),
        schema: str | None = None,
    ) -> None:
        self.table_name = table_name
        self.tenant_id = tenant_id
        self.across_tenants = tuple(across_tenants)
        self.lookup_columns = tuple(lookup_columns)
        self.schema = schema

    @classmethod
    def adopt_table(
        cls,
        operations: Operations,
        table_name: str,
        *,
        tenant_id: UUID | str,
        across_tenants: Sequence[str] = (),
        lookup_columns: Sequence[str] = (),
        schema: str | None = None,
    ) -> None:
        """Make a tenant table of one whose primary key is a lone `id`, and guard it.

        Adds `tenant_id`, gives every row its tenant, puts the tenant into the primary key, unique constraints
        and unique indexes, and into the foreign keys that point here. Tables that point here come first.
        tenant_id: of the tenant that gets all rows; or an SQL expression over the row, such as
            "(SELECT tenant_id FROM owners o WHERE o.id = todos.owner_id)".
        across_tenants: unique constraints or indexes, by name, that stay as they are.
        lookup_columns: as in `guard_table`.
        Raises: MigrationError - offline mode; another primary key; a row gets no tenant; a table that points
            here has no `tenant_id` yet; a key that cannot carry the tenant.
        """
        operations.invoke(
            cls(
                table_name,
                tenant_id=tenant_id,
                across_tenants=across_tenants,
                lookup_columns=lookup_columns,
                schema=schema,
            )
        )

    @property
    def arguments(self) -> tuple[tuple[str, ...], dict[str, object]]:
        keywords: dict[str, object] = {"tenant_id": str(self.tenant_id)}
        keywords |= {"across_tenants": list(self.across_tenants)} if self.across_tenants else {}
        keywords |= {"lookup_columns": list(self.lookup_columns)} if self.lookup_columns else {}
        keywords |= {"schema": self.schema} if self.schema else {}
        return (self.table_name,), keywords

    def run(self, operations: Operations) -> None:
        connection = online(operations, f"the keys of {self.table_name!r} cannot be read")
        name = rls.qualified(self.table_name, self.schema)
        constraints = _read_constraints(connection, name)
        _require_lone_id(constraints, name)
        _refuse_unadopted_children(constraints, name)
        changes = list(_changes(connection, name, constraints, _with_tenant, keep=self.across_tenants))
        children = [c.table for c in constraints if c.kind == "f" and c.refers_to == name and c.table != name]
        with lifted(operations, children):
            send(connection, [f"ALTER TABLE {name} ADD COLUMN {TENANT_KEY} uuid"])
            send(connection, [f"UPDATE {name} SET {TENANT_KEY} = {_expression(self.tenant_id)}"])
            _refuse_rows_without_tenant(connection, name)
            send(connection, [f"ALTER TABLE {name} ALTER COLUMN {TENANT_KEY} SET NOT NULL"])
            send(connection, _statements(changes))
        table = GuardedTable(
            name=self.table_name,
            kind="tenant",
            update=(),
            schema=self.schema,
            lookup_columns=self.lookup_columns,
            sequences=tuple(connection.execute(_SEQUENCES, {"table": name}).scalars()),
        )
        GuardTableOp(table, knows_columns=False).run(operations)

    def reverse(self) -> MigrateOperation:
        return AbandonTableOp(self)


class AbandonTableOp(TenancyOp):
    verb = "abandon_table"

    def __init__(self, adoption: AdoptTableOp) -> None:
        self.adoption = adoption

    @classmethod
    def abandon_table(
        cls,
        operations: Operations,
        table_name: str,
        *,
        tenant_id: UUID | str = "NULL",
        across_tenants: Sequence[str] = (),
        lookup_columns: Sequence[str] = (),
        schema: str | None = None,
    ) -> None:
        """Undo `adopt_table`: the table has its lone `id` again, and no guard. Lost: whose row is whose.

        Tables that point here come last. Fails when two tenants have rows of the same key.
        Takes what `adopt_table` takes, so that its reverse can adopt the table again.
        """
        adoption = AdoptTableOp(
            table_name,
            tenant_id=tenant_id,
            across_tenants=across_tenants,
            lookup_columns=lookup_columns,
            schema=schema,
        )
        operations.invoke(cls(adoption))

    @property
    def arguments(self) -> tuple[tuple[str, ...], dict[str, object]]:
        return self.adoption.arguments

    def run(self, operations: Operations) -> None:
        adoption = self.adoption
        connection = online(operations, f"the keys of {adoption.table_name!r} cannot be read")
        name = rls.qualified(adoption.table_name, adoption.schema)
        constraints = _read_constraints(connection, name)
        changes = list(_changes(connection, name, constraints, _without_tenant, keep=adoption.across_tenants))
        children = [c.table for c in constraints if c.kind == "f" and c.refers_to == name and c.table != name]
        sequences = tuple(connection.execute(_SEQUENCES, {"table": name}).scalars())
        table = GuardedTable(adoption.table_name, "tenant", (), schema=adoption.schema, sequences=sequences)
        run(operations, rls.unguard_sql(table, current_installation().roles))
        with lifted(operations, children):
            send(connection, _statements(changes))
            send(connection, [f"ALTER TABLE {name} DROP COLUMN {TENANT_KEY}"])

    def reverse(self) -> MigrateOperation:
        return self.adoption


# Keys ------------------------------------------------------------------------------------------------


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


def _read_constraints(connection: Connection, name: str) -> list[Constraint]:
    return [
        Constraint(conname, kind, definition, table, refers_to, tuple(columns), tuple(referred), has_tenant)
        for conname, kind, definition, table, refers_to, columns, referred, has_tenant in connection.execute(
            _CONSTRAINTS, {"table": name}
        )
    ]


def _require_lone_id(constraints: Sequence[Constraint], name: str) -> None:
    key = next((c.columns for c in constraints if c.kind == "p" and c.table == name), ())
    if key != ("id",):
        raise MigrationError(
            f"the primary key of {name!r} is {key!r}, not a lone id",
            hint="change its keys in the migration yourself, then op.guard_table",
        )


def _refuse_unadopted_children(constraints: Sequence[Constraint], name: str) -> None:
    pointing = [c for c in constraints if c.kind == "f" and c.refers_to == name and c.table != name]
    children = sorted({c.table for c in pointing if not c.has_tenant})
    if children:
        raise MigrationError(
            f"{', '.join(children)} point at {name!r} and have no tenant_id",
            hint="adopt the tables that point here first; where two point at each other, drop one key before",
        )


def _refuse_rows_without_tenant(connection: Connection, name: str) -> None:
    count = connection.exec_driver_sql(f"SELECT count(*) FROM {name} WHERE {TENANT_KEY} IS NULL").scalar_one()
    if count:
        raise MigrationError(f"{count} rows of {name!r} got no tenant", hint="give tenant_id for every row")


def _expression(tenant_id: UUID | str) -> str:
    try:
        return f"'{UUID(str(tenant_id))}'"
    except ValueError:
        return str(tenant_id)


def _changes(
    connection: Connection,
    name: str,
    constraints: Sequence[Constraint],
    rewrite: Callable[[Constraint], str | None],
    *,
    keep: Sequence[str],
) -> Iterator[Change]:
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
        adds = rewrite is _with_tenant
        if index not in keep and has_tenant != adds:
            start = definition.index("(") + 1
            rest = definition[start:]
            rest = f"{TENANT_KEY}, {rest}" if adds else rest.removeprefix(f"{TENANT_KEY}, ")
            yield Change(f"DROP INDEX {index}", definition[:start] + rest)


def _statements(changes: Sequence[Change]) -> list[str]:
    """Order them: foreign keys go before the keys they rest on, and come back after them."""
    ordered = sorted(changes, key=lambda change: not change.is_foreign_key)
    return [change.drop for change in ordered] + [change.create for change in reversed(ordered)]


def _with_tenant(constraint: Constraint) -> str | None:
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


def _without_tenant(constraint: Constraint) -> str | None:
    if TENANT_KEY not in constraint.columns:
        return None
    definition = constraint.definition.replace(f"({TENANT_KEY}, ", "(")
    return re.sub(r"(ON DELETE SET (?:NULL|DEFAULT)) \([^)]*\)", r"\1", definition)


def _cannot_carry(constraint: Constraint) -> MigrationError:
    return MigrationError(
        f"constraint {constraint.name!r} on {constraint.table!r} cannot be given the tenant: {constraint.definition}",
        hint="drop it before adopt_table, and create it with tenant_id afterwards",
    )
