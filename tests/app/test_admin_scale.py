"""Listing and searching read as much with ten thousand tenants as with a hundred: counted in pages, not in time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from uuid_utils.compat import uuid7

from tenancy.embedded import Template
from tests.conftest import ROLES, Database

FEW, MANY = 100, 10_000
FILL = """
INSERT INTO tenants (tenant_id, slug, name, status, plan, plan_version, created_at)
SELECT gen_random_uuid(), 'made-' || n, 'Company ' || md5(n::text),
       CASE WHEN mod(n, 50) = 0 THEN 'suspended' ELSE 'active' END,
       CASE WHEN mod(n, 100) = 0 THEN 'enterprise' ELSE 'basic' END, 1, now() - n * interval '1 minute'
FROM generate_series(%s::integer, %s::integer) n
"""
PAGE = 51


def open_database(app_template: Template, name: str, tenants: int) -> Database:
    database = Database(app_template.server, app_template.clone(name))
    with database.connect("postgres") as connection:
        connection.execute(FILL, [1, tenants])
        connection.commit()
        connection.autocommit = True
        connection.execute("VACUUM ANALYZE tenants, searched_tenants")
    return database


@pytest.fixture(scope="module")
def databases(app_template: Template, worker: str) -> Iterator[tuple[Database, Database]]:
    """The same registry twice: with few tenants, and with many."""
    names = [f"{size}_{worker}" for size in ("few", "many")]
    made = [open_database(app_template, name, size) for name, size in zip(names, (FEW, MANY), strict=True)]
    yield made[0], made[1]
    for database in made:
        app_template.drop(database.name)


def pages_read(database: Database, **asked: Any) -> tuple[int, int]:
    """Return how many tenants a search answers, and how many pages of the database it reads for that."""
    values = {"part": "", "status": None, "plan": None, "sort": "-created_at", "value": None, "id": None, "most": PAGE}
    with database.connect(ROLES.platform) as connection:
        open_platform_session(connection)
        # The first call of a function reads the catalog besides.
        for _ in range(2):
            plan = connection.execute(
                "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM search_tenants(%(part)s, %(status)s, %(plan)s, "
                "%(sort)s, %(value)s, %(id)s, %(most)s)",
                values | asked,
            ).fetchone()
    assert plan is not None
    node: Any = plan[0][0]["Plan"]  # type: ignore[index]
    return int(node["Actual Rows"]), node["Shared Hit Blocks"] + node["Shared Read Blocks"]


def open_platform_session(connection: psycopg.Connection[Any]) -> None:
    session_id: UUID = uuid7()
    connection.autocommit = True
    connection.execute(
        "INSERT INTO tenancy.platform_session (id, actor, reason) VALUES (%s, 'tests', 'to count')", [session_id]
    )
    connection.execute("SELECT set_config('app.platform_session', %s, false)", [str(session_id)])


@pytest.mark.parametrize(
    ("asked", "rows_of_few", "rows_of_many"),
    [
        pytest.param({}, PAGE, PAGE, id="newest"),
        pytest.param({"sort": "name"}, PAGE, PAGE, id="by name"),
        pytest.param({"status": "active"}, PAGE, PAGE, id="nearly all have the status"),
        pytest.param({"status": "suspended"}, 2, PAGE, id="few have the status"),
        pytest.param({"plan": "enterprise"}, 1, PAGE, id="few have the plan"),
        pytest.param({"part": "made-77"}, 1, PAGE, id="the beginning of a slug"),
        pytest.param({"part": "company"}, PAGE, PAGE, id="a part that all have"),
        pytest.param({"part": "ma"}, PAGE, PAGE, id="two characters that all have"),
        pytest.param({"part": "28dd2c7955ce"}, 1, 1, id="a part of one name"),
        pytest.param({"part": "no such name"}, 0, 0, id="a part that none has"),
    ],
)
def test_search_reads_no_more_of_many_tenants_than_the_page_needs(
    databases: tuple[Database, Database], asked: dict[str, Any], rows_of_few: int, rows_of_many: int
) -> None:
    few_rows, few_pages = pages_read(databases[0], **asked)

    many_rows, many_pages = pages_read(databases[1], **asked)

    assert (few_rows, many_rows) == (rows_of_few, rows_of_many)
    # A row of the answer may lie on a page of its own, and the trees are a level or two deeper.
    assert many_pages <= few_pages + 3 * many_rows + 60
