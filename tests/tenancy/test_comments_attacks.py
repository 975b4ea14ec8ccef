"""Comments beside every kind of statement, with percent signs, other tenants' names and long texts; and threads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, insert, select, text

from tenancy.binding import create_tenant_engine
from tenancy.comments import comment, comment_statements
from tenancy.context import tenant_scope
from tenancy.errors import StatementRefusedError
from tenancy.placeholders import forget_conversions, kept_conversions
from tenancy.session import tenant_sessionmaker
from tests.conftest import ROLES, Database, SomeTenant
from tests.models import Person

HOSTILE = "*/ select set_config('app.tenant_id','x',true); /* %s %(name)s %% $1 :name \n\0 é -- ;"


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    engine = create_tenant_engine(database.url(ROLES.app))
    comment_statements(engine, lambda: {"route": HOSTILE, "%s": "%(x)s"})
    yield engine
    engine.dispose()


@given(st.dictionaries(st.text(max_size=10), st.text(max_size=300), max_size=4))
def test_no_tag_ends_or_opens_a_comment_or_holds_a_placeholder(tags: dict[str, str]) -> None:
    found = comment(lambda: tags)

    assert found == "" or re.fullmatch(r"/\*[A-Za-z0-9._~/:@+\-'=,]*\*/", found)
    assert "*/" not in found[:-2]
    assert "/*" not in found[2:]


@pytest.mark.parametrize(
    ("statement", "given_", "expected"),
    [
        ("SELECT '100%' || name FROM people WHERE name LIKE 'A%'", {}, "100%Ada"),
        ("SELECT name FROM people WHERE name LIKE :p", {"p": "A%"}, "Ada"),
        ("SELECT name FROM people -- the last word", {}, "Ada"),
        ("SELECT name FROM people -- 100 % of them;", {}, "Ada"),
        ("SELECT name || ';' FROM people;", {}, "Ada;"),
        ("SELECT name FROM people ; ; ", {}, "Ada"),
    ],
)
def test_statement_means_the_same_with_a_comment(
    engine: Engine,
    acme: SomeTenant,
    person_of: Callable[..., Any],
    statement: str,
    given_: dict[str, str],
    expected: Any,
) -> None:
    person_of(acme, "Ada")

    with tenant_scope(acme.id), engine.connect() as connection:
        assert connection.execute(text(statement), given_).scalars().all() == [expected]


def test_server_side_cursor_and_many_rows_work_with_comments(engine: Engine, acme: SomeTenant) -> None:
    with tenant_scope(acme.id), tenant_sessionmaker(engine).begin() as session:
        session.execute(insert(Person), [{"name": f"%s {n} %%", "email": str(n)} for n in range(1_500)])
        session.connection().execute(
            text("UPDATE people SET name = :new WHERE email = :email"),
            [{"new": "100 %", "email": str(n)} for n in range(3)],
        )
        streamed = session.scalars(select(Person.name).execution_options(yield_per=100))

        assert sorted(streamed)[:4] == ["%s 10 %%", "%s 100 %%", "%s 1000 %%", "%s 1001 %%"]


def test_comment_does_not_hide_a_statement_from_the_guard(engine: Engine, acme: SomeTenant) -> None:
    """T067"""
    with tenant_scope(acme.id), engine.connect() as connection, pytest.raises(StatementRefusedError):
        connection.execute(text("SET LOCAL app.tenant_id = 'x' --"))


def test_conversions_are_bounded_and_right_in_threads_and_for_texts_that_never_come_again(
    engine: Engine, make_tenant: Callable[..., SomeTenant]
) -> None:
    """Each tenant's comment makes another text; what is remembered of one must not answer for another."""
    tenants = [make_tenant(f"many{number}") for number in range(24)]
    sessions = tenant_sessionmaker(engine)
    forget_conversions()

    def work(tenant: SomeTenant) -> set[str]:
        rows = [{"name": f"{tenant.slug} {n}", "email": str(n)} for n in range(150)]
        with tenant_scope(tenant.id), sessions.begin() as session:
            session.execute(insert(Person), rows)
        with tenant_scope(tenant.id), sessions() as session:
            return {name.rpartition(" ")[0] for name in session.scalars(select(Person.name))}

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, tenants))

    assert found == [{tenant.slug} for tenant in tenants]
    assert 0 < kept_conversions() <= 16
    forget_conversions()
