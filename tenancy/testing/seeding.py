"""Making the rows: each table's in the order of foreign keys, as the superuser, for both tenants."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, ForeignKeyConstraint, Table, create_engine, event, insert, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from tenancy.context import tenant_scope
from tenancy.errors import SeedError
from tenancy.tables import TENANT_KEY
from tenancy.testing.rows import (
    FRESH,
    Row,
    RowPlan,
    defaults_of,
    filled,
    foreign_keys,
    identity_columns,
    identity_of,
    is_always_counted,
    is_counted,
    kind_of,
)

_OVERRIDING = "tenancy_overriding"


class Seeding:
    """The rows made so far, by table and side, numbered as the plan numbers them."""

    def __init__(self, plan: RowPlan, tenants: tuple[tuple[UUID, str], ...]) -> None:
        self.plan = plan
        self.tenants = tenants
        self.made: dict[str, list[list[Row]]] = {}

    def make_all(self, connection: Connection) -> None:
        connection.exec_driver_sql("SET CONSTRAINTS ALL DEFERRED")
        for table in self.plan.tables:
            if self._is_needed(table):
                self.made[table.key] = self._already_there(connection, table) or [
                    self._make_rows(connection, table, side) for side in range(len(self.tenants))
                ]
        for key in self.plan.late:
            if key.table.key in self.made:
                self._fill_in(connection, key)

    def _is_needed(self, table: Table) -> bool:
        """A platform table gets rows only when some foreign key needs them."""
        if kind_of(table) != "platform":
            return True
        pointing = [
            key.table for other in self.plan.tables for key in foreign_keys(other) if key.referred_table is table
        ]
        return any(other is not table and self._is_needed(other) for other in pointing)

    def _already_there(self, connection: Connection, table: Table) -> list[list[Row]] | None:
        """Rows of a platform table that a migration brought, such as plans or countries, are used as they are."""
        if kind_of(table) != "platform" or table in self.plan.named:
            return None
        found = [dict(row) for row in connection.execute(select(table)).mappings()]
        return [found for _ in self.tenants] if found else None

    def _make_rows(self, connection: Connection, table: Table, side: int) -> list[Row]:
        # What the model's own defaults and the database's triggers may ask for.
        tenant = self.tenants[side][0]
        connection.exec_driver_sql("SELECT set_config('app.tenant_id', %s, true)", (str(tenant),))
        made: list[Row] = []
        with tenant_scope(tenant):
            for number in range(self.plan.count(table)):
                made.append(self._insert(connection, table, self.row(table, side, number, made)))
        return made

    def row(self, table: Table, side: int, number: int, own: list[Row] | None = None) -> Row:
        """Return the values to insert: guessed, pointing at rows already made, corrected by the factory.

        own: the earlier rows of the same table and side; None when all are made.
        """
        tenant, slug = self.tenants[side]
        row = self.plan.guessed(table, slug, side, number)
        if TENANT_KEY in table.c:
            row[TENANT_KEY] = tenant
        if table in self.plan.named:
            row[self.plan.named[table]] = tenant
        if kind_of(table) == "registry" or table in self.plan.named:
            row |= _as_tenant(table, slug)
        for key in foreign_keys(table):
            row |= {name: value for name, value in self._pointing(key, side, number, own) if name != TENANT_KEY}
        given = self.plan.factory(table, dict(row)) if self.plan.factory is not None else None
        row |= dict(given or {})
        # A fresh row is also sent past SQLAlchemy's defaults, and by actors in whose name they cannot be asked.
        return row | defaults_of(table, row) if number >= FRESH else row

    def _pointing(self, key: ForeignKeyConstraint, side: int, number: int, own: list[Row] | None) -> Any:
        wanted = self.plan.target(key, number)
        if key.referred_table is key.table:
            if wanted is None and not _can_be_null(key):
                return ()
        elif key in self.plan.late and number < FRESH:
            return filled(key, None) if _can_be_null(key) else filled(key, self._foreseen(key, side, number))
        rows = own if own is not None and key.referred_table is key.table else self._made(key.referred_table, side)
        return filled(key, None if wanted is None or not rows else rows[min(wanted, len(rows) - 1)])

    def _made(self, table: Table, side: int) -> list[Row]:
        made = self.made.get(table.key, [])
        return made[side] if side < len(made) else []

    def _foreseen(self, key: ForeignKeyConstraint, side: int, number: int) -> Row:
        """The key of a row that is made later; the constraint has to be deferrable."""
        target = key.referred_table
        row = self.plan.guessed(target, self.tenants[side][1], side, self.plan.target(key, number) or 0)
        row[TENANT_KEY] = self.tenants[side][0]
        missing = [element.column.name for element in key.elements if element.column.name not in row]
        if missing or not key.deferrable:
            raise SeedError(
                f"{key.table.name!r} and {target.name!r} each need a row of the other first",
                hint=f"make the foreign key of {key.table.name!r} nullable or deferrable",
            )
        return row

    def _insert(self, connection: Connection, table: Table, row: Row) -> Row:
        row = dict(row)
        for key in foreign_keys(table):
            own = key.referred_table is table and self.plan.target(key, 0) is None and not _can_be_null(key)
            if own and not any(
                element.parent.name in row for element in key.elements if element.parent.name != TENANT_KEY
            ):
                row |= {local: row[there] for local, there in _columns_of(key)}  # it can only point at itself
        is_numbered = any(is_always_counted(table.c[name]) for name in row if is_counted(table.c[name]))
        statement = insert(table).values(row).returning(*table.columns)
        try:
            with connection.begin_nested():
                found = connection.execute(statement, execution_options={_OVERRIDING: is_numbered}).mappings().one()
        except Exception as error:  # whatever a model's own default raises is no less a reason
            raise _refused(table, error) from error
        return dict(found)

    def _fill_in(self, connection: Connection, key: ForeignKeyConstraint) -> None:
        if not _can_be_null(key):
            return
        for side in range(len(self.tenants)):
            targets = self._made(key.referred_table, side)
            for number, row in enumerate(self._made(key.table, side)):
                wanted = self.plan.target(key, number)
                if wanted is None or not targets:
                    continue
                values = dict(filled(key, targets[min(wanted, len(targets) - 1)]))
                keys = [key.table.c[name] == row[name] for name in identity_columns(key.table)]
                try:
                    connection.execute(update(key.table).where(*keys).values(values))
                except DBAPIError as error:
                    raise _refused(key.table, error) from error
                row |= values


def admin_engine(url: str) -> Engine:
    """Return the superuser's engine for making rows; it may write even columns that the server always counts."""
    engine = create_engine(url, poolclass=NullPool)

    def override(
        _connection: object, _cursor: object, statement: str, parameters: Any, context: Any, _many: bool
    ) -> tuple[str, Any]:
        if context is not None and context.execution_options.get(_OVERRIDING):
            statement = re.sub(r"\) VALUES \(", ") OVERRIDING SYSTEM VALUE VALUES (", statement, count=1)
        return statement, parameters

    event.listen(engine, "before_cursor_execute", override, retval=True)
    return engine


