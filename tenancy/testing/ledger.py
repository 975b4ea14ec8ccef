"""A ledger: one tenant table whose every row says in a text of its own whose it is, for proofs under long use.

Reading path: `ledger` (the rows, and whose they are) -> `soak` (many threads at once) and `oracle` -> `fuzzer`
(one thread, every order of things).
"""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast
from uuid import UUID

import psycopg
from psycopg import sql
from sqlalchemy import MetaData, Table, Text, create_engine, make_url, text
from sqlalchemy.orm import DeclarativeBase, Mapped, class_mapper, mapped_column
from sqlalchemy.pool import NullPool
from uuid_utils.compat import uuid7

from tenancy.embedded import Server, find_server
from tenancy.errors import ModelError
from tenancy.lookups import lookups_of
from tenancy.rls import Roles, bootstrap_sql, create_lookup_sql, guard_sql, guarded, install_sql
from tenancy.tables import TENANT_KEY, TenantTable, mark_of
from tenancy.testing.values import Guess

SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
Values = Callable[[int], Mapping[str, Any]]
Read = Sequence[tuple[UUID, str]]
Admin = psycopg.Connection[tuple[Any, ...]]


class EntryBase(DeclarativeBase):
    """What the kit's own model is declared on."""

    metadata = MetaData()


class Entry(TenantTable, EntryBase):
    """The kit's own model, for whoever brings none."""

    __tablename__ = "ledger_entries"
    payload: Mapped[str] = mapped_column(Text)


class Ledger:
    """One tenant table of one database, and how its rows are written and recognised.

    payload: name of a text attribute with room for 60 characters; each row's tenant stands in it.
    app_url: of the app role. admin_url: a superuser's, to end connections and to see every row.
    values: gives the other columns that a row needs, by a number that no other row has; None guesses them.
    """

    def __init__(
        self, model: type[TenantTable], payload: str, *, app_url: str, admin_url: str, values: Values | None = None
    ) -> None:
        self.model = model
        self.app_url, self.admin_url = app_url, admin_url
        mapper = class_mapper(model)
        self.table = cast("Table", mapper.local_table)
        if payload not in mapper.columns or mapper.columns[payload].type.python_type is not str:
            raise ModelError(f"{model.__name__!r} has no text attribute {payload!r}", hint="name one that holds text")
        self.attribute = payload
        self.payload = mapper.columns[payload].name
        self._keys = {column.name: mapper.get_property_by_column(column).key for column in self.table.columns}
        self._values = values or self._guess
        self._tenants: list[UUID] = []

    # Rows ---------------------------------------------------------------------------------------------

    def mark(self, tenant: UUID, serial: str) -> str:
        """Return what the payload of a row says. serial: tells this row from every other."""
        return f"{tenant.hex}:{serial}"

    def row(self, tenant: UUID, serial: str, *, number: int) -> dict[str, Any]:
        """Return the values of a new row, by column; its `tenant_id` is left to the library."""
        return {**self._values(number), self.payload: self.mark(tenant, serial)}

    def new(self, tenant: UUID, serial: str, *, number: int) -> TenantTable:
        """Construct an object for a new row; in the tenant's scope."""
        return self.construct(self.row(tenant, serial, number=number))

    def construct(self, row: Mapping[str, Any]) -> TenantTable:
        """Construct an object from the values of a row."""
        return self.model(**{self._keys[name]: value for name, value in row.items()})

    def _guess(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for column in self.table.columns:
            given = column.name in (TENANT_KEY, "id", self.payload) or column.default is not None
            if given or column.nullable or column.server_default is not None:
                continue
            if column.foreign_keys:
                raise ModelError(
                    f"a row of {self.table.name!r} needs a row that {column.name!r} points at",
                    hint="choose a model without required references, or pass values=...",
                )
            found[column.name] = Guess(column, "ledger", number).value()
        return found

    def foreign(self, rows: Iterable[tuple[UUID, str]], tenant: UUID | None) -> list[str]:
        """Name the rows that are not the tenant's, by what they say; with None, all of them."""
        mark = None if tenant is None else f"{tenant.hex}:"
        return [
            f"{payload!r} with tenant_id {owner} was read by {tenant or 'nobody'}"
            for owner, payload in rows
            if mark is None or owner != tenant or not payload.startswith(mark)
        ]

    # The superuser's side -----------------------------------------------------------------------------

    def connect_admin(self) -> Admin:
        url = make_url(self.admin_url).set(drivername="postgresql")
        return psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)

    def add_tenants(self, count: int, admin: Admin) -> list[UUID]:
        """Make tenants, with a row in the table of tenants if the models have one."""
        made = [uuid7() for _ in range(count)]
        registries = [t for t in self.table.metadata.sorted_tables if (m := mark_of(t)) and m.kind == "registry"]
        for registry in registries:
            for tenant in made:
                row = {
                    column.name: Guess(column, tenant.hex, 0).value()
                    for column in registry.columns
                    if column.name != TENANT_KEY and not column.nullable and column.server_default is None
                }
                _insert(admin, registry, {TENANT_KEY: tenant, **row})
        self._tenants += made
        return made

    def everything(self, tenants: Sequence[UUID], admin: Admin) -> Read:
        """Return every row that these tenants have, or that says it is theirs."""
        chosen = sql.SQL(
            "SELECT tenant_id, {payload} FROM {table}"
            " WHERE tenant_id = ANY (%(ids)s) OR split_part({payload}, ':', 1) = ANY (%(marks)s)"
        ).format(payload=sql.Identifier(self.payload), table=_name(self.table))
        wanted = {"ids": list(tenants), "marks": [tenant.hex for tenant in tenants]}
        return [(row[0], row[1]) for row in admin.execute(chosen, wanted).fetchall()]

    def clear(self, admin: Admin) -> None:
        """Remove the tenants that were made here, and their rows."""
        for table in reversed(self.table.metadata.sorted_tables):
            mark = mark_of(table)
            if table is self.table or (mark is not None and mark.kind == "registry"):
                removal = sql.SQL("DELETE FROM {} WHERE tenant_id = ANY (%s)").format(_name(table))
                admin.execute(removal, [self._tenants])
        self._tenants = []


