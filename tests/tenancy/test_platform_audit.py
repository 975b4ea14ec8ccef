"""The platform's audit and sessions, by hand: what the holder of its password can and cannot do; T128-T131."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy.orm import sessionmaker
from uuid_utils.compat import uuid7

from tenancy.session import PlatformSession
from tests.conftest import ROLES, Database, SomeTenant

Truth = psycopg.Connection[Any]
PersonOf = Callable[..., UUID]
PlatformSessions = sessionmaker[PlatformSession]

INSUFFICIENT_PRIVILEGE, READ_ONLY = psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction


@pytest.fixture
def platform(database: Database) -> Iterator[psycopg.Connection[Any]]:
    """What a person who holds the platform role's password has at `psql`."""
    with database.connect(ROLES.platform) as connection:
        yield connection


def open_session(connection: psycopg.Connection[Any]) -> UUID:
    session_id = uuid7()
    connection.execute(
        "INSERT INTO tenancy.platform_session (id, actor, reason) VALUES (%s, 'ana', 'by hand')", [session_id]
    )
    return session_id


def people_seen(connection: psycopg.Connection[Any], *ids: UUID, session_id: object, tenant: object = "") -> int:
    """Count people in a transaction bound by hand to the platform session."""
    with connection.transaction():
        connection.execute("SELECT set_config('app.platform_session', %s, true)", [str(session_id)])
        connection.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant)])
        row = connection.execute("SELECT count(*) FROM people WHERE id = ANY (%s)", [list(ids)]).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE tenancy.platform_session SET reason = 'another'",
        "UPDATE tenancy.platform_session SET expires_at = now() + interval '1 year'",
        "DELETE FROM tenancy.platform_session",
        "TRUNCATE tenancy.platform_session",
        "INSERT INTO tenancy.platform_session (id, actor, reason, role) VALUES (gen_random_uuid(), 'a', 'b', 'c')",
        "INSERT INTO tenancy.platform_session (id, actor, reason, opened_at)"
        " VALUES (gen_random_uuid(), 'a', 'b', now())",
        "INSERT INTO tenancy.platform_session (id, actor, reason, expires_at)"
        " VALUES (gen_random_uuid(), 'a', 'b', 'infinity')",
    ],
)
def test_platform_role_can_neither_change_nor_date_its_audit(platform: psycopg.Connection[Any], statement: str) -> None:
    """T129"""
    open_session(platform)
    platform.commit()

    with pytest.raises(INSUFFICIENT_PRIVILEGE):
        platform.execute(statement.encode())


def test_audit_is_append_only_for_its_owner_too(database: Database, platform: psycopg.Connection[Any]) -> None:
    """T129"""
    session_id = open_session(platform)
    platform.commit()

    with database.connect(ROLES.migrator) as owner:
        for statement in ("UPDATE tenancy.platform_session SET reason = ''", "DELETE FROM tenancy.platform_session"):
            with pytest.raises(INSUFFICIENT_PRIVILEGE, match="append-only"), owner.transaction():
                owner.execute(statement.encode())
        row = owner.execute("SELECT reason FROM tenancy.platform_session WHERE id = %s", [session_id]).fetchone()

    assert row == ("by hand",)


def test_blank_actor_or_reason_is_refused_by_the_server(platform: psycopg.Connection[Any]) -> None:
    for actor, why in (("", "report"), ("ana", "  ")):
        with pytest.raises(psycopg.errors.CheckViolation), platform.transaction():
            platform.execute(
                "INSERT INTO tenancy.platform_session (id, actor, reason) VALUES (gen_random_uuid(), %s, %s)",
                [actor, why],
            )


# Forged and stale sessions ----------------------------------------------------------------------------


def test_only_a_committed_session_of_this_role_shows_rows(
    platform: psycopg.Connection[Any], truth: Truth, ada: UUID, eve: UUID
) -> None:
    """T128"""
    valid = open_session(platform)
    platform.commit()
    others, expired = uuid7(), uuid7()
    truth.execute(
        "INSERT INTO tenancy.platform_session (id, role, actor, reason, opened_at, expires_at) VALUES"
        " (%s, 'postgres', 'ana', 'by hand', now(), now() + interval '1 hour'),"
        " (%s, %s, 'ana', 'by hand', now() - interval '2 hours', now() - interval '1 hour')",
        [others, expired, ROLES.platform],
    )

    assert people_seen(platform, ada, eve, session_id=valid) == 2
    assert people_seen(platform, ada, eve, session_id="") == 0
    assert people_seen(platform, ada, eve, session_id=uuid7()) == 0
    assert people_seen(platform, ada, eve, session_id=others) == 0
    assert people_seen(platform, ada, eve, session_id=expired) == 0