def read_rows(
    connection: Connection, seeding: Seeding, tenants: tuple[UUID, ...]
) -> Mapping[str, Mapping[UUID, list[Row]]]:
    """Read back what is there now: the rows made, in their order, then those that triggers have added."""
    found: dict[str, dict[UUID, list[Row]]] = {}
    for table in seeding.plan.tables:
        made = seeding.made.get(table.key)
        if made is None:
            continue
        rows = [dict(row) for row in connection.execute(select(table)).mappings()]
        there = {identity_of(table, row): row for row in rows}
        by_tenant: dict[UUID, list[Row]] = {}
        for side, tenant in enumerate(tenants):
            known = [identity_of(table, row) for row in made[side]]
            by_tenant[tenant] = [there[identity] for identity in known if identity in there]
            if TENANT_KEY in table.c:
                added = (row for identity, row in there.items() if identity not in known)
                by_tenant[tenant] += [row for row in added if row[TENANT_KEY] == tenant]
        found[table.key] = by_tenant
    return found


def run_seeding(engine: Engine, seeding: Seeding) -> None:
    with engine.begin() as connection:
        try:
            seeding.make_all(connection)
            connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
        except DBAPIError as error:
            raise _refused(None, error) from error


def _as_tenant(table: Table, slug: str) -> Row:
    return {name: value for name, value in (("slug", slug), ("status", "active")) if name in table.c}


def _can_be_null(key: ForeignKeyConstraint) -> bool:
    return all(element.parent.nullable for element in key.elements if element.parent.name != TENANT_KEY)


def _columns_of(key: ForeignKeyConstraint) -> list[tuple[str, str]]:
    return [(element.parent.name, element.column.name) for element in key.elements]


def _refused(table: Table | None, error: Exception) -> SeedError:
    cause = getattr(error, "orig", None) or error
    found = getattr(cause, "diag", None)
    name = getattr(found, "table_name", None) or (table.name if table is not None else "some table")
    constraint = getattr(found, "constraint_name", None)
    what = f"constraint {constraint!r}" if constraint else (str(cause) or type(cause).__name__).splitlines()[0]
    return SeedError(
        f"no row could be made in {name!r}: {what}",
        hint="give the values it needs: the row factory is asked about each row, and gets the table and the guess",
    )
