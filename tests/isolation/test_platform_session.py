"""T128-T131: the platform's scope is audited, append-only, expiring, and not to be forged by SQL; one test a word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import select
from sqlalchemy.orm import sessionmaker
from uuid_utils.compat import uuid7

from tenancy.context import platform_scope
from tenancy.session import PlatformSession
from tests.conftest import ROLES, Database, SomeTenant
from tests.models import Person

Connection = psycopg.Connection[Any]
SESSIONS = "tenancy.platform_session"
OPEN = f"INSERT INTO {SESSIONS} (id, actor, reason) VALUES (%s, 'ana', 'by hand')"
FORGERIES = [
    f"INSERT INTO {SESSIONS} (id, role, actor, reason) VALUES (gen_random_uuid(), '{ROLES.platform}', 'a', 'b')",
    f"INSERT INTO {SESSIONS} (id, actor, reason, opened_at) VALUES (gen_random_uuid(), 'a', 'b', now())",
    f"INSERT INTO {SESSIONS} (id, actor, reason, expires_at) VALUES (gen_random_uuid(), 'a', 'b', 'infinity')",
    f"COPY {SESSIONS} FROM STDIN",
    f"UPDATE {SESSIONS} SET expires_at = 'infinity'",
    f"ALTER TABLE {SESSIONS} DISABLE TRIGGER ALL",
    f"ALTER TABLE {SESSIONS} ALTER COLUMN expires_at SET DEFAULT 'infinity'",
    "CREATE OR REPLACE FUNCTION tenancy.platform_session_valid() RETURNS boolean LANGUAGE sql AS 'SELECT true'",
    "CREATE OR REPLACE FUNCTION tenancy.platform_open() RETURNS boolean LANGUAGE sql AS 'SELECT true'",
    "CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT 'infinity'::timestamptz $$",
    "CREATE TEMPORARY TABLE platform_session (id uuid, role name, opened_at timestamptz, expires_at timestamptz)",
    "SET session_replication_role = 'replica'",
    "SET ROLE postgres",
    f"SET ROLE {ROLES.owner}",
    "SET SESSION AUTHORIZATION postgres",
    "ALTER ROLE CURRENT_USER BYPASSRLS",
]
OF_THE_APP = [
    f"SELECT id FROM {SESSIONS}",
    f"INSERT INTO {SESSIONS} (id, actor, reason) VALUES (gen_random_uuid(), 'a', 'b')",
    f"SET ROLE {ROLES.platform}",
    f"SET SESSION AUTHORIZATION {ROLES.platform}",
    f"SELECT set_config('role', '{ROLES.platform}', true)",
]


def seen(connection: Connection, session: object) -> int:
    """Count the people a transaction sees that names this platform session."""
    with connection.transaction():
        connection.execute("SELECT set_config('app.platform_session', %s, true)", [str(session)])
        row = connection.execute("SELECT count(*) FROM people").fetchone()
    return int(row[0]) if row else 0


@pytest.fixture
def people(acme: SomeTenant, globex: SomeTenant, person_of: Callable[..., UUID]) -> list[UUID]:
    return [person_of(acme, "Ada"), person_of(globex, "Eve")]


def test_scope_is_audited_before_the_first_row_is_read(
    platform_sessions: sessionmaker[PlatformSession], truth: Connection, people: list[UUID]
) -> None:
    """T129: audited; who, why, as which role, from when to when."""
    why = f"report {uuid7().hex}"
    audit = (
        f"SELECT actor, role, opened_at <= clock_timestamp(), expires_at - opened_at BETWEEN '59 min' AND '61 min'"
        f" FROM {SESSIONS} WHERE reason = %s"
    )

    with platform_scope(actor="ana", reason=why), platform_sessions() as session:
        read = session.scalars(select(Person.name).where(Person.id.in_(people)).order_by(Person.name)).all()
        meanwhile = truth.execute(audit, [why]).fetchall()
        session.rollback()

    assert read == ["Ada", "Eve"]
    assert meanwhile == truth.execute(audit, [why]).fetchall() == [("ana", ROLES.platform, True, True)]


@pytest.mark.parametrize("role", [ROLES.platform, ROLES.migrator, ROLES.app])
@pytest.mark.parametrize(
    "statement", [f"UPDATE {SESSIONS} SET actor = 'eve'", f"DELETE FROM {SESSIONS}", f"TRUNCATE {SESSIONS}"]
)
def test_audit_is_append_only(database: Database, truth: Connection, role: str, statement: str) -> None:
    """T129: append-only; for its owner too, as long as the owner does not change the table itself."""
    session = uuid7()
    with database.connect(ROLES.platform) as platform:
        platform.execute(OPEN, [session])

    with database.connect(role) as connection, pytest.raises(errors.InsufficientPrivilege):
        connection.execute(statement.encode())

    assert truth.execute(f"SELECT actor FROM {SESSIONS} WHERE id = %s".encode(), [session]).fetchall() == [("ana",)]


def test_session_ends_by_itself(fresh_database: Database) -> None:
    """T131: expiring, by the server's clock, whatever the connection does meanwhile."""
    session, tenant = uuid7(), uuid7()
    with fresh_database.connect("postgres") as truth, fresh_database.connect(ROLES.platform) as platform:
        truth.autocommit = True
        truth.execute("INSERT INTO tenants (tenant_id, slug, name, status) VALUES (%s, 'a', 'A', 'active')", [tenant])
        truth.execute("INSERT INTO people (tenant_id, id, name, email) VALUES (%s, %s, 'Ada', 'a')", [tenant, uuid7()])
        truth.execute(
            f"INSERT INTO {SESSIONS} (id, role, actor, reason, expires_at)"
            " VALUES (%s, %s, 'ana', 'by hand', clock_timestamp() + interval '0.5 s')".encode(),
            [session, ROLES.platform],
        )
        before = seen(platform, session)

        platform.execute("SELECT pg_sleep(0.6)")
        platform.commit()

        assert (before, seen(platform, session)) == (1, 0)


