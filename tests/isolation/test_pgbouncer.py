"""The real PgBouncer between the library and the server: clients share a connection, and never rows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine, insert, select, text, update
from sqlalchemy.exc import DBAPIError, ProgrammingError

from tenancy.binding import create_async_tenant_engine, create_tenant_engine
from tenancy.context import platform_scope, tenant_scope
from tenancy.directory import Reference, SQLDirectory
from tenancy.errors import UnsafeConnectionError
from tenancy.session import TenantSession, platform_sessionmaker, tenant_sessionmaker
from tests.conftest import ROLES, Database, SomeTenant
from tests.isolation.pgbouncer import PgBouncer
from tests.models import Person, Tenant
from tests.tenancy.engines import column, on_both_drivers

UNPREPARED = {"pool_size": 1, "max_overflow": 0, "connect_args": {"prepare_threshold": None}}
PREPARED = {"pool_size": 1, "max_overflow": 0}
NAMES = "SELECT name FROM people ORDER BY name"
TRANSACTIONS = 500


class WrongRowsError(Exception):
    """A transaction read other rows than its tenant's. Not an AssertionError: no retry may swallow it."""


class DeliberateError(Exception):
    """What a story raises in the middle of a transaction."""


@pytest.fixture(scope="module")
def pooler(database: Database) -> Iterator[PgBouncer]:
    """By transaction, with one connection to the server for each role."""
    with PgBouncer(database, "transaction") as started:
        yield started


@pytest.fixture
def clients(pooler: PgBouncer) -> Iterator[list[Engine]]:
    with ExitStack() as closing:
        yield [open_client(closing, pooler.url(ROLES.app), **UNPREPARED) for _ in range(2)]


@pytest.fixture
def tenants(acme: SomeTenant, globex: SomeTenant, person_of: Callable[..., UUID]) -> list[SomeTenant]:
    """Each has two people, whose names begin with its slug."""
    for tenant in (acme, globex):
        for number in range(2):
            person_of(tenant, f"{tenant.slug} {number}")
    return [acme, globex]


def open_client(closing: ExitStack, url: str, **options: Any) -> Engine:
    engine = create_tenant_engine(url, **options)
    closing.callback(engine.dispose)
    return engine


def check_people(session: TenantSession, tenant: SomeTenant, *, written: int = 0) -> int:
    """Read everybody three ways; return how many rows were compared with what the tenant has."""
    wanted = sorted([f"{tenant.slug} 0", f"{tenant.slug} 1"] + [f"{tenant.slug} new"] * written)
    found = [
        [(person.tenant_id, person.name) for person in session.scalars(select(Person).order_by(Person.name))],
        [tuple(row) for row in session.execute(text("SELECT tenant_id, name FROM people ORDER BY name"))],
        [tuple(row) for row in session.connection().exec_driver_sql("SELECT tenant_id, name FROM people ORDER BY 2")],
    ]
    if found != [[(tenant.id, name) for name in wanted]] * 3:
        raise WrongRowsError(f"{tenant.slug}: {found}")
    return sum(len(rows) for rows in found)


def write_and_take_back(session: TenantSession, tenant: SomeTenant, kind: int) -> int:
    """Write one row, read it, and end the transaction without it, in one of five ways."""
    session.execute(insert(Person).values(name=f"{tenant.slug} new", email=f"new@{tenant.slug}"))
    checked = check_people(session, tenant, written=1)
    match kind % 5:
        case 0:
            session.rollback()
        case 1:
            with pytest.raises(DBAPIError):
                session.execute(text("SELECT 1/0"))
        case 2:
            raise DeliberateError
        case 3:
            savepoint = session.begin_nested()
            session.execute(update(Person).values(name="changed"))
            savepoint.rollback()
            checked += check_people(session, tenant, written=1)
            session.rollback()
        case 4:
            with pytest.raises(DBAPIError):
                session.execute(insert(Person).values(name="Eve", email=f"new@{tenant.slug}"))
    return checked


# By transaction ---------------------------------------------------------------------------------------


