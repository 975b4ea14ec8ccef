"""The example applications gain isolation by the mixin, the extension and one migration, on rows that were there."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

import tenancy.alembic
from tenancy import tenant_scope
from tests.conftest import ROLES, Database
from tests.docs.pages import DOCS

GLOBEX = UUID("0197c1a2-0000-7000-8000-00000000000b")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def migrate(database: Database, step: str) -> None:
    tenancy.alembic.install()
    migration = load("flask_sqlalchemy_migration")
    engine = create_engine(database.url(ROLES.migrator), poolclass=NullPool)
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
        getattr(migration, step)()


def todo_rows(database: Database) -> list[Any]:
    with database.connect("postgres") as connection:
        return connection.execute("SELECT id, title FROM todo ORDER BY id").fetchall()


@pytest.fixture
def existing(empty_database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A database as the application had it before: one table, one row, no tenants."""
    monkeypatch.setenv("APP_URL", empty_database.url(ROLES.app))
    engine = create_engine(empty_database.url(ROLES.migrator), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE todo (id serial PRIMARY KEY, title varchar NOT NULL)"))
        connection.execute(text("INSERT INTO todo (title) VALUES ('Buy anvils')"))
    return empty_database


@pytest.fixture(params=["flask_sqlalchemy_app", "flask_sqlalchemy_lite_app"])
def example(existing: Database, request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    migrate(existing, "upgrade")
    module = load(request.param)
    yield module
    module.tenancy.chain.directory.close()
    with module.app.app_context():
        module.db.engine.dispose()


def add(example: ModuleType, tenant: UUID, *rows: object) -> None:
    with example.app.app_context(), tenant_scope(tenant):
        session: Session = example.db.session
        session.add_all(rows)
        session.commit()
        session.close()


def test_rows_of_before_belong_to_the_first_tenant(example: ModuleType) -> None:
    answer = example.app.test_client().get("/todos", base_url="http://acme.localhost")

    assert answer.json == ["Buy anvils"]


def test_tenants_of_the_example_see_their_own_rows_only(example: ModuleType) -> None:
    with tenant_scope(GLOBEX):
        tenant = example.Tenant(id=GLOBEX, slug="globex", name="Globex", status="active")
        todo = example.Todo(title="Buy a hammock")
    add(example, GLOBEX, tenant, todo)
    client = example.app.test_client()

    theirs = client.get("/todos", base_url="http://globex.localhost")
    ours = client.get("/todos", base_url="http://acme.localhost")
    nobodys = client.get("/todos", base_url="http://initech.localhost")

    assert theirs.json == ["Buy a hammock"]
    assert ours.json == ["Buy anvils"]
    assert nobodys.status_code == 404


def test_example_migration_can_be_undone(existing: Database) -> None:
    migrate(existing, "upgrade")

    migrate(existing, "downgrade")

    assert todo_rows(existing) == [(1, "Buy anvils")]
