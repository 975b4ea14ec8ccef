"""T076-T083: objects and sessions never change tenant."""

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import make_transient, make_transient_to_detached, scoped_session, selectinload, sessionmaker
from sqlalchemy.orm.exc import DetachedInstanceError

from tenancy.context import current_tenant, tenant_scope
from tenancy.errors import NoTenantError, WrongTenantError
from tenancy.session import TenantSession
from tests.conftest import SomeTenant
from tests.models import Company, Person

Sessions = sessionmaker[TenantSession]
PersonOf = Callable[..., UUID]


@pytest.mark.parametrize("is_expired", [True, False])
def test_get_in_a_new_session_finds_no_foreign_object(
    acme: SomeTenant, globex: SomeTenant, person_of: PersonOf, sessions: Sessions, is_expired: bool
) -> None:
    """T077: while the object of the other tenant is still held."""
    ada = person_of(acme)

    with tenant_scope(acme.id), sessions(expire_on_commit=is_expired) as session:
        held = session.get(Person, ada)
        session.commit()
    with tenant_scope(globex.id), sessions() as session:
        assert session.get(Person, ada) is None

    assert held is not None


@pytest.mark.parametrize("is_expired", [True, False])
def test_get_in_the_same_session_is_refused_in_another_scope(
    acme: SomeTenant, globex: SomeTenant, person_of: PersonOf, sessions: Sessions, is_expired: bool
) -> None:
    """T077: the identity map would return the other tenant's object without asking the database."""
    ada = person_of(acme)

    with tenant_scope(acme.id), sessions(expire_on_commit=is_expired) as session:
        assert session.get(Person, ada) is not None
        session.commit()
        with tenant_scope(globex.id), pytest.raises(WrongTenantError, match="never changes tenant"):
            session.get(Person, ada)


def test_equal_ids_of_two_tenants_are_two_objects(acme: SomeTenant, globex: SomeTenant, sessions: Sessions) -> None:
    """T036, T078: A may use B's id, and the identities stay apart."""
    same = UUID("0199d000-0000-7000-8000-000000000001")
    for tenant, name in ((acme, "Ada"), (globex, "Eve")):
        with tenant_scope(tenant.id), sessions.begin() as session:
            session.add(Person(id=same, name=name, email="same@test.example"))

    with tenant_scope(acme.id), sessions() as in_acme:
        ada = in_acme.get_one(Person, same)
        with tenant_scope(globex.id), sessions() as in_globex:
            eve = in_globex.get_one(Person, same)
            key = Person.__mapper__.primary_key_from_instance(eve)

    assert (ada.name, eve.name) == ("Ada", "Eve")
    assert key == (globex.id, same)


def test_lazy_load_in_another_scope_raises(
    acme: SomeTenant, globex: SomeTenant, person_of: PersonOf, company_of: PersonOf, sessions: Sessions
) -> None:
    """T079: an error, not an empty list."""
    company = company_of(acme)
    person_of(acme, "Ada", company_id=company)

    with tenant_scope(acme.id), sessions() as session:
        engines = session.get_one(Company, company)
        with tenant_scope(globex.id), pytest.raises(WrongTenantError):
            _ = engines.people
        assert [person.name for person in engines.people] == ["Ada"]


def test_selectin_load_onto_an_object_in_another_scope_raises(
    acme: SomeTenant, globex: SomeTenant, company_of: PersonOf, sessions: Sessions
) -> None:
    """T079"""
    company = company_of(acme)

    with tenant_scope(acme.id), sessions() as session:
        assert session.get(Company, company) is not None
        with tenant_scope(globex.id), pytest.raises(WrongTenantError):
            session.scalars(select(Company).options(selectinload(Company.people))).all()


@pytest.mark.parametrize("way", ["refresh", "attribute", "populate_existing"])
def test_loading_an_expired_object_in_another_scope_raises(
    acme: SomeTenant, globex: SomeTenant, person_of: PersonOf, sessions: Sessions, way: str
) -> None:
    """T077, T079"""
    ada = person_of(acme)
    ways: dict[str, Callable[[TenantSession, Person], object]] = {
        "refresh": lambda session, person: session.refresh(person),
        "attribute": lambda _, person: person.name,
        "populate_existing": lambda session, _: session.get(Person, ada, populate_existing=True),
    }

    with tenant_scope(acme.id), sessions() as session:
        person = session.get_one(Person, ada)
        session.expire(person)
        with tenant_scope(globex.id), pytest.raises(WrongTenantError):
            ways[way](session, person)
        assert person.name == "Ada"


