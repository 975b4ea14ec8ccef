"""Savepoints that are rolled back: what psycopg has prepared stays known, and a session can always be closed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, insert, text
from sqlalchemy.exc import DBAPIError

from tenancy.binding import create_tenant_engine
from tenancy.context import outside_any_scope, tenant_scope
from tenancy.errors import WrongTenantError
from tenancy.session import tenant_sessionmaker
from tests.conftest import ROLES, Database, SomeTenant
from tests.models import Tag
from tests.tenancy.engines import column, on_both_drivers

ROLLBACKS = ["ROLLBACK TO SAVEPOINT sp", "rollback to sp;", 'ROLLBACK WORK TO SAVEPOINT "sp"']


def add_tags(connection: Any, *labels: str) -> None:
    """Insert by executemany, which prepares its statement at once."""
    connection.execute(insert(Tag.__table__), [{"label": label} for label in labels])


@on_both_drivers
@pytest.mark.parametrize("rollback", ROLLBACKS)
def test_bulk_insert_after_a_savepoint_rolled_back_is_prepared_anew(
    play: Callable[..., Any], database: Database, acme: SomeTenant, rollback: str
) -> None:
    def story(engine: Engine) -> list[str]:
        with tenant_scope(acme.id), engine.begin() as connection:
            add_tags(connection, "a", "b")
        with tenant_scope(acme.id), engine.begin() as connection:
            connection.exec_driver_sql("SAVEPOINT sp")
            add_tags(connection, "lost", "too")
            connection.exec_driver_sql(rollback)
            add_tags(connection, "c", "d")
            add_tags(connection, "e", "f")
            return column(connection, "SELECT label FROM tags ORDER BY label")

    assert play(database.url(ROLES.app), story, pool_size=1) == ["a", "b", "c", "d", "e", "f"]


@on_both_drivers
def test_savepoint_of_sqlalchemy_rolled_back_leaves_bulk_inserts_as_they_were(
    play: Callable[..., Any], database: Database, acme: SomeTenant
) -> None:
    def story(engine: Engine) -> list[str]:
        with tenant_scope(acme.id), engine.begin() as connection:
            for label in "abc":
                savepoint = connection.begin_nested()
                add_tags(connection, "lost", "too")
                savepoint.rollback()
                add_tags(connection, label, label.upper())
            return column(connection, 'SELECT label FROM tags ORDER BY label COLLATE "C"')

    assert play(database.url(ROLES.app), story, pool_size=1) == ["A", "B", "C", "a", "b", "c"]


@pytest.mark.parametrize("more", ["; SET LOCAL app.tenant_id = '{}'", "; SELECT 1", "\n--\n; RESET ALL"])
def test_second_statement_behind_a_rollback_to_a_savepoint_is_a_syntax_error(
    app_engine: Engine, acme: SomeTenant, person_of: Callable[..., UUID], more: str
) -> None:
    """T092: leaving the pipeline out opens no way for two statements in one text."""
    person_of(acme)

    with tenant_scope(acme.id), app_engine.connect() as connection:
        connection.exec_driver_sql("SAVEPOINT sp")
        with pytest.raises(Exception, match="cannot insert multiple commands"):
            connection.execute(text("ROLLBACK TO SAVEPOINT sp" + more.format(UUID(int=1))))


@pytest.mark.parametrize("later", ["nobody", "stranger"])
def test_session_with_an_open_savepoint_is_closed_in_whatever_scope(
    database: Database, acme: SomeTenant, globex: SomeTenant, later: str
) -> None:
    """T066: going back to a savepoint reads nothing; refused, it would leave the connection checked out."""
    engine = create_tenant_engine(database.url(ROLES.app), pool_size=1, max_overflow=0)
    with tenant_scope(acme.id):
        session = tenant_sessionmaker(engine)()
        session.begin_nested()
        session.execute(insert(Tag.__table__).values(label="lost"))

    with tenant_scope(globex.id) if later == "stranger" else outside_any_scope():
        session.close()
        checked_out = engine.pool.checkedout()  # type: ignore[attr-defined]  # of a QueuePool
    with tenant_scope(acme.id), engine.connect() as connection:
        labels = column(connection, "SELECT label FROM tags")
    engine.dispose()

    assert (checked_out, labels) == (0, [])


def test_savepoint_rolled_back_in_another_scope_leaves_the_transaction_to_its_tenant(
    app_engine: Engine, acme: SomeTenant, globex: SomeTenant, person_of: Callable[..., UUID]
) -> None:
    """T066"""
    person_of(acme, "Ada")
    person_of(globex, "Eve")

    with tenant_scope(acme.id), app_engine.connect() as connection:
        savepoint = connection.begin_nested()
        assert column(connection, "SELECT name FROM people") == ["Ada"]
        with tenant_scope(globex.id):
            savepoint.rollback()
            with pytest.raises(WrongTenantError):
                column(connection, "SELECT name FROM people")
        assert column(connection, "SELECT name FROM people") == ["Ada"]


@on_both_drivers
def test_session_whose_savepoint_failed_to_be_released_gives_its_connection_back(
    play: Callable[..., Any], database: Database, acme: SomeTenant
) -> None:
    def story(engine: Engine) -> tuple[int, list[str]]:
        with tenant_scope(acme.id):
            session = tenant_sessionmaker(engine)()
            session.execute(insert(Tag.__table__).values(label="lost"))
            session.begin_nested()
            savepoint = session.begin_nested()
            with pytest.raises(DBAPIError, match="division by zero"):
                session.execute(text("SELECT 1/0"))
            with pytest.raises(DBAPIError, match="InFailedSqlTransaction"):
                savepoint.commit()
            session.close()
            checked_out = engine.pool.checkedout()  # type: ignore[attr-defined]  # of a QueuePool
            with engine.connect() as connection:
                return checked_out, column(connection, "SELECT label FROM tags")

    assert play(database.url(ROLES.app), story, pool_size=1, max_overflow=0) == (0, [])


@pytest.mark.parametrize("later", ["nobody", "stranger"])
def test_savepoint_is_released_in_whatever_scope_and_stays_its_tenants(
    app_engine: Engine, acme: SomeTenant, globex: SomeTenant, later: str
) -> None:
    """T066: to release one reads and writes nothing; refused, it would leave a session's connection checked out."""
    with tenant_scope(acme.id):
        session = tenant_sessionmaker(app_engine)()
        session.begin_nested()
        session.execute(insert(Tag.__table__).values(label="kept"))

    with tenant_scope(globex.id) if later == "stranger" else outside_any_scope():
        session.commit()
        session.close()

    with tenant_scope(globex.id), app_engine.connect() as connection:
        assert column(connection, "SELECT label FROM tags") == []
    with tenant_scope(acme.id), app_engine.connect() as connection:
        assert column(connection, "SELECT label FROM tags") == ["kept"]


@on_both_drivers
def test_statement_that_failed_to_be_prepared_runs_after_the_failed_transaction_was_committed(
    play: Callable[..., Any], database: Database, acme: SomeTenant
) -> None:
    def story(engine: Engine) -> list[str]:
        with tenant_scope(acme.id), engine.connect() as connection:
            for _ in range(5):  # from the sixth time on it is prepared
                column(connection, "SELECT label FROM tags")
            for wanted in ("SELECT 1/0", "SELECT label FROM tags"):
                with pytest.raises(DBAPIError):
                    column(connection, wanted)
            connection.commit()
            return column(connection, "SELECT label FROM tags")

    assert play(database.url(ROLES.app), story, pool_size=1) == []
