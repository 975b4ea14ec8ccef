"""Many rows as the values of one statement: each one's tenant is checked, and what is told of them is true."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine, bindparam, func, insert, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from tenancy.context import tenant_scope
from tenancy.errors import StatementRefusedError, WrongTenantError
from tenancy.session import tenant_sessionmaker
from tenancy.tables import new_id
from tests.conftest import SomeTenant
from tests.models import Person

MakeTenant = Callable[..., SomeTenant]


def people(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"name": f"P{number}", "email": f"{number}@test.example", **more} for number in range(count)]


def counted(engine: Engine, tenant: SomeTenant) -> int | None:
    with tenant_scope(tenant.id), tenant_sessionmaker(engine)() as session:
        return session.scalar(select(func.count()).select_from(Person))


@pytest.mark.parametrize("count", [1, 1_000, 1_001, 33_000])
def test_count_that_is_asked_for_is_that_of_all_batches(
    app_engine: Engine, make_tenant: MakeTenant, count: int
) -> None:
    """Of the last batch alone would be as wrong; 33,000 rows have more values than one message may carry."""
    tenant = make_tenant("counting")

    with tenant_scope(tenant.id), app_engine.begin() as connection:
        done = connection.execute(
            insert(Person.__table__), people(count), execution_options={"preserve_rowcount": True}
        )

        assert done.rowcount == count
    assert counted(app_engine, tenant) == count


def test_rows_that_an_insert_skips_are_not_returned(app_engine: Engine, make_tenant: MakeTenant) -> None:
    tenant = make_tenant("skipping")
    adding = postgresql.insert(Person.__table__).on_conflict_do_nothing().returning(Person.id)

    with tenant_scope(tenant.id), app_engine.begin() as connection:
        first = len(connection.execute(adding, people(1_200)).all())
        second = len(connection.execute(adding, people(1_500)).all())

    assert (first, second, counted(app_engine, tenant)) == (1_200, 300, 1_500)


@pytest.mark.parametrize("at", [0, 500, 1_199])
def test_row_of_another_tenant_anywhere_in_a_batch_stops_all_of_it(
    app_engine: Engine, make_tenant: MakeTenant, at: int
) -> None:
    """T084"""
    ours, theirs = make_tenant("ours"), make_tenant("theirs")
    rows = [{**row, "tenant_id": ours.id, "id": new_id()} for row in people(1_200)]
    rows[at]["tenant_id"] = theirs.id

    with (
        tenant_scope(ours.id),
        app_engine.connect() as connection,
        pytest.raises((DBAPIError, WrongTenantError)) as caught,
    ):
        connection.execute(insert(Person.__table__), rows)

    assert isinstance(caught.value, WrongTenantError) or isinstance(
        caught.value.orig, psycopg.errors.InsufficientPrivilege
    )
    assert (counted(app_engine, ours), counted(app_engine, theirs)) == (0, 0)


def test_returned_rows_are_in_the_order_they_were_given(app_engine: Engine, make_tenant: MakeTenant) -> None:
    tenant = make_tenant("returning")
    given = [str(name) for name in range(2_300)]

    with tenant_scope(tenant.id), tenant_sessionmaker(app_engine).begin() as session:
        adding = insert(Person).returning(Person.name, sort_by_parameter_order=True)
        returned = session.execute(adding, [{"name": name, "email": f"{name}@x"} for name in given]).scalars().all()

    assert returned == given


def test_objects_have_the_ids_of_their_own_rows(app_engine: Engine, make_tenant: MakeTenant) -> None:
    tenant = make_tenant("objects")
    with tenant_scope(tenant.id), tenant_sessionmaker(app_engine).begin() as session:
        added = [Person(**row) for row in people(1_100)]
        session.add_all(added)
        session.flush()
        known: dict[UUID, str] = {person.id: person.name for person in added}

    with tenant_scope(tenant.id), tenant_sessionmaker(app_engine)() as session:
        assert {row.id: row.name for row in session.execute(select(Person.id, Person.name))} == known


def test_value_that_only_looks_like_sql_stays_a_value(app_engine: Engine, make_tenant: MakeTenant) -> None:
    tenant = make_tenant("looking")
    names = ["x'), (''); select set_config('app.tenant_id', 'b', true) --", "%(name)s %s %%", "$1 :name", "\\'"]

    with tenant_scope(tenant.id), tenant_sessionmaker(app_engine).begin() as session:
        session.execute(insert(Person), [{"name": n, "email": str(i)} for i, n in enumerate(names * 300)])

    with tenant_scope(tenant.id), tenant_sessionmaker(app_engine)() as session:
        assert set(session.scalars(select(Person.name))) == set(names)


def test_long_text_is_judged_as_a_short_one_is(app_engine: Engine, make_tenant: MakeTenant) -> None:
    """T067"""
    tenant = make_tenant("judged")
    values = ", ".join(f"(:p{number})" for number in range(3_000))
    hidden = text(f"SELECT count(v), set_config('app.tenant_id', '', true) FROM (VALUES {values}) AS t (v)")

    with tenant_scope(tenant.id), app_engine.connect() as connection, pytest.raises(StatementRefusedError):
        connection.execute(hidden, {f"p{number}": number for number in range(3_000)})


def test_long_texts_that_differ_in_their_end_are_not_taken_for_each_other(
    app_engine: Engine, make_tenant: MakeTenant
) -> None:
    tenants = [make_tenant(name) for name in ("one", "two")]
    padding = ", ".join([":p"] * 2_000)

    for number, tenant in enumerate(tenants):
        statement = text(f"SELECT {number} + 0 * coalesce({padding}), :q").bindparams(bindparam("p"), bindparam("q"))
        for q in ("first", "again"):
            with tenant_scope(tenant.id), Session(app_engine) as session:
                assert tuple(session.execute(statement, {"p": 1, "q": q}).one()) == (number, q)
