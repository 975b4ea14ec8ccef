"""Fixtures for an application's own tests; there when the pytest configuration names the application."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tenancy.context import current_scope
from tenancy.embedded import Server
from tenancy.pytest_plugin.clients import Clients, open_client
from tenancy.pytest_plugin.installation import INSTALLATION, Installation
from tenancy.testing.world import World


@pytest.fixture(scope="session")
def tenancy_installation(request: pytest.FixtureRequest) -> Installation:
    """The application under test with its server and database; the other fixtures are parts of it."""
    return request.config.stash[INSTALLATION]


@pytest.fixture(scope="session")
def tenancy_server(tenancy_installation: Installation) -> Server:
    """The PostgreSQL server of this run, shared by all workers."""
    return tenancy_installation.server


@pytest.fixture
def tenancy_world(tenancy_installation: Installation) -> World:
    """Two tenants with rows in every tenant table, as they were seeded: a test finds no other's leftovers."""
    return tenancy_installation.world


@pytest.fixture
def tenancy_database(tenancy_installation: Installation, tenancy_world: World) -> Installation:
    """This worker's database: `url(role)` gives a role's URL in it, and `roles` the names."""
    return tenancy_installation


@pytest.fixture
def tenancy_clients(
    request: pytest.FixtureRequest, tenancy_installation: Installation, tenancy_world: World
) -> Clients:
    """Clients of the two tenants, `a` and `b`, each at its own tenant's address and signed in there."""
    config, app = request.config, tenancy_installation.app
    a, b = (open_client(config, app, tenancy_world, tenant) for tenant in tenancy_world.tenants)
    return Clients(a, b)


@pytest.fixture(autouse=True)
def tenancy_leaks() -> Iterator[None]:
    """Fail a test that leaves a scope open behind it."""
    _refuse_scope("an earlier test left its scope open")
    yield
    _refuse_scope("this test left a scope open")


def _refuse_scope(found: str) -> None:
    if current_scope() is not None:
        pytest.fail(f"{found}: {current_scope()!r}", pytrace=False)
