"""Signed scopes in revision files: the step there, the step back, and what autogenerate writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

import tenancy.alembic
from tenancy.binding import create_tenant_engine
from tenancy.context import tenant_scope
from tenancy.errors import MigrationError
from tenancy.signing import SigningKey
from tests.conftest import ROLES, Database
from tests.models import Base
from tests.signed import ACME, GLOBEX, KEY, add_key, fill
from tests.tenancy.engines import column
from tests.tenancy.migrations import Project, migrating

UNSIGNED = "tenancy.alembic.install()"
SIGNED = "tenancy.alembic.install(signed=True)"


@pytest.fixture
def project(empty_database: Database, tmp_path: Path) -> Iterator[Project]:
    yield Project(tmp_path, empty_database)
    tenancy.alembic.install()


def say(project: Project, call: str) -> None:
    env = project.folder / "env.py"
    env.write_text(env.read_text().replace(SIGNED, UNSIGNED).replace(UNSIGNED, call))


def names(database: Database, key: SigningKey | None) -> list[list[str]]:
    engine = create_tenant_engine(database.url(ROLES.app), signing_key=key)
    found = []
    try:
        for tenant in (ACME, GLOBEX):
            with tenant_scope(tenant), engine.connect() as connection:
                found.append(column(connection, "SELECT name FROM people"))
    finally:
        engine.dispose()
    return found


def test_unsigned_database_is_signed_and_unsigned_by_one_revision(project: Project) -> None:
    project.generate(Base.metadata)
    project.upgrade()
    fill(project.database)
    before = names(project.database, None)
    say(project, SIGNED)

    written = project.generate(Base.metadata)
    project.upgrade()
    with pytest.raises(DBAPIError, match="unknown or retired"):
        names(project.database, KEY)
    add_key(project.database, KEY)
    signed = names(project.database, KEY)
    project.check(Base.metadata)
    project.downgrade()
    after = names(project.database, None)

    assert "op.reinstall_tenancy(signed=True)\n" in written
    assert "op.reinstall_tenancy(signed=False)\n" in written
    assert "create_lookup" not in written
    assert before == signed == after == [["Ada"], ["Eve"]]


def test_first_revision_of_a_signed_installation_is_signed(project: Project) -> None:
    say(project, SIGNED)

    project.generate(Base.metadata)
    project.upgrade()
    fill(project.database)
    add_key(project.database, KEY)

    assert names(project.database, KEY) == [["Ada"], ["Eve"]]
    project.check(Base.metadata)


def test_signed_database_of_an_unsigned_env_is_unsigned_by_a_revision_only(project: Project) -> None:
    say(project, SIGNED)
    project.generate(Base.metadata)
    project.upgrade()
    say(project, UNSIGNED)
    project.write("op.reinstall_tenancy()")

    with pytest.raises(MigrationError, match=r"env\.py does not say so"):
        project.upgrade()


def test_changed_verification_is_found_and_repaired(project: Project) -> None:
    say(project, SIGNED)
    project.generate(Base.metadata)
    project.upgrade()
    for change in (
        "CREATE OR REPLACE FUNCTION tenancy.signed_tenant() RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'",
        "GRANT EXECUTE ON PROCEDURE tenancy.bind_scope TO PUBLIC",
    ):
        with project.database.connect("postgres") as truth:
            truth.execute(change.encode())

        assert "op.reinstall_tenancy()" in project.generate(Base.metadata)
        project.upgrade()
        project.check(Base.metadata)


def test_data_migration_visits_every_tenant_of_a_signed_database(project: Project) -> None:
    say(project, SIGNED)
    project.generate(Base.metadata)
    project.upgrade()
    fill(project.database)
    project.write("for tenant in op.for_each_tenant():\n    op.execute(\"UPDATE people SET email = 'moved'\")")

    project.upgrade()

    with project.database.connect("postgres") as truth:
        assert truth.execute("SELECT DISTINCT email, count(*) FROM people GROUP BY 1").fetchall() == [("moved", 2)]


def test_signed_schema_is_installed_and_removed_by_operations(empty_database: Database) -> None:
    for signed in (True, False):
        with migrating(empty_database) as operations:
            operations.install_tenancy(signed=signed)  # type: ignore[attr-defined]  # registered by install()
        with empty_database.connect("postgres") as truth:
            made = truth.execute("SELECT to_regclass('tenancy.signing_key')::text").fetchone()
        with migrating(empty_database) as operations:
            operations.uninstall_tenancy(signed=signed)  # type: ignore[attr-defined]
        with empty_database.connect("postgres") as truth:
            left = truth.execute("SELECT to_regnamespace('tenancy')::text").fetchone()

        assert (made, left) == (("tenancy.signing_key" if signed else None,), (None,))


def test_signed_migrations_are_written_to_a_script(project: Project) -> None:
    say(project, SIGNED)
    project.write("op.install_tenancy()", "op.uninstall_tenancy()")

    up, down = project.script(), project.script(down="head:base")

    assert "CREATE TABLE IF NOT EXISTS tenancy.signing_key" in up
    assert "CREATE OR REPLACE PROCEDURE tenancy.bind_scope" in up
    assert "DROP TABLE IF EXISTS tenancy.signing_key" in down