def test_two_clients_taking_turns_on_one_connection_read_their_own_rows(
    clients: list[Engine], tenants: list[SomeTenant], pooler: PgBouncer
) -> None:
    """T073: every second transaction writes, and ends in an error or a rollback of some kind."""
    checked, servers = 0, set()

    for turn in range(TRANSACTIONS):
        tenant = tenants[turn % 2]
        with tenant_scope(tenant.id), tenant_sessionmaker(clients[turn % 2])() as session:
            servers.add(session.scalar(text("SELECT pg_backend_pid()")))
            checked += check_people(session, tenant)
            if turn % 4 < 2:
                session.commit()
                continue
            try:
                checked += write_and_take_back(session, tenant, turn // 4)
            except DeliberateError:
                continue

    assert list(servers) == pooler.server_pids()
    assert checked == 5250


@on_both_drivers
def test_one_client_of_two_tenants_reads_the_rows_of_the_one_in_scope(
    play: Callable[..., Any], pooler: PgBouncer, tenants: list[SomeTenant]
) -> None:
    """T073"""

    def story(engine: Engine) -> list[list[str]]:
        found = []
        for turn in range(20):
            with tenant_scope(tenants[turn % 2].id), engine.connect() as connection:
                found.append(column(connection, NAMES))
        return found

    expected = [[f"{tenant.slug} 0", f"{tenant.slug} 1"] for tenant in tenants]
    assert play(pooler.url(ROLES.app), story, **UNPREPARED) == expected * 10


def test_two_clients_at_the_same_moment_wait_for_each_other_and_read_their_own_rows(
    clients: list[Engine], tenants: list[SomeTenant], pooler: PgBouncer
) -> None:
    """T073: both ask at once, so that each transaction may follow one of the other."""
    checked: list[int] = []
    faults: list[BaseException] = []

    def work(engine: Engine, tenant: SomeTenant) -> None:
        try:
            for _ in range(100):
                with tenant_scope(tenant.id), tenant_sessionmaker(engine)() as session:
                    checked.append(check_people(session, tenant))
        except BaseException as fault:
            faults.append(fault)
            raise

    threads = [threading.Thread(target=work, args=pair) for pair in zip(clients, tenants, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (faults, sum(checked), len(pooler.server_pids())) == ([], 1200, 1)


def test_transaction_of_nobody_after_one_of_a_tenant_is_an_error(
    clients: list[Engine], tenants: list[SomeTenant]
) -> None:
    """T073: on the connection that carried the tenant a moment ago."""
    first, second = clients
    with tenant_scope(tenants[0].id), first.connect() as connection:
        pid = column(connection, "SELECT pg_backend_pid()")
        assert len(column(connection, NAMES)) == 2

    with second.connect() as connection:
        assert column(connection, "SELECT pg_backend_pid()") == pid
        with pytest.raises(ProgrammingError, match="no tenant is bound to this transaction"):
            column(connection, NAMES)


def test_setting_left_on_the_shared_connection_is_blanked_for_the_next_client(
    clients: list[Engine], tenants: list[SomeTenant], pooler: PgBouncer
) -> None:
    """T068, T073: a transaction pooler does not reset what a client set for the session."""
    plain = pooler.url(ROLES.app).replace("postgresql+psycopg", "postgresql")
    with tenant_scope(tenants[1].id), clients[0].connect() as connection:
        assert len(column(connection, NAMES)) == 2
    with psycopg.connect(plain, autocommit=True, prepare_threshold=None) as careless:
        careless.execute("SELECT set_config('app.tenant_id', %s, false)", [str(tenants[0].id)])
        try:
            assert careless.execute("SELECT count(*) FROM people").fetchone() == (2,)
            with tenant_scope(tenants[1].id), clients[0].connect() as connection:
                bound = column(connection, NAMES)
            with clients[0].connect() as connection:
                assert column(connection, "SELECT current_setting('app.tenant_id')") == [""]
                with pytest.raises(ProgrammingError, match="no tenant is bound"):
                    column(connection, NAMES)
            with pytest.raises(UnsafeConnectionError, match="is set before any transaction"):
                clients[1].connect()
        finally:
            careless.execute("RESET app.tenant_id")

    assert bound == [f"{tenants[1].slug} 0", f"{tenants[1].slug} 1"]


def test_platform_scope_reads_across_tenants_through_the_pooler(pooler: PgBouncer, tenants: list[SomeTenant]) -> None:
    """T073: its audit row is committed by one transaction and looked at by the next."""
    engine = create_tenant_engine(pooler.url(ROLES.platform), **UNPREPARED)
    wanted = select(Person.name).where(Person.tenant_id.in_([tenant.id for tenant in tenants]))

    with platform_scope(actor="ana", reason="report"), platform_sessionmaker(engine)() as session:
        across = session.scalars(wanted).all()
    with (
        platform_scope(actor="ana", reason="support"),
        tenant_scope(tenants[0].id),
        tenant_sessionmaker(engine)() as staff,
    ):
        within = staff.scalars(wanted).all()
    engine.dispose()

    assert (len(across), sorted(within)) == (4, [f"{tenants[0].slug} 0", f"{tenants[0].slug} 1"])


def test_directory_that_listens_through_the_pooler_remembers_nothing_for_long(
    pooler: PgBouncer, clients: list[Engine], tenants: list[SomeTenant], caplog: pytest.LogCaptureFixture
) -> None:
    """T073, T112: the pooler takes LISTEN and delivers nothing, so answers live the floor time only."""
    directory = SQLDirectory(Tenant, ttl_s=60.0, floor_ttl_s=0.2, listen_url=pooler.url(ROLES.app))
    directory.bind(clients[0])
    reference = Reference("slug", tenants[0].slug)

    found = directory.find(reference)
    deadline = time.monotonic() + 5
    while not caplog.records and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.25)
    remembered = directory.peek(reference)
    directory.close()

    assert found is not None
    assert (found.id, remembered) == (tenants[0].id, None)
    assert caplog.records[0].__dict__["reason"] == "the listening connection is not a direct one"
    assert not directory.is_listening


# Without the setting ----------------------------------------------------------------------------------


def test_prepared_statements_of_two_clients_collide_and_leak_nothing(
    pooler: PgBouncer, tenants: list[SomeTenant]
) -> None:
    """T073: what comes of leaving `prepare_threshold=None` out: an error, once a statement is prepared."""
    errors, read = [], 0
    statement = select(Person.tenant_id, Person.name).where(Person.name != "x")
    with ExitStack() as closing:
        engines = [open_client(closing, pooler.url(ROLES.app), **PREPARED) for _ in range(2)]
        for turn in range(60):
            tenant = tenants[turn % 2]
            with tenant_scope(tenant.id), engines[turn % 2].connect() as connection:
                try:
                    rows = connection.execute(statement).all()
                except DBAPIError as error:
                    errors.append(str(error.orig))
                    continue
                read += len(rows)
                assert {row.tenant_id for row in rows} == {tenant.id}

    assert read >= 20
    assert errors
    assert all("prepared statement" in error for error in errors)


# The other modes --------------------------------------------------------------------------------------


def test_session_mode_needs_no_setting(database: Database, tenants: list[SomeTenant]) -> None:
    found = []
    with PgBouncer(database, "session", servers=2) as pooler, ExitStack() as closing:
        engines = [open_client(closing, pooler.url(ROLES.app), **PREPARED) for _ in range(2)]
        for turn in range(40):
            with tenant_scope(tenants[turn % 2].id), engines[turn % 2].connect() as connection:
                found.append(sorted(connection.scalars(select(Person.name))))

    assert found == [[f"{tenant.slug} 0", f"{tenant.slug} 1"] for tenant in tenants] * 20


async def test_statement_mode_is_refused_by_name_when_it_connects(database: Database) -> None:
    """T074"""
    with PgBouncer(database, "statement") as pooler:
        asynchronous = create_async_tenant_engine(pooler.url(ROLES.app), **UNPREPARED)
        with pytest.raises(UnsafeConnectionError, match="set pool_mode = transaction"):
            create_tenant_engine(pooler.url(ROLES.app), **UNPREPARED).connect()
        with pytest.raises(UnsafeConnectionError, match="set pool_mode = transaction"):
            await asynchronous.connect()
        await asynchronous.dispose()


def test_pooler_is_gone_after_a_test_that_failed(database: Database) -> None:
    urls = []

    def story() -> None:
        with PgBouncer(database, "transaction") as pooler:
            urls.append(pooler.url(ROLES.app).replace("postgresql+psycopg", "postgresql"))
            psycopg.connect(urls[0]).close()
            raise DeliberateError

    with pytest.raises(DeliberateError):
        story()

    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(urls[0])
