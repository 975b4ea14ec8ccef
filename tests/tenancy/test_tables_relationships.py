from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Column, Table, Uuid, select
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, configure_mappers, joinedload, selectinload, sessionmaker

from tenancy.context import tenant_scope
from tenancy.errors import ModelError
from tenancy.session import TenantSession
from tenancy.tables import TenantForeignKey, TenantTable, tenant_column, tenant_relationship
from tests.conftest import SomeTenant
from tests.models import Company, Note, Person, Tag

Sessions = sessionmaker[TenantSession]


@pytest.fixture
def ada(acme: SomeTenant, sessions: Sessions) -> UUID:
    """Ada, of Engines, who reports to Ann and is tagged."""
    with tenant_scope(acme.id), sessions.begin() as session:
        person = Person(
            name="Ada",
            email="ada@test.example",
            company=Company(name="Engines"),
            manager=Person(name="Ann", email="ann@test.example"),
            tags=[Tag(label="first"), Tag(label="second")],
        )
        session.add(person)
        session.flush()
        return person.id


def test_many_to_one_set_to_none_blanks_only_its_column(acme: SomeTenant, ada: UUID, sessions: Sessions) -> None:
    with tenant_scope(acme.id):
        with sessions.begin() as session:
            session.get_one(Person, ada).company = None
        with sessions() as session:
            person = session.get_one(Person, ada)
            assert (person.company_id, person.tenant_id) == (None, acme.id)


def test_removal_from_one_to_many_blanks_only_its_column(acme: SomeTenant, ada: UUID, sessions: Sessions) -> None:
    with tenant_scope(acme.id):
        with sessions.begin() as session:
            company = session.scalars(select(Company)).one()
            company.people.clear()
        with sessions() as session:
            person = session.get_one(Person, ada)
            assert (person.company_id, person.tenant_id) == (None, acme.id)


def test_one_to_many_sets_the_foreign_key_of_what_is_appended(
    acme: SomeTenant, person_of: Callable[..., UUID], ada: UUID, sessions: Sessions
) -> None:
    bob = person_of(acme, "Bob")

    with tenant_scope(acme.id):
        with sessions.begin() as session:
            company = session.scalars(select(Company)).one()
            company.people.append(session.get_one(Person, bob))
        with sessions() as session:
            employer = session.get_one(Person, bob).company
            assert employer is not None
            assert sorted(person.name for person in employer.people) == ["Ada", "Bob"]


def test_both_sides_know_each_other_before_a_flush(acme: SomeTenant) -> None:
    with tenant_scope(acme.id):
        company = Company(name="Engines")
        person = Person(name="Ada", email="ada@test.example", company=company)

    assert company.people == [person]


def test_self_referential_relationship_goes_both_ways(acme: SomeTenant, ada: UUID, sessions: Sessions) -> None:
    with tenant_scope(acme.id), sessions() as session:
        manager = session.get_one(Person, ada).manager
        assert manager is not None
        assert (manager.name, [report.name for report in manager.reports]) == ("Ann", ["Ada"])
        assert manager.manager is None


def test_many_to_many_links_and_unlinks_within_the_tenant(acme: SomeTenant, ada: UUID, sessions: Sessions) -> None:
    with tenant_scope(acme.id):
        with sessions.begin() as session:
            person = session.get_one(Person, ada)
            assert sorted(tag.label for tag in person.tags) == ["first", "second"]
            person.tags = [tag for tag in person.tags if tag.label == "second"]
        with sessions() as session:
            assert [tag.label for tag in session.get_one(Person, ada).tags] == ["second"]
            first = session.scalars(select(Tag).where(Tag.label == "first")).one()
            assert (first.people, first.tenant_id) == ([], acme.id)


@pytest.mark.parametrize("load", [joinedload, selectinload])
def test_relationships_are_loaded_together(acme: SomeTenant, ada: UUID, sessions: Sessions, load: Any) -> None:
    statement = select(Person).where(Person.id == ada).options(load(Person.company), load(Person.tags))

    with tenant_scope(acme.id), sessions() as session:
        person = session.scalars(statement).unique().one()
        session.expunge(person)

    assert person.company is not None
    assert (person.company.name, len(person.tags)) == ("Engines", 2)


def test_many_to_one_is_found_in_the_identity_map(acme: SomeTenant, ada: UUID, sessions: Sessions) -> None:
    with tenant_scope(acme.id), sessions() as session:
        company = session.scalars(select(Company)).one()
        assert session.get_one(Person, ada).company is company


def test_deleted_parent_leaves_its_children_without_it(acme: SomeTenant, ada: UUID, sessions: Sessions) -> None:
    """T045: in the database, not through the session."""
    with tenant_scope(acme.id):
        with sessions.begin() as session:
            session.connection().exec_driver_sql("DELETE FROM companies")
        with sessions() as session:
            person = session.get_one(Person, ada)
            assert (person.company_id, person.tenant_id) == (None, acme.id)


