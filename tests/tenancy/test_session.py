from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, insert, select, text
from sqlalchemy.exc import NoResultFound, ProgrammingError
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from uuid_utils.compat import uuid7

from tenancy.binding import create_tenant_engine
from tenancy.context import account_scope, platform_scope, tenant_scope
from tenancy.errors import ConfigurationError, NoTenantError, WrongTenantError
from tenancy.session import (
    TenantSession,
    _ScopedSession,
    async_tenant_sessionmaker,
    guard_sessions,
    platform_sessionmaker,
    tenant_sessionmaker,
)
from tests.conftest import ROLES, Database, SomeTenant
from tests.models import Account, Base, Company, Person, Tenant, Todo

Sessions = sessionmaker[TenantSession]
PersonOf = Callable[..., UUID]


# Making a session -------------------------------------------------------------------------------------


def test_session_made_without_a_scope_is_refused(sessions: Sessions) -> None:
    with pytest.raises(NoTenantError, match="no tenant is in scope"):
        sessions()


def test_tenant_session_made_in_a_platform_scope_is_refused(sessions: Sessions) -> None:
    with platform_scope(actor="ana", reason="report"), pytest.raises(NoTenantError, match="the platform"):
        sessions()


def test_session_knows_its_tenant(acme: SomeTenant, sessions: Sessions) -> None:
    with tenant_scope(acme.id), sessions() as session:
        assert session.tenant_id == acme.id
    with account_scope(uuid7()), sessions() as session:
        assert session.tenant_id is None


def test_session_is_refused_once_its_scope_has_ended(acme: SomeTenant, person_of: PersonOf, sessions: Sessions) -> None:
    ada = person_of(acme)

    with tenant_scope(acme.id):
        session = sessions()
    with session, pytest.raises(NoTenantError, match="has ended"):
        session.get(Person, ada)


def test_session_serves_another_scope_of_the_same_tenant(
    acme: SomeTenant, person_of: PersonOf, sessions: Sessions
) -> None:
    ada = person_of(acme)

    with tenant_scope(acme.id):
        session = sessions()
    with tenant_scope(acme.id), session:
        assert session.get(Person, ada) is not None


def test_session_of_a_tenant_is_refused_for_another_account(acme: SomeTenant, sessions: Sessions) -> None:
    with tenant_scope(acme.id, account=uuid7()), sessions() as session:  # noqa: SIM117
        with tenant_scope(acme.id, account=uuid7()), pytest.raises(WrongTenantError):
            session.scalars(select(Person)).all()


@pytest.mark.parametrize(
    "make", [tenant_sessionmaker, platform_sessionmaker, async_tenant_sessionmaker], ids=lambda make: make.__name__
)
@pytest.mark.parametrize("option", [{"twophase": True}, {"class_": Session}, {"sync_session_class": Session}])
def test_factory_option_that_undoes_the_session_is_refused(
    app_engine: Engine, make: Any, option: dict[str, object]
) -> None:
    """T059"""
    with pytest.raises(ConfigurationError, match="cannot be set on a tenant session factory"):
        make(app_engine, **option)


def test_two_phase_session_is_refused(acme: SomeTenant, app_engine: Engine) -> None:
    """T059"""
    with tenant_scope(acme.id), pytest.raises(ConfigurationError, match="twophase"):
        TenantSession(app_engine, twophase=True)


def test_session_class_without_a_scope_is_refused(app_engine: Engine) -> None:
    with pytest.raises(ConfigurationError, match="has no scope"):
        _ScopedSession(app_engine)


# One tenant for life ----------------------------------------------------------------------------------


