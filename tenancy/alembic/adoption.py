"""Existing tables: one with a lone `id` becomes a tenant table in place, rows, keys, policies and all."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from alembic.operations import Operations
from alembic.operations.ops import MigrateOperation
from sqlalchemy import Connection, text

from tenancy import rls
from tenancy.alembic.execution import current_installation, online, run
from tenancy.alembic.guards import GuardTableOp
from tenancy.alembic.keys import (
    Constraint,
    in_order,
    key_changes,
    read_constraints,
    server_name,
    with_tenant,
    without_tenant,
)
from tenancy.alembic.operations import TenancyOp
from tenancy.alembic.rows import lifted
from tenancy.errors import MigrationError
from tenancy.marks import EVERY_PRIVILEGE
from tenancy.rls import GuardedTable
from tenancy.rls.migrations import send
from tenancy.tables import TENANT_KEY

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
        app: Sequence[str] = EVERY_PRIVILEGE,
        platform: Sequence[str] = EVERY_PRIVILEGE,
        lookup_columns: Sequence[str] = (),
        schema: str | None = None,
    ) -> None:
        self.table_name = table_name
        self.tenant_id = tenant_id
        self.across_tenants = tuple(across_tenants)
        self.app, self.platform = tuple(app), tuple(platform)
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
        app: Sequence[str] = EVERY_PRIVILEGE,
        platform: Sequence[str] = EVERY_PRIVILEGE,
        lookup_columns: Sequence[str] = (),
        schema: str | None = None,
    ) -> None:
        """Make a tenant table of one whose primary key is a lone `id`, and guard it.

        Adds `tenant_id`, gives every row its tenant, puts the tenant into the primary key, unique constraints
        and unique indexes, and into the foreign keys that point here. Tables that point here come first.
        tenant_id: of the tenant that gets all rows; or an SQL expression over the row, such as
            "(SELECT tenant_id FROM owners o WHERE o.id = todos.owner_id)".
        across_tenants: unique constraints or indexes, by name, that stay as they are.
        app, platform, lookup_columns: as in `guard_table`; with limit_grants, what it says.
        Raises: MigrationError - offline mode; another primary key; a row gets no tenant; a table that points
            here has no `tenant_id` yet; a key that cannot carry the tenant.
        """
        operations.invoke(
            cls(
                table_name,
                tenant_id=tenant_id,
                across_tenants=across_tenants,
                app=app,
                platform=platform,
                lookup_columns=lookup_columns,
                schema=schema,
            )
        )

    @property
    def arguments(self) -> tuple[tuple[str, ...], dict[str, object]]:
        keywords: dict[str, object] = {"tenant_id": str(self.tenant_id)}
        keywords |= {"across_tenants": list(self.across_tenants)} if self.across_tenants else {}
        keywords |= {"app": list(self.app)} if self.app != EVERY_PRIVILEGE else {}
        keywords |= {"platform": list(self.platform)} if self.platform != EVERY_PRIVILEGE else {}
        keywords |= {"lookup_columns": list(self.lookup_columns)} if self.lookup_columns else {}
        keywords |= {"schema": self.schema} if self.schema else {}
        return (self.table_name,), keywords

    def run(self, operations: Operations) -> None:
        connection = online(operations, f"the keys of {self.table_name!r} cannot be read")
        name = server_name(connection, self.table_name, self.schema)
        constraints = read_constraints(connection, name)
        _require_lone_id(constraints, name)
        _refuse_unadopted_children(constraints, name)
        changes = list(key_changes(connection, name, constraints, with_tenant, keep=self.across_tenants))
        children = [c.table for c in constraints if c.kind == "f" and c.refers_to == name and c.table != name]
        with lifted(operations, children):
            send(connection, [f"ALTER TABLE {name} ADD COLUMN {TENANT_KEY} uuid"])
            send(connection, [f"UPDATE {name} SET {TENANT_KEY} = {_expression(self.tenant_id)}"])
            _refuse_rowswithout_tenant(connection, name)
            send(connection, [f"ALTER TABLE {name} ALTER COLUMN {TENANT_KEY} SET NOT NULL"])
            send(connection, in_order(changes))
        table = GuardedTable(
            name=self.table_name,
            kind="tenant",
            update=(),
            schema=self.schema,
            app=self.app,
            platform=self.platform,
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
        app: Sequence[str] = EVERY_PRIVILEGE,
        platform: Sequence[str] = EVERY_PRIVILEGE,
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
            app=app,
            platform=platform,
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
        name = server_name(connection, adoption.table_name, adoption.schema)
        constraints = read_constraints(connection, name)
        changes = list(key_changes(connection, name, constraints, without_tenant, keep=adoption.across_tenants))
        children = [c.table for c in constraints if c.kind == "f" and c.refers_to == name and c.table != name]
        sequences = tuple(connection.execute(_SEQUENCES, {"table": name}).scalars())
        table = GuardedTable(adoption.table_name, "tenant", (), schema=adoption.schema, sequences=sequences)
        run(operations, rls.unguard_sql(table, current_installation().roles))
        with lifted(operations, children):
            send(connection, in_order(changes))
            send(connection, [f"ALTER TABLE {name} DROP COLUMN {TENANT_KEY}"])

    def reverse(self) -> MigrateOperation:
        return self.adoption


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


def _refuse_rowswithout_tenant(connection: Connection, name: str) -> None:
    count = connection.exec_driver_sql(f"SELECT count(*) FROM {name} WHERE {TENANT_KEY} IS NULL").scalar_one()
    if count:
        raise MigrationError(f"{count} rows of {name!r} got no tenant", hint="give tenant_id for every row")


def _expression(tenant_id: UUID | str) -> str:
    try:
        return f"'{UUID(str(tenant_id))}'"
    except ValueError:
        return str(tenant_id)
