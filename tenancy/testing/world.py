"""A world to attack: one database in which two tenants have rows in every tenant table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy import Engine, MetaData, Table, make_url
from sqlalchemy.orm import sessionmaker

from tenancy.binding import create_tenant_engine
from tenancy.context import outside_any_scope, tenant_scope
from tenancy.rls import Roles, qualified, quote
from tenancy.session import TenantSession, tenant_sessionmaker
from tenancy.testing.rows import FRESH, Row, RowFactory, RowPlan
from tenancy.testing.seeding import Seeding, admin_engine, read_rows, run_seeding

__all__ = ["RowFactory", "RowsByTenant", "SeededTenant", "Snapshot", "World", "seed"]

RowsByTenant = Mapping[UUID, list[Row]]
Snapshot = Mapping[str, tuple[bytes, ...]]
ADMIN = "postgres"


@dataclass(frozen=True)
class SeededTenant:
    """One of the two tenants. Its slug is in every text that was made up for it."""

    id: UUID
    slug: str


OWNER = SeededTenant(UUID("aaaaaaaa-0000-7000-8000-000000000001"), "isolation-owner")
STRANGER = SeededTenant(UUID("bbbbbbbb-0000-7000-8000-000000000002"), "isolation-stranger")


class World:
    """One database with two seeded tenants, ready to be attacked; made by `seed`.

    url: gives the SQLAlchemy URL of a role; `postgres` stands for the superuser.
    tenants: the owner, whose rows are aimed at, and the stranger.
    rows: by the key of each table in the metadata, then by tenant id: the rows made, as the superuser reads
        them. Rows of account and platform tables stand under the tenant they were made for.
    """

    def __init__(self, metadata: MetaData, roles: Roles, url: Callable[[str], str], seeding: Seeding) -> None:
        self.metadata = metadata
        self.roles = roles
        self.url = url
        self.tenants = (OWNER, STRANGER)
        self.seeding = seeding
        self.rows: Mapping[str, RowsByTenant] = {}
        self.reload()
        self._seeded = self.snapshot()

    def reload(self) -> None:
        """Read `rows` anew, after the database was changed on purpose."""
        engine = admin_engine(self.url(ADMIN))
        with engine.connect() as connection:
            self.rows = read_rows(connection, self.seeding, tuple(tenant.id for tenant in self.tenants))

    def fresh(self, table: Table, tenant: SeededTenant, number: int = 0) -> Row:
        """Return the values of a row that is not there and could be inserted for the tenant; 0 and 1 differ.

        Without the columns that the server fills.
        """
        return dict(self._fresh(table, self.tenants.index(tenant), number))

    def _fresh(self, table: Table, side: int, number: int) -> Row:
        known = self._fresh_rows.get((table.key, side, number))
        if known is None:
            with tenant_scope(self.tenants[side].id):
                known = self._fresh_rows[table.key, side, number] = self.seeding.row(table, side, FRESH + number)
        return known

    @cached_property
    def _fresh_rows(self) -> dict[tuple[str, int, int], Row]:
        return {}

    @cached_property
    def app_engine(self) -> Engine:
        """The app role's tenant engine, with one pooled connection; made when first asked for."""
        return create_tenant_engine(self.url(self.roles.app), pool_size=1, max_overflow=0, pool_timeout=5)

    @cached_property
    def sessions(self) -> sessionmaker[TenantSession]:
        return tenant_sessionmaker(self.app_engine)

    @cached_property
    def admin(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A superuser's connection in autocommit, past every policy."""
        return connect(self.url(ADMIN))

    def snapshot(self, tables: Iterable[str] | None = None) -> Snapshot:
        """Return each table's rows, as sorted lines of COPY text, as the superuser sees them; None for all tables."""
        return {name: self._lines(name) for name in (self.metadata.tables if tables is None else tables)}

    def _lines(self, name: str) -> tuple[bytes, ...]:
        table = self.metadata.tables[name]
        found = b""
        with self.admin.cursor().copy(f"COPY {_name(table)} ({_columns(table)}) TO STDOUT".encode()) as copy:
            for block in copy:
                found += bytes(block)
        return tuple(sorted(found.splitlines(keepends=True)))

    def restore(self) -> list[str]:
        """Put all rows back exactly as they were seeded, past triggers; return the tables that had changed."""
        changed = [name for name, lines in self.snapshot().items() if lines != self._seeded[name]]
        if not changed:
            return []
        with self.admin.transaction(), self.admin.cursor() as cursor:
            cursor.execute("SET LOCAL session_replication_role = replica")
            for name in changed:
                table = self.metadata.tables[name]
                cursor.execute(f"DELETE FROM {_name(table)}".encode())  # noqa: S608 - a quoted name
                with cursor.copy(f"COPY {_name(table)} ({_columns(table)}) FROM STDIN".encode()) as copy:
                    copy.write(b"".join(self._seeded[name]))
        return changed

    def close(self) -> None:
        """Let go of every connection; the world can go on to be used, and opens new ones."""
        opened = self.__dict__
        if "app_engine" in opened:
            opened.pop("app_engine").dispose()
        opened.pop("sessions", None)
        if "admin" in opened:
            opened.pop("admin").close()


def seed(
    metadata: MetaData, url: Callable[[str], str], *, roles: Roles | None = None, factory: RowFactory | None = None
) -> World:
    """Make two tenants with rows in every tenant table, in the order of their foreign keys.

    url: of a migrated database without rows, by role. factory: is asked about each row; gets the table and the
    guessed values, and returns the values to use instead or in addition, or None when the guess is fine.
    Raises: SeedError - the database refused a row; names the table and the constraint.
    """
    seeding = Seeding(RowPlan(metadata, factory), tuple((tenant.id, tenant.slug) for tenant in (OWNER, STRANGER)))
    with outside_any_scope():
        run_seeding(admin_engine(url(ADMIN)), seeding)
        return World(metadata, roles or Roles(), url, seeding)


def connect(url: str) -> psycopg.Connection[tuple[Any, ...]]:
    """Open a plain driver connection in autocommit."""
    parsed = make_url(url)
    parts: dict[str, Any] = {**parsed.translate_connect_args(username="user", database="dbname"), **parsed.query}
    return psycopg.connect(make_conninfo(**parts), autocommit=True)


def _name(table: Table) -> str:
    return qualified(table.name, table.schema)


def _columns(table: Table) -> str:
    return ", ".join(quote(column.name) for column in table.columns if column.computed is None)