def test_deleted_parent_takes_what_cascades(acme: SomeTenant, ada: UUID, sessions: Sessions) -> None:
    with tenant_scope(acme.id):
        with sessions.begin() as session:
            session.add(Note(body="about Ada", person_id=ada))
        with sessions.begin() as session:
            session.delete(session.get_one(Person, ada))
        with sessions() as session:
            assert session.scalars(select(Note)).all() == []


# Declarations that cannot be resolved -----------------------------------------------------------------


def test_relationship_needs_a_column_or_a_link() -> None:
    with pytest.raises(ModelError, match="needs a foreign key column or a link table"):
        tenant_relationship()


def configured(declare: Callable[[type[DeclarativeBase]], tuple[type[Any], ...]]) -> None:
    class Own(DeclarativeBase):
        pass

    models = declare(Own)  # held, or a class that nobody refers to could be collected before it is looked for
    try:
        configure_mappers()
    finally:
        del models
        Own.registry.dispose()


def _no_foreign_key(own: type[Any]) -> tuple[type[Any], ...]:
    class Plan(TenantTable, own):
        __tablename__ = "plans"

    class Seat(TenantTable, own):
        __tablename__ = "seats"
        plan_id: Mapped[UUID]
        plan: Mapped[Plan] = tenant_relationship("plan_id")

    return Plan, Seat


def _wrong_target(own: type[Any]) -> tuple[type[Any], ...]:
    class Plan(TenantTable, own):
        __tablename__ = "plans"
        seats: Mapped[list[Any]] = tenant_relationship("Seat.plan_id", argument="Seat")

    class Other(TenantTable, own):
        __tablename__ = "others"

    class Seat(TenantTable, own):
        __tablename__ = "seats"
        plan_id: Mapped[UUID]
        __table_args__ = (TenantForeignKey("plan_id", "others"),)

    return Plan, Other, Seat


def _unknown_class(own: type[Any]) -> tuple[type[Any], ...]:
    class Plan(TenantTable, own):
        __tablename__ = "plans"
        seats: Mapped[list[Any]] = tenant_relationship("Seat.plan_id", argument="Plan")

    return (Plan,)


def _link(own: type[Any], columns: dict[str, str], **options: Any) -> tuple[type[Any], ...]:
    Table(
        "links",
        own.metadata,
        tenant_column(),
        *(Column(name, Uuid, primary_key=True) for name in columns),
        *(TenantForeignKey(name, target) for name, target in columns.items()),
    )

    class Plan(TenantTable, own):
        __tablename__ = "plans"
        others: Mapped[list[Any]] = tenant_relationship(secondary="links", argument="Other", **options)

    class Other(TenantTable, own):
        __tablename__ = "others"

    return Plan, Other


@pytest.mark.parametrize(
    ("declare", "fault"),
    [
        (_no_foreign_key, r"no tenant foreign key on seats\.plan_id"),
        (_wrong_target, r"no tenant foreign key on seats\.plan_id to 'plans'"),
        (_unknown_class, "no mapped class is named 'Seat'"),
        (lambda own: _link(own, {"one_id": "plans", "two_id": "plans"}), "points 2 times at 'plans'"),
        (lambda own: _link(own, {"other_id": "others"}), "points 0 times at 'plans'"),
        (lambda own: _link(own, {"one_id": "plans"}), "has 0 foreign keys besides 'one_id'"),
    ],
)
def test_relationship_that_cannot_be_resolved_says_why(
    declare: Callable[[type[DeclarativeBase]], object], fault: str
) -> None:
    with pytest.raises(ModelError, match=fault):
        configured(declare)


def test_link_that_points_twice_at_one_table_is_told_its_column() -> None:
    class Own(DeclarativeBase):
        pass

    Table(
        "friends",
        Own.metadata,
        tenant_column(),
        Column("one_id", Uuid, primary_key=True),
        Column("two_id", Uuid, primary_key=True),
        TenantForeignKey("one_id", "members"),
        TenantForeignKey("two_id", "members"),
    )

    class Member(TenantTable, Own):
        __tablename__ = "members"
        friends: Mapped[list[Any]] = tenant_relationship("one_id", secondary="friends", argument="Member")

    friend = aliased(Member)
    joined = str(select(Member.id).join(Member.friends.of_type(friend)).compile())

    assert "friends_1.tenant_id = members.tenant_id AND friends_1.one_id = members.id" in joined
    assert "members_1.tenant_id = friends_1.tenant_id AND friends_1.two_id = members_1.id" in joined
