"""People in two tenants, and bare driver connections."""

from collections.abc import AsyncIterator, Callable, Iterator
from uuid import UUID

import pytest

from tenancy.binding import create_async_tenant_engine, create_tenant_engine
from tenancy.driver import AsyncTenantConnection, TenantConnection
from tests.conftest import ROLES, Database, SomeTenant


@pytest.fixture
def people_url(database: Database, acme: SomeTenant, globex: SomeTenant, person_of: Callable[..., UUID]) -> str:
    """The app role's URL of a database in which Ada is in acme and Eve in globex."""
    person_of(acme, "Ada")
    person_of(globex, "Eve")
    return database.url(ROLES.app)


@pytest.fixture
def driver(database: Database) -> Iterator[TenantConnection]:
    engine = create_tenant_engine(database.url(ROLES.app))
    pooled = engine.raw_connection()
    assert isinstance(pooled.driver_connection, TenantConnection)
    yield pooled.driver_connection
    pooled.invalidate()
    engine.dispose()


@pytest.fixture
async def async_driver(database: Database) -> AsyncIterator[AsyncTenantConnection]:
    engine = create_async_tenant_engine(database.url(ROLES.app))
    async with engine.connect() as connection:
        pooled = await connection.get_raw_connection()
        assert isinstance(pooled.driver_connection, AsyncTenantConnection)
        yield pooled.driver_connection
    await engine.dispose()


@pytest.fixture
def ada(acme: SomeTenant, person_of: Callable[..., UUID]) -> UUID:
    return person_of(acme, "Ada")


@pytest.fixture
def eve(globex: SomeTenant, person_of: Callable[..., UUID]) -> UUID:
    return person_of(globex, "Eve")
