"""The figure: the suite of thirty tenant tables, generated, run and timed."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Column, Integer, MetaData, Text, Uuid, create_engine
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import NullPool

from tenancy.embedded import Template
from tenancy.rls import guard_sql, guarded, install_sql
from tenancy.tables import TenantForeignKey, TenantTable, TenantUnique, tenant_relationship
from tenancy.testing.matrix import Matrix, cells
from tenancy.testing.world import World, seed
from tests.conftest import ROLES, Database

TABLES = 30


class Base(DeclarativeBase):
    metadata = MetaData()


def table_numbered(number: int) -> type[Base]:
    """A table like most: a unique name, a number, and, for all but the first, a parent among the earlier ones."""
    body = {
        "__tablename__": f"table_{number:02}",
        "name": Column(Text, nullable=False),
        "amount": Column(Integer, nullable=False),
    }
    arguments: list[object] = [TenantUnique("name")]
    if number:
        body["parent_id"] = Column(Uuid)
        body["parent"] = tenant_relationship("parent_id", argument=f"Table{number // 2:02}")
        arguments.append(TenantForeignKey("parent_id", f"table_{number // 2:02}", ondelete="CASCADE"))
    return type(f"Table{number:02}", (TenantTable, Base), {**body, "__table_args__": tuple(arguments)})


MODELS = [table_numbered(number) for number in range(TABLES)]


@pytest.fixture
def world(empty_template: Template, worker: str) -> Iterator[World]:
    database = Database(empty_template.server, empty_template.clone(f"size_{worker}"))
    engine = create_engine(database.url("postgres"), poolclass=NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"SET LOCAL ROLE {ROLES.owner}")
        for statement in install_sql(ROLES):
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
        Base.metadata.create_all(connection)
        for table in guarded(Base.metadata):
            for statement in guard_sql(table, ROLES):
                connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
    made = seed(Base.metadata, database.url)
    yield made
    made.close()
    empty_template.drop(database.name)


def test_thirty_tables_are_proven_in_one_go(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    started, busy = time.perf_counter(), time.process_time()
    matrix = Matrix(world)

    verdicts = [matrix.run(cell) for cell in cells(Base.metadata)]
    matrix.close()

    took, worked = time.perf_counter() - started, time.process_time() - busy
    with capsys.disabled():
        print(f"\n{len(verdicts)} cells of {TABLES} tables in {took:.1f} s ({worked:.1f} s of Python)")  # noqa: T201
    assert [verdict for verdict in verdicts if not verdict.passed] == []
    assert len(verdicts) == 3737
