"""The platform role's login is disabled while one of its connections is open and its statements are prepared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import NullPool, create_engine, text
from uuid_utils.compat import uuid7

from tenancy.embedded import Template
from tenancy.rls import Roles, bootstrap_sql, guard_sql, guarded, install_sql
from tests.conftest import Database
from tests.models import Base

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Installation:
    """A database whose roles are its own, so that changing one disturbs no other test of the server."""

    database: Database
    roles: Roles
    session_id: UUID

    def people_seen(self, connection: Connection) -> int:
        with connection.transaction():
            connection.execute("SELECT set_config('app.platform_session', %s, true)", [str(self.session_id)])
            row = connection.execute("SELECT count(*) FROM people", prepare=True).fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture
def installation(empty_template: Template, worker: str) -> Iterator[Installation]:
    """People in two tenants, and a platform session that is open for an hour."""
    roles, session_id = Roles(prefix=f"apart_{worker}"), uuid7()
    database = Database(empty_template.server, empty_template.clone(f"apart_{worker}"))
    engine = create_engine(database.url("postgres"), poolclass=NullPool)
    with engine.begin() as connection:
        for statement in bootstrap_sql(roles, database.name):
            connection.execute(text(statement))
        connection.exec_driver_sql(f"SET LOCAL ROLE {roles.owner}")
        for statement in install_sql(roles):
            connection.execute(text(statement))
        Base.metadata.create_all(connection)
        for table in guarded(Base.metadata):
            for statement in guard_sql(table, roles):
                connection.execute(text(statement))
    with database.connect("postgres") as truth:
        for slug in ("acme", "globex"):
            tenant = uuid7()
            truth.execute(
                "INSERT INTO tenants (tenant_id, slug, name, status) VALUES (%s, %s, 'A', 'active')", [tenant, slug]
            )
            truth.execute(
                "INSERT INTO people (tenant_id, id, name, email) VALUES (%s, %s, 'Ada', 'ada@test.example')",
                [tenant, uuid7()],
            )
        truth.execute(
            "INSERT INTO tenancy.platform_session (id, role, actor, reason) VALUES (%s, %s, 'ana', 'by hand')",
            [session_id, roles.platform],
        )
    yield Installation(database, roles, session_id)
    empty_template.drop(database.name)
    with psycopg.connect(_plain(empty_template.server.url(role="postgres", database="postgres"))) as server:
        for role in (roles.migrator, roles.app, roles.platform, roles.backup, roles.owner, roles.lookup):
            server.execute(f"DROP ROLE {role}".encode())


def _plain(url: str) -> str:
    return url.replace("postgresql+psycopg", "postgresql", 1)


def test_disabled_login_opens_no_connection(installation: Installation) -> None:
    """T131"""
    with installation.database.connect("postgres") as truth:
        truth.execute(f"ALTER ROLE {installation.roles.platform} NOLOGIN".encode())

    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        installation.database.connect(installation.roles.platform)


def test_connection_that_outlives_its_login_sees_rows_until_its_session_ends(installation: Installation) -> None:
    """T131: the server asks for LOGIN only when one connects, so disabling it is half of shutting somebody out."""
    database, roles = installation.database, installation.roles
    with database.connect("postgres") as truth, database.connect(roles.platform) as platform:
        truth.autocommit = True
        before = [installation.people_seen(platform) for _ in range(12)]
        truth.execute(f"ALTER ROLE {roles.platform} NOLOGIN".encode())
        disabled = installation.people_seen(platform)

        truth.execute("ALTER TABLE tenancy.platform_session DISABLE TRIGGER append_only")
        truth.execute("UPDATE tenancy.platform_session SET expires_at = now()")
        ended = installation.people_seen(platform)

    assert (before, disabled, ended) == ([2] * 12, 2, 0)


def test_connection_that_outlives_its_login_reads_nothing_once_it_is_ended(installation: Installation) -> None:
    """T131: the other half, which an operator does at once."""
    database, roles = installation.database, installation.roles
    with database.connect("postgres") as truth, database.connect(roles.platform) as platform:
        truth.autocommit = True
        assert installation.people_seen(platform) == 2
        truth.execute(f"ALTER ROLE {roles.platform} NOLOGIN".encode())
        truth.execute("SELECT pg_terminate_backend(%s, 5000)", [platform.info.backend_pid])

        with pytest.raises(psycopg.OperationalError):
            installation.people_seen(platform)
        with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
            database.connect(roles.platform)


def test_disabled_login_can_still_open_a_new_session_on_a_live_connection(installation: Installation) -> None:
    """T131: why the connections have to be ended too; what it opens is audited like any other."""
    database, roles = installation.database, installation.roles
    renewed = uuid7()
    with database.connect("postgres") as truth, database.connect(roles.platform) as platform:
        truth.autocommit = True
        truth.execute(f"ALTER ROLE {roles.platform} NOLOGIN".encode())
        platform.execute(
            "INSERT INTO tenancy.platform_session (id, actor, reason) VALUES (%s, 'eve', 'by hand')", [renewed]
        )
        platform.commit()

        found = truth.execute("SELECT actor FROM tenancy.platform_session WHERE id = %s", [renewed]).fetchall()

    assert found == [("eve",)]
