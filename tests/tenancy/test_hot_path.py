"""What a transaction costs beside its statement: writes to the socket, messages, statements compiled anew."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine, event, func, insert, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine.interfaces import CacheStats
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import selectinload

from tenancy.binding import create_async_tenant_engine, create_tenant_engine
from tenancy.context import tenant_scope
from tenancy.driver import AsyncTenantConnection, TenantConnection
from tenancy.embedded import start
from tenancy.placeholders import forget_conversions, kept_conversions
from tenancy.session import tenant_sessionmaker
from tenancy.tables import new_id
from tests.conftest import FAST, ROLES, Database, SomeTenant, bootstrap
from tests.models import Person
from tests.tenancy.counting import calls_of

# Where struct tcp_info of Linux has tcpi_data_segs_out: on a socket without delay, the writes that it took.
_SEGMENTS_SENT = slice(156, 160)


def writes_of(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> int:
    with socket.socket(fileno=socket.dup(connection.fileno())) as twin:
        information = twin.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int.from_bytes(information[_SEGMENTS_SENT], "little")


@pytest.fixture(scope="module")
def tcp_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app role's URL over TCP, whose sockets count what they send, of a server of this module's own."""
    with start(data_dir=tmp_path_factory.mktemp("hot") / "postgres", tcp_port=0, settings=FAST) as server:
        bootstrap(server.url(), tables=True)
        server.set_password(ROLES.app, "hot")
        yield server.tcp_url(role=ROLES.app)


@pytest.fixture
def tcp_engine(tcp_url: str) -> Iterator[Engine]:
    engine = create_tenant_engine(tcp_url, connect_args={"sslmode": "disable", "gssencmode": "disable"})
    yield engine
    engine.dispose()


def _driver_of(engine: Engine) -> TenantConnection:
    pooled = engine.raw_connection()
    driver = pooled.driver_connection
    pooled.close()
    assert isinstance(driver, TenantConnection)
    return driver


def test_transaction_of_one_statement_takes_two_writes(tcp_engine: Engine, acme: SomeTenant) -> None:
    """Each write is a system call, and wakes the server: BEGIN, the scope and the statement share one."""
    sessions = tenant_sessionmaker(tcp_engine)
    driver = _driver_of(tcp_engine)

    def work() -> None:
        with tenant_scope(acme.id), sessions.begin() as session:
            session.scalars(select(Person).where(Person.name == "Ada")).all()

    for _ in range(8):  # the fifth prepares the statement
        work()
    before = writes_of(driver)
    work()

    assert writes_of(driver) - before == 2


def test_statement_without_parameters_takes_one_write(tcp_engine: Engine, acme: SomeTenant) -> None:
    driver = _driver_of(tcp_engine)

    with tenant_scope(acme.id), tcp_engine.begin() as connection:
        connection.execute(text("SELECT name FROM people"))
        before = writes_of(driver)
        connection.execute(text("SELECT name FROM people"))
        taken = writes_of(driver) - before

    assert taken == 1


@pytest.mark.parametrize("size", [10, 30_000_000])
def test_first_statement_may_be_larger_than_the_sockets_buffers(
    driver: TenantConnection, acme: SomeTenant, size: int
) -> None:
    given = "x" * size

    with tenant_scope(acme.id):
        cursor = driver.execute("SELECT %s::text, current_setting('app.tenant_id')", [given])

        assert cursor.fetchone() == (given, str(acme.id))


@pytest.mark.parametrize("size", [10, 30_000_000])
async def test_first_statement_of_the_asynchronous_driver_may_be_larger_too(
    async_driver: AsyncTenantConnection, acme: SomeTenant, size: int
) -> None:
    given = "x" * size

    with tenant_scope(acme.id):
        cursor = await async_driver.execute("SELECT %s::text, current_setting('app.tenant_id')", [given])

        assert await cursor.fetchone() == (given, str(acme.id))


def test_statement_that_cannot_be_sent_leaves_the_connection_as_it_was(
    driver: TenantConnection, acme: SomeTenant
) -> None:
    with tenant_scope(acme.id):
        with pytest.raises(psycopg.ProgrammingError, match="but 2 parameters"):
            driver.execute("SELECT %s", [1, 2])

        assert driver.execute("SELECT current_setting('app.tenant_id')").fetchone() == (str(acme.id),)