OPERATIONS: dict[str, Callable[[TenantSession, UUID], object]] = {
    "get": lambda s, i: s.get(Person, i),
    "get_one": lambda s, i: s.get_one(Person, i),
    "execute": lambda s, _: s.execute(select(Person)),
    "scalars": lambda s, _: s.scalars(select(Person)),
    "query": lambda s, _: s.query(Person).all(),
    "text": lambda s, _: s.execute(text("SELECT 1")),
    "core": lambda s, _: s.execute(select(Base.metadata.tables["people"])),
    "insert": lambda s, _: s.execute(insert(Company).values(name="New")),
    "insert many": lambda s, _: s.execute(insert(Company), [{"name": "New"}]),
    "connection": lambda s, _: s.connection().execute(text("SELECT 1")),
    "bulk_insert_mappings": lambda s, _: s.bulk_insert_mappings(Company.__mapper__, [{"name": "New"}]),
    "bulk_update_mappings": lambda s, i: s.bulk_update_mappings(
        Person.__mapper__, [{"tenant_id": s.tenant_id, "id": i, "name": "New"}]
    ),
    "add": lambda s, _: s.add(Company(name="New")),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("has_begun", [True, False])
def test_every_operation_is_refused_in_another_scope(
    operation: str,
    has_begun: bool,
    acme: SomeTenant,
    globex: SomeTenant,
    person_of: PersonOf,
    sessions: Sessions,
    truth: psycopg.Connection[Any],
) -> None:
    ada = person_of(acme)

    with tenant_scope(acme.id), sessions() as session:
        if has_begun:
            assert session.get(Person, ada) is not None
        with tenant_scope(globex.id), pytest.raises(WrongTenantError):
            OPERATIONS[operation](session, ada)
        session.rollback()
        session.expunge_all()
        assert session.get_one(Person, ada).name == "Ada"

    assert truth.execute("SELECT count(*) FROM companies WHERE tenant_id = %s", [globex.id]).fetchone() == (0,)


# Getting by id ----------------------------------------------------------------------------------------


def test_get_takes_the_bare_id_a_tuple_or_a_dict(acme: SomeTenant, person_of: PersonOf, sessions: Sessions) -> None:
    ada = person_of(acme)

    with tenant_scope(acme.id), sessions() as session:
        found = session.get(Person, ada)
        assert found is not None
        assert session.get(Person, (ada,)) is found
        assert session.get(Person, [ada]) is found
        assert session.get(Person, (acme.id, ada)) is found
        assert session.get(Person, {"id": ada}) is found
        assert session.get(Person, {"tenant_id": acme.id, "id": ada}) is found
        assert session.get_one(Person, ada) is found


@pytest.mark.parametrize("as_dict", [True, False])
def test_get_by_another_tenants_whole_key_finds_nothing(
    acme: SomeTenant, globex: SomeTenant, person_of: PersonOf, sessions: Sessions, as_dict: bool
) -> None:
    eve = person_of(globex)
    key: Any = {"tenant_id": globex.id, "id": eve} if as_dict else (globex.id, eve)

    with tenant_scope(globex.id), sessions() as session:
        assert session.get(Person, key) is not None
    with tenant_scope(acme.id), sessions() as session:
        assert session.get(Person, key) is None


def test_get_one_of_another_tenants_id_finds_nothing(
    acme: SomeTenant, globex: SomeTenant, person_of: PersonOf, sessions: Sessions
) -> None:
    eve = person_of(globex)

    with tenant_scope(globex.id), sessions() as session:
        assert session.get_one(Person, eve).id == eve
    with tenant_scope(acme.id), sessions() as session, pytest.raises(NoResultFound):
        session.get_one(Person, eve)


def test_get_takes_the_integer_id_of_a_table_that_counts(acme: SomeTenant, sessions: Sessions) -> None:
    with tenant_scope(acme.id), sessions.begin() as session:
        todo = Todo(title="write")
        session.add(todo)
        session.flush()
        number = todo.id

    with tenant_scope(acme.id), sessions() as session:
        assert session.get_one(Todo, number).title == "write"


def test_get_of_the_registry_takes_its_one_key(acme: SomeTenant, globex: SomeTenant, sessions: Sessions) -> None:
    with tenant_scope(acme.id), sessions() as session:
        assert session.get_one(Tenant, acme.id).slug == acme.slug
        assert session.get(Tenant, globex.id) is None


# Writing ----------------------------------------------------------------------------------------------


def test_add_and_commit_may_be_the_first_operation(acme: SomeTenant, sessions: Sessions) -> None:
    with tenant_scope(acme.id):
        with sessions() as session:
            session.add(Person(name="Ada", email="ada@test.example"))
            session.commit()
        with sessions() as session:
            assert session.scalars(select(Person.name)).all() == ["Ada"]


def test_refresh_and_expired_attributes_after_commit_stay_with_the_tenant(
    acme: SomeTenant, person_of: PersonOf, sessions: Sessions
) -> None:
    """T069"""
    ada = person_of(acme)

    with tenant_scope(acme.id), sessions() as session:
        person = session.get_one(Person, ada)
        session.commit()
        assert person.name == "Ada"
        session.rollback()
        session.refresh(person)
        assert person.name == "Ada"


def test_rollback_mid_way_keeps_the_tenant(
    acme: SomeTenant, globex: SomeTenant, person_of: PersonOf, sessions: Sessions
) -> None:
    """T069"""
    person_of(acme, "Ada")
    person_of(globex, "Eve")

    with tenant_scope(acme.id), sessions() as session:
        session.add(Person(name="Bob", email="bob@test.example"))
        session.flush()
        session.rollback()
        assert session.scalars(select(Person.name)).all() == ["Ada"]


def test_merge_of_the_tenants_own_object_updates_its_row(
    acme: SomeTenant, person_of: PersonOf, sessions: Sessions
) -> None:
    ada = person_of(acme)
    with tenant_scope(acme.id), sessions() as session:
        held = session.get_one(Person, ada)
        session.expunge(held)
        held.name = "Ada L."

    with tenant_scope(acme.id), sessions.begin() as session:
        assert session.merge(held).name == "Ada L."
    with tenant_scope(acme.id), sessions() as session:
        assert session.get_one(Person, ada).name == "Ada L."


def test_object_of_the_tenant_is_deleted(acme: SomeTenant, person_of: PersonOf, sessions: Sessions) -> None:
    ada = person_of(acme)

    with tenant_scope(acme.id):
        with sessions.begin() as session:
            session.delete(session.get_one(Person, ada))
        with sessions() as session:
            assert session.get(Person, ada) is None


def test_savepoint_of_a_session_keeps_the_tenant(acme: SomeTenant, person_of: PersonOf, sessions: Sessions) -> None:
    person_of(acme, "Ada")

    with tenant_scope(acme.id), sessions() as session:
        with session.begin_nested() as savepoint:
            session.add(Company(name="Engines"))
            session.flush()
            savepoint.rollback()
        assert session.scalars(select(Person.name)).all() == ["Ada"]
        assert session.scalars(select(Company)).all() == []


# Accounts ---------------------------------------------------------------------------------------------


@pytest.fixture
def ada_account(sessions: Sessions) -> UUID:
    ada = uuid7()
    with account_scope(ada), sessions.begin() as session:
        session.add(Account(id=ada, email=f"{ada.hex}@test.example"))
    return ada


def test_account_sees_its_own_row_and_no_other(ada_account: UUID, sessions: Sessions) -> None:
    bob = uuid7()
    with account_scope(bob), sessions.begin() as session:
        session.add(Account(id=bob, email=f"{bob.hex}@test.example"))

    with account_scope(ada_account), sessions() as session:
        assert session.scalars(select(Account.id)).all() == [ada_account]
        assert session.get(Account, bob) is None
    with account_scope(bob), sessions() as session:
        assert session.scalars(select(Account.id)).all() == [bob]


def test_account_of_a_tenant_scope_sees_its_own_row(acme: SomeTenant, ada_account: UUID, sessions: Sessions) -> None:
    with tenant_scope(acme.id, account=ada_account), sessions() as session:
        assert session.scalars(select(Account.id)).all() == [ada_account]


def test_account_table_without_an_account_raises(acme: SomeTenant, ada_account: UUID, sessions: Sessions) -> None:
    with tenant_scope(acme.id), sessions() as session, pytest.raises(ProgrammingError, match="no account is bound"):
        session.get(Account, ada_account)


def test_account_cannot_be_made_for_another(ada_account: UUID, sessions: Sessions) -> None:
    with account_scope(ada_account), sessions() as session:
        session.add(Account(id=uuid7(), email="mallory@test.example"))
        with pytest.raises(ProgrammingError, match="row-level security"):
            session.flush()


def test_tenant_table_in_an_account_scope_raises(acme: SomeTenant, person_of: PersonOf, sessions: Sessions) -> None:
    person_of(acme)

    with account_scope(uuid7()), sessions() as session, pytest.raises(ProgrammingError, match="no tenant is bound"):
        session.scalars(select(Person)).all()


# Factories of others ----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_scoped", [True, False])
def test_factory_made_by_someone_else_is_guarded(
    database: Database, acme: SomeTenant, globex: SomeTenant, person_of: PersonOf, is_scoped: bool
) -> None:
    person_of(acme, "Ada")
    person_of(globex, "Eve")
    engine = create_engine(database.url(ROLES.app))
    factory = sessionmaker(engine)
    theirs = scoped_session(factory) if is_scoped else factory

    guard_sessions(theirs, engine)
    guard_sessions(theirs, engine)

    with tenant_scope(acme.id), factory() as session:
        assert isinstance(session, TenantSession)
        assert session.scalars(select(Person.name)).all() == ["Ada"]
    with pytest.raises(NoTenantError):
        factory()
    engine.dispose()


def test_plain_session_on_a_tenant_engine_is_bound_by_the_driver(
    database: Database, acme: SomeTenant, globex: SomeTenant, person_of: PersonOf
) -> None:
    person_of(acme, "Ada")
    person_of(globex, "Eve")
    engine = create_tenant_engine(database.url(ROLES.app))

    with tenant_scope(globex.id), Session(engine) as session:
        found = session.scalars(select(Person.name)).all()

    assert found == ["Eve"]
    engine.dispose()
