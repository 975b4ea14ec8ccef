"""What a generated revision does to a real database, run by alembic as the migrator."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Database
from tests.models import Base
from tests.tenancy.migrations import EMPTY, Project


@pytest.fixture
def project(tmp_path: Path, empty_database: Database) -> Project:
    return Project(tmp_path, empty_database)


def test_second_autogenerate_after_first_migration_is_empty(project: Project) -> None:
    project.generate(Base.metadata)
    project.upgrade()

    second = project.generate(Base.metadata)

    assert second.count(EMPTY) == 2
