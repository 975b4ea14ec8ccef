"""T084-T086: every way the ORM reads and writes reaches the rows of one tenant."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import (
    Engine,
    delete,
    event,
    exists,
    func,
    insert,
    lambda_stmt,
    literal,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session, aliased, joinedload, raiseload, selectinload, sessionmaker, subqueryload
from uuid_utils.compat import uuid7

from tenancy.context import tenant_scope
from tenancy.errors import WrongTenantError
from tenancy.session import TenantSession
from tests.conftest import SomeTenant
from tests.models import Base, Company, Note, Person

people = Base.metadata.tables["people"]
Reading = Callable[[Session], list[str]]


@pytest.fixture(autouse=True)
def rows(acme: SomeTenant, globex: SomeTenant, sessions: sessionmaker[TenantSession]) -> None:
    """The same shape in both tenants: a company, a manager, a person with a note."""
    for tenant, company, manager, person in ((acme, "Engines", "Ann", "Ada"), (globex, "Gadgets", "Edd", "Eve")):
        with tenant_scope(tenant.id), sessions.begin() as session:
            boss = Person(name=manager, email=f"{manager}@test.example")
            worker = Person(name=person, email=f"{person}@test.example", manager=boss, company=Company(name=company))
            session.add(worker)
            session.flush()
            session.add(Note(body=f"about {person}", person_id=worker.id))


def names(found: Any) -> list[str]:
    return sorted(found)


def _aliased(session: Session) -> list[str]:
    other = aliased(Person)
    return names(session.scalars(select(other.name).where(other.name != "")))


def _aliased_join(session: Session) -> list[str]:
    boss = aliased(Person)
    return names(
        f"{name}<{above}" for name, above in session.execute(select(Person.name, boss.name).join(boss, Person.manager))
    )


def _cte(session: Session) -> list[str]:
    found = select(Person).cte("found")
    return names(session.scalars(select(found.c.name)))


def _core_cte(session: Session) -> list[str]:
    found = select(people.c.name).cte("found")
    return names(session.scalars(select(found.c.name)))


def _recursive_cte(session: Session) -> list[str]:
    top = select(people.c.id, people.c.name).where(people.c.manager_id.is_(None)).cte("tree", recursive=True)
    tree = top.union_all(select(people.c.id, people.c.name).where(people.c.manager_id == top.c.id))
    return names(session.scalars(select(tree.c.name)))


def _with(*options: Any) -> Reading:
    def read(session: Session) -> list[str]:
        found = session.scalars(select(Company).options(*options)).unique().all()
        return names(person.name for company in found for person in company.people)

    return read


def _refreshed(session: Session) -> list[str]:
    found = session.scalars(select(Person)).all()
    for person in found:
        session.expire(person)
        session.refresh(person)
    return names(person.name for person in found)


def _lazy(session: Session) -> list[str]:
    person = session.scalars(select(Person).where(Person.manager_id.is_not(None))).one()
    return names([person.name, *(p.name for p in [person.manager] if p)])


READINGS: dict[str, tuple[Reading, list[str], list[str]]] = {
    "select entity": (lambda s: names(p.name for p in s.scalars(select(Person))), ["Ada", "Ann"], ["Edd", "Eve"]),
    "select column": (lambda s: names(s.scalars(select(Person.name))), ["Ada", "Ann"], ["Edd", "Eve"]),
    "query": (lambda s: names(p.name for p in s.query(Person)), ["Ada", "Ann"], ["Edd", "Eve"]),
    "text": (lambda s: names(s.scalars(text("SELECT name FROM people"))), ["Ada", "Ann"], ["Edd", "Eve"]),
    "core table": (lambda s: names(s.scalars(select(people.c.name))), ["Ada", "Ann"], ["Edd", "Eve"]),
    "connection": (
        lambda s: names(s.connection().scalars(select(people.c.name))),
        ["Ada", "Ann"],
        ["Edd", "Eve"],
    ),
    "driver text": (
        lambda s: names(s.connection().exec_driver_sql("SELECT name FROM people").scalars()),
        ["Ada", "Ann"],
        ["Edd", "Eve"],
    ),
    "from_statement": (
        lambda s: names(
            p.name for p in s.scalars(select(Person).from_statement(text("SELECT * FROM people ORDER BY id")))
        ),
        ["Ada", "Ann"],
        ["Edd", "Eve"],
    ),
    "union": (
        lambda s: names(s.scalars(union_all(select(Person.name), select(Company.name)))),
        ["Ada", "Ann", "Engines"],
        ["Edd", "Eve", "Gadgets"],
    ),
    "cte": (_cte, ["Ada", "Ann"], ["Edd", "Eve"]),
    "core cte": (_core_cte, ["Ada", "Ann"], ["Edd", "Eve"]),
    "recursive cte": (_recursive_cte, ["Ada", "Ann"], ["Edd", "Eve"]),
    "exists": (
        lambda s: names(s.scalars(select(Company.name).where(exists().where(Person.company_id == Company.id)))),
        ["Engines"],
        ["Gadgets"],
    ),
    "has": (
        lambda s: names(s.scalars(select(Person.name).where(Person.company.has(Company.name != "")))),
        ["Ada"],
        ["Eve"],
    ),
    "scalar subquery": (
        lambda s: [str(s.scalar(select(select(func.count(Person.id)).scalar_subquery())))],
        ["2"],
        ["2"],
    ),
    "aggregate": (lambda s: [str(s.scalar(select(func.max(Person.name))))], ["Ann"], ["Eve"]),
    "aliased": (_aliased, ["Ada", "Ann"], ["Edd", "Eve"]),
    "aliased join": (_aliased_join, ["Ada<Ann"], ["Eve<Edd"]),
    "lazy load": (_lazy, ["Ada", "Ann"], ["Edd", "Eve"]),
    "joined load": (_with(joinedload(Company.people)), ["Ada"], ["Eve"]),
    "selectin load": (_with(selectinload(Company.people)), ["Ada"], ["Eve"]),
    "subquery load": (_with(subqueryload(Company.people)), ["Ada"], ["Eve"]),
    "selectin load, then raise": (
        _with(selectinload(Company.people).options(raiseload(Person.manager))),
        ["Ada"],
        ["Eve"],
    ),
    "refresh": (_refreshed, ["Ada", "Ann"], ["Edd", "Eve"]),
    "yield_per": (
        lambda s: names(s.scalars(select(Person.name).execution_options(yield_per=1))),
        ["Ada", "Ann"],
        ["Edd", "Eve"],
    ),
    "lambda_stmt": (
        lambda s: names(s.scalars(lambda_stmt(lambda: select(Person.name)))),
        ["Ada", "Ann"],
        ["Edd", "Eve"],
    ),
}


@pytest.mark.parametrize("kind", READINGS)
def test_reading_gives_the_tenants_rows_under_a_b_a(
    kind: str, acme: SomeTenant, globex: SomeTenant, sessions: sessionmaker[TenantSession]
) -> None:
    """T085, T086: the compiled statement is cached by the first tenant and used by the second."""
    read, of_acme, of_globex = READINGS[kind]
    found = []

    for tenant in (acme, globex, acme):
        with tenant_scope(tenant.id), sessions() as session:
            found.append(read(session))

    assert found == [of_acme, of_globex, of_acme]


def test_statement_is_compiled_once_for_all_tenants(
    acme: SomeTenant, globex: SomeTenant, sessions: sessionmaker[TenantSession], app_engine: Engine
) -> None:
    """T086: a cache hit, and the parameter is the tenant in scope."""
    statement = select(Person.name).where(Person.name != literal("nobody", literal_execute=False))
    seen: list[tuple[str, object]] = []

    def record(_c: object, _cursor: object, _sql: str, parameters: dict[str, object], context: Any, _m: bool) -> None:
        seen.append((context.cache_hit.name, next(v for k, v in parameters.items() if "tenant" in k)))

    event.listen(app_engine, "before_cursor_execute", record)
    try:
        for tenant in (acme, globex, acme):
            with tenant_scope(tenant.id), sessions() as session:
                session.scalars(statement).all()
    finally:
        event.remove(app_engine, "before_cursor_execute", record)

    assert [hit for hit, _ in seen[1:]] == ["CACHE_HIT", "CACHE_HIT"]
    assert [tenant for _, tenant in seen] == [acme.id, globex.id, acme.id]


@pytest.mark.parametrize("loading", ["lazy", "joined", "selectin", "subquery"])
def test_every_statement_of_a_load_names_the_tenant(
    acme: SomeTenant, sessions: sessionmaker[TenantSession], app_engine: Engine, loading: str
) -> None:
    """The explicit predicate serves plans and shard routing: RLS alone prunes no shard."""
    options = {"joined": joinedload, "selectin": selectinload, "subquery": subqueryload}
    statement = select(Company)
    if loading in options:
        statement = statement.options(options[loading](Company.people))
    texts: list[str] = []

    def record(_connection: object, _cursor: object, sql: str, *_: object) -> None:
        texts.append(sql)

    event.listen(app_engine, "before_cursor_execute", record)
    try:
        with tenant_scope(acme.id), sessions() as session:
            found = [person.name for c in session.scalars(statement).unique() for person in c.people]
    finally:
        event.remove(app_engine, "before_cursor_execute", record)

    assert found == ["Ada"]
    assert len(texts) == (1 if loading == "joined" else 2)
    assert all("tenant_id = %(" in sql or "tenant_id) IN" in sql for sql in texts)


# Writing ----------------------------------------------------------------------------------------------


def _mail() -> str:
    return f"{uuid7().hex}@test.example"


WRITINGS: dict[str, Callable[[Session], object]] = {
    "add": lambda s: s.add(Person(name="New", email=_mail())),
    "insert": lambda s: s.execute(insert(Person).values(name="New", email=_mail())),
    "insert many": lambda s: s.execute(insert(Person), [{"name": "New", "email": _mail()}]),
    "insert returning": lambda s: s.scalars(insert(Person).returning(Person), [{"name": "New", "email": _mail()}]),
    "core insert": lambda s: s.execute(people.insert().values(name="New", email=_mail())),
    "bulk_insert_mappings": lambda s: s.bulk_insert_mappings(Person, [{"name": "New", "email": _mail()}]),
    "bulk_save_objects": lambda s: s.bulk_save_objects([Person(name="New", email=_mail())]),
    "insert from select": lambda s: s.execute(
        people.insert().from_select(["name", "email"], select(literal("New"), literal(_mail())), include_defaults=True)
    ),
    "upsert": lambda s: s.execute(
        upsert(Person).values(name="New", email=_mail()).on_conflict_do_update(
            index_elements=["tenant_id", "email"], set_={"name": "New"}
        )
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRITINGS)
def test_writing_without_a_tenant_id_lands_in_the_tenant_in_scope(
    kind: str, acme: SomeTenant, globex: SomeTenant, sessions: sessionmaker[TenantSession], truth: Any
) -> None:
    """T084"""
    for tenant in (acme, globex, acme):
        with tenant_scope(tenant.id), sessions.begin() as session:
            WRITINGS[kind](session)

    counted = "SELECT count(*) FROM people WHERE name = 'New' AND tenant_id = %s"
    assert truth.execute(counted, [acme.id]).fetchone() == (2,)
    assert truth.execute(counted, [globex.id]).fetchone() == (1,)


FOREIGN_WRITINGS: dict[str, Callable[[Session, UUID], object]] = {
    "insert": lambda s, b: s.execute(insert(Person).values(tenant_id=b, name="New", email=_mail())),
    "insert many": lambda s, b: s.execute(insert(Person), [{"tenant_id": b, "name": "New", "email": _mail()}]),
    "core insert": lambda s, b: s.execute(people.insert().values(tenant_id=b, name="New", email=_mail())),
    "bulk_insert_mappings": lambda s, b: s.bulk_insert_mappings(
        Person,
        [{"tenant_id": b, "name": "New", "email": _mail()}],
    ),
    "insert from select": lambda s, b: s.execute(
        people.insert().from_select(["tenant_id", "name", "email"], select(literal(b), literal("N"), literal(_mail())))
    ),
    "upsert": lambda s, b: s.execute(
        upsert(Person).values(tenant_id=b, name="New", email="Eve@test.example").on_conflict_do_update(
            index_elements=["tenant_id", "email"], set_={"name": "New"}
        )
    ),
    "update": lambda s, b: s.execute(update(Person).values(tenant_id=b)),
    "core update": lambda s, b: s.execute(people.update().values(tenant_id=b)),
    "text update": lambda s, b: s.execute(
        text("UPDATE people SET tenant_id = :b WHERE name = 'Ada'"), {"b": b}
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN_WRITINGS)
def test_writing_with_another_tenants_id_is_refused_by_the_database(
    kind: str, acme: SomeTenant, globex: SomeTenant, sessions: sessionmaker[TenantSession], truth: Any
) -> None:
    """T007, T008, T083, T084"""
    counted = "SELECT string_agg(name, ' ' ORDER BY name) FROM people WHERE tenant_id = %s"
    assert truth.execute(counted, [globex.id]).fetchone() == ("Edd Eve",)

    def write() -> None:
        with tenant_scope(acme.id), sessions.begin() as session:
            FOREIGN_WRITINGS[kind](session, globex.id)

    with pytest.raises(ProgrammingError, match=r"row-level security|permission denied"):
        write()
    assert truth.execute(counted, [globex.id]).fetchone() == ("Edd Eve",)
    assert truth.execute(counted, [acme.id]).fetchone() == ("Ada Ann",)


def test_bulk_save_of_another_tenants_object_is_refused(
    acme: SomeTenant, globex: SomeTenant, sessions: sessionmaker[TenantSession], truth: Any
) -> None:
    """T084: bulk_save_objects attaches nothing, so the database is what refuses."""
    with tenant_scope(globex.id):
        theirs = Person(name="New", email=_mail())

    with tenant_scope(acme.id), sessions() as session, pytest.raises((ProgrammingError, WrongTenantError)):
        session.bulk_save_objects([theirs])
    assert truth.execute(
        "SELECT count(*) FROM people WHERE name = 'New' AND email = %s", [theirs.email]
    ).fetchone() == (0,)


@pytest.mark.parametrize("way", ["orm", "core", "text"])
def test_update_and_delete_without_where_touch_one_tenant(
    way: str, acme: SomeTenant, globex: SomeTenant, sessions: sessionmaker[TenantSession], truth: Any
) -> None:
    """T085"""
    updates: dict[str, Any] = {
        "orm": update(Person).values(name="Changed"),
        "core": people.update().values(name="Changed"),
        "text": text("UPDATE people SET name = 'Changed'"),
    }
    deletes: dict[str, Any] = {
        "orm": delete(Note),
        "core": Base.metadata.tables["notes"].delete(),
        "text": text("DELETE FROM notes"),
    }

    with tenant_scope(acme.id), sessions.begin() as session:
        changed = session.execute(updates[way]).rowcount  # type: ignore[attr-defined]
        deleted = session.execute(deletes[way]).rowcount  # type: ignore[attr-defined]

    assert (changed, deleted) == (2, 1)
    found = truth.execute("SELECT name FROM people WHERE tenant_id = %s ORDER BY name", [globex.id]).fetchall()
    assert found == [("Edd",), ("Eve",)]
    assert truth.execute("SELECT body FROM notes WHERE tenant_id = %s", [globex.id]).fetchall() == [("about Eve",)]
