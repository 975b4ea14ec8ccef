"""Statements made at random give what a filter by tenant, written in Python, gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import ColumnElement, Engine, and_, delete, not_, or_, select, update
from sqlalchemy.orm import Session, aliased
from uuid_utils.compat import uuid7

from tenancy.binding import create_tenant_engine
from tenancy.context import tenant_scope
from tenancy.session import tenant_sessionmaker
from tests.conftest import ROLES, Database
from tests.models import Base, Company, Person

TENANTS = (UUID(int=1 << 64), UUID(int=2 << 64))
# The tenants use the same ids and names, so a row of the other is never far from any condition.
IDS = [UUID(int=n) for n in range(1, 7)]
NAMES = ["Ada", "Adam", "Bob", ""]
companies, people = Base.metadata.tables["companies"], Base.metadata.tables["people"]


@dataclass(frozen=True)
class Row:
    tenant_id: UUID
    id: UUID
    name: str
    company_id: UUID | None = None


@dataclass(frozen=True)
class Snapshot:
    """What a superuser sees, and what of it is one tenant's."""

    companies: frozenset[Row]
    people: frozenset[Row]

    def of(self, tenant: UUID) -> Snapshot:
        return Snapshot(
            frozenset(row for row in self.companies if row.tenant_id == tenant),
            frozenset(row for row in self.people if row.tenant_id == tenant),
        )


Truth = bool | None  # SQL's three values


@dataclass(frozen=True)
class Condition:
    """A condition on people: as SQL, and as a predicate over a row and what its tenant has. None is unknown."""

    sql: ColumnElement[bool]
    holds: Callable[[Row, Snapshot], Truth]
    text: str = field(default="")

    def __repr__(self) -> str:
        return self.text


def _company(row: Row, seen: Snapshot) -> Row | None:
    return next((company for company in seen.companies if company.id == row.company_id), None)


def named(name: str) -> Condition:
    return Condition(Person.name == name, lambda row, _: row.name == name, f"name = {name!r}")


def starting(start: str) -> Condition:
    return Condition(Person.name.startswith(start), lambda row, _: row.name.startswith(start), f"name ^ {start!r}")


def with_id(ids: list[UUID]) -> Condition:
    return Condition(Person.id.in_(ids), lambda row, _: row.id in ids, f"id in {[found.int for found in ids]}")


def employed_by(company: UUID) -> Condition:
    def holds(row: Row, _: Snapshot) -> Truth:
        return None if row.company_id is None else row.company_id == company

    return Condition(Person.company_id == company, holds, f"company_id = {company.int}")


def unemployed() -> Condition:
    return Condition(Person.company_id.is_(None), lambda row, _: row.company_id is None, "company_id is null")


def employed_by_one_named(name: str) -> Condition:
    def holds(row: Row, seen: Snapshot) -> Truth:
        found = _company(row, seen)
        return found is not None and found.name == name

    return Condition(Person.company.has(Company.name == name), holds, f"company named {name!r}")


def named_like_a_company() -> Condition:
    def holds(row: Row, seen: Snapshot) -> Truth:
        return row.name in {company.name for company in seen.companies}

    return Condition(people.c.name.in_(select(companies.c.name)), holds, "named like a company")


def negated(one: Condition) -> Condition:
    def holds(row: Row, seen: Snapshot) -> Truth:
        found = one.holds(row, seen)
        return None if found is None else not found

    return Condition(not_(one.sql), holds, f"not ({one})")


def both(one: Condition, other: Condition) -> Condition:
    def holds(row: Row, seen: Snapshot) -> Truth:
        found = {one.holds(row, seen), other.holds(row, seen)}
        return False if False in found else None if None in found else True

    return Condition(and_(one.sql, other.sql), holds, f"({one} and {other})")


def either(one: Condition, other: Condition) -> Condition:
    def holds(row: Row, seen: Snapshot) -> Truth:
        found = {one.holds(row, seen), other.holds(row, seen)}
        return True if True in found else None if None in found else False

    return Condition(or_(one.sql, other.sql), holds, f"({one} or {other})")


LEAVES = st.one_of(
    st.builds(named, st.sampled_from(NAMES)),
    st.builds(starting, st.sampled_from(["A", "Ad", ""])),
    st.builds(with_id, st.lists(st.sampled_from(IDS), max_size=4)),
    st.builds(employed_by, st.sampled_from(IDS)),
    st.builds(unemployed),
    st.builds(employed_by_one_named, st.sampled_from(NAMES)),
    st.builds(named_like_a_company),
)
CONDITIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.builds(negated, inner), st.builds(both, inner, inner), st.builds(either, inner, inner)),
    max_leaves=5,
)


