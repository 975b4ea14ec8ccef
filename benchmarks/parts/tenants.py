"""What grows with the number of tenants, here and where each has a schema of its own."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, MetaData, create_engine, select
from sqlalchemy.pool import NullPool
from uuid_utils.compat import uuid7

import tenancy.alembic
from benchmarks import registry
from benchmarks.bench import ROLES, Bench, send
from benchmarks.figures import Figure, Goal, Part, Row, Spread
from benchmarks.measuring import Samples, interleave, row
from benchmarks.registry import Base, Person, Tenant
from benchmarks.workers import Entry, Worker
from tenancy import SQLDirectory, create_tenant_engine, tenant_scope, tenant_sessionmaker
from tenancy.directory import Reference

COUNTS = (10, 1_000, 100_000)
SCHEMAS = (10, 100)
BASELINE, LARGEST = "10 tenants", "100,000 tenants"
A_TENANT = 10  # people
VISITED = 300
HOW = (
    f"Three databases with 10, 1,000 and 100,000 tenants of {A_TENANT} people each; statements go to up to 1,000 "
    "tenants at random, each in a transaction of its own. Beside them a schema for each tenant, 10 and 100, in plain "
    "SQLAlchemy with schema_translate_map. Resolving is done without a cache. A migration adds a column and drops it "
    "again, by alembic's operations, in every schema there is; the start of alembic itself is left out. Memory is "
    f"what one process holds, and what its server process holds, after it has visited up to {VISITED} tenants."
)


def _label(count: int) -> str:
    return f"{count:,} tenants"


def _schema_label(count: int) -> str:
    return f"a schema each, {count}"


def run(bench: Bench) -> Iterator[Row]:
    with ExitStack() as stack:
        some: dict[int, list[tuple[UUID, UUID]]] = {}
        engines: dict[int, Engine] = {}
        for count in COUNTS:
            build = partial(registry.build, tenants=count, people=A_TENANT)
            some[count] = bench.built(f"tenants_{count}", build)
            engines[count] = create_tenant_engine(bench.socket_url(ROLES.app, f"tenants_{count}"))
            stack.callback(engines[count].dispose)
        schemas = {count: bench.built(f"schemas_{count}", partial(_build_schemas, count=count)) for count in SCHEMAS}
        schema_engines = {}
        for count in SCHEMAS:
            schema_engines[count] = create_engine(bench.socket_url("postgres", f"schemas_{count}"))
            stack.callback(schema_engines[count].dispose)

        yield _grown("resolve", {_label(c): _resolving(engines[c], c) for c in COUNTS}, bench, rounds=400)
        actions: dict[str, Callable[[Any, random.Random], None]] = {
            "point read": _point,
            "list of 10": _list,
            "insert": _insert,
        }
        for name, action in actions.items():
            calls = {_label(count): _in_tenant(engines[count], some[count], action) for count in COUNTS}
            calls |= {
                _schema_label(count): _in_schema(schema_engines[count], schemas[count], action) for count in SCHEMAS
            }
            yield _grown(name, calls, bench, rounds=500)
        migrations = {_label(count): _migrating(bench, count) for count in COUNTS}
        migrations |= {_schema_label(count): _migrating_schemas(bench, count) for count in SCHEMAS}
        samples = interleave(migrations, rounds=bench.rounds(15), budget_s=bench.budget(12), warm_up=1)
        yield row(
            "migration",
            samples,
            baseline=BASELINE,
            unit="ms",
            scale=0.001,
            goals=(Goal(LARGEST, at_most=1.15),),
            note="Adds a column and drops it again.",
        )
        yield from _memories(bench, some)


def _grown(name: str, calls: dict[str, Callable[[int], object]], bench: Bench, rounds: int) -> Row:
    # 100 calls first: enough for each schema's statement to be compiled and prepared as far as the caches reach.
    samples: Samples = interleave(calls, rounds=bench.rounds(rounds), budget_s=bench.budget(6), warm_up=100)
    return row(
        name, samples, baseline=BASELINE, goals=(Goal("1,000 tenants", at_most=1.15), Goal(LARGEST, at_most=1.15))
    )


def _resolving(engine: Engine, count: int) -> Callable[[int], object]:
    directory = SQLDirectory(Tenant, floor_ttl_s=0.0)
    directory.bind(engine)
    directory.close()  # it never listens, so that with no floor nothing is remembered
    chosen = random.Random(count)

    def call(_number: int) -> None:
        assert directory.find(Reference("slug", f"tenant-{chosen.randint(1, count)}")) is not None

    return call


def _in_tenant(
    engine: Engine, some: list[tuple[UUID, UUID]], action: Callable[[Any, random.Random], None]
) -> Callable[[int], object]:
    sessions, chosen = tenant_sessionmaker(engine), random.Random(1)

    def call(_number: int) -> None:
        tenant, person = chosen.choice(some)
        with tenant_scope(tenant), sessions.begin() as session:
            action((session, Person, [], {}, person), chosen)

    return call


def _in_schema(
    engine: Engine, schemas: list[tuple[str, UUID, UUID]], action: Callable[[Any, random.Random], None]
) -> Callable[[int], object]:
    chosen = random.Random(1)
    model = _plain_person()
    bound = {schema: engine.execution_options(schema_translate_map={None: schema}) for schema, _, _ in schemas}

    def call(_number: int) -> None:
        schema, tenant, person = chosen.choice(schemas)
        with sa.orm.Session(bound[schema]) as session, session.begin():
            action((session, model, [model.tenant_id == tenant], {"tenant_id": tenant}, person), chosen)

    return call


def _plain_person() -> Any:
    from benchmarks.contenders.workload import plain_person

    return plain_person("people")


def _point(given: Any, _chosen: random.Random) -> None:
    session, model, _, _, person = given
    assert session.execute(select(model.name).where(model.id == person)).scalar_one()


def _list(given: Any, _chosen: random.Random) -> None:
    session, model, *_ = given
    assert session.scalars(select(model).order_by(model.id).limit(A_TENANT)).all()


def _insert(given: Any, _chosen: random.Random) -> None:
    session, model, _, own, _ = given
    unique = uuid7()
    session.add(model(id=unique, name="Grace", email=f"{unique.hex}@bench.test", **own))


def _build_schemas(bench: Bench, database: str, count: int) -> list[tuple[str, UUID, UUID]]:
    metadata = MetaData()
    for table in Base.metadata.sorted_tables:
        table.to_metadata(metadata)
    engine = create_engine(bench.socket_url("postgres", database), poolclass=NullPool)
    made = []
    with engine.connect() as connection:
        for number in range(count):
            schema, tenant, people = f"tenant_{number}", uuid7(), [uuid7() for _ in range(A_TENANT)]
            with connection.begin():
                connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
                mapped = connection.execution_options(schema_translate_map={None: schema})
                metadata.create_all(mapped, checkfirst=False)
                rows = [
                    {"tenant_id": tenant, "id": each, "name": "Ada", "email": f"{each.hex}@bench.test"}
                    for each in people
                ]
                mapped.execute(metadata.tables["people"].insert(), rows)
            made.append((schema, tenant, people[0]))
    with bench.admin(database) as admin:
        send(admin, ["VACUUM ANALYZE"])
    return made


def _migrating(bench: Bench, count: int) -> Callable[[int], object]:
    tenancy.alembic.install()
    engine = create_engine(bench.socket_url("postgres", f"tenants_{count}"), poolclass=NullPool)

    def call(_number: int) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"SET LOCAL ROLE {ROLES.owner}")
            _migrate(Operations(MigrationContext.configure(connection)), None)

    return call


def _migrating_schemas(bench: Bench, count: int) -> Callable[[int], object]:
    engine = create_engine(bench.socket_url("postgres", f"schemas_{count}"), poolclass=NullPool)

    def call(_number: int) -> None:
        with engine.connect() as connection:
            for number in range(count):
                with connection.begin():
                    _migrate(Operations(MigrationContext.configure(connection)), f"tenant_{number}")

    return call


def _migrate(operations: Operations, schema: str | None) -> None:
    operations.add_column("people", sa.Column("phone", sa.Text), schema=schema)
    operations.drop_column("people", "phone", schema=schema)


def _memories(bench: Bench, some: dict[int, list[tuple[UUID, UUID]]]) -> Iterator[Row]:
    asked: dict[str, dict[str, Any]] = {}
    for count in COUNTS:
        url = bench.socket_url(ROLES.app, f"tenants_{count}")
        asked[_label(count)] = {"url": url, "tenants": [str(tenant) for tenant, _ in some[count][:VISITED]]}
    for count in SCHEMAS:
        url = bench.socket_url("postgres", f"schemas_{count}")
        asked[_schema_label(count)] = {"url": url, "schemas": [f"tenant_{number}" for number in range(count)]}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in asked}
    for _ in range(2):
        for name, first in asked.items():
            with suppress(OSError), Worker(Entry(name, "roamer"), first, cache=bench.cache) as worker:
                found[name].append(worker.ask("visit"))
    for which in ("process", "server"):
        values = {name: [each[which] for each in all_] for name, all_ in found.items()}
        base = Spread.of(values[BASELINE])
        figures = tuple(
            Figure(
                name,
                spread,
                None if name == BASELINE else Spread.of([value / base.median for value in values[name]]),
            )
            for name in values
            for spread in (Spread.of(values[name]),)
        )
        goals = (Goal(LARGEST, at_most=1.15),)
        yield Row(
            f"memory of a {'process' if which == 'process' else 'server process'}", "MB", BASELINE, figures, goals
        )


PART = Part("tenants", "The number of tenants", HOW, rows=7, run=run)
