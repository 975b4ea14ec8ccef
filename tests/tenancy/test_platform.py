"""The platform's access: across tenants, read-only and audited; T128-T131."""

from collections.abc import Callable
from time import monotonic
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine, delete, insert, select, text, update
from sqlalchemy.exc import InternalError, ProgrammingError
from sqlalchemy.orm import sessionmaker
from uuid_utils.compat import uuid7

from tenancy.binding import create_tenant_engine
from tenancy.context import account_scope, current_scope, platform_scope, tenant_scope
from tenancy.errors import NoTenantError, PlatformAccessError, WrongTenantError
from tenancy.session import PlatformSession, TenantSession, tenant_sessionmaker
from tests.conftest import ROLES, Database, SomeTenant
from tests.models import Person, Tenant
from tests.tenancy.engines import column, on_both_drivers

Truth = psycopg.Connection[Any]
PersonOf = Callable[..., UUID]
PlatformSessions = sessionmaker[PlatformSession]

INSUFFICIENT_PRIVILEGE, READ_ONLY = psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction


@pytest.fixture
def staff_sessions(platform_engine: Engine) -> sessionmaker[TenantSession]:
    return tenant_sessionmaker(platform_engine)


def reason() -> str:
    return f"report {uuid7().hex}"


# Reading ----------------------------------------------------------------------------------------------


def test_platform_session_reads_across_tenants(
    acme: SomeTenant, globex: SomeTenant, ada: UUID, eve: UUID, platform_sessions: PlatformSessions
) -> None:
    """T129"""
    with platform_scope(actor="ana", reason=reason()), platform_sessions() as session:
        found = session.scalars(select(Person.name).where(Person.id.in_([ada, eve])).order_by(Person.name)).all()
        one = session.get(Person, (globex.id, eve))

    assert found == ["Ada", "Eve"]
    assert one is not None


@pytest.mark.parametrize(
    "statement",
    [
        insert(Person).values(tenant_id=uuid7(), name="New", email="new@test.example"),
        update(Person).values(name="Changed"),
        delete(Person),
        text("INSERT INTO tenancy.platform_session (id, actor, reason) VALUES (gen_random_uuid(), 'a', 'b')"),
    ],
    ids=["insert", "update", "delete", "audit"],
)
def test_platform_session_writes_nothing(platform_sessions: PlatformSessions, ada: UUID, statement: Any) -> None:
    """T129: 25006"""
    with (
        platform_scope(actor="ana", reason=reason()),
        platform_sessions() as session,
        pytest.raises(InternalError) as caught,
    ):
        session.execute(statement)

    assert isinstance(caught.value.orig, READ_ONLY)


def test_reading_across_tenants_stays_read_only_whatever_the_connection_asks_for(platform_engine: Engine) -> None:
    """T129"""
    with platform_scope(actor="ana", reason=reason()):
        connection = platform_engine.connect().execution_options(postgresql_readonly=False)
        with connection:
            found = column(connection, "SELECT current_setting('transaction_read_only')")

    assert found == ["on"]


def test_app_engine_is_refused_in_a_platform_scope(app_engine: Engine, ada: UUID) -> None:
    with (
        platform_scope(actor="ana", reason=reason()),
        pytest.raises(PlatformAccessError, match="this engine's role may not"),
        app_engine.begin(),
    ):
        pass


def test_app_engine_serves_a_tenant_scope_inside_a_platform_scope(
    app_engine: Engine, acme: SomeTenant, ada: UUID, eve: UUID
) -> None:
    with platform_scope(actor="ana", reason=reason()), tenant_scope(acme.id), app_engine.begin() as connection:
        assert column(connection, "SELECT name FROM people") == ["Ada"]


@on_both_drivers
def test_platform_engine_is_refused_outside_a_platform_scope(play: Any, database: Database, acme: SomeTenant) -> None:
    def story(engine: Engine) -> None:
        with pytest.raises(PlatformAccessError, match="outside a platform scope"), engine.connect() as connection:
            column(connection, "SELECT name FROM people")
        with tenant_scope(acme.id), pytest.raises(PlatformAccessError), engine.connect() as connection:
            column(connection, "SELECT name FROM people")

    play(database.url(ROLES.platform), story)


@on_both_drivers
def test_both_drivers_read_across_tenants(play: Any, database: Database, ada: UUID, eve: UUID) -> None:
    def story(engine: Engine) -> list[str]:
        with platform_scope(actor="ana", reason=reason()), engine.connect() as connection:
            statement = select(Person.name).where(Person.id.in_([ada, eve])).order_by(Person.name)
            return list(connection.scalars(statement))

    assert play(database.url(ROLES.platform), story) == ["Ada", "Eve"]


def test_platform_session_needs_a_platform_scope_and_no_tenant(
    acme: SomeTenant, platform_sessions: PlatformSessions
) -> None:
    with pytest.raises(PlatformAccessError, match="outside a platform scope"):
        platform_sessions()
    with tenant_scope(acme.id), pytest.raises(PlatformAccessError, match="outside a platform scope"):
        platform_sessions()
    with account_scope(uuid7()), pytest.raises(PlatformAccessError, match="outside a platform scope"):
        platform_sessions()
    with (
        platform_scope(actor="ana", reason=reason()),
        tenant_scope(acme.id),
        pytest.raises(PlatformAccessError, match="one tenant is in scope"),
    ):
        platform_sessions()


