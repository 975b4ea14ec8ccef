"""Every page under docs/ does what it says: its blocks run in order, against a real database."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from alembic.operations.ops import MigrateOperation, OpContainer
from sqlalchemy import Engine

from tenancy import create_tenant_engine, tenant_scope, tenant_sessionmaker
from tenancy.embedded.sources import URL_VARIABLE
from tenancy.flask import Tenancy
from tests.conftest import ROLES, Database
from tests.docs.pages import DOCS, Reader, programs_of
from tests.tenancy.migrations import compared, migrating

PAGES = sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts and programs_of(page))


@pytest.fixture
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a page import the files it saves, and forget them: the next page may use the same names."""
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            _dispose_engines(vars(module))
            del sys.modules[name]


@pytest.fixture
def reader(
    tmp_path: Path, empty_database: Database, monkeypatch: pytest.MonkeyPatch, own_modules: None
) -> Iterator[Reader]:
    """A folder and an empty database, whose URLs are in the variables that the pages name."""
    for variable, role in {
        "TENANCY_ADMIN_URL": "postgres",
        "MIGRATOR_URL": ROLES.migrator,
        "APP_URL": ROLES.app,
        "PLATFORM_URL": ROLES.platform,
    }.items():
        monkeypatch.setenv(variable, empty_database.url(role))
    monkeypatch.delenv(URL_VARIABLE, raising=False)  # a page that starts a server starts its own
    monkeypatch.chdir(tmp_path)
    with ExitStack() as migration:
        reader = Reader(
            tmp_path,
            setup=lambda namespace: set_up(empty_database, namespace),
            op=lambda namespace: namespace.update(op=migration.enter_context(migrating(empty_database))),
        )
        yield reader
    _dispose_engines(reader.namespace)


def set_up(database: Database, namespace: dict[str, Any]) -> None:
    """Migrate to the page's models, and give it an engine, sessions and two tenants."""
    upgrade = compared(database, namespace["Base"].metadata)
    with migrating(database) as operations:
        for operation in flattened(upgrade):
            operations.invoke(operation)
    engine = create_tenant_engine(database.url(ROLES.app))
    sessions = tenant_sessionmaker(engine)
    namespace |= {"engine": engine, "Session": sessions, "tenant_scope": tenant_scope}
    for slug in ("acme", "globex"):
        tenant_id = namespace[slug] = uuid4()
        with tenant_scope(tenant_id), sessions.begin() as session:
            session.add(namespace["Tenant"](id=tenant_id, slug=slug, name=slug.title(), status="active"))


def flattened(container: OpContainer) -> Iterator[MigrateOperation]:
    for operation in container.ops:
        if isinstance(operation, OpContainer):
            yield from flattened(operation)
        else:
            yield operation


def _dispose_engines(namespace: dict[str, Any]) -> None:
    for value in list(namespace.values()):
        if isinstance(value, Engine):
            value.dispose()
        elif isinstance(value, Tenancy):
            value.chain.directory.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_page_does_what_it_says(page: Path, reader: Reader) -> None:
    reader.follow(page)
