"""What each option costs when it alone is switched on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from uuid import UUID

from flask import Flask
from sqlalchemy import Engine, create_engine, select, text
from sqlalchemy.pool import NullPool
from werkzeug.test import EnvironBuilder

from benchmarks import registry
from benchmarks.bench import ROLES, Bench, as_owner, send
from benchmarks.figures import Part, Row
from benchmarks.measuring import cpu_of, interleave, row
from benchmarks.registry import Person, Tenant
from tenancy import SQLDirectory, create_tenant_engine, tenant_scope, tenant_sessionmaker
from tenancy.comments import comment_statements
from tenancy.flask import Tenancy
from tenancy.rls import add_key_sql, install_sql
from tenancy.signing import SigningKey

OFF, SIGNED, COMMENTED, A_CALL = "off", "signed scopes", "SQL comments", 25
# How many statements the transactions have, by option.
TRANSACTIONS = {SIGNED: (1, 10), COMMENTED: (1,)}
HOW = (
    "Two databases that differ in nothing but the option. Signed scopes: a transaction of one and of ten statements by "
    "the socket, through the ORM. Resolution trace: CPU time of a request in Flask in debug mode, which then writes "
    "its trace into a header. SQL comments: the transaction of one statement, whose text differs by tenant and so is "
    "planned each time."
)


def run(bench: Bench) -> Iterator[Row]:
    some = {name: bench.built(name, registry.build) for name in ("mode_off", "mode_signed")}
    key = SigningKey("bench", bytes(range(32)))
    _sign(bench, "mode_signed", key)
    with ExitStack() as stack:
        engines = {
            OFF: create_tenant_engine(bench.socket_url(ROLES.app, "mode_off")),
            SIGNED: create_tenant_engine(bench.socket_url(ROLES.app, "mode_signed"), signing_key=key),
            COMMENTED: create_tenant_engine(bench.socket_url(ROLES.app, "mode_off")),
        }
        comment_statements(engines[COMMENTED])
        for engine in engines.values():
            stack.callback(engine.dispose)
        rows = {OFF: some["mode_off"], SIGNED: some["mode_signed"], COMMENTED: some["mode_off"]}
        for option, counts in TRANSACTIONS.items():
            for count in counts:
                calls = {name: _transaction(engines[name], rows[name], count) for name in (OFF, option)}
                samples = interleave(calls, rounds=bench.rounds(2000 // count), budget_s=bench.budget(8), warm_up=60)
                yield row(f"{option}, transaction of {count}", samples, baseline=OFF)
                clocks = {name: cpu_of(_server_pid(engines[name]), with_own=True) for name in calls}
                cpu = interleave(calls, rounds=bench.rounds(1000 // count), budget_s=bench.budget(5), clocks=clocks)
                yield row(f"{option}, transaction of {count}, CPU of both processes", cpu, baseline=OFF, unit="µs CPU")
        yield from _traces(bench, engines[OFF])


def _sign(bench: Bench, database: str, key: SigningKey) -> None:
    with bench.admin(database) as admin, as_owner(admin):
        send(admin, install_sql(ROLES, signed=True))
    inner, outer = key.pads()
    with create_engine(bench.socket_url("postgres", database), poolclass=NullPool).begin() as connection:
        connection.exec_driver_sql(f"SET LOCAL ROLE {ROLES.owner}")
        connection.execute(text(add_key_sql()), {"id": key.id, "inner_pad": inner, "outer_pad": outer})


def _transaction(engine: Engine, some: list[tuple[UUID, UUID]], statements: int) -> Callable[[int], object]:
    sessions = tenant_sessionmaker(engine)

    def call(number: int) -> None:
        tenant, person = some[number % len(some)]
        with tenant_scope(tenant), sessions.begin() as session:
            for _ in range(statements):
                assert session.execute(select(Person.name).where(Person.id == person)).scalar_one()

    return call


def _server_pid(engine: Engine) -> int:
    """The server process of the only connection in the pool."""
    with tenant_scope(UUID(int=1)), engine.connect() as connection:
        return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


def _traces(bench: Bench, engine: Engine) -> Iterator[Row]:
    from tenancy.resolvers import from_subdomain

    directory = SQLDirectory(Tenant, ttl_s=3600, floor_ttl_s=3600)
    apps = {}
    for name, is_debug in ((OFF, False), ("resolution trace", True)):
        app = Flask(name)
        app.debug = is_debug
        Tenancy(
            sessions=tenant_sessionmaker(engine), directory=directory, resolvers=[from_subdomain("example.com")]
        ).init_app(app)
        app.add_url_rule("/", view_func=lambda: "ok", endpoint="home")
        apps[name] = app
    environ = EnvironBuilder("/").get_environ() | {"HTTP_HOST": "tenant-3.example.com"}

    def requests(app: Flask) -> Callable[[int], None]:
        def call(_number: int) -> None:
            for _ in range(A_CALL):
                answer = app.wsgi_app(environ.copy(), lambda _status, _headers, _error=None: lambda _data: None)
                assert b"".join(answer) == b"ok"
                getattr(answer, "close", lambda: None)()

        return call

    try:
        samples = interleave(
            {name: requests(app) for name, app in apps.items()},
            rounds=bench.rounds(300),
            budget_s=bench.budget(6),
            clock=time.process_time_ns,
        )
    finally:
        directory.close()
    each = {name: [value / A_CALL for value in values] for name, values in samples.items()}
    yield row("resolution trace, a request", each, baseline=OFF, unit="µs CPU")


PART = Part("modes", "Options switched on alone", HOW, rows=2 * sum(map(len, TRANSACTIONS.values())) + 1, run=run)