# The forms of a statement: each gives the people for whom the condition holds -------------------------


def _entities(session: Session, condition: Condition) -> Any:
    return [(person.tenant_id, person.id) for person in session.scalars(select(Person).where(condition.sql))]


def _core(session: Session, condition: Condition) -> Any:
    return session.execute(select(people.c.tenant_id, people.c.id).where(condition.sql))


def _of_subquery(session: Session, condition: Condition) -> Any:
    inner = select(people.c.tenant_id, people.c.id).where(condition.sql).subquery()
    return session.execute(select(inner.c.tenant_id, inner.c.id))


def _union(session: Session, condition: Condition) -> Any:
    inner = select(people.c.tenant_id, people.c.id).where(condition.sql)
    return session.execute(inner.union(inner))


def _joined_to_itself(session: Session, condition: Condition) -> Any:
    other = aliased(Person)
    joined = select(other.tenant_id, other.id).join(Person, Person.id == other.id).where(condition.sql)
    return session.execute(joined)


def _loose_join(session: Session, condition: Condition) -> Any:
    """Without a key between them: every company beside every person."""
    wanted = select(Person.tenant_id, Person.id).join(Company, Company.id != Person.id, isouter=True)
    return session.execute(wanted.where(condition.sql).distinct())


def _updated(session: Session, condition: Condition) -> Any:
    changed = update(Person).where(condition.sql).values(name="changed").returning(Person.tenant_id, Person.id)
    return session.execute(changed.execution_options(synchronize_session=False))


def _deleted(session: Session, condition: Condition) -> Any:
    gone = delete(Person).where(condition.sql).returning(Person.tenant_id, Person.id)
    return session.execute(gone.execution_options(synchronize_session=False))


FORMS = [_entities, _core, _of_subquery, _union, _joined_to_itself, _loose_join, _updated, _deleted]


@pytest.fixture(scope="module")
def module_database(template: Any, worker: str) -> Iterator[Database]:
    """A database for all examples of this file, which change nothing that is committed."""
    name = template.clone(f"random_{worker}")
    yield Database(template.server, name)
    template.drop(name)


@pytest.fixture(scope="module")
def engine(module_database: Database) -> Iterator[Engine]:
    made = create_tenant_engine(module_database.url(ROLES.app))
    yield made
    made.dispose()


def _rows(truth: psycopg.Connection[Any], query: str) -> frozenset[Row]:
    return frozenset(Row(*found) for found in truth.execute(query.encode()).fetchall())


@pytest.fixture(scope="module")
def snapshot(module_database: Database) -> Snapshot:
    """Three companies and six people in each tenant, under the same ids."""
    with module_database.connect("postgres") as truth:
        for number, tenant in enumerate(TENANTS):
            truth.execute(
                "INSERT INTO tenants (tenant_id, slug, name, status) VALUES (%s, %s, 'T', 'active')",
                [tenant, f"t{number}"],
            )
            names = [NAMES[(place + number) % len(NAMES)] for place in range(len(IDS))]
            for found, name in zip(IDS[:3], names, strict=False):
                truth.execute("INSERT INTO companies (tenant_id, id, name) VALUES (%s, %s, %s)", [tenant, found, name])
            for place, (found, name) in enumerate(zip(IDS, names, strict=True)):
                company = IDS[(place + number) % 3] if place % 3 else None
                truth.execute(
                    "INSERT INTO people (tenant_id, id, name, email, company_id) VALUES (%s, %s, %s, %s, %s)",
                    [tenant, found, name, uuid7().hex, company],
                )
        return Snapshot(
            _rows(truth, "SELECT tenant_id, id, name FROM companies"),
            _rows(truth, "SELECT tenant_id, id, name, company_id FROM people"),
        )


@pytest.mark.parametrize("form", FORMS)
@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(condition=CONDITIONS, tenant=st.sampled_from(TENANTS))
def test_random_statement_gives_what_a_filter_by_tenant_gives(
    engine: Engine, snapshot: Snapshot, form: Callable[..., Any], condition: Condition, tenant: UUID
) -> None:
    """T136"""
    seen = snapshot.of(tenant)
    expected = sorted((row.tenant_id, row.id) for row in seen.people if condition.holds(row, seen) is True)

    with tenant_scope(tenant), tenant_sessionmaker(engine)() as session:
        found = sorted(tuple(row) for row in form(session, condition))

    assert found == expected


def test_snapshot_holds_as_many_rows_of_each_tenant(snapshot: Snapshot) -> None:
    """T136: a comparison with nothing proves nothing."""
    found = [(len(snapshot.of(tenant).companies), len(snapshot.of(tenant).people)) for tenant in TENANTS]

    assert found == [(3, 6), (3, 6)]
