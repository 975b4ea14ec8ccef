"""Plans under the policies, as the app role gets them: they start from the tenant, by an index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from uuid_utils.compat import uuid7

from tests.conftest import ROLES, Database

Connection = psycopg.Connection[Any]
TENANTS, COMPANIES, PEOPLE = 40, 20, 250  # companies and people of each tenant
STATEMENTS = {
    "point lookup": "SELECT name FROM people WHERE id = '{person}'",
    "join by foreign key": (
        "SELECT p.name, c.name FROM people p"
        " JOIN companies c ON c.tenant_id = p.tenant_id AND c.id = p.company_id WHERE p.id = '{person}'"
    ),
    "aggregate": "SELECT count(*), max(name) FROM people",
}


@pytest.fixture
def filled(fresh_database: Database) -> tuple[Database, UUID, UUID]:
    """10,000 people in forty tenants; returns the database, a tenant, and a person of it."""
    tenants = [uuid7() for _ in range(TENANTS)]
    with fresh_database.connect("postgres") as truth:
        truth.execute("SELECT set_config('session_replication_role', 'replica', true)")
        truth.execute(
            "INSERT INTO companies (tenant_id, id, name)"
            " SELECT t, gen_random_uuid(), 'c' || n FROM unnest(%s::uuid[]) t, generate_series(1, %s) n",
            [tenants, COMPANIES],
        )
        truth.execute(
            "INSERT INTO people (tenant_id, id, name, email, company_id)"
            " SELECT t, gen_random_uuid(), 'p' || n, n || '@test.example',"
            "  (SELECT id FROM companies c WHERE c.tenant_id = t AND c.name = 'c' || (1 + n %% %s))"
            " FROM unnest(%s::uuid[]) t, generate_series(1, %s) n ORDER BY n",
            [COMPANIES, tenants, PEOPLE],
        )
        truth.execute("ANALYZE people, companies")
        row = truth.execute("SELECT id FROM people WHERE tenant_id = %s LIMIT 1", [tenants[7]]).fetchone()
    assert row is not None
    return fresh_database, tenants[7], UUID(str(row[0]))


def scans(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The nodes of a plan that fetch from a table; of a bitmap scan, the scans of its indexes."""
    within = node.get("Plans", [])
    if "Index Name" in node or ("Relation Name" in node and not within):
        yield node
    for child in within:
        yield from scans(child)


def faults(connection: Connection, statement: str) -> list[str]:
    """Say which scans of the statement's plan read a table from end to end, or do not start from the tenant."""
    row = connection.execute(f"EXPLAIN (FORMAT JSON) {statement}".encode()).fetchone()
    assert row is not None
    found = list(scans(row[0][0]["Plan"]))
    assert found != []
    return [
        f"{scan['Node Type']} {scan.get('Index Cond', '')}"
        for scan in found
        if "tenant_id" not in scan.get("Index Cond", "")
    ]


def bound(database: Database, tenant: UUID) -> Connection:
    connection = database.connect(ROLES.app)
    connection.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant)])
    return connection


@pytest.mark.parametrize("name", STATEMENTS)
def test_plan_under_the_policies_starts_from_the_tenant(filled: tuple[Database, UUID, UUID], name: str) -> None:
    """T134: the statements name no tenant, so the index condition is the policy's own."""
    database, tenant, person = filled
    statement = STATEMENTS[name].format(person=person)

    with bound(database, tenant) as app:
        assert app.execute(statement.encode()).fetchall() != []
        found = faults(app, statement)

    assert found == []


@pytest.mark.parametrize("name", STATEMENTS)
def test_generic_plan_under_the_policies_starts_from_the_tenant(filled: tuple[Database, UUID, UUID], name: str) -> None:
    """T134: the plan of a statement that is prepared, made without a look at the tenant that is bound."""
    database, tenant, person = filled
    statement = STATEMENTS[name].format(person=person)

    with bound(database, tenant) as app:
        app.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        app.execute(f"PREPARE prepared AS {statement}".encode())
        found = faults(app, "EXECUTE prepared")

    assert found == []


@pytest.mark.parametrize("name", STATEMENTS)
def test_policy_that_leaks_to_the_planner_is_caught_by_its_plans(
    filled: tuple[Database, UUID, UUID], name: str
) -> None:
    """T134: COALESCE counts as leaky, so its condition may enter no index; without this, the others prove little."""
    database, tenant, person = filled
    with database.connect("postgres") as truth:
        for table in ("people", "companies"):
            truth.execute(
                f"ALTER POLICY tenancy_isolation ON {table} USING (tenant_id = COALESCE("
                "nullif(pg_catalog.current_setting('app.tenant_id', true), '')::pg_catalog.uuid, tenancy.no_tenant()))"
            )
    statement = STATEMENTS[name].format(person=person)

    with bound(database, tenant) as app:
        assert app.execute(statement.encode()).fetchall() != []
        found = faults(app, statement)

    assert found != []
