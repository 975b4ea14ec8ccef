"""The application's migrations: they make what the models say, and can be taken back."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import CheckConstraint, create_engine, inspect
from sqlalchemy.pool import NullPool

from app.models import Base
from tenancy.tables import check_metadata
from tests.conftest import ROLES, Database


@pytest.fixture
def config(empty_database: Database) -> Config:
    found = Config("alembic.ini", stdout=io.StringIO())
    found.attributes["url"] = empty_database.url(ROLES.migrator)
    return found


def tables(database: Database) -> set[str]:
    engine = create_engine(database.url("postgres"), poolclass=NullPool)
    return set(inspect(engine).get_table_names()) - {"alembic_version"}


def test_models_are_all_isolated_or_say_why_not() -> None:
    check_metadata(Base.metadata)


def test_migrations_make_what_the_models_say(config: Config, empty_database: Database) -> None:
    command.upgrade(config, "head")

    command.check(config)
    assert tables(empty_database) == set(Base.metadata.tables)


def test_migrations_can_be_taken_back_and_run_again(config: Config, empty_database: Database) -> None:
    command.upgrade(config, "head")

    command.downgrade(config, "base")

    assert tables(empty_database) == set()
    command.upgrade(config, "head")
    command.check(config)


def test_migration_folder_is_no_package() -> None:
    assert list(Path("alembic").rglob("__init__.py")) == []


def test_url_comes_from_the_environment_when_nobody_passes_it(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_MIGRATOR_DATABASE_URL", empty_database.url(ROLES.migrator))

    command.upgrade(Config("alembic.ini"), "head")

    assert "people" in tables(empty_database)


def test_every_named_check_of_the_models_is_in_the_database(config: Config, empty_database: Database) -> None:
    command.upgrade(config, "head")

    engine = create_engine(empty_database.url("postgres"), poolclass=NullPool)
    found = set(checks(inspect(engine)))
    declared = [c for t in Base.metadata.tables.values() for c in t.constraints if isinstance(c, CheckConstraint)]
    assert len(found) == len(declared)
    assert found >= {
        "ck_members_role_known",
        "ck_opportunities_amount_positive",
        "ck_opportunities_stage_known",
        "ck_tenants_plan_known",
        "ck_tenants_slug_syntax",
        "ck_tenants_status_known",
    }


def checks(inspector: object) -> Iterator[str]:
    for table in Base.metadata.tables:
        for check in inspector.get_check_constraints(table):  # type: ignore[attr-defined]
            yield str(check["name"])
