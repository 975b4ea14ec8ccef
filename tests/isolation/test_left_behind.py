"""What a tenant leaves on a pooled connection, or breaks of it, and what the next tenant finds there."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine, func, insert, select
from sqlalchemy.exc import DBAPIError
from uuid_utils.compat import uuid7

from tenancy.binding import create_tenant_engine
from tenancy.context import tenant_scope
from tenancy.session import tenant_sessionmaker
from tests.conftest import ROLES, Database, SomeTenant
from tests.models import Person
from tests.tenancy.engines import column, on_both_drivers

NAMES = "SELECT name FROM people ORDER BY name"
ONE_CONNECTION = {"pool_size": 1, "max_overflow": 0}


def close_socket(connection: Any) -> None:
    """Close both directions of the connection's own socket, as a client does that is cut off."""
    with socket.socket(fileno=socket.dup(connection.connection.driver_connection.pgconn.socket)) as own:
        own.shutdown(socket.SHUT_RDWR)


# The client's own socket is closed --------------------------------------------------------------------


@on_both_drivers
def test_connection_cut_off_in_a_transaction_leaves_nothing_to_the_next_tenant(
    play: Callable[..., Any], database: Database, acme: SomeTenant, globex: SomeTenant, person_of: Callable[..., UUID]
) -> None:
    """T075: the next request is another tenant's, and what was not committed is gone."""
    person_of(acme, "Ada")
    person_of(globex, "Eve")

    def story(engine: Engine) -> list[list[str]]:
        with tenant_scope(acme.id), engine.connect() as connection:
            connection.execute(insert(Person).values(name="Bob", email="bob@acme.test"))
            assert column(connection, NAMES) == ["Ada", "Bob"]
            close_socket(connection)
            with pytest.raises(DBAPIError) as caught:
                column(connection, NAMES)
            assert caught.value.connection_invalidated
        found = []
        for tenant in (globex, acme):
            with tenant_scope(tenant.id), engine.connect() as connection:
                found.append(column(connection, NAMES))
        return found

    assert play(database.url(ROLES.app), story, **ONE_CONNECTION) == [["Eve"], ["Ada"]]


@on_both_drivers
def test_connection_cut_off_before_its_commit_is_an_error_and_commits_nothing(
    play: Callable[..., Any], database: Database, acme: SomeTenant, globex: SomeTenant, person_of: Callable[..., UUID]
) -> None:
    """T075"""
    person_of(globex, "Eve")

    def story(engine: Engine) -> list[list[str]]:
        def write() -> None:
            with engine.begin() as connection:
                connection.execute(insert(Person).values(name="Bob", email="bob@acme.test"))
                close_socket(connection)

        with tenant_scope(acme.id), pytest.raises(DBAPIError):
            write()
        found = []
        for tenant in (globex, acme):
            with tenant_scope(tenant.id), engine.connect() as connection:
                found.append(column(connection, NAMES))
        return found

    assert play(database.url(ROLES.app), story, **ONE_CONNECTION) == [["Eve"], []]


# Temporary functions, where TEMP is granted -----------------------------------------------------------

FORGERIES = [
    "current_tenant() RETURNS uuid LANGUAGE sql AS $$ SELECT '{foreign}'::uuid $$",
    "guarded_tenant() RETURNS uuid LANGUAGE sql AS $$ SELECT '{foreign}'::uuid $$",
    "platform_open() RETURNS boolean LANGUAGE sql AS $$ SELECT true $$",
    "current_setting(text, boolean) RETURNS text LANGUAGE sql AS $$ SELECT '{foreign}' $$",
    "lower(text) RETURNS text LANGUAGE sql AS $$ SELECT 'forged' $$",
    "uuid_eq(uuid, uuid) RETURNS boolean LANGUAGE sql AS $$ SELECT true $$",
    "tenant_by_slug(text) RETURNS text LANGUAGE sql AS $$ SELECT 'forged' $$",
]