@pytest.mark.parametrize(
    "statement",
    ["SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(:seconds)", "SELECT name FROM people WHERE 1 = :seconds"],
    ids=["while it waits", "before"],
)
def test_connection_killed_in_its_first_flight_is_known_to_be_lost(
    app_engine: Engine, truth: psycopg.Connection[Any], acme: SomeTenant, statement: str
) -> None:
    """The pool must throw it away, and not give it to somebody else with an answer still to come."""
    with tenant_scope(acme.id), app_engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, TenantConnection)
        if "terminate" not in statement:
            truth.execute("SELECT pg_terminate_backend(%s, 5000)", [driver.info.backend_pid])
        with pytest.raises(OperationalError) as failed:
            connection.execute(text(statement), {"seconds": 5})

    assert failed.value.connection_invalidated
    assert driver.closed


@pytest.mark.parametrize("create", [create_tenant_engine, create_async_tenant_engine])
def test_guarded_engine_listens_to_no_event_of_transactions(create: Any, database: Database) -> None:
    """One listener for `begin` would make SQLAlchemy dispatch six events for a transaction of one statement."""
    engine = create(database.url(ROLES.app))

    assert not getattr(engine, "sync_engine", engine)._has_events


def test_statement_is_compiled_once_for_all_tenants(
    app_engine: Engine, make_tenant: Callable[..., SomeTenant], person_of: Callable[..., UUID]
) -> None:
    """Of every kind of statement that the ORM sends; the predicate's value is no part of the text."""
    tenants = [make_tenant("cached") for _ in range(3)]
    sessions, seen = tenant_sessionmaker(app_engine), []

    def look(_connection: Any, _cursor: Any, _sql: str, _given: Any, context: Any, _many: bool) -> None:
        if context.compiled is not None:
            seen.append(context.cache_hit)

    def work(tenant: SomeTenant) -> None:
        known = person_of(tenant, company_id=None)
        with tenant_scope(tenant.id), sessions.begin() as session:
            person = session.get(Person, known)
            assert person is not None
            assert person.reports == []
            session.scalars(select(Person).options(selectinload(Person.company)).where(Person.name == "Ada")).all()
            session.execute(update(Person).where(Person.id == known).values(name="Eve"))
            session.refresh(person)
            session.execute(insert(Person), [{"name": "Bob", "email": f"{known}@test.example"}])
            person.name = "Zoe"
            session.flush()
            session.delete(person)

    work(tenants[0])
    event.listen(app_engine, "before_cursor_execute", look)
    try:
        for tenant in tenants[1:]:
            work(tenant)
    finally:
        event.remove(app_engine, "before_cursor_execute", look)

    assert len(seen) == 22
    assert set(seen) == {CacheStats.CACHE_HIT}


@pytest.mark.parametrize("way", ["bulk", "objects"])
def test_rows_to_insert_are_the_values_of_one_statement(
    tcp_engine: Engine, make_tenant: Callable[..., SomeTenant], way: str
) -> None:
    """By executemany each row is a statement, for which the server sets up every check of every policy."""
    tenant, seen = make_tenant("inserting"), []
    rows = [{"name": "Bob", "email": f"{number}@test.example"} for number in range(1000)]

    def look(_connection: Any, _cursor: Any, sql: str, _given: Any, _context: Any, _many: bool) -> None:
        seen.append((sql.split(" (")[0], len(sql.split("), ("))))

    event.listen(tcp_engine, "before_cursor_execute", look)
    with tenant_scope(tenant.id), tenant_sessionmaker(tcp_engine).begin() as session:
        if way == "bulk":
            session.execute(insert(Person), rows)
        else:
            session.add_all(Person(**row) for row in rows)
            session.flush()
        event.remove(tcp_engine, "before_cursor_execute", look)
        assert seen == [("INSERT INTO people", 1000)]
        assert session.scalar(select(func.count()).select_from(Person)) == 1000


