"""A new tenant: some rows here, a schema or a database of its own elsewhere."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from uuid import UUID

from sqlalchemy import MetaData, create_engine
from sqlalchemy.pool import NullPool
from uuid_utils.compat import uuid7

from benchmarks import registry
from benchmarks.bench import ROLES, Bench
from benchmarks.contenders.protocol import timed as measure
from benchmarks.figures import Goal, Part, Row
from benchmarks.measuring import interleave_batches, row
from benchmarks.registry import Base, Company, Person, Tenant
from tenancy import create_tenant_engine, tenant_scope, tenant_sessionmaker

DATABASE, SCHEMAS = "onboarding", "onboarding_schemas"
A_DATABASE = "CREATE DATABASE and tables"
HOW = (
    "From nothing to a tenant with its first company and person, committed. `tenancy` inserts them in one transaction. "
    "The others create a schema, or a database, then their tables (by create_all, which is quicker than running "
    "migrations), and insert the same. The engine of a new database is part of it: nothing can be warm."
)


def run(bench: Bench) -> Iterator[Row]:
    bench.built(DATABASE, registry.build)
    bench.built(SCHEMAS, lambda bench, name: None)
    engine = create_tenant_engine(bench.socket_url(ROLES.app, DATABASE))
    sessions = tenant_sessionmaker(engine)
    admin = create_engine(bench.socket_url("postgres", SCHEMAS))
    server = create_engine(bench.socket_url("postgres", "postgres"), isolation_level="AUTOCOMMIT")
    plain, count = _plain_metadata(), itertools.count()

    def by_rows(_number: int) -> None:
        tenant = uuid7()
        with tenant_scope(tenant), sessions.begin() as session:
            session.add(Tenant(id=tenant, slug=f"new-{tenant.hex}", name="New", status="active"))
            company = Company(id=uuid7(), name="First")
            session.add(company)
            session.flush()
            session.add(Person(name="Ada", email="ada@bench.test", company_id=company.id))

    def by_schema(_number: int) -> None:
        name = f"tenant_{next(count)}"
        with admin.begin() as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA {name}")
            mapped = connection.execution_options(schema_translate_map={None: name})
            plain.create_all(mapped, checkfirst=False)
            _first_rows(mapped, plain, uuid7())

    def by_database(_number: int) -> None:
        name = f"tenant_{next(count)}"
        with server.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        with create_engine(bench.socket_url("postgres", name), poolclass=NullPool).begin() as connection:
            plain.create_all(connection, checkfirst=False)
            _first_rows(connection, plain, uuid7())

    for number in range(20):  # a process that has onboarded before; the others have nothing that could be warm
        by_rows(number)
    samples = interleave_batches(
        {
            "tenancy": _after(by_rows, untimed=2, timed=5),
            "CREATE SCHEMA and tables": _after(by_schema, untimed=0, timed=1),
            A_DATABASE: _after(by_database, untimed=0, timed=1),
        },
        batch=1,
        rounds=bench.rounds(40),
        budget_s=bench.budget(20),
    )
    for each in (engine, admin, server):
        each.dispose()
    yield row(
        "a new tenant",
        samples,
        baseline=A_DATABASE,
        unit="ms",
        scale=0.001,
        goals=(Goal("tenancy", at_most=0.01),),
    )


def _after(call: Callable[[int], None], *, untimed: int, timed: int) -> Callable[[int], list[float]]:
    """Call without measuring first: the DDL of the others empties every connection's catalog caches."""
    measured = measure(call)

    def run(_batch: int) -> list[float]:
        for number in range(untimed):
            call(number)
        return measured(timed)

    return run


def _plain_metadata() -> MetaData:
    """The same tables, as they are where each tenant has its own: nothing in them says whose they are."""
    metadata = MetaData()
    for table in Base.metadata.sorted_tables:
        table.to_metadata(metadata)
    return metadata


def _first_rows(connection: object, metadata: MetaData, tenant: UUID) -> None:
    execute = connection.execute  # type: ignore[attr-defined]
    company = uuid7()
    given = {"tenant_id": tenant, "slug": "new", "name": "New", "status": "active"}
    execute(metadata.tables["tenants"].insert(), given)
    execute(metadata.tables["companies"].insert(), {"tenant_id": tenant, "id": company, "name": "First"})
    person = {"tenant_id": tenant, "id": uuid7(), "name": "Ada", "email": "ada@bench.test", "company_id": company}
    execute(metadata.tables["people"].insert(), person)


PART = Part("onboarding", "A new tenant", HOW, rows=1, run=run)
