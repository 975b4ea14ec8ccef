"""A database whose policies demand signed scopes, and the key that signs them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool
from uuid_utils.compat import uuid7

from tenancy.embedded import Template
from tenancy.rls import add_key_sql, install_sql
from tenancy.rls.migrations import send
from tenancy.signing import SigningKey
from tests.conftest import ROLES, Database

KEY = SigningKey("current", bytes(range(32)))
ACME, GLOBEX = uuid7(), uuid7()


@contextmanager
def as_owner(database: Database) -> Iterator[Connection]:
    engine = create_engine(database.url("postgres"), poolclass=NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"SET LOCAL ROLE {ROLES.owner}")
        yield connection


def add_key(database: Database, key: SigningKey) -> None:
    inner, outer = key.pads()
    with as_owner(database) as connection:
        connection.execute(text(add_key_sql()), {"id": key.id, "inner_pad": inner, "outer_pad": outer})


def sign(database: Database) -> None:
    """Make a database of the tests a signed one that knows KEY."""
    with as_owner(database) as connection:
        send(connection, install_sql(ROLES, signed=True))
    add_key(database, KEY)


def fill(database: Database) -> None:
    """Put Ada into tenant ACME and Eve into GLOBEX."""
    with database.connect("postgres") as truth:
        for tenant, name in ((ACME, "Ada"), (GLOBEX, "Eve")):
            truth.execute(
                "INSERT INTO tenants (tenant_id, slug, name, status) VALUES (%s, %s, %s, 'active')",
                [tenant, name.lower(), name],
            )
            truth.execute(
                "INSERT INTO people (tenant_id, id, name, email) VALUES (%s, %s, %s, 'e')", [tenant, uuid7(), name]
            )


@contextmanager
def filled_clone(template: Template, name: str) -> Iterator[Database]:
    """A database of one module's own with Ada and Eve in it."""
    database = Database(template.server, template.clone(name))
    fill(database)
    yield database
    template.drop(database.name)


def token(tenant: UUID | None, account: UUID | None = None, *, key: SigningKey = KEY, life_s: int = 60) -> str:
    """Return a token as an application with the key would make it."""
    return key.sign(tenant, account, expiry=int(time.time()) + life_s)