@pytest.fixture
def forged_engine(fresh_database: Database, acme: SomeTenant, globex: SomeTenant) -> Iterator[Engine]:
    """One connection, on which the app role has made functions of its own; Ada is in acme, Eve in globex."""
    with fresh_database.connect("postgres") as truth:
        truth.execute(f"GRANT TEMP ON DATABASE {fresh_database.name} TO {ROLES.app}".encode())
        for tenant, name in ((acme, "Ada"), (globex, "Eve")):
            truth.execute(
                "INSERT INTO tenants (tenant_id, slug, name, status) VALUES (%s, %s, %s, 'active')",
                [tenant.id, tenant.slug, name],
            )
            truth.execute(
                "INSERT INTO people (tenant_id, id, name, email) VALUES (%s, %s, %s, 'e')", [tenant.id, uuid7(), name]
            )
    engine = create_tenant_engine(fresh_database.url(ROLES.app), **ONE_CONNECTION)
    with tenant_scope(acme.id), engine.begin() as connection:
        for forgery in FORGERIES:
            made = forgery.format(foreign=globex.id)
            connection.exec_driver_sql(f"CREATE FUNCTION pg_temp.{made}")
        assert column(connection, "SELECT pg_temp.lower('Ada')") == ["forged"]
        assert column(connection, "SELECT pg_temp.current_tenant()") == [globex.id]
    yield engine
    engine.dispose()


def test_temporary_functions_change_no_query_of_the_orm(forged_engine: Engine, acme: SomeTenant) -> None:
    """T033: names of functions are never looked for in pg_temp."""
    sessions = tenant_sessionmaker(forged_engine)

    with tenant_scope(acme.id), sessions() as session:
        found = session.execute(select(Person.name, func.lower(Person.name))).all()
        bare = session.scalars(select(func.lower("X"))).all()

    assert [tuple(row) for row in found] == [("Ada", "ada")]
    assert bare == ["x"]


def test_temporary_functions_change_no_lookup_and_no_policy(
    forged_engine: Engine, acme: SomeTenant, globex: SomeTenant
) -> None:
    """T033"""
    with tenant_scope(acme.id), forged_engine.connect() as connection:
        looked_up = column(connection, f"SELECT tenant_id FROM tenancy.tenant_by_slug('{globex.slug}')")
        by_hand = column(connection, NAMES)
        bound = column(connection, "SELECT tenancy.current_tenant()")

    assert (looked_up, by_hand, bound) == ([globex.id], ["Ada"], [acme.id])


def test_temporary_functions_are_refused_where_temp_is_not_granted(database: Database) -> None:
    """T033: the grant that the project leaves out."""
    with database.connect(ROLES.app) as app, pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute("CREATE FUNCTION pg_temp.lower(text) RETURNS text LANGUAGE sql AS 'SELECT 1::text'")


# A cursor made past the guard -------------------------------------------------------------------------


@on_both_drivers
def test_cursor_with_hold_made_past_the_guard_is_closed_before_the_next_statement(
    play: Callable[..., Any], database: Database, acme: SomeTenant, globex: SomeTenant, person_of: Callable[..., UUID]
) -> None:
    """T049: it would outlive the transaction, and the next tenant could fetch from it by its name."""
    person_of(acme, "Ada")
    held = b"DECLARE held CURSOR WITH HOLD FOR SELECT name FROM people"

    def story(engine: Engine) -> None:
        with tenant_scope(acme.id), engine.begin() as connection:
            assert column(connection, NAMES) == ["Ada"]
            raw: Any = connection.connection.driver_connection
            raw.pgconn.exec_(held)
            assert column(connection, "SELECT name FROM pg_cursors WHERE is_holdable") == ["held"]
        with tenant_scope(globex.id), engine.connect() as connection:
            assert column(connection, "SELECT name FROM pg_cursors WHERE is_holdable") == []
            with pytest.raises(DBAPIError, match='cursor "held" does not exist'):
                connection.exec_driver_sql("FETCH ALL FROM held")

    play(database.url(ROLES.app), story, **ONE_CONNECTION)