def test_platform_session_is_refused_inside_a_tenant_scope_opened_later(
    acme: SomeTenant, platform_sessions: PlatformSessions
) -> None:
    with platform_scope(actor="ana", reason=reason()):
        session = platform_sessions()
        with tenant_scope(acme.id), pytest.raises(WrongTenantError):
            session.scalars(select(Person)).all()
    with pytest.raises(NoTenantError, match="has ended"):
        session.scalars(select(Person))


# Writing in one tenant --------------------------------------------------------------------------------


def test_staff_session_reads_and_writes_one_tenant(
    acme: SomeTenant,
    globex: SomeTenant,
    ada: UUID,
    eve: UUID,
    staff_sessions: sessionmaker[TenantSession],
    truth: Truth,
) -> None:
    with platform_scope(actor="ana", reason=reason()), tenant_scope(acme.id), staff_sessions.begin() as session:
        assert session.scalars(select(Person.name)).all() == ["Ada"]
        assert session.get(Person, eve) is None
        session.execute(update(Person).values(name="Ada L."))
        session.get_one(Tenant, acme.id).status = "suspended"

    assert truth.execute("SELECT name FROM people WHERE id = ANY (%s) ORDER BY 1", [[ada, eve]]).fetchall() == [
        ("Ada L.",),
        ("Eve",),
    ]
    assert truth.execute("SELECT status FROM tenants WHERE tenant_id = %s", [acme.id]).fetchone() == ("suspended",)


def test_staff_session_writes_no_row_of_another_tenant(
    acme: SomeTenant, globex: SomeTenant, staff_sessions: sessionmaker[TenantSession]
) -> None:
    with (
        platform_scope(actor="ana", reason=reason()),
        tenant_scope(acme.id),
        staff_sessions() as session,
        pytest.raises(ProgrammingError, match="row-level security"),
    ):
        session.execute(insert(Person).values(tenant_id=globex.id, name="New", email="new@test.example"))


# The audit --------------------------------------------------------------------------------------------


def test_first_use_commits_one_audit_row_that_no_rollback_erases(
    platform_sessions: PlatformSessions, truth: Truth
) -> None:
    """T129"""
    why = reason()

    with platform_scope(actor="ana", reason=why):
        for _ in range(2):
            with platform_sessions() as session:
                session.execute(select(1))
                session.rollback()

    found = truth.execute("SELECT actor, role FROM tenancy.platform_session WHERE reason = %s", [why]).fetchall()
    assert found == [("ana", ROLES.platform)]


def test_platform_scope_that_is_not_used_leaves_no_audit_row(truth: Truth) -> None:
    why = reason()

    with platform_scope(actor="ana", reason=why):
        pass

    assert truth.execute("SELECT count(*) FROM tenancy.platform_session WHERE reason = %s", [why]).fetchone() == (0,)


def test_each_scope_leaves_an_audit_row_of_its_own(platform_sessions: PlatformSessions, truth: Truth) -> None:
    why = reason()

    for _ in range(2):
        with platform_scope(actor="ana", reason=why), platform_sessions() as session:
            session.execute(select(1))

    assert truth.execute("SELECT count(*) FROM tenancy.platform_session WHERE reason = %s", [why]).fetchone() == (2,)


def test_long_scope_opens_a_new_session_before_the_old_one_expires(
    platform_engine: Engine, platform_sessions: PlatformSessions, truth: Truth
) -> None:
    why = reason()
    counted = "SELECT count(*) FROM tenancy.platform_session WHERE reason = %s"

    with platform_scope(actor="ana", reason=why):
        scope = current_scope()
        assert scope is not None
        assert scope.platform is not None
        for age_s, rows in ((0, 1), (49 * 60, 1), (51 * 60, 2)):
            if known := scope.platform.session_ids.get(platform_engine.dialect):
                scope.platform.session_ids[platform_engine.dialect] = (known[0], monotonic() - age_s)
            with platform_sessions() as session:
                session.execute(select(1))
            assert truth.execute(counted, [why]).fetchone() == (rows,)


def test_engine_that_lost_its_connection_opens_no_second_audit_row(database: Database, truth: Truth, ada: UUID) -> None:
    """The id is kept by engine, not by connection."""
    why = reason()
    engine = create_tenant_engine(database.url(ROLES.platform))

    with platform_scope(actor="ana", reason=why):
        with engine.connect() as connection:
            column(connection, "SELECT 1")
            connection.invalidate()
        with engine.connect() as connection:
            found = list(connection.scalars(select(Person.name).where(Person.id == ada)))
    engine.dispose()

    assert found == ["Ada"]
    assert truth.execute("SELECT count(*) FROM tenancy.platform_session WHERE reason = %s", [why]).fetchone() == (1,)
