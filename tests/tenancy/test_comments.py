"""SQL comments say whose statement it is, to the server and to nobody who could misuse them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, insert, select, text
from sqlalchemy.orm import Session

from tenancy.binding import create_tenant_engine
from tenancy.comments import Tags, comment, comment_statements
from tenancy.context import platform_scope, tenant_scope
from tenancy.session import tenant_sessionmaker
from tests.conftest import ROLES, Database, SomeTenant
from tests.models import Company, Person

ACME = UUID("0190f5f1-0000-7000-8000-00000000000a")
MY_QUERY = "SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()"


@pytest.fixture
def commented(database: Database) -> Iterator[Callable[..., Engine]]:
    made: list[Engine] = []

    def make(tags: Tags | None = None) -> Engine:
        made.append(create_tenant_engine(database.url(ROLES.app)))
        comment_statements(made[-1], tags)
        return made[-1]

    yield make
    for engine in made:
        engine.dispose()


def test_server_sees_the_tenant_and_the_tags_beside_the_statement(
    commented: Callable[..., Engine], acme: SomeTenant
) -> None:
    engine = commented(lambda: {"request_id": "7f3a", "route": "/api/v1/people"})

    with tenant_scope(acme.id), engine.connect() as connection:
        seen = connection.execute(text(MY_QUERY)).scalar_one()

    assert seen == f"{MY_QUERY} /*request_id='7f3a',route='/api/v1/people',tenant_id='{acme.id}'*/"


def test_tags_are_asked_for_each_statement(commented: Callable[..., Engine], acme: SomeTenant) -> None:
    asked = iter(["one", "two"])
    engine = commented(lambda: {"request_id": next(asked)})

    seen = []
    for _ in range(2):  # in a transaction each: what the server shows of activity, it shows once a transaction
        with tenant_scope(acme.id), engine.connect() as connection:
            seen.append(connection.execute(text(MY_QUERY)).scalar_one())

    assert ["'one'" in seen[0], "'two'" in seen[1]] == [True, True]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("*/ DROP TABLE people; --", "_/_DROP_TABLE_people__--"),
        ("'; SELECT 1", "___SELECT_1"),
        ("100%s %(x)s", "100_s___x_s"),
        ("a\nb\x00c", "a_b_c"),
        ("/* nested", "/__nested"),
        ("ümläut", "_ml_ut"),
        ("x" * 500, "x" * 200),
    ],
)
def test_tag_cannot_get_out_of_its_comment(given: str, expected: str) -> None:
    with tenant_scope(ACME):
        assert comment(lambda: {"note": given}) == f"/*note='{expected}',tenant_id='{ACME}'*/"


def test_hostile_tag_harms_no_statement(
    commented: Callable[..., Engine], acme: SomeTenant, globex: SomeTenant, person_of: Callable[..., UUID]
) -> None:
    person_of(acme, "Ada")
    person_of(globex, "Eve")
    engine = commented(lambda: {"user_agent": f"*/; SET LOCAL app.tenant_id = '{globex.id}' /* %s %(tenant)s"})

    with tenant_scope(acme.id), tenant_sessionmaker(engine)() as session:
        assert session.scalars(select(Person.name)).all() == ["Ada"]


def test_nothing_is_appended_where_there_is_nothing_to_say() -> None:
    assert comment() == ""
    assert comment(lambda: {"request_id": ""}) == ""
    with platform_scope(actor="ana", reason="report"):
        assert comment() == ""


def test_orm_and_bulk_statements_work_with_comments(commented: Callable[..., Engine], acme: SomeTenant) -> None:
    engine = commented(lambda: {"request_id": "7f3a"})

    with tenant_scope(acme.id), tenant_sessionmaker(engine).begin() as session:
        session.add(Company(name="Engines Ltd"))
        session.flush()
        session.execute(insert(Company), [{"name": f"Company {number}"} for number in range(5)])
        found = session.scalars(select(Company.name).where(Company.name.like("Company 3%"))).all()

    assert found == ["Company 3"]


def test_statements_are_not_prepared_one_for_each_tenant(commented: Callable[..., Engine], acme: SomeTenant) -> None:
    engine = commented()

    with tenant_scope(acme.id), engine.connect() as connection:
        for _ in range(8):
            connection.execute(select(Person.name))
        prepared = connection.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar_one()

    assert prepared == 0


def test_engine_without_comments_sends_none(database: Database, acme: SomeTenant) -> None:
    engine = create_tenant_engine(database.url(ROLES.app))

    with tenant_scope(acme.id), Session(engine) as session:
        seen: Any = session.scalar(text(MY_QUERY))

    assert seen == MY_QUERY
    engine.dispose()
