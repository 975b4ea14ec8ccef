"""A streaming standby keeps tenants apart as its primary does, and says clearly what it cannot do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine, insert, select
from sqlalchemy.exc import DBAPIError
from uuid_utils.compat import uuid7

from tenancy.binding import create_tenant_engine
from tenancy.context import platform_scope, tenant_scope
from tenancy.directory import Reference, SQLDirectory
from tenancy.errors import NoTenantError, PlatformAccessError
from tenancy.session import platform_sessionmaker, tenant_sessionmaker
from tests.conftest import ROLES
from tests.isolation.plain import NAMES, NEW, bind, names
from tests.isolation.standby import ACME, GLOBEX, Pair, start_filled_pair
from tests.models import Person, Tenant
from tests.tenancy.engines import column, on_both_drivers


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with start_filled_pair() as started:
        yield started


@pytest.fixture
def engines(pair: Pair) -> Iterator[Callable[..., Engine]]:
    """Make tenant engines that are closed after the test."""
    with ExitStack() as closing:

        def make(server: str, role: str) -> Engine:
            engine = create_tenant_engine(getattr(pair, server).url(role))
            closing.callback(engine.dispose)
            return engine

        yield make


@pytest.fixture
def app(pair: Pair) -> Iterator[psycopg.Connection[Any]]:
    with pair.standby.connect(ROLES.app) as connection:
        yield connection


def test_standby_is_one_and_follows(pair: Pair) -> None:
    """T062: what the others rely on; both rows are there for who sees everything."""
    with pair.standby.connect("postgres") as truth:
        recovering = truth.execute("SELECT pg_is_in_recovery()").fetchone()
        everybody = names(truth)

    assert (recovering, everybody) == ((True,), ["Ada", "Eve"])


# The app role -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tenant", "own"), [(ACME, ["Ada"]), (GLOBEX, ["Eve"])])
def test_bound_tenant_reads_its_rows_only(app: psycopg.Connection[Any], tenant: UUID, own: list[str]) -> None:
    """T062"""
    bind(app, tenant)

    assert names(app) == own


def test_unbound_transaction_is_an_error(app: psycopg.Connection[Any]) -> None:
    """T062"""
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="no tenant is bound to this transaction"):
        names(app)


@on_both_drivers
def test_engine_of_the_library_reads_the_tenant_in_scope_and_nobody_outside(
    play: Callable[..., Any], pair: Pair
) -> None:
    """T062: its check of a new connection, its BEGIN and its settings need no right to write."""

    def story(engine: Engine) -> list[list[str]]:
        found = []
        for tenant in (ACME, GLOBEX, ACME):
            with tenant_scope(tenant), engine.connect() as connection:
                found.append(column(connection, NAMES))
        with engine.connect() as connection, pytest.raises(DBAPIError, match="no tenant is bound"):
            column(connection, NAMES)
        return found

    assert play(pair.standby.url(ROLES.app), story, pool_size=1) == [["Ada"], ["Eve"], ["Ada"]]


def test_session_reads_its_tenant_and_ends_with_its_scope(engines: Callable[..., Engine]) -> None:
    """T062"""
    sessions = tenant_sessionmaker(engines("standby", ROLES.app))

    with tenant_scope(ACME), sessions() as session:
        assert session.scalars(select(Person.name)).all() == ["Ada"]
        kept = session.scalars(select(Person)).one()
    with tenant_scope(GLOBEX), sessions() as session:
        assert session.get(Person, kept.id) is None
    with pytest.raises(NoTenantError):
        session.scalars(select(Person.name))


def test_row_committed_on_the_primary_arrives_for_its_tenant_only(pair: Pair, engines: Callable[..., Engine]) -> None:
    """T062"""
    with tenant_scope(ACME), engines("primary", ROLES.app).begin() as connection:
        connection.execute(insert(Person).values(name="Bob", email="b"))
    pair.catch_up()
    standby = engines("standby", ROLES.app)

    found = []
    for tenant in (ACME, GLOBEX):
        with tenant_scope(tenant), standby.connect() as connection:
            found.append(column(connection, NAMES))
    with pair.primary.connect("postgres") as truth:
        truth.execute("DELETE FROM people WHERE name = 'Bob'")
    pair.catch_up()

    assert found == [["Ada", "Bob"], ["Eve"]]


def test_write_is_refused_by_the_server_as_read_only(
    app: psycopg.Connection[Any], engines: Callable[..., Engine]
) -> None:
    bind(app, ACME)
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction) as by_hand:
        app.execute(NEW, [ACME])
    with tenant_scope(ACME), tenant_sessionmaker(engines("standby", ROLES.app))() as session:
        session.add(Person(name="Bob", email="b"))
        with pytest.raises(DBAPIError, match="cannot execute INSERT in a read-only transaction"):
            session.flush()

    assert by_hand.value.sqlstate == "25006"


def test_directory_on_a_standby_finds_tenants_and_remembers_nothing_for_long(
    engines: Callable[..., Engine], caplog: pytest.LogCaptureFixture
) -> None:
    """T062: a standby cannot LISTEN, so answers live the floor time only."""
    directory = SQLDirectory(Tenant, ttl_s=60.0, floor_ttl_s=0.2)
    directory.bind(engines("standby", ROLES.app))

    found = directory.find(Reference("slug", "t1"))
    deadline = time.monotonic() + 5
    while not caplog.records and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.25)
    remembered = directory.peek(Reference("slug", "t1"))
    directory.close()

    assert found is not None
    assert (found.id, remembered) == (ACME, None)
    assert "cannot execute LISTEN during recovery" in caplog.records[0].__dict__["reason"]
    assert not directory.is_listening


# The platform role ------------------------------------------------------------------------------------


def platform_reads(connection: psycopg.Connection[Any], session_id: UUID | None) -> list[str]:
    with connection.transaction():
        connection.execute("SELECT set_config('app.platform_session', %s, true)", [str(session_id or "")])
        return names(connection)


def test_platform_role_reads_nothing_until_its_session_has_been_replicated(pair: Pair) -> None:
    """T062: by hand, with the standby's replay held up in between."""
    session_id = uuid7()
    with (
        pair.primary.connect(ROLES.platform) as primary,
        pair.standby.connect(ROLES.platform) as standby,
        pair.standby.connect("postgres") as truth,
    ):
        truth.execute("SELECT pg_wal_replay_pause()")
        truth.commit()
        try:
            primary.execute(
                "INSERT INTO tenancy.platform_session (id, actor, reason) VALUES (%s, 'ana', 'report')", [session_id]
            )
            primary.commit()
            before = [platform_reads(standby, None), platform_reads(standby, session_id)]
        finally:
            truth.execute("SELECT pg_wal_replay_resume()")
            truth.commit()
        pair.catch_up()
        after = platform_reads(standby, session_id)
        bound_to_none = platform_reads(standby, None)

    assert (before, after, bound_to_none) == ([[], []], ["Ada", "Eve"], [])


