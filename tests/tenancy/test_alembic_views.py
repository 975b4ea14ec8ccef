"""The operations that make views: what they create, undo, refresh and refuse, run as the migrator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors
from sqlalchemy.exc import DBAPIError

from tenancy.alembic.views import CreateTenantMaterializedViewOp, CreateTenantViewOp
from tenancy.errors import ConfigurationError
from tenancy.rls.views import StoredView, TenantView, create_stored_view_sql, is_window
from tests.conftest import ROLES, Database
from tests.tenancy.migrations import Project, migrating

Truth = psycopg.Connection[tuple[object, ...]]
ACME, GLOBEX = "0190f5f1-0000-7000-8000-00000000000a", "0190f5f1-0000-7000-8000-00000000000b"
COUNTS = "SELECT tenant_id, count(*) AS people FROM people GROUP BY tenant_id"
FORCED = "SELECT count(*) FROM pg_class WHERE relforcerowsecurity"
VIEWS = (
    "SELECT relname, relkind::text FROM pg_class"
    " WHERE relname ~ '^(adults|counts)' AND relkind IN ('v', 'm') ORDER BY 1"
)
GRANTS = (
    "SELECT grantee, privilege_type FROM information_schema.role_table_grants"
    " WHERE table_name = %s AND grantee <> %s ORDER BY 1, 2"
)


@pytest.fixture
def truth(fresh_database: Database) -> Iterator[Truth]:
    """A person in each of two tenants; a superuser who sees them all."""
    with fresh_database.connect("postgres") as connection:
        connection.autocommit = True
        for tenant in (ACME, GLOBEX):
            connection.execute(
                "INSERT INTO tenants (tenant_id, slug, name) VALUES (%s, 't' || right(%s, 1), 'x')", [tenant, tenant]
            )
            add_person(connection, tenant)
        yield connection


@pytest.fixture
def project(tmp_path: Path, fresh_database: Database) -> Project:
    return Project(tmp_path, fresh_database)


def add_person(truth: Truth, tenant: str) -> None:
    truth.execute(
        "INSERT INTO people (tenant_id, id, name, email)"
        " VALUES (%s, gen_random_uuid(), '100%% :name', gen_random_uuid()::text)",
        [tenant],
    )


def counted(truth: Truth) -> list[tuple[object, ...]]:
    return truth.execute("SELECT tenant_id::text, people FROM counts_all_tenants ORDER BY 1").fetchall()


def grants(truth: Truth, view: str) -> list[tuple[object, ...]]:
    return truth.execute(GRANTS, [view, ROLES.owner]).fetchall()


def test_revision_makes_both_kinds_of_view_and_takes_them_back(project: Project, truth: Truth) -> None:
    project.write(
        f"op.create_tenant_view('adults', \"SELECT * FROM people WHERE name LIKE '100%% :name'\")\n"
        f"op.create_tenant_materialized_view('counts', {COUNTS!r})",
        f"op.drop_tenant_materialized_view('counts', {COUNTS!r})\nop.drop_tenant_view('adults', 'SELECT 1')",
    )

    project.upgrade()
    made = truth.execute(VIEWS).fetchall()
    project.downgrade()

    assert made == [("adults", "v"), ("counts", "v"), ("counts_all_tenants", "m")]
    assert truth.execute(VIEWS).fetchall() == []


def test_reverse_of_each_operation_undoes_it(fresh_database: Database, truth: Truth) -> None:
    made: list[Any] = [
        CreateTenantViewOp(TenantView("adults", "SELECT * FROM people", allow=("DELETE",))),
        CreateTenantMaterializedViewOp(StoredView("counts", COUNTS, unique=("tenant_id",))),
    ]

    for operation in made:
        with migrating(fresh_database) as op:
            for each in (operation, operation.reverse(), operation.reverse().reverse()):
                op.invoke(each)

    assert truth.execute(VIEWS).fetchall() == [("adults", "v"), ("counts", "v"), ("counts_all_tenants", "m")]
    assert [operation.reverse().to_diff_tuple() for operation in made] == [
        ("drop_tenant_view", "adults", "SELECT * FROM people", {"allow": ["DELETE"]}),
        ("drop_tenant_materialized_view", "counts", COUNTS, {"unique": ["tenant_id"]}),
    ]


def test_grants_are_what_was_asked_for_and_no_more(fresh_database: Database, truth: Truth) -> None:
    with migrating(fresh_database) as op:
        op.create_tenant_view("adults", "SELECT * FROM people", allow=["INSERT"])  # type: ignore[attr-defined]
        op.create_tenant_materialized_view("counts", COUNTS)  # type: ignore[attr-defined]

    runtime = [(ROLES.app, "SELECT"), (ROLES.backup, "SELECT"), (ROLES.platform, "SELECT")]
    assert grants(truth, "counts") == runtime
    assert grants(truth, "adults") == sorted([*runtime, (ROLES.app, "INSERT"), (ROLES.platform, "INSERT")])
    acl = truth.execute("SELECT relacl::text FROM pg_class WHERE relname = 'counts_all_tenants'").fetchone()
    assert acl is not None
    assert [role for role in (ROLES.app, ROLES.platform, ROLES.lookup) if f"{role}=" in str(acl[0])] == []
    assert ",=" not in str(acl[0])


def test_options_of_the_view_are_those_that_the_doctor_looks_for(fresh_database: Database, truth: Truth) -> None:
    with migrating(fresh_database) as op:
        op.create_tenant_view("adults", "SELECT * FROM people")  # type: ignore[attr-defined]
        op.create_tenant_view("adults_2", "SELECT * FROM people", security_barrier=True)  # type: ignore[attr-defined]
        op.create_tenant_materialized_view("counts", COUNTS)  # type: ignore[attr-defined]

    found = truth.execute(
        "SELECT relname, reloptions FROM pg_class WHERE relkind = 'v' AND relname ~ '^(adults|counts)' ORDER BY 1"
    ).fetchall()

    assert found == [
        ("adults", ["security_invoker=true"]),
        ("adults_2", ["security_invoker=true", "security_barrier=true"]),
        ("counts", ["security_barrier=true", "security_invoker=false"]),
    ]


def test_materialized_view_is_filled_from_every_tenant_and_force_is_back(
    fresh_database: Database, truth: Truth
) -> None:
    forced = truth.execute(FORCED).fetchone()

    with migrating(fresh_database) as op:
        op.create_tenant_materialized_view("counts", COUNTS)  # type: ignore[attr-defined]

    assert counted(truth) == [(ACME, 1), (GLOBEX, 1)]
    assert truth.execute(FORCED).fetchone() == forced


@pytest.mark.parametrize("concurrently", [False, True])
def test_refresh_takes_up_what_changed(fresh_database: Database, truth: Truth, concurrently: bool) -> None:
    with migrating(fresh_database) as op:
        op.create_tenant_materialized_view("counts", COUNTS, unique=("tenant_id",))  # type: ignore[attr-defined]
    add_person(truth, GLOBEX)
    forced = truth.execute(FORCED).fetchone()

    with migrating(fresh_database) as op:
        op.refresh_tenant_materialized_view("counts", concurrently=concurrently)  # type: ignore[attr-defined]

    assert counted(truth) == [(ACME, 1), (GLOBEX, 2)]
    assert truth.execute(FORCED).fetchone() == forced


def test_refresh_that_fails_leaves_force_and_the_old_rows(fresh_database: Database, truth: Truth) -> None:
    with migrating(fresh_database) as op:
        op.create_tenant_materialized_view(  # type: ignore[attr-defined]
            "counts", "SELECT tenant_id, 1 / (2 - count(*)) AS people FROM people GROUP BY tenant_id"
        )
    add_person(truth, GLOBEX)
    forced = truth.execute(FORCED).fetchone()

    with (
        migrating(fresh_database) as op,
        pytest.raises(DBAPIError, match="division by zero"),
        op.get_bind().begin_nested(),
    ):
        op.refresh_tenant_materialized_view("counts")  # type: ignore[attr-defined]

    assert counted(truth) == [(ACME, 1), (GLOBEX, 1)]
    assert truth.execute(FORCED).fetchone() == forced


def test_refresh_without_lifting_force_would_be_an_error(fresh_database: Database, truth: Truth) -> None:
    """Why the operation exists."""
    with migrating(fresh_database) as op:
        op.create_tenant_materialized_view("counts", COUNTS)  # type: ignore[attr-defined]

    with fresh_database.connect(ROLES.migrator) as migrator, pytest.raises(errors.InsufficientPrivilege):
        migrator.execute("REFRESH MATERIALIZED VIEW counts_all_tenants")


def test_tables_behind_a_view_are_found_too(fresh_database: Database, truth: Truth) -> None:
    with migrating(fresh_database) as op:
        op.create_tenant_view("adults", "SELECT * FROM people")  # type: ignore[attr-defined]
        op.create_tenant_materialized_view(  # type: ignore[attr-defined]
            "counts", "SELECT t.tenant_id, count(*) AS people FROM adults JOIN tenants t USING (tenant_id) GROUP BY 1"
        )

    assert counted(truth) == [(ACME, 1), (GLOBEX, 1)]


def test_offline_script_does_what_the_migration_does(project: Project, truth: Truth) -> None:
    project.write(
        f"op.create_tenant_view('adults', 'SELECT * FROM people')\n"
        f"op.create_tenant_materialized_view('counts', {COUNTS!r}, unique=['tenant_id'])\n"
        f"op.refresh_tenant_materialized_view('counts')"
    )

    script = project.script()
    truth.execute(f"SET ROLE {ROLES.owner}".encode())
    truth.execute(script.encode())

    assert counted(truth) == [(ACME, 1), (GLOBEX, 1)]


def test_query_without_a_tenant_makes_nothing(fresh_database: Database, truth: Truth) -> None:
    with pytest.raises(DBAPIError, match='column "tenant_id" does not exist'), migrating(fresh_database) as op:
        op.create_tenant_materialized_view("counts", "SELECT count(*) AS people FROM people")  # type: ignore[attr-defined]

    assert truth.execute(VIEWS).fetchall() == []


@pytest.mark.parametrize(
    ("verb", "options", "found"),
    [
        ("create_tenant_view", {"allow": ["TRUNCATE"]}, "cannot allow TRUNCATE"),
        ("create_tenant_materialized_view", {"unique": ["name"]}, "does not begin with 'tenant_id'"),
    ],
)
def test_option_that_would_open_or_tell_something_is_refused(
    fresh_database: Database, verb: str, options: dict[str, Any], found: str
) -> None:
    with migrating(fresh_database) as op, pytest.raises(ConfigurationError, match=found):
        getattr(op, verb)("adults", COUNTS, **options)


def test_name_without_room_for_its_second_is_refused(fresh_database: Database) -> None:
    with migrating(fresh_database) as op, pytest.raises(ConfigurationError, match="too long"):
        op.create_tenant_materialized_view("a" * 52, COUNTS)  # type: ignore[attr-defined]


# How the doctor knows a window


def test_window_is_known_by_its_text(fresh_database: Database, truth: Truth) -> None:
    with migrating(fresh_database) as op:
        op.create_tenant_materialized_view(  # type: ignore[attr-defined]
            "counts", 'SELECT tenant_id, name AS "A name", email AS "order" FROM people', unique=["tenant_id", "order"]
        )
        op.create_tenant_view("adults", "SELECT * FROM people")  # type: ignore[attr-defined]

    window, plain = (
        str(truth.execute("SELECT pg_get_viewdef(CAST(%s AS regclass))", [name]).fetchall()[0][0])
        for name in ("counts", "adults")
    )

    assert is_window(window)
    assert not is_window(plain)


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("tenancy.current_tenant()", "tenant_id"),
        ("(SELECT tenancy.guarded_tenant())", "tenant_id"),
        ("WHERE (SELECT tenancy.platform_open())", ""),
        ("(SELECT tenancy.platform_open())", "true"),
        ("(SELECT tenancy.platform_open())", "(SELECT tenancy.platform_open()) OR people > 0"),
        (" AND tenant_id = (SELECT", " OR tenant_id = (SELECT"),
        ("shown", "shown UNION ALL SELECT * FROM counts_all_tenants"),
    ],
)
def test_window_with_a_hole_is_none(fresh_database: Database, truth: Truth, was: str, becomes: str) -> None:
    with migrating(fresh_database) as op:
        op.create_tenant_materialized_view("counts", COUNTS)  # type: ignore[attr-defined]
    (canonical,) = (text for text in create_stored_view_sql(StoredView("counts", COUNTS), ROLES) if "shown" in text)
    assert was in canonical

    truth.execute("DROP VIEW counts")
    truth.execute(canonical.replace(was, becomes).encode())
    ((definition,),) = truth.execute("SELECT pg_get_viewdef('counts'::regclass)").fetchall()

    assert not is_window(str(definition))