@pytest.mark.parametrize("way", ["add", "merge", "delete", "add_all", "merge without load"])
@pytest.mark.parametrize("is_expired", [True, False])
def test_detached_object_of_another_tenant_is_refused_before_sql(
    acme: SomeTenant,
    globex: SomeTenant,
    person_of: PersonOf,
    sessions: Sessions,
    way: str,
    is_expired: bool,
    truth: Any,
) -> None:
    """T080"""
    ada = person_of(acme)
    with tenant_scope(acme.id), sessions() as session:
        held = session.get_one(Person, ada)
        if is_expired:
            session.expire(held)
        session.expunge(held)
    ways: dict[str, Callable[[TenantSession], object]] = {
        "add": lambda session: session.add(held),
        "add_all": lambda session: session.add_all([held]),
        "merge": lambda session: session.merge(held),
        "merge without load": lambda session: session.merge(held, load=False),
        "delete": lambda session: session.delete(held),
    }

    with tenant_scope(globex.id), sessions() as session, pytest.raises(WrongTenantError):
        ways[way](session)

    assert truth.execute("SELECT tenant_id FROM people WHERE id = %s", [ada]).fetchall() == [(acme.id,)]


def test_object_cascaded_into_another_tenants_session_is_refused(
    acme: SomeTenant, globex: SomeTenant, sessions: Sessions
) -> None:
    """T080: a relationship adds what it refers to."""
    with tenant_scope(acme.id):
        engines = Company(name="Engines")

    with tenant_scope(globex.id), sessions() as session, pytest.raises(WrongTenantError):
        session.add(Person(name="Eve", email="eve@test.example", company=engines))


@pytest.mark.parametrize("make", [make_transient, make_transient_to_detached])
def test_object_made_transient_keeps_its_tenant(
    acme: SomeTenant, globex: SomeTenant, person_of: PersonOf, sessions: Sessions, make: Callable[[object], None]
) -> None:
    """T081"""
    ada = person_of(acme)
    with tenant_scope(acme.id), sessions() as session:
        held = session.get_one(Person, ada)
        session.expunge(held)
    make_transient(held)
    if make is make_transient_to_detached:
        make(held)

    with tenant_scope(globex.id), sessions() as session, pytest.raises(WrongTenantError):
        session.add(held)


def test_pending_object_is_not_flushed_in_another_scope(
    acme: SomeTenant, globex: SomeTenant, sessions: Sessions, truth: Any
) -> None:
    """T082"""
    with tenant_scope(acme.id), sessions() as session:
        session.add(Person(name="Ada", email="ada@test.example"))
        with tenant_scope(globex.id):
            for flush in (session.flush, session.commit, lambda: session.scalars(select(Person)).all()):
                with pytest.raises(WrongTenantError):
                    flush()
        session.rollback()

    found = truth.execute("SELECT count(*) FROM people WHERE tenant_id IN (%s, %s)", [acme.id, globex.id]).fetchone()
    assert found == (0,)


def test_object_stamped_for_another_tenant_after_it_was_added_is_not_flushed(
    acme: SomeTenant, globex: SomeTenant, sessions: Sessions
) -> None:
    """T082: it was made past the constructor, as unpickling does, and so came in without a stamp."""
    person: Person = Person.__mapper__.class_manager.new_instance()
    person.name, person.email = "Ada", "ada@test.example"

    with tenant_scope(acme.id), sessions() as session:
        session.add(person)
        person.tenant_id = globex.id
        with pytest.raises(WrongTenantError):
            session.flush()


def test_object_constructed_for_another_tenant_is_refused(acme: SomeTenant, globex: SomeTenant) -> None:
    """T083"""
    with tenant_scope(acme.id), pytest.raises(WrongTenantError, match="constructed for tenant"):
        Person(tenant_id=globex.id, name="Ada", email="ada@test.example")