def test_platform_scope_first_used_on_a_standby_says_what_to_do(engines: Callable[..., Engine]) -> None:
    """T062: it cannot leave its trace there, so it does not begin."""
    sessions = platform_sessionmaker(engines("standby", ROLES.platform))

    with (
        platform_scope(actor="ana", reason="report"),
        sessions() as session,
        pytest.raises(PlatformAccessError, match="the server is read-only") as caught,
    ):
        session.scalars(select(Person.name))

    assert caught.value.hint == (
        "in the same platform_scope, use an engine of its primary first; the row arrives by replication"
    )


def test_platform_scope_opened_on_the_primary_reads_on_its_standby(pair: Pair, engines: Callable[..., Engine]) -> None:
    """T062: under the one audit row, which the primary keeps."""
    primary = platform_sessionmaker(engines("primary", ROLES.platform))
    standby = platform_sessionmaker(engines("standby", ROLES.platform))
    everybody = select(Person.name).order_by(Person.name)

    with platform_scope(actor="ana", reason="weekly report"):
        with primary() as session:
            session.connection()
        pair.catch_up()
        found = []
        for _ in range(2):
            with standby() as session:
                found.append(session.scalars(everybody).all())
    with pair.standby.connect("postgres") as truth:
        audited = truth.execute(
            "SELECT count(*) FROM tenancy.platform_session WHERE reason = 'weekly report'"
        ).fetchone()

    assert (found, audited) == ([["Ada", "Eve"], ["Ada", "Eve"]], (1,))


def test_platform_scope_with_a_tenant_in_it_reads_that_tenant_on_the_standby(
    pair: Pair, engines: Callable[..., Engine]
) -> None:
    """T062"""
    primary, standby = engines("primary", ROLES.platform), engines("standby", ROLES.platform)

    with platform_scope(actor="ana", reason="support"), tenant_scope(GLOBEX):
        with tenant_sessionmaker(primary)() as session:
            session.connection()
        pair.catch_up()
        with tenant_sessionmaker(standby)() as session:
            found = session.scalars(select(Person.name)).all()

    assert found == ["Eve"]


def test_session_of_an_earlier_platform_scope_opens_no_later_one(pair: Pair, engines: Callable[..., Engine]) -> None:
    """T062: each scope leaves a trace of its own, or does not begin."""
    primary = platform_sessionmaker(engines("primary", ROLES.platform))
    standby = platform_sessionmaker(engines("standby", ROLES.platform))
    with platform_scope(actor="ana", reason="earlier"):
        with primary() as session:
            session.connection()
        pair.catch_up()
        with standby() as session:
            assert session.scalars(select(Person.name)).all() != []

    with platform_scope(actor="ana", reason="later"), standby() as session, pytest.raises(PlatformAccessError):
        session.scalars(select(Person.name))
