"""T027-T030: what is seen through a view, made by the library's operations and made by hand."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest
from psycopg import errors
from uuid_utils.compat import uuid7

from tenancy.embedded import Template
from tests.conftest import ROLES, Database
from tests.isolation.plain import NEW, Connection, bind
from tests.signed import ACME, GLOBEX, filled_clone, sign, token
from tests.tenancy.migrations import migrating

OURS, THEIRS = uuid7(), uuid7()
PLAIN = "SELECT tenant_id, id, name, email FROM people"
COUNTS = "SELECT tenant_id, count(*) AS people FROM people GROUP BY tenant_id"


@pytest.fixture
def truth(fresh_database: Database) -> Iterator[Connection]:
    """One person of ours and two of theirs; a superuser who sees them all."""
    with fresh_database.connect("postgres") as connection:
        connection.autocommit = True
        with connection.transaction():
            connection.execute("SELECT set_config('session_replication_role', 'replica', true)")
            connection.cursor().executemany(NEW, [(OURS,), (THEIRS,), (THEIRS,)])
        yield connection


@pytest.fixture
def app(fresh_database: Database, truth: Connection) -> Iterator[Connection]:
    with fresh_database.connect(ROLES.app) as connection:
        yield connection


@pytest.fixture
def platform(fresh_database: Database, truth: Connection) -> Iterator[Connection]:
    with fresh_database.connect(ROLES.platform) as connection:
        yield connection


@pytest.fixture
def views(fresh_database: Database, truth: Connection) -> None:
    with migrating(fresh_database) as op:
        op.create_tenant_view("persons", PLAIN, allow=("INSERT", "UPDATE", "DELETE"))  # type: ignore[attr-defined]
        op.create_tenant_materialized_view("counts", COUNTS, unique=("tenant_id",))  # type: ignore[attr-defined]


def tenants(connection: Connection, view: str) -> list[UUID]:
    return [row[0] for row in connection.execute(f"SELECT tenant_id FROM {view} ORDER BY 1".encode()).fetchall()]


def open_platform_session(platform: Connection) -> None:
    """Name a session that was committed before: what the library does on entering `platform_scope`."""
    session = uuid7()
    platform.execute(
        "INSERT INTO tenancy.platform_session (id, actor, reason) VALUES (%s, 'ana', 'a report')", [session]
    )
    platform.commit()
    platform.execute("SELECT set_config('app.platform_session', %s, true)", [str(session)])


# Why there is an operation


def test_view_of_a_superuser_shows_every_tenants_rows(app: Connection, truth: Connection) -> None:
    """T027: the danger itself; a view reads with the rights of its owner unless it is told not to."""
    truth.execute(f"CREATE VIEW careless AS {PLAIN}".encode())
    truth.execute(f"GRANT SELECT ON careless TO {ROLES.app}".encode())

    bind(app, OURS)

    assert tenants(app, "careless") == sorted([OURS, THEIRS, THEIRS])


def test_view_that_is_replaced_without_the_option_shows_every_tenants_rows(
    app: Connection, truth: Connection, views: None
) -> None:
    """T028: CREATE OR REPLACE VIEW forgets security_invoker; the owner then needs no more than its rights."""
    truth.execute(f"CREATE OR REPLACE VIEW persons AS {PLAIN}".encode())
    truth.execute("ALTER VIEW persons OWNER TO postgres")

    bind(app, OURS)

    assert tenants(app, "persons") == sorted([OURS, THEIRS, THEIRS])


def test_view_of_the_invoker_over_one_of_a_superuser_shows_every_tenants_rows(
    app: Connection, truth: Connection
) -> None:
    """T029: the outer view's option says nothing about the inner one."""
    truth.execute(f"CREATE VIEW inner_view AS {PLAIN}".encode())
    truth.execute("CREATE VIEW outer_view WITH (security_invoker = true) AS SELECT * FROM inner_view")
    truth.execute(f"GRANT SELECT ON inner_view, outer_view TO {ROLES.app}".encode())

    bind(app, OURS)

    assert tenants(app, "outer_view") == sorted([OURS, THEIRS, THEIRS])


def test_materialized_view_that_is_granted_shows_every_tenants_rows(app: Connection, truth: Connection) -> None:
    """T030: the danger itself; a materialized view takes no policies."""
    truth.execute(f"CREATE MATERIALIZED VIEW careless AS {COUNTS}".encode())
    truth.execute(f"GRANT SELECT ON careless TO {ROLES.app}".encode())

    bind(app, OURS)

    assert tenants(app, "careless") == sorted([OURS, THEIRS])


# The operations' views


@pytest.mark.parametrize("view", ["persons", "counts"])
@pytest.mark.parametrize(("tenant", "seen"), [(OURS, {OURS}), (THEIRS, {THEIRS})])
def test_view_shows_the_bound_tenants_rows_only(
    app: Connection, views: None, view: str, tenant: UUID, seen: set[UUID]
) -> None:
    """T027, T030"""
    bind(app, tenant)

    assert set(tenants(app, view)) == seen