def test_session_opened_in_the_same_transaction_shows_no_rows(platform: psycopg.Connection[Any], ada: UUID) -> None:
    """T128: a rollback would erase it after the rows were read."""
    with platform.transaction():
        session_id = open_session(platform)
        assert people_seen(platform, ada, session_id=session_id) == 0

    assert people_seen(platform, ada, session_id=session_id) == 1


def test_platform_role_bound_to_a_tenant_sees_it_through_a_valid_session_only(
    platform: psycopg.Connection[Any], acme: SomeTenant, ada: UUID, eve: UUID
) -> None:
    """T128"""
    session_id = open_session(platform)
    platform.commit()

    assert people_seen(platform, ada, eve, session_id="", tenant=acme.id) == 0
    assert people_seen(platform, ada, eve, session_id=uuid7(), tenant=acme.id) == 0
    assert people_seen(platform, ada, eve, session_id=session_id, tenant=acme.id) == 1


def test_valid_session_id_has_no_effect_for_the_app_role(
    database: Database, platform: psycopg.Connection[Any], acme: SomeTenant, ada: UUID, eve: UUID
) -> None:
    """T130"""
    session_id = open_session(platform)
    platform.commit()
    assert people_seen(platform, ada, eve, session_id=session_id) == 2

    with database.connect(ROLES.app) as app:
        assert people_seen(app, ada, eve, session_id=session_id, tenant=acme.id) == 1
        with pytest.raises(INSUFFICIENT_PRIVILEGE, match="no tenant is bound"):
            people_seen(app, ada, eve, session_id=session_id)
        with pytest.raises(INSUFFICIENT_PRIVILEGE, match="permission denied"):
            app.execute("SELECT * FROM tenancy.platform_session")


def test_session_that_expires_shows_no_rows_to_prepared_statements(
    fresh_database: Database,
) -> None:
    """T131"""
    tenant, person = uuid7(), uuid7()
    session_id = uuid7()
    with fresh_database.connect("postgres") as truth, fresh_database.connect(ROLES.platform) as platform:
        truth.autocommit = True
        truth.execute("INSERT INTO tenants (tenant_id, slug, name, status) VALUES (%s, 'a', 'A', 'active')", [tenant])
        truth.execute(
            "INSERT INTO people (tenant_id, id, name, email) VALUES (%s, %s, 'Ada', 'ada@test.example')",
            [tenant, person],
        )
        truth.execute("ALTER TABLE tenancy.platform_session DISABLE TRIGGER append_only")
        truth.execute(
            "INSERT INTO tenancy.platform_session (id, role, actor, reason) VALUES (%s, %s, 'ana', 'by hand')",
            [session_id, ROLES.platform],
        )
        before = [people_seen(platform, person, session_id=session_id) for _ in range(12)]

        truth.execute("UPDATE tenancy.platform_session SET expires_at = now() WHERE id = %s", [session_id])
        after = people_seen(platform, person, session_id=session_id)

    assert (before, after) == ([1] * 12, 0)


def test_session_that_expires_inside_a_transaction_shows_no_more_rows(fresh_database: Database) -> None:
    """T131: its end is compared with the clock, not with the transaction's start."""
    session_id = uuid7()
    with fresh_database.connect("postgres") as truth, fresh_database.connect(ROLES.platform) as platform:
        truth.autocommit = True
        tenant = uuid7()
        truth.execute("INSERT INTO tenants (tenant_id, slug, name, status) VALUES (%s, 'a', 'A', 'active')", [tenant])
        truth.execute(
            "INSERT INTO tenancy.platform_session (id, role, actor, reason, expires_at)"
            " VALUES (%s, %s, 'ana', 'by hand', clock_timestamp() + interval '0.4 s')",
            [session_id, ROLES.platform],
        )
        platform.execute("SELECT set_config('app.platform_session', %s, true)", [str(session_id)])
        before = platform.execute("SELECT count(*) FROM tenants").fetchone()
        platform.execute("SELECT pg_sleep(0.5)")
        after = platform.execute("SELECT count(*) FROM tenants").fetchone()

    assert (before, after) == ((1,), (0,))
