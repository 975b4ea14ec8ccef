"""A table that is adopted with limits is never open to a role that may not change it, not for one migration."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Column, MetaData, Text, Uuid
from sqlalchemy.schema import Table

from tenancy.marks import limit_grants
from tenancy.tables import tenant_column
from tests.conftest import ROLES, Database
from tests.tenancy.migrations import Project, compared

ACME, ENTRY = UUID(int=1), UUID(int=2)
LIMITS = "app=['SELECT', 'INSERT'], platform=['SELECT', 'DELETE']"


def entries() -> MetaData:
    metadata = MetaData()
    table = Table("entries", metadata, tenant_column(), Column("id", Uuid, primary_key=True), Column("what", Text))
    limit_grants(app=("SELECT", "INSERT"), platform=("SELECT", "DELETE"))(table)
    return metadata


@pytest.fixture
def project(tmp_path: Path, empty_database: Database) -> Project:
    project = Project(tmp_path, empty_database)
    project.write("op.install_tenancy()", "op.uninstall_tenancy()")
    project.upgrade()
    with empty_database.connect("postgres") as truth:
        truth.execute(f"SET ROLE {ROLES.owner}")
        truth.execute("CREATE TABLE entries (id uuid PRIMARY KEY, what text)")
        truth.execute("INSERT INTO entries VALUES (%s, 'signed in')", [ENTRY])
    return project


def test_adopted_table_has_the_limits_it_was_given(project: Project, empty_database: Database) -> None:
    project.write(f"op.adopt_table('entries', tenant_id='{ACME}', {LIMITS})", f"op.abandon_table('entries', {LIMITS})")
    project.upgrade()

    with empty_database.connect(ROLES.app) as app:
        app.execute("SELECT set_config('app.tenant_id', %s, true)", [str(ACME)])
        assert app.execute("SELECT what FROM entries").fetchall() == [("signed in",)]
        for statement in ("UPDATE entries SET what = 'nothing'", "DELETE FROM entries"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), app.transaction():
                app.execute(statement.encode())
    assert compared(empty_database, entries()).ops == []
    project.downgrade()
    project.upgrade()
    assert compared(empty_database, entries()).ops == []


def test_limits_that_were_forgotten_in_the_adoption_are_found(project: Project, empty_database: Database) -> None:
    project.write(f"op.adopt_table('entries', tenant_id='{ACME}')")
    project.upgrade()

    (found,) = compared(empty_database, entries()).as_diffs()

    assert found[:2] == ("reguard_table", "entries")
