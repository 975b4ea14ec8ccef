"""What a limit leaves open: a column that comes later, and a foreign key that does what the role may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, Uuid

from tenancy.tables import TENANT_KEY, limit_grants, platform_table, staff_table
from tests.conftest import ROLES, Database
from tests.tenancy.migrations import Project


def shop(*added: str) -> MetaData:
    """Tables that are no more than their keys, and one of accounts; with columns that were added later."""
    metadata = MetaData()

    def columns() -> list[Column[Any]]:
        return [Column(name, Text) for name in added]

    stamps = Table("stamps", metadata, Column(TENANT_KEY, Uuid, primary_key=True), Column("id", Uuid, primary_key=True))
    visits = Table("visits", metadata, Column(TENANT_KEY, Uuid, primary_key=True), Column("id", Uuid, primary_key=True))
    desks = Table("desks", metadata, Column("id", Uuid, primary_key=True))
    settings = Table(
        "settings",
        metadata,
        Column("id", Uuid, primary_key=True),
        Column("account_id", Uuid, nullable=False),
        Column("seats", Integer),
    )
    for table in (stamps, visits, desks, settings):
        for column in columns():
            table.append_column(column)
    limit_grants(app=("SELECT", "INSERT"))(stamps)
    staff_table(reason="desks belong to staff")(desks)
    platform_table(reason="an account's own", account_key="account_id")(settings)
    return metadata


@pytest.fixture
def project(tmp_path: Path, empty_database: Database) -> Project:
    project = Project(tmp_path, empty_database)
    project.generate(shop())
    project.upgrade()
    return project


def updatable(project: Project, table: str) -> tuple[bool, bool]:
    """Whether the app and the platform role may update the note of a table."""
    with project.database.connect("postgres") as truth:
        row = truth.execute(
            "SELECT has_column_privilege(%s, %s, 'note', 'UPDATE'), has_column_privilege(%s, %s, 'note', 'UPDATE')",
            [ROLES.app, table, ROLES.platform, table],
        ).fetchone()
    assert row is not None
    return bool(row[0]), bool(row[1])


def test_column_added_by_hand_opens_no_table_that_had_none(project: Project) -> None:
    """Whether the role may update the columns that are not there says nothing."""
    for table in ("stamps", "desks"):
        project.write(f"op.add_column({table!r}, sa.Column('note', sa.Text))")
    project.upgrade()

    assert updatable(project, "stamps")[0] is False
    assert updatable(project, "desks")[0] is False


def test_added_column_has_the_grants_of_its_model_at_once(project: Project) -> None:
    later = shop("note")
    project.generate(later)
    project.upgrade()

    found = {table: updatable(project, table) for table in ("stamps", "visits", "desks", "settings")}

    assert found == {
        "stamps": (False, True),
        "visits": (True, True),
        "desks": (False, True),
        "settings": (True, True),
    }
    project.check(later)
