"""T110: a custom domain serves the tenant that has verified it, and nobody else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from flask.testing import FlaskClient
from psycopg import errors
from sqlalchemy import Engine
from sqlalchemy.orm import sessionmaker

from tenancy.directory import Reference, SQLDirectory
from tenancy.session import TenantSession
from tests.conftest import SomeTenant
from tests.isolation.plain import bind
from tests.models import Domain, Tenant
from tests.tenancy.flask_app import make_app

Truth = psycopg.Connection[Any]
FLOOR_S = 0.2


@pytest.fixture
def directory(app_engine: Engine) -> Iterator[SQLDirectory]:
    made = SQLDirectory(Tenant, domains=Domain, floor_ttl_s=FLOOR_S, negative_ttl_s=FLOOR_S)
    made.bind(app_engine)
    yield made
    made.close()


@pytest.fixture
def client(sessions: sessionmaker[TenantSession], directory: SQLDirectory) -> FlaskClient:
    return make_app(sessions, directory)[0].test_client()


@pytest.fixture
def domain() -> str:
    return f"{uuid4().hex}.test"


def claim(truth: Truth, tenant: UUID, domain: str, *, verified: bool) -> None:
    truth.execute(
        "INSERT INTO domains (tenant_id, id, domain, verified_at)"
        " VALUES (%s, gen_random_uuid(), %s, CASE WHEN %s THEN now() END)",
        [tenant, domain, verified],
    )


def served_at(client: FlaskClient, domain: str) -> str | int:
    """The tenant that answers there, or the status that a stranger gets."""
    answer = client.get("/", base_url=f"http://{domain}/")
    return answer.json["tenant"] if answer.status_code == 200 and answer.json else answer.status_code


def test_domain_that_is_not_verified_serves_nobody(
    client: FlaskClient, truth: Truth, acme: SomeTenant, domain: str
) -> None:
    """T110"""
    claim(truth, acme.id, domain, verified=False)

    before = served_at(client, domain)
    truth.execute("UPDATE domains SET verified_at = now() WHERE domain = %s", [domain])
    time.sleep(FLOOR_S)

    assert (before, served_at(client, domain)) == (404, acme.slug)


def test_domain_verified_by_one_tenant_can_be_verified_by_no_other(
    client: FlaskClient, truth: Truth, acme: SomeTenant, globex: SomeTenant, domain: str
) -> None:
    """T110"""
    claim(truth, acme.id, domain, verified=True)

    with pytest.raises(errors.UniqueViolation):
        claim(truth, globex.id, domain, verified=True)

    assert served_at(client, domain) == acme.slug


@pytest.mark.parametrize("status", ["suspended", "archived", "deleting", "deleted", "pending"])
def test_domain_of_a_tenant_that_is_not_active_serves_nobody(
    client: FlaskClient, truth: Truth, acme: SomeTenant, domain: str, status: str
) -> None:
    """T110"""
    claim(truth, acme.id, domain, verified=True)
    assert served_at(client, domain) == acme.slug

    truth.execute("UPDATE tenants SET status = %s WHERE tenant_id = %s", [status, acme.id])
    time.sleep(FLOOR_S)

    assert served_at(client, domain) == 404


def test_domain_of_a_tenant_that_was_erased_serves_nobody_until_the_next_verifies_it(
    client: FlaskClient, truth: Truth, acme: SomeTenant, globex: SomeTenant, domain: str
) -> None:
    """T110"""
    claim(truth, acme.id, domain, verified=True)
    assert served_at(client, domain) == acme.slug

    truth.execute("DELETE FROM domains WHERE tenant_id = %s", [acme.id])
    truth.execute("DELETE FROM tenants WHERE tenant_id = %s", [acme.id])
    time.sleep(FLOOR_S)
    meanwhile = served_at(client, domain)
    claim(truth, globex.id, domain, verified=True)
    time.sleep(FLOOR_S)

    assert (meanwhile, served_at(client, domain)) == (404, globex.slug)


def test_domain_that_moves_is_not_remembered_for_the_first_tenant(
    directory: SQLDirectory, truth: Truth, acme: SomeTenant, globex: SomeTenant, domain: str
) -> None:
    """T110: nobody announces it, so every process asks again after the floor time, even while it listens."""
    named = Reference("domain", domain)
    claim(truth, acme.id, domain, verified=True)
    deadline = time.monotonic() + 5
    while not directory.is_listening:
        assert time.monotonic() < deadline
        directory.find(named)
        time.sleep(0.01)
    first = directory.find(named)

    truth.execute("DELETE FROM domains WHERE domain = %s", [domain])
    claim(truth, globex.id, domain, verified=True)
    time.sleep(FLOOR_S)

    second = directory.find(named)
    assert [found and found.id for found in (first, second)] == [acme.id, globex.id]
    assert directory.is_listening


def test_tenant_cannot_touch_the_domain_of_another(
    database: Any, truth: Truth, acme: SomeTenant, globex: SomeTenant, domain: str
) -> None:
    """T110"""
    claim(truth, acme.id, domain, verified=False)

    with database.connect("tenancy_app") as app:
        bind(app, globex.id)
        verified = app.execute("UPDATE domains SET verified_at = now() WHERE domain = %s", [domain]).rowcount
        taken = app.execute("DELETE FROM domains WHERE domain = %s", [domain]).rowcount

    assert (verified, taken) == (0, 0)
    assert truth.execute("SELECT verified_at FROM domains WHERE domain = %s", [domain]).fetchall() == [(None,)]


def test_address_below_our_own_domain_is_no_custom_domain(
    client: FlaskClient, truth: Truth, globex: SomeTenant, acme: SomeTenant
) -> None:
    """T110: a tenant that claims another's address as its domain gets nothing by it."""
    claim(truth, globex.id, f"{acme.slug}.example.com", verified=True)

    assert served_at(client, f"{acme.slug}.example.com") == acme.slug


def test_domain_in_another_spelling_is_the_same_domain(
    client: FlaskClient, truth: Truth, acme: SomeTenant, domain: str
) -> None:
    claim(truth, acme.id, domain, verified=True)

    assert {served_at(client, spelled) for spelled in (domain.upper(), f"{domain}:443", f"{domain}.")} == {acme.slug}