@pytest.mark.parametrize("statement", FORGERIES)
def test_session_cannot_be_forged_by_the_platform_role(database: Database, people: list[UUID], statement: str) -> None:
    """T128: unforgeable; not even by the role that may open one, and that must leave its trace to do so."""
    with database.connect(ROLES.platform) as platform:
        with pytest.raises(errors.Error) as caught:
            platform.execute(statement.encode())
        platform.rollback()

        assert caught.value.sqlstate in ("42501", "22023")
        assert seen(platform, uuid7()) == 0


@pytest.mark.parametrize("statement", [*FORGERIES, *OF_THE_APP])
def test_session_cannot_be_forged_by_the_app_role(database: Database, people: list[UUID], statement: str) -> None:
    """T128, T130: unforgeable; nor does the app role learn the id of one."""
    with database.connect(ROLES.app) as app:
        with pytest.raises(errors.Error) as caught:
            app.execute(statement.encode())
        app.rollback()

        assert caught.value.sqlstate in ("42501", "22023")
        with pytest.raises(errors.InsufficientPrivilege, match="no tenant is bound"):
            seen(app, uuid7())


@pytest.mark.parametrize("ending", ["ROLLBACK TO SAVEPOINT s", "RELEASE SAVEPOINT s"])
def test_session_opened_in_a_savepoint_of_the_reading_transaction_shows_nothing(
    database: Database, people: list[UUID], ending: str
) -> None:
    """T128: a rollback could still erase its trace."""
    session = uuid7()
    with database.connect(ROLES.platform) as platform:
        platform.execute("SAVEPOINT s")
        platform.execute(OPEN, [session])
        platform.execute(ending.encode())
        inside = seen(platform, session)
        platform.execute(OPEN, [committed := uuid7()])
        platform.commit()

        assert inside == 0
        assert seen(platform, committed) >= 2


def test_session_of_another_role_opens_nothing_for_the_platform_role(
    database: Database, truth: Connection, people: list[UUID]
) -> None:
    """T128: also when a superuser wrote it, in the hope that the platform role would use it."""
    session = uuid7()
    truth.execute(OPEN.encode(), [session])

    with database.connect(ROLES.platform) as platform:
        assert seen(platform, session) == 0
