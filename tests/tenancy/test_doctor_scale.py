"""The doctor asks as many questions of a thousand tables as of ten, and soon has its answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.pool import NullPool

from tenancy.doctor.brief import brief
from tenancy.doctor.catalog import examine_catalog
from tenancy.doctor.findings import Finding, Subject
from tenancy.doctor.roles import examine_roles
from tenancy.rls import GuardedTable, policies
from tenancy.rls.migrations import send
from tests.conftest import ROLES, Database
from tests.models import Base
from tests.tenancy.doctor_cluster import own_cluster

OWN = policies(GuardedTable("things", "tenant", ()), ROLES)[0].using
# Guarded as op.guard_table does it; each refers to the one before.
MAKE_TABLES = f"""
    DO $$
    DECLARE runtime text := '{ROLES.app}, {ROLES.platform}'; own text := $own${OWN}$own$;
    BEGIN
      FOR i IN 1..{{count}} LOOP
        EXECUTE format('CREATE TABLE things_%s (tenant_id uuid NOT NULL, id uuid NOT NULL, before uuid, name text,'
                       ' PRIMARY KEY (tenant_id, id), UNIQUE (tenant_id, name),'
                       ' FOREIGN KEY (tenant_id, before) REFERENCES things_%s)', i, greatest(i - 1, 1));
        EXECUTE format('ALTER TABLE things_%s ENABLE ROW LEVEL SECURITY', i);
        EXECUTE format('ALTER TABLE things_%s FORCE ROW LEVEL SECURITY', i);
        EXECUTE format('CREATE POLICY tenancy_isolation ON things_%s USING (%s) WITH CHECK (%s)', i, own, own);
        EXECUTE format('CREATE POLICY tenancy_guard ON things_%s AS RESTRICTIVE'
                       ' USING (tenant_id = (SELECT tenancy.guarded_tenant()) OR (SELECT tenancy.platform_open()))'
                       ' WITH CHECK (tenant_id = (SELECT tenancy.guarded_tenant()))', i);
        EXECUTE format('CREATE POLICY tenancy_platform_read ON things_%s FOR SELECT TO {ROLES.platform}'
                       ' USING ((SELECT tenancy.platform_open()))', i);
        EXECUTE format('GRANT SELECT, INSERT, DELETE, UPDATE (name, before) ON things_%s TO %s', i, runtime);
      END LOOP;
    END $$
"""


@dataclass(frozen=True)
class Examination:
    findings: list[Finding]
    queries: int
    seconds: float


def examine(connection: Connection) -> Examination:
    asked: list[str] = []
    event.listen(connection, "before_cursor_execute", lambda _c, _u, statement, *_rest: asked.append(statement))
    subject = Subject(connection=connection, metadata=Base.metadata)
    started = time.perf_counter()
    findings = [*examine_catalog(subject), *examine_roles(subject)]
    return Examination(findings, len(asked), time.perf_counter() - started)


@pytest.fixture
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with own_cluster(tmp_path_factory.mktemp("doctor")) as database:
        yield database


@pytest.fixture
def owner(database: Database) -> Iterator[Connection]:
    engine = create_engine(database.url("postgres"), poolclass=NullPool)
    with engine.connect() as connection:
        send(connection, [f"SET LOCAL ROLE {ROLES.owner}"])
        yield connection


def test_number_of_queries_does_not_grow_with_the_tables(owner: Connection, database: Database) -> None:
    send(owner, [MAKE_TABLES.format(count=10), "RESET ROLE"])
    few = examine(owner)
    owner.rollback()
    send(owner, [f"SET LOCAL ROLE {ROLES.owner}", MAKE_TABLES.format(count=1000), "RESET ROLE"])
    owner.commit()  # 1,000 tables of one transaction are locked by it, and count against max_locks

    engine = create_engine(database.url(ROLES.migrator), poolclass=NullPool)
    with engine.connect() as connection:
        many = examine(connection)

    print(f"1,000 tables: {many.queries} queries, {many.seconds:.2f} s; 10 tables: {few.seconds:.2f} s")  # noqa: T201 - with -s
    assert {finding.rule.id for finding in (*few.findings, *many.findings)} == {"TEN001"}  # no engine of the app
    assert many.queries == few.queries
    assert many.seconds < 10


def test_start_up_asks_one_question_whatever_the_number_of_tables(owner: Connection) -> None:
    send(owner, [MAKE_TABLES.format(count=50), f"RESET ROLE; SET LOCAL ROLE {ROLES.app}"])
    asked: list[str] = []
    event.listen(owner, "before_cursor_execute", lambda _c, _u, statement, *_rest: asked.append(statement))

    assert brief(owner) == []
    assert len(asked) == 1
