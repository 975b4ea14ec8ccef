"""Network flights of a transaction: what the client sends before it has to wait for the server."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from uuid import UUID

import pytest
from sqlalchemy import Engine, create_engine, make_url, select, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from tenancy.binding import create_async_tenant_engine, create_tenant_engine
from tenancy.context import tenant_scope
from tenancy.embedded import start
from tenancy.session import async_tenant_sessionmaker, tenant_sessionmaker
from tests.conftest import FAST, ROLES, bootstrap
from tests.models import Person


class CountingProxy:
    """Passes bytes between one client at a time and the server, and counts the flights.

    A flight is whatever the client sends from the moment the server has answered until it answers again.
    """

    def __init__(self, port: int) -> None:
        self.flights = 0
        self._server_port = port
        self._client_speaks = False
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets += [client, server]
                for source, target, is_client in ((client, server, True), (server, client, False)):
                    thread = threading.Thread(target=self._pass_on, args=(source, target, is_client), daemon=True)
                    self._threads.append(thread)
                    thread.start()

    def _pass_on(self, source: socket.socket, target: socket.socket, is_client: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                with self._lock:
                    self.flights += is_client and not self._client_speaks
                    self._client_speaks = is_client
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in recv; close alone does not
        for thread in self._threads:
            thread.join(timeout=5)
        for end in self._sockets:
            end.close()


@pytest.fixture(scope="module")
def tcp_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app role's URL over TCP, of a server of this module's own."""
    with start(data_dir=tmp_path_factory.mktemp("flights") / "postgres", tcp_port=0, settings=FAST) as server:
        bootstrap(server.url(), tables=True)
        server.set_password(ROLES.app, "flights")
        yield server.tcp_url(role=ROLES.app)


@pytest.fixture
def proxy(tcp_url: str) -> Iterator[CountingProxy]:
    port = make_url(tcp_url).port
    assert port is not None
    proxy = CountingProxy(port)
    yield proxy
    proxy.close()


@pytest.fixture
def url(tcp_url: str, proxy: CountingProxy) -> str:
    through = make_url(tcp_url).set(port=proxy.port).update_query_dict({"sslmode": "disable", "gssencmode": "disable"})
    return through.render_as_string(hide_password=False)


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = create_tenant_engine(url)
    yield engine
    engine.dispose()


TENANT: UUID = uuid7()


def flights_of(proxy: CountingProxy, work: Callable[[], None]) -> int:
    """Do the work once to connect and to fill caches, then count the flights of a second time."""
    work()
    before = proxy.flights
    work()
    return proxy.flights - before


async def _flights_of_async(proxy: CountingProxy, url: str, kind: str) -> int:
    engine = create_async_tenant_engine(url)
    sessions = async_tenant_sessionmaker(engine)

    async def work() -> None:
        with tenant_scope(TENANT):
            await (_orm(sessions) if kind == "orm" else _core(engine))

    async def _orm(make: Callable[[], object]) -> None:
        async with sessions.begin() as session:
            (await session.scalars(select(Person).where(Person.name == "Ada"))).all()

    async def _core(engine: AsyncEngine) -> None:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT name FROM people"))

    try:
        await work()
        before = proxy.flights
        await work()
        return proxy.flights - before
    finally:
        await engine.dispose()


def test_orm_transaction_of_one_statement_takes_two_flights(proxy: CountingProxy, engine: Engine) -> None:
    """BEGIN, the scope and the statement in one; COMMIT in the other."""
    sessions = tenant_sessionmaker(engine)

    def work() -> None:
        with tenant_scope(TENANT), sessions.begin() as session:
            session.scalars(select(Person).where(Person.name == "Ada")).all()

    assert flights_of(proxy, work) == 2


@pytest.mark.parametrize(
    "statement", [text("SELECT name FROM people"), text("SELECT 1 WHERE 1 = :one").bindparams(one=1)]
)
def test_core_transaction_of_one_statement_takes_two_flights(
    proxy: CountingProxy, engine: Engine, statement: object
) -> None:
    def work() -> None:
        with tenant_scope(TENANT), engine.begin() as connection:
            connection.execute(statement)  # type: ignore[call-overload]

    assert flights_of(proxy, work) == 2


def test_transaction_that_reads_and_is_rolled_back_takes_two_flights(proxy: CountingProxy, engine: Engine) -> None:
    def work() -> None:
        with tenant_scope(TENANT), engine.connect() as connection:
            connection.execute(text("SELECT name FROM people"))

    assert flights_of(proxy, work) == 2


@pytest.mark.parametrize("statements", [2, 3])
def test_each_further_statement_takes_one_more_flight(proxy: CountingProxy, engine: Engine, statements: int) -> None:
    def work() -> None:
        with tenant_scope(TENANT), engine.begin() as connection:
            for _ in range(statements):
                connection.execute(text("SELECT name FROM people"))

    assert flights_of(proxy, work) == 1 + statements


def test_isolation_level_takes_no_flight_of_its_own(proxy: CountingProxy, engine: Engine) -> None:
    def work() -> None:
        with tenant_scope(TENANT), engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            connection.execute(text("SELECT name FROM people"))
            connection.commit()

    assert flights_of(proxy, work) == 2


def test_transaction_without_a_statement_takes_no_flight(proxy: CountingProxy, engine: Engine) -> None:
    def work() -> None:
        with tenant_scope(TENANT), engine.begin():
            pass

    assert flights_of(proxy, work) == 0


def test_statement_that_cannot_share_its_flight_takes_one_more(proxy: CountingProxy, engine: Engine) -> None:
    """executemany, COPY and server-side cursors send the scope ahead."""

    def work() -> None:
        with tenant_scope(TENANT), engine.begin() as connection:
            connection.exec_driver_sql("UPDATE people SET name = %s WHERE name = %s", [("a", "b"), ("c", "d")])

    assert flights_of(proxy, work) == 3


@pytest.mark.parametrize("kind", ["orm", "core"])
def test_asynchronous_transaction_of_one_statement_takes_two_flights(proxy: CountingProxy, url: str, kind: str) -> None:
    assert asyncio.run(_flights_of_async(proxy, url, kind)) == 2


def test_plain_sqlalchemy_takes_three_flights(proxy: CountingProxy, url: str) -> None:
    """What ours is compared with; it also shows that the proxy counts."""
    engine = create_engine(url)

    def work() -> None:
        with Session(engine) as session:
            session.execute(select(1))
            session.commit()

    assert flights_of(proxy, work) == 3
    engine.dispose()
