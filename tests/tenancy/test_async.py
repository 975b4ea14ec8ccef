"""The asynchronous door: AsyncEngine and AsyncSession; the rules themselves are told in test_driver*.py."""

import asyncio
from collections.abc import AsyncIterator, Callable
from uuid import UUID

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import selectinload

from tenancy.binding import create_async_tenant_engine
from tenancy.context import platform_scope, require_tenant, tenant_scope
from tenancy.errors import ConfigurationError, NoTenantError, PlatformAccessError, WrongTenantError
from tenancy.session import async_tenant_sessionmaker
from tests.conftest import ROLES, Database, SomeTenant
from tests.models import Company, Person

AsyncSessions = async_sessionmaker[AsyncSession]
PersonOf = Callable[..., UUID]


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    engine = create_async_tenant_engine(database.url(ROLES.app), pool_size=2, max_overflow=0)
    yield engine
    await engine.dispose()


@pytest.fixture
def async_sessions(engine: AsyncEngine) -> AsyncSessions:
    return async_tenant_sessionmaker(engine, expire_on_commit=False)


async def test_session_reads_its_tenant(
    acme: SomeTenant, globex: SomeTenant, ada: UUID, eve: UUID, async_sessions: AsyncSessions
) -> None:
    found = []
    for tenant in (acme, globex, acme):
        with tenant_scope(tenant.id):
            async with async_sessions() as session:
                found.append((await session.scalars(select(Person.name))).all())

    assert found == [["Ada"], ["Eve"], ["Ada"]]


async def test_session_gets_by_the_bare_id(
    acme: SomeTenant, globex: SomeTenant, ada: UUID, async_sessions: AsyncSessions
) -> None:
    with tenant_scope(acme.id):
        async with async_sessions() as session:
            assert await session.get(Person, ada) is not None
            assert (await session.get_one(Person, ada)).name == "Ada"
    with tenant_scope(globex.id):
        async with async_sessions() as session:
            assert await session.get(Person, ada) is None


async def test_session_writes_to_its_tenant_as_its_first_operation(
    acme: SomeTenant, globex: SomeTenant, eve: UUID, async_sessions: AsyncSessions
) -> None:
    with tenant_scope(acme.id):
        async with async_sessions.begin() as session:
            session.add(Person(name="Bob", email="bob@test.example"))
        async with async_sessions() as session:
            assert (await session.scalars(select(Person.name))).all() == ["Bob"]
            with pytest.raises(ProgrammingError, match="row-level security"):
                await session.execute(insert(Company).values(tenant_id=globex.id, name="New"))


async def test_session_streams_its_tenant(
    acme: SomeTenant, ada: UUID, eve: UUID, async_sessions: AsyncSessions
) -> None:
    with tenant_scope(acme.id):
        async with async_sessions() as session:
            found = [name async for name in await session.stream_scalars(select(Person.name))]

    assert found == ["Ada"]


async def test_open_stream_is_refused_in_another_scope(
    acme: SomeTenant, globex: SomeTenant, person_of: PersonOf, async_sessions: AsyncSessions
) -> None:
    """T070"""
    for name in ("Ada", "Alan", "Ann"):
        person_of(acme, name)
    statement = select(Person.name).order_by(Person.name).execution_options(yield_per=1)

    with tenant_scope(acme.id):
        async with async_sessions() as session:
            rows = await session.stream_scalars(statement)
            assert await anext(aiter(rows)) == "Ada"
            with tenant_scope(globex.id), pytest.raises(WrongTenantError):
                await rows.all()
            await rows.close()


async def test_session_is_refused_without_and_in_another_scope(
    acme: SomeTenant, globex: SomeTenant, ada: UUID, async_sessions: AsyncSessions
) -> None:
    """T076"""
    with pytest.raises(NoTenantError):
        async_sessions()

    with tenant_scope(acme.id):
        async with async_sessions() as session:
            assert await session.get(Person, ada) is not None
            with tenant_scope(globex.id), pytest.raises(WrongTenantError):
                await session.get(Person, ada)
            with tenant_scope(globex.id), pytest.raises(WrongTenantError):
                await session.run_sync(lambda sync: sync.scalars(select(Person)).all())


async def test_relationships_load_within_the_tenant(
    acme: SomeTenant, globex: SomeTenant, async_sessions: AsyncSessions
) -> None:
    for tenant, name in ((acme, "Ada"), (globex, "Eve")):
        with tenant_scope(tenant.id):
            async with async_sessions.begin() as session:
                session.add(Company(name="Engines", people=[Person(name=name, email="same@test.example")]))

    with tenant_scope(acme.id):
        async with async_sessions() as session:
            company = (await session.scalars(select(Company).options(selectinload(Company.people)))).one()

    assert [person.name for person in company.people] == ["Ada"]


async def test_many_tasks_on_few_connections_read_their_own_tenants(
    acme: SomeTenant, globex: SomeTenant, ada: UUID, eve: UUID, async_sessions: AsyncSessions
) -> None:
    """T090"""

    async def read(tenant: SomeTenant) -> tuple[UUID, list[str]]:
        with tenant_scope(tenant.id):
            async with async_sessions() as session:
                names = list((await session.scalars(select(Person.name))).all())
                await asyncio.sleep(0)
                names += (await session.scalars(select(Person.name))).all()
                return require_tenant(), names

    found = await asyncio.gather(*(read(tenant) for tenant in [acme, globex] * 10))

    assert found == [(acme.id, ["Ada", "Ada"]), (globex.id, ["Eve", "Eve"])] * 10


async def test_task_that_outlives_its_scope_is_refused_by_its_session(
    acme: SomeTenant, ada: UUID, async_sessions: AsyncSessions
) -> None:
    """T090"""
    block_ended = asyncio.Event()

    async def read() -> None:
        async with async_sessions() as session:
            await session.get(Person, ada)
            await block_ended.wait()
            await session.refresh(await session.get_one(Person, ada))

    with tenant_scope(acme.id):
        task = asyncio.create_task(read())
        await asyncio.sleep(0.05)
    block_ended.set()

    with pytest.raises(NoTenantError, match="has ended"):
        await task


async def test_cancelled_statement_leaves_no_tenant_on_its_connection(
    acme: SomeTenant, globex: SomeTenant, ada: UUID, eve: UUID, engine: AsyncEngine
) -> None:
    """T075"""

    async def sleep() -> None:
        with tenant_scope(acme.id):
            async with engine.connect() as connection:
                await connection.exec_driver_sql("SELECT pg_sleep(30)")

    for _ in range(2):
        task = asyncio.create_task(sleep())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with tenant_scope(globex.id):
        async with engine.connect() as connection:
            assert (await connection.scalars(select(Person.name))).all() == ["Eve"]


async def test_autocommit_is_refused(engine: AsyncEngine, acme: SomeTenant) -> None:
    """T065"""
    with tenant_scope(acme.id):
        with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
            engine.execution_options(isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
                await connection.execution_options(isolation_level="AUTOCOMMIT")


async def test_platform_engine_reads_across_tenants_in_its_scope_only(database: Database, ada: UUID, eve: UUID) -> None:
    """T129"""
    engine = create_async_tenant_engine(database.url(ROLES.platform))
    statement = select(Person.name).where(Person.id.in_([ada, eve])).order_by(Person.name)

    with platform_scope(actor="ana", reason="report"):
        async with engine.connect() as connection:
            found = (await connection.scalars(statement)).all()
    with pytest.raises(PlatformAccessError):
        async with engine.connect() as connection:
            await connection.scalars(statement)
    await engine.dispose()

    assert found == ["Ada", "Eve"]
