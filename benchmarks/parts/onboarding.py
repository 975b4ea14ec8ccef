"""A new tenant: some rows here, a schema or a database of its own elsewhere."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, MetaData, create_engine
from sqlalchemy.pool import NullPool
from uuid_utils.compat import uuid7

from app.development import upgrade_database
from app.models import Base, Company, Person, Tenant
from benchmarks.bench import ROLES, Bench, send
from benchmarks.contenders.protocol import timed as measure
from benchmarks.figures import Goal, Part, Row
from benchmarks.measuring import interleave_batches, row
from tenancy import create_tenant_engine, tenant_scope, tenant_sessionmaker
from tenancy.rls import bootstrap_sql

DATABASE, SCHEMAS = "onboarding", "onboarding_schemas"
A_DATABASE, A_SCHEMA = "CREATE DATABASE, migrate", "CREATE SCHEMA, migrate"
HOW = (
    "From nothing to a tenant with its first company and person, committed, with the tables of this repository's "
    f"application ({len(Base.metadata.tables)}). `tenancy` inserts them in one transaction. The others create a "
    "schema, or a database, run `alembic upgrade` in it (one revision with the same tables, in this process, so that "
    "starting alembic's command is left out), and insert the same. The engine of a new database is part of it: nothing "
    "can be warm. Commits wait for no disk, which spares a new database most."
)


def run(bench: Bench) -> Iterator[Row]:
    bench.built(DATABASE, _build)
    bench.built(SCHEMAS, lambda bench, name: None)
    engine = create_tenant_engine(bench.socket_url(ROLES.app, DATABASE))
    sessions = tenant_sessionmaker(engine)
    admin = create_engine(bench.socket_url("postgres", SCHEMAS))
    server = create_engine(bench.socket_url("postgres", "postgres"), isolation_level="AUTOCOMMIT")
    plain, count = _plain_metadata(), itertools.count()
    project = _alembic_project(bench.folder / "onboarding")

    def by_rows(_number: int) -> None:
        tenant = uuid7()
        with tenant_scope(tenant), sessions.begin() as session:
            session.add(Tenant(id=tenant, slug=f"new-{tenant.hex}", name="New", status="active", plan="basic"))
            company = Company(id=uuid7(), name="First")
            session.add(company)
            session.add(Person(name="Ada", email="ada@bench.test", company_id=company.id))

    def by_schema(_number: int) -> None:
        name = f"tenant_{next(count)}"
        with admin.begin() as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA {name}")
            mapped = connection.execution_options(schema_translate_map={None: name})
            _upgrade(project, mapped, plain, schema=name)
            _first_rows(mapped, plain, uuid7())

    def by_database(_number: int) -> None:
        name = f"tenant_{next(count)}"
        with server.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        with create_engine(bench.socket_url("postgres", name), poolclass=NullPool).begin() as connection:
            _upgrade(project, connection, plain, schema=None)
            _first_rows(connection, plain, uuid7())

    for number in range(20):  # a process that has onboarded before; the others have nothing that could be warm
        by_rows(number)
    samples = interleave_batches(
        {
            "tenancy": _after(by_rows, untimed=5, timed=20),
            A_SCHEMA: _after(by_schema, untimed=0, timed=1),
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


def _build(bench: Bench, database: str) -> None:
    with bench.admin(database) as admin:
        send(admin, bootstrap_sql(ROLES, database))
    upgrade_database(bench.socket_url(ROLES.migrator, database))


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


_ENV = """
from alembic import context

options = context.config.attributes
context.configure(connection=options["connection"], version_table_schema=options["schema"])
with context.begin_transaction():
    context.run_migrations()
"""
_REVISION = """
from alembic import context, op

revision, down_revision = "0001", None


def upgrade():
    context.config.attributes["metadata"].create_all(op.get_bind(), checkfirst=False)
"""


def _alembic_project(folder: Path) -> Path:
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text(_ENV)
    (folder / "versions" / "0001_tables.py").write_text(_REVISION)
    return folder


def _upgrade(project: Path, connection: Connection, metadata: MetaData, *, schema: str | None) -> None:
    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", str(project))
    config.attributes |= {"connection": connection, "metadata": metadata, "schema": schema}
    command.upgrade(config, "head")


def _first_rows(connection: Connection, metadata: MetaData, tenant: UUID) -> None:
    execute = connection.execute
    company = uuid7()
    given = {"tenant_id": tenant, "slug": "new", "name": "New", "status": "active", "plan": "basic", "plan_version": 1}
    execute(metadata.tables["tenants"].insert(), given)
    execute(metadata.tables["companies"].insert(), {"tenant_id": tenant, "id": company, "name": "First"})
    person = {"tenant_id": tenant, "id": uuid7(), "name": "Ada", "email": "ada@bench.test", "company_id": company}
    execute(metadata.tables["people"].insert(), person)


PART = Part("onboarding", "A new tenant", HOW, rows=1, run=run)