@pytest.mark.parametrize("state", ["pending", "loaded", "expired", "detached"])
def test_tenant_of_an_object_is_frozen(
    acme: SomeTenant, globex: SomeTenant, person_of: PersonOf, sessions: Sessions, state: str
) -> None:
    """T083"""
    ada = person_of(acme)

    with tenant_scope(acme.id), sessions() as session:
        person = Person(name="Bob", email="bob@test.example") if state == "pending" else session.get_one(Person, ada)
        if state == "expired":
            session.expire(person)
        if state == "detached":
            session.expunge(person)
        with pytest.raises(WrongTenantError, match="cannot move"):
            person.tenant_id = globex.id
        person.tenant_id = acme.id

        assert person.tenant_id == acme.id


def test_tenant_of_a_detached_and_expired_object_is_frozen(
    acme: SomeTenant, globex: SomeTenant, person_of: PersonOf, sessions: Sessions
) -> None:
    """T083: its tenant cannot be loaded, so it cannot be changed either."""
    ada = person_of(acme)
    with tenant_scope(acme.id), sessions() as session:
        person = session.get_one(Person, ada)
        session.expire(person)
        session.expunge(person)

    with pytest.raises(DetachedInstanceError):
        person.tenant_id = globex.id


def test_tenant_of_an_object_cannot_be_deleted_and_set_anew(acme: SomeTenant, globex: SomeTenant) -> None:
    """T083"""
    with tenant_scope(acme.id):
        person = Person(name="Bob", email="bob@test.example")

    with pytest.raises(WrongTenantError):
        del person.tenant_id

    assert person.tenant_id == acme.id


def test_orm_update_of_tenant_id_is_refused(
    acme: SomeTenant, globex: SomeTenant, person_of: PersonOf, sessions: Sessions, truth: Any
) -> None:
    """T008, T083"""
    ada = person_of(acme)

    with tenant_scope(acme.id), sessions() as session, pytest.raises(ProgrammingError, match="permission denied"):
        session.execute(update(Person).values(tenant_id=globex.id))

    assert truth.execute("SELECT tenant_id FROM people WHERE id = %s", [ada]).fetchone() == (acme.id,)


# Threads ----------------------------------------------------------------------------------------------


def test_session_shared_with_a_thread_of_another_scope_raises(
    acme: SomeTenant, globex: SomeTenant, person_of: PersonOf, sessions: Sessions
) -> None:
    """T076"""
    ada = person_of(acme)
    raised: list[type[BaseException]] = []

    def use(scope: Any) -> None:
        try:
            with scope:
                session.get(Person, ada)
        except WrongTenantError as error:
            raised.append(type(error))

    with tenant_scope(acme.id), sessions() as session:
        assert session.get(Person, ada) is not None
        thread = threading.Thread(target=use, args=(tenant_scope(globex.id),))
        thread.start()
        thread.join()

    assert raised == [WrongTenantError]


def test_session_shared_with_a_thread_without_a_scope_raises(
    acme: SomeTenant, person_of: PersonOf, sessions: Sessions
) -> None:
    """T076, T090"""
    ada = person_of(acme)

    with tenant_scope(acme.id), sessions() as session, ThreadPoolExecutor(1) as pool:
        assert session.get(Person, ada) is not None
        with pytest.raises(NoTenantError, match="has ended"):
            pool.submit(session.get, Person, ada).result()


def test_thread_with_a_copied_context_reads_its_tenant_and_leaves_no_trace(
    acme: SomeTenant, person_of: PersonOf, sessions: Sessions
) -> None:
    """T090"""
    person_of(acme, "Ada")

    def read() -> list[str]:
        with sessions() as session:
            return list(session.scalars(select(Person.name)))

    with ThreadPoolExecutor(1) as pool:
        with tenant_scope(acme.id):
            found = pool.submit(contextvars.copy_context().run, read).result()
            with pytest.raises(NoTenantError):
                pool.submit(read).result()
        left = pool.submit(current_tenant).result()

    assert (found, left) == (["Ada"], None)


def test_session_left_open_in_a_thread_serves_no_other_tenant(
    acme: SomeTenant, globex: SomeTenant, person_of: PersonOf, sessions: Sessions
) -> None:
    """T089: a scoped_session that nobody removed, then the next request on the same thread."""
    ada = person_of(acme)
    registry = scoped_session(sessions)
    try:
        with tenant_scope(acme.id):
            assert registry.get(Person, ada) is not None
        with tenant_scope(globex.id), pytest.raises(WrongTenantError):
            registry.get(Person, ada)
    finally:
        registry.remove()
