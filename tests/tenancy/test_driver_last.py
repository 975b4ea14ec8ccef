"""A transaction's last statement: sent with its COMMIT, forgotten with its ROLLBACK, and never without it."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Connection, Engine, text
from uuid_utils.compat import uuid7

from tenancy.binding import create_async_tenant_engine
from tenancy.context import tenant_scope
from tenancy.driver import AsyncTenantConnection, TenantConnection
from tenancy.errors import StatementRefusedError, WrongTenantError
from tests.conftest import ROLES, Database

INSERT = "INSERT INTO companies (tenant_id, id, name) VALUES (%s, %s, %s)"
Names = Callable[[], list[str]]


@pytest.fixture
def tenant() -> UUID:
    return uuid7()


@pytest.fixture
def names(app_engine: Engine, tenant: UUID) -> Names:
    def read() -> list[str]:
        with tenant_scope(tenant), app_engine.begin() as connection:
            return list(connection.scalars(text("SELECT name FROM companies ORDER BY name")))

    return read


def last(connection: Connection, tenant: UUID, name: str | None = "last") -> None:
    driver = connection.connection.driver_connection
    assert isinstance(driver, TenantConnection)
    driver.execute_last(INSERT, [tenant, uuid7(), name])


def first(connection: Connection, tenant: UUID) -> None:
    connection.exec_driver_sql(INSERT, (tenant, uuid7(), "first"))


def test_last_statement_waits_for_the_commit_and_goes_with_it(app_engine: Engine, tenant: UUID, names: Names) -> None:
    with tenant_scope(tenant), app_engine.begin() as connection:
        first(connection, tenant)
        last(connection, tenant)

        assert connection.scalar(text("SELECT count(*) FROM companies")) == 1

    assert names() == ["first", "last"]


def test_last_statement_that_is_the_first_opens_its_transaction(app_engine: Engine, tenant: UUID, names: Names) -> None:
    with tenant_scope(tenant), app_engine.begin() as connection:
        last(connection, tenant)

    assert names() == ["last"]


def test_rollback_forgets_the_last_statement(app_engine: Engine, tenant: UUID, names: Names) -> None:
    with tenant_scope(tenant), app_engine.connect() as connection:
        first(connection, tenant)
        last(connection, tenant)
        connection.rollback()
        first(connection, tenant)
        connection.commit()

    assert names() == ["first"]


def test_failed_transaction_does_not_send_it(app_engine: Engine, tenant: UUID, names: Names) -> None:
    with tenant_scope(tenant), app_engine.connect() as connection:
        first(connection, tenant)
        last(connection, tenant)
        with pytest.raises(Exception, match="division by zero"):
            connection.execute(text("SELECT 1 / 0"))
        connection.rollback()

    assert names() == []


def test_last_statement_that_fails_undoes_the_transaction_and_leaves_the_connection_fit(
    app_engine: Engine, tenant: UUID, names: Names
) -> None:
    with tenant_scope(tenant), app_engine.connect() as connection:
        first(connection, tenant)
        last(connection, tenant, None)
        with pytest.raises(Exception, match="null value"):
            connection.commit()

    assert names() == []
    with tenant_scope(tenant), app_engine.begin() as connection:  # the same from the pool, in no transaction
        first(connection, tenant)
    assert names() == ["first"]


def test_last_statement_is_guarded_like_any_other(app_engine: Engine, tenant: UUID, names: Names) -> None:
    with tenant_scope(tenant), app_engine.begin() as connection:
        first(connection, tenant)
        driver = connection.connection.driver_connection
        assert isinstance(driver, TenantConnection)

        with pytest.raises(StatementRefusedError):
            driver.execute_last("SELECT set_config('app.tenant_id', %s, true)", [str(uuid7())])
        with tenant_scope(uuid7()), pytest.raises(WrongTenantError):
            last(connection, tenant)

    assert names() == ["first"]


def test_row_of_another_tenant_is_refused_with_the_commit(app_engine: Engine, tenant: UUID, names: Names) -> None:
    """T007"""
    with tenant_scope(tenant), app_engine.connect() as connection:
        first(connection, tenant)
        last(connection, uuid7())
        with pytest.raises(Exception, match="row-level security"):
            connection.commit()

    assert names() == []


async def test_asynchronous_connection_does_the_same(database: Database, tenant: UUID, names: Names) -> None:
    engine = create_async_tenant_engine(database.url(ROLES.app))
    try:
        for name in ("last", None):
            with tenant_scope(tenant):
                async with engine.connect() as connection:
                    await connection.execute(text("SELECT 1"))
                    raw = (await connection.get_raw_connection()).driver_connection
                    assert isinstance(raw, AsyncTenantConnection)
                    await raw.execute_last(INSERT, [tenant, uuid7(), name])
                    if name is not None:
                        await connection.commit()
                        continue
                    with pytest.raises(psycopg.errors.NotNullViolation):
                        await raw.commit()
    finally:
        await engine.dispose()

    assert names() == ["last"]