def _name(table: Table) -> sql.Identifier:
    return sql.Identifier(table.schema, table.name) if table.schema else sql.Identifier(table.name)


def _insert(admin: Admin, table: Table, row: Mapping[str, Any]) -> None:
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        _name(table), sql.SQL(", ").join(map(sql.Identifier, row)), sql.SQL(", ").join(sql.Placeholder() * len(row))
    )
    admin.execute(statement, list(row.values()))


# A database of its own --------------------------------------------------------------------------------


@contextmanager
def own_ledger(model: type[TenantTable] = Entry, payload: str = "payload") -> Iterator[Ledger]:
    """Give a ledger in a new database with the model's tables; both are gone afterwards.

    The server is the one that `tenancy.embedded.find_server` finds or starts.
    """
    with find_server(settings=SETTINGS) as server:
        name = f"tenancy_ledger_{os.getpid()}"
        with server.connect() as admin:
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            _build(server, name, model.metadata)  # type: ignore[attr-defined]  # every declarative model has it
            yield Ledger(
                model, payload, app_url=server.url(role=Roles().app, database=name), admin_url=server.url(database=name)
            )
        finally:
            with server.connect() as admin:
                admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _build(server: Server, name: str, metadata: MetaData) -> None:
    roles = Roles()
    engine = create_engine(server.url(database=name), poolclass=NullPool)
    with engine.begin() as connection:
        for statement in bootstrap_sql(roles, name):
            connection.execute(text(statement))
    with engine.begin() as connection:
        connection.execute(text(f"SET LOCAL ROLE {roles.owner}"))
        for statement in install_sql(roles):
            connection.execute(text(statement))
        metadata.create_all(connection)
        written = [line for table in guarded(metadata) for line in guard_sql(table, roles)]
        written += [line for lookup in lookups_of(metadata) for line in create_lookup_sql(lookup, roles)]
        for statement in written:
            connection.execute(text(statement))


# The command line -------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="MODULE:CLASS", help="a tenant table of yours; the kit's own without it")
    parser.add_argument("--payload", default="payload", help="its text attribute that names each row's tenant")
    parser.add_argument("--app-url", default=os.environ.get("APP_URL"), help="the app role's; APP_URL")
    parser.add_argument("--admin-url", default=os.environ.get("TENANCY_ADMIN_URL"), help="TENANCY_ADMIN_URL")
    parser.add_argument("--seed", type=int, help="as printed by an earlier run; chosen at random without it")


@contextmanager
def open_ledger(arguments: argparse.Namespace) -> Iterator[Ledger]:
    """Give the ledger that the arguments name; in a database of its own unless a model and both URLs are given."""
    if not arguments.model:
        with own_ledger() as ledger:
            yield ledger
        return
    module, _, name = arguments.model.partition(":")
    model = getattr(importlib.import_module(module), name)
    if not (arguments.app_url and arguments.admin_url):
        with own_ledger(model, arguments.payload) as ledger:
            yield ledger
        return
    ledger = Ledger(model, arguments.payload, app_url=arguments.app_url, admin_url=arguments.admin_url)
    try:
        yield ledger
    finally:
        with ledger.connect_admin() as admin:
            ledger.clear(admin)