@pytest.mark.parametrize("view", ["persons", "counts"])
def test_view_without_a_tenant_is_an_error(app: Connection, views: None, view: str) -> None:
    """T027, T030"""
    with pytest.raises(errors.InsufficientPrivilege, match="no tenant is bound"):
        tenants(app, view)


def test_insert_through_a_view_for_another_tenant_is_refused(app: Connection, truth: Connection, views: None) -> None:
    """T027"""
    insert = NEW.replace("people", "persons").encode()
    bind(app, OURS)
    app.execute(insert, [OURS])

    with pytest.raises(errors.InsufficientPrivilege):
        app.execute(insert, [THEIRS])

    assert truth.execute("SELECT count(*) FROM people WHERE tenant_id = %s", [THEIRS]).fetchone() == (2,)


def test_update_and_delete_through_a_view_touch_the_bound_tenants_rows_only(
    app: Connection, truth: Connection, views: None
) -> None:
    """T027"""
    bind(app, OURS)

    changed = app.execute("UPDATE persons SET name = 'Mine'").rowcount
    gone = app.execute("DELETE FROM persons").rowcount
    app.commit()

    assert (changed, gone) == (1, 1)
    assert truth.execute("SELECT name FROM people").fetchall() == [("New",), ("New",)]


def test_moving_a_row_through_a_view_is_refused(app: Connection, views: None) -> None:
    """T027"""
    bind(app, OURS)

    with pytest.raises(errors.InsufficientPrivilege):
        app.execute("UPDATE persons SET tenant_id = %s", [THEIRS])


def test_view_that_allows_reading_only_takes_no_change(
    fresh_database: Database, app: Connection, truth: Connection
) -> None:
    with migrating(fresh_database) as op:
        op.create_tenant_view("readable", PLAIN)  # type: ignore[attr-defined]
    bind(app, OURS)
    assert tenants(app, "readable") == [OURS]

    with pytest.raises(errors.InsufficientPrivilege, match="readable"):
        app.execute("DELETE FROM readable")


@pytest.mark.parametrize("role", [ROLES.app, ROLES.platform])
def test_rows_behind_the_window_can_be_read_by_neither_role(
    fresh_database: Database, truth: Connection, views: None, role: str
) -> None:
    """T030"""
    with fresh_database.connect(role) as connection:
        bind(connection, OURS)

        with pytest.raises(errors.InsufficientPrivilege, match="counts_all_tenants"):
            tenants(connection, "counts_all_tenants")


@pytest.mark.parametrize("view", ["persons", "counts"])
def test_platform_sees_every_tenant_through_an_open_session_only(platform: Connection, views: None, view: str) -> None:
    assert tenants(platform, view) == []
    platform.rollback()

    open_platform_session(platform)

    assert set(tenants(platform, view)) == {OURS, THEIRS}


@pytest.mark.parametrize("view", ["persons", "counts"])
def test_platform_that_binds_a_tenant_sees_it_with_an_open_session_only(
    platform: Connection, views: None, view: str
) -> None:
    bind(platform, OURS)
    assert tenants(platform, view) == []
    platform.rollback()

    open_platform_session(platform)
    bind(platform, OURS)

    assert tenants(platform, view) == [OURS]


def test_functions_of_the_caller_are_shown_no_foreign_row_of_the_window(
    app: Connection, truth: Connection, views: None
) -> None:
    """T031: with a condition so cheap that the planner would like to try it first."""
    truth.execute(f"GRANT CREATE ON SCHEMA public TO {ROLES.app}".encode())
    notices: list[str | None] = []
    app.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    app.execute(
        "CREATE FUNCTION leak(t uuid) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS"
        " $$ BEGIN RAISE NOTICE '%', t; RETURN true; END $$"
    )
    bind(app, OURS)

    app.execute("SELECT * FROM counts WHERE leak(tenant_id)")

    assert notices == [str(OURS)]


def test_window_reads_by_the_index(app: Connection, views: None) -> None:
    """T134"""
    bind(app, OURS)
    app.execute("SET LOCAL enable_seqscan = off")

    plan = "\n".join(str(row[0]) for row in app.execute("EXPLAIN SELECT * FROM counts").fetchall())

    assert "Index Cond: (tenant_id = " in plan


@pytest.mark.parametrize("view", ["persons", "counts"])
def test_views_demand_a_signature_where_scopes_are_signed(template: Template, worker: str, view: str) -> None:
    """T122: the window calls the same functions as the policies."""
    with filled_clone(template, f"signed_views_{worker}") as database:
        with migrating(database) as op:
            op.create_tenant_view("persons", PLAIN)  # type: ignore[attr-defined]
            op.create_tenant_materialized_view("counts", COUNTS)  # type: ignore[attr-defined]
        sign(database)
        with database.connect(ROLES.app) as app:
            for signature in ("", token(GLOBEX)):
                bind(app, ACME)
                app.execute("SELECT set_config('app.tenant_token', %s, true)", [signature])
                with pytest.raises(errors.InsufficientPrivilege, match="signature"):
                    tenants(app, view)
                app.rollback()

            bind(app, ACME)
            app.execute("SELECT set_config('app.tenant_token', %s, true)", [token(ACME)])
            assert tenants(app, view) == [ACME]