def test_long_statement_is_converted_once_for_all_connections(
    app_engine: Engine, make_tenant: Callable[..., SomeTenant]
) -> None:
    """psycopg looks for the placeholders of a long text each time, which took longer than all else for its rows."""
    sessions, tenants = tenant_sessionmaker(app_engine), [make_tenant(name) for name in ("ada", "eve", "zoe")]

    def work(tenant: SomeTenant, name: str) -> None:
        rows = [{"name": f"{name} {number}", "email": f"{number}@test.example"} for number in range(300)]
        with tenant_scope(tenant.id), sessions.begin() as session:
            session.execute(insert(Person), rows)

    work(tenants[0], "Ada")
    forget_conversions()
    anew = calls_of(lambda: work(tenants[1], "Eve"))
    app_engine.dispose()
    again = calls_of(lambda: work(tenants[2], "Zoe"))

    assert kept_conversions() == 1
    assert anew - again > 300 * 4 * 3  # each placeholder is found, named and numbered
    for tenant, name in zip(tenants, ("Ada", "Eve", "Zoe"), strict=True):
        with tenant_scope(tenant.id), sessions() as session:
            assert set(session.scalars(select(Person.name))) == {f"{name} {number}" for number in range(300)}


def test_few_conversions_are_kept_and_none_that_is_very_long(driver: TenantConnection, acme: SomeTenant) -> None:
    forget_conversions()

    with tenant_scope(acme.id):
        for count in range(1000, 1040):
            values = ", ".join(["%s"] * count)
            assert driver.execute(f"SELECT ARRAY[{values}]::int[]", range(count)).fetchone() == ([*range(count)],)
        kept = kept_conversions()
        forget_conversions()
        driver.execute(f"SELECT %s::int{' ' * 200_000}", [1])

    assert (kept, kept_conversions()) == (16, 0)


def test_upsert_of_many_may_name_a_row_twice(app_engine: Engine, make_tenant: Callable[..., SomeTenant]) -> None:
    """As one statement the server would refuse it, so these stay a statement for each row."""
    tenant, known = make_tenant("upserting"), new_id()
    upsert = postgresql.insert(Person)
    upsert = upsert.on_conflict_do_update(index_elements=["tenant_id", "id"], set_={"name": upsert.excluded.name})

    with tenant_scope(tenant.id), tenant_sessionmaker(app_engine).begin() as session:
        session.execute(upsert, [{"id": known, "name": name, "email": "a@test.example"} for name in ("Ada", "Eve")])

        assert session.scalars(select(Person.name)).all() == ["Eve"]


def test_transaction_takes_five_messages_beside_its_statement(
    driver: TenantConnection, acme: SomeTenant, tmp_path: Path
) -> None:
    """BEGIN, CLOSE ALL, the tenant, the account and the platform session."""
    log = tmp_path / "messages"
    with log.open("wb") as written:
        driver.pgconn.trace(written.fileno())
        with tenant_scope(acme.id):
            driver.execute("SELECT %s::int", [1])
        driver.pgconn.untrace()

    sent = [line.split("\t")[3] for line in log.read_text().splitlines() if "\tF\t" in line]

    assert sent.count("Parse") == 6
    assert sent.count("Sync") == 1
    assert sent[-1] == "Sync"


def test_transaction_of_a_known_tenant_makes_no_message_anew(driver: TenantConnection, acme: SomeTenant) -> None:
    def opening() -> list[Any]:
        driver.state.note()
        messages = list(driver.state.open())
        driver.rollback()
        return messages

    with tenant_scope(acme.id):
        first, second = opening(), opening()

    assert [text for text, _ in first] == [
        b"BEGIN",
        b"CLOSE ALL",
        f"SET LOCAL app.tenant_id = '{acme.id}'".encode(),
        b"SET LOCAL app.account_id = ''",
        b"SET LOCAL app.platform_session = ''",
    ]
    assert [id(message) for message in first] == [id(message) for message in second]


def test_connection_comes_back_to_the_pool_without_a_word(
    driver: TenantConnection, acme: SomeTenant, tmp_path: Path
) -> None:
    """The pool rolls each connection back, which after a commit has nothing to do."""
    with tenant_scope(acme.id):
        driver.execute("SELECT 1")
        driver.commit()

    assert calls_of(driver.rollback) <= 3


def test_connection_that_cannot_leave_its_first_flight_is_closed(driver: TenantConnection, acme: SomeTenant) -> None:
    """As after a COPY that was executed: its rows would answer whoever came next."""
    with tenant_scope(acme.id):
        with pytest.raises(psycopg.Error):
            driver.execute("COPY (SELECT 1) TO STDOUT")

        assert driver.closed
