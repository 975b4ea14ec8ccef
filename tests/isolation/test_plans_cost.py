"""What the policies cost inside the server, counted: the shape of plans, what is planned anew, what is called again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from uuid_utils.compat import uuid7

from tests.conftest import ROLES, Database

Connection = psycopg.Connection[Any]
AGGREGATE = "SELECT name < 'p5', count(*), max(email) FROM people GROUP BY 1"
ROWS = 20_000  # as many as it takes for the server to mind how it reads them
_FILL = (
    "INSERT INTO people (tenant_id, id, name, email)"
    " SELECT CASE n %% 2 WHEN 0 THEN %s ELSE (%s::uuid[])[1 + n / 2 %% 100] END, gen_random_uuid(), 'p' || n, n::text"
    " FROM generate_series(1, %s) n"
)


@pytest.fixture
def large(fresh_database: Database) -> tuple[Database, UUID]:
    """20,000 people, half of them of one tenant, the others of a hundred; returns the database and that tenant."""
    tenant = uuid7()
    with fresh_database.connect("postgres") as truth:
        truth.execute("SELECT set_config('session_replication_role', 'replica', true)")
        truth.execute(_FILL, [tenant, [uuid7() for _ in range(100)], ROWS])
        truth.execute("ANALYZE people")
    return fresh_database, tenant


@pytest.fixture
def app(large: tuple[Database, UUID]) -> Iterator[Connection]:
    """The app role, bound to the tenant with half of the rows."""
    database, tenant = large
    with database.connect(ROLES.app) as connection:
        connection.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant)])
        yield connection


def plan(connection: Connection, statement: str, options: str = "COSTS OFF, VERBOSE") -> str:
    rows = connection.execute(f"EXPLAIN ({options}) {statement}".encode()).fetchall()
    return "\n".join(str(row[0]) for row in rows)


def scan_of_people(connection: Connection) -> str:
    found = re.search(r"(\S+ ?\S*) Scan (?:using \S+ )?on (?:public\.)?people", plan(connection, AGGREGATE))
    assert found is not None
    return found[1].removeprefix("-> ").strip()


def test_large_tenant_is_read_by_its_index_in_the_order_of_the_table(app: Connection) -> None:
    """A scan of the index alone fetches rows here and there; one of the table evaluates the policy for every row."""
    assert app.execute("SELECT count(*) FROM people").fetchone() == (ROWS // 2,)
    assert scan_of_people(app).endswith("Bitmap Heap")


@pytest.mark.parametrize(("cost", "shape"), [(100, "Index"), (0.01, "Seq")])
def test_cost_of_the_function_that_refuses_decides_that(
    large: tuple[Database, UUID], app: Connection, cost: float, shape: str
) -> None:
    """Without this, the test above would prove little."""
    with large[0].connect("postgres") as truth:
        truth.execute(f"ALTER FUNCTION tenancy.no_tenant() COST {cost}".encode())

    assert scan_of_people(app).endswith(shape)


def test_repeated_point_read_runs_on_a_plan_that_is_kept(app: Connection) -> None:
    row = app.execute("SELECT tenant_id, id FROM people LIMIT 1").fetchone()
    for _ in range(8):  # after five, the server weighs what planning costs
        found = app.execute("SELECT name FROM people WHERE (tenant_id, id) = (%s, %s)", row, prepare=True).fetchall()
        assert len(found) == 1

    kept = app.execute("SELECT custom_plans, generic_plans FROM pg_prepared_statements").fetchall()
    assert kept == [(5, 3)]


def test_no_policy_calls_a_function_whose_body_each_plan_would_take_in(app: Connection) -> None:
    """To parse one and plan it in line took half of what policies add to planning a point read."""
    called = app.execute(
        "SELECT DISTINCT proname::text, lanname::text FROM pg_policy JOIN pg_depend ON objid = pg_policy.oid"
        " JOIN pg_proc ON pg_proc.oid = refobjid JOIN pg_language ON pg_language.oid = prolang"
        " WHERE polrelid = 'people'::regclass AND refclassid = 'pg_proc'::regclass ORDER BY 1"
    ).fetchall()

    assert called == [("guarded_tenant", "plpgsql"), ("no_tenant", "plpgsql"), ("platform_open", "plpgsql")]


def test_isolation_policy_shows_the_planner_its_tenant_and_the_guard_is_called(app: Connection) -> None:
    """In line, it shows the planner which tenant it is; in the sub-selects, that took longer than the call."""
    found = plan(app, "SELECT name FROM people WHERE id = gen_random_uuid()")

    assert re.findall(r"Output: (tenancy\.\w+\(\))", found) == ["tenancy.guarded_tenant()", "tenancy.platform_open()"]
    assert "current_tenant" not in found
    assert "tenant_id = CASE WHEN (NULLIF(current_setting('app.tenant_id'::text, true), ''::text) IS NULL)" in found


def test_guard_of_inserted_rows_is_evaluated_once_for_all_of_them(
    large: tuple[Database, UUID], app: Connection
) -> None:
    rows = ", ".join(f"('{large[1]}', '{uuid7()}', 'new', 'new{n}')" for n in range(100))

    found = plan(
        app, f"INSERT INTO people (tenant_id, id, name, email) VALUES {rows}", "ANALYZE, COSTS OFF, TIMING OFF"
    )

    assert re.findall(r"InitPlan \d+[^\n]*\n +->  Result \(actual rows=1(?:\.00)? loops=(\d+)\)", found) == ["1"]
    assert app.execute("SELECT count(*) FROM people WHERE name = 'new'").fetchone() == (100,)
