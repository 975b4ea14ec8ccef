"""Migrations that read or change guarded rows: never over some tenants' rows, or none, in silence."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from uuid import UUID

import psycopg
import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from psycopg import errors
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError, PendingRollbackError
from sqlalchemy.pool import NullPool

from tenancy.errors import MigrationError
from tests.conftest import Database
from tests.tenancy.migrations import migrating

ACME, GLOBEX = UUID(int=1), UUID(int=2)
ADD_KEY = "ALTER TABLE notes ADD CONSTRAINT fk_notes_company FOREIGN KEY (tenant_id, id) REFERENCES companies"
FORCED = "SELECT relname FROM pg_class WHERE relname IN ('notes', 'people', 'companies') AND relforcerowsecurity"
ALL_FORCED: list[tuple[object, ...]] = [("companies",), ("notes",), ("people",)]


@pytest.fixture
def truth(fresh_database: Database) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Two tenants, a company and a person in each; a superuser who sees them all."""
    with fresh_database.connect("postgres") as connection:
        connection.autocommit = True
        for tenant, name in ((ACME, "acme"), (GLOBEX, "globex")):
            connection.execute("INSERT INTO tenants (tenant_id, slug, name) VALUES (%s, %s, %s)", [tenant, name, name])
            for table in ("companies", "people"):
                columns, values = ("", "") if table == "companies" else (", email", ", 'x@test.example'")
                connection.execute(
                    f"INSERT INTO {table} (tenant_id, id, name{columns}) VALUES (%s, %s, %s{values})".encode(),
                    [tenant, tenant, name],
                )
        yield connection


@pytest.fixture
def orphan(truth: psycopg.Connection[tuple[object, ...]]) -> None:
    """A note of acme whose id is that of globex' company."""
    truth.execute("ALTER TABLE notes DROP CONSTRAINT fk_notes_tenant_id_person_id")
    truth.execute("INSERT INTO notes VALUES (%s, %s, 'orphan', %s)", [ACME, GLOBEX, ACME])


def forced(truth: psycopg.Connection[tuple[object, ...]]) -> list[tuple[object, ...]]:
    return sorted(truth.execute(FORCED).fetchall(), key=str)


def names(truth: psycopg.Connection[tuple[object, ...]]) -> list[object]:
    return [name for (name,) in truth.execute("SELECT name FROM people ORDER BY tenant_id").fetchall()]


def sql(operations: Operations, statement: str) -> None:
    operations.execute(text(statement))


@pytest.mark.usefixtures("orphan")
@pytest.mark.parametrize(
    "statement", [ADD_KEY, f"{ADD_KEY} NOT VALID; ALTER TABLE notes VALIDATE CONSTRAINT fk_notes_company"]
)
def test_foreign_key_over_foreign_row_is_refused_without_lifting(
    fresh_database: Database, truth: psycopg.Connection[tuple[object, ...]], statement: str
) -> None:
    """T125."""
    with pytest.raises(DBAPIError, match="would be affected by row-level security"), migrating(fresh_database) as op:
        sql(op, statement)

    assert truth.execute("SELECT FROM pg_constraint WHERE conname = 'fk_notes_company'").fetchall() == []


@pytest.mark.usefixtures("orphan")
def test_foreign_key_over_foreign_row_is_refused_with_lifting(
    fresh_database: Database, truth: psycopg.Connection[tuple[object, ...]]
) -> None:
    """T125."""
    with (
        pytest.raises(IntegrityError, match="violates foreign key constraint"),
        migrating(fresh_database) as op,
        op.lift_force("notes", "companies"),
    ):
        sql(op, ADD_KEY)

    assert truth.execute("SELECT FROM pg_constraint WHERE conname = 'fk_notes_company'").fetchall() == []
    assert forced(truth) == ALL_FORCED


@pytest.mark.usefixtures("orphan")
def test_foreign_key_over_own_rows_is_added_with_lifting(
    fresh_database: Database, truth: psycopg.Connection[tuple[object, ...]]
) -> None:
    """T125: the same key is fine once the orphan is gone, so it was the orphan that was refused."""
    truth.execute("UPDATE notes SET id = tenant_id")

    with migrating(fresh_database) as op, op.lift_force("notes", "companies"):
        sql(op, ADD_KEY)

    query = "SELECT convalidated FROM pg_constraint WHERE conname = 'fk_notes_company'"
    assert truth.execute(query).fetchall() == [(True,)]
    assert forced(truth) == ALL_FORCED


def test_data_migration_without_help_is_an_error(
    fresh_database: Database, truth: psycopg.Connection[tuple[object, ...]]
) -> None:
    """T126."""
    with pytest.raises(DBAPIError, match="would be affected by row-level security"), migrating(fresh_database) as op:
        sql(op, "UPDATE people SET name = upper(name)")

    assert names(truth) == ["acme", "globex"]


def test_data_migration_for_each_tenant_changes_every_row(
    fresh_database: Database, truth: psycopg.Connection[tuple[object, ...]]
) -> None:
    """T126."""
    visited = []

    with migrating(fresh_database) as op:
        for tenant in op.for_each_tenant():
            sql(op, "UPDATE people SET name = upper(name)")
            visited.append(tenant)

    assert visited == [ACME, GLOBEX]
    assert names(truth) == ["ACME", "GLOBEX"]


def test_statement_in_the_loop_reaches_one_tenant_only(
    fresh_database: Database, truth: psycopg.Connection[tuple[object, ...]]
) -> None:
    with migrating(fresh_database) as op:
        for tenant in op.for_each_tenant():
            sql(op, f"UPDATE people SET name = '{tenant}' || name")

    assert names(truth) == [f"{ACME}acme", f"{GLOBEX}globex"]


def leave_by_end(operations: Operations) -> None:
    for _ in operations.for_each_tenant():
        pass


def leave_by_break(operations: Operations) -> None:
    for _ in operations.for_each_tenant():
        break


def leave_by_error(operations: Operations) -> None:
    try:
        for _ in operations.for_each_tenant():
            raise KeyError
    except KeyError:
        pass


def leave_by_failed_statement(operations: Operations) -> None:
    try:
        with operations.get_bind().begin_nested():
            for _ in operations.for_each_tenant():
                sql(operations, "SELECT 1 / 0")
    except DBAPIError:
        pass


@pytest.mark.parametrize("leave", [leave_by_end, leave_by_break, leave_by_error, leave_by_failed_statement])
@pytest.mark.usefixtures("truth")
def test_no_tenant_stays_bound_after_the_loop(fresh_database: Database, leave: Callable[[Operations], None]) -> None:
    """T126: otherwise the next statement would change one tenant's rows and say nothing."""
    with migrating(fresh_database) as op:
        leave(op)

        bound = op.get_bind().execute(text("SELECT current_setting('app.tenant_id', true)")).scalar()
        row_security = op.get_bind().execute(text("SHOW row_security")).scalar()

    assert bound in ("", None)
    assert row_security == "off"


def test_data_migration_past_force_changes_every_row(
    fresh_database: Database, truth: psycopg.Connection[tuple[object, ...]]
) -> None:
    """T126."""
    with migrating(fresh_database) as op, op.lift_force("people"):
        sql(op, "UPDATE people SET name = upper(name)")

    assert names(truth) == ["ACME", "GLOBEX"]
    assert forced(truth) == ALL_FORCED


def fail_by_statement(operations: Operations) -> None:
    try:
        with operations.lift_force("people"):
            sql(operations, "UPDATE people SET name = 'half'")
            sql(operations, "SELECT 1 / 0")
    except DBAPIError:
        pass


def fail_by_error(operations: Operations) -> None:
    try:
        with operations.lift_force("people"):
            sql(operations, "UPDATE people SET name = 'half'")
            raise KeyError
    except KeyError:
        pass


@pytest.mark.parametrize("fail", [fail_by_statement, fail_by_error])
def test_force_is_back_after_an_error_that_is_caught(
    fresh_database: Database, truth: psycopg.Connection[tuple[object, ...]], fail: Callable[[Operations], None]
) -> None:
    """T126."""
    with migrating(fresh_database) as op:
        fail(op)

    assert forced(truth) == ALL_FORCED
    assert names(truth) == ["acme", "globex"]


def test_force_is_back_after_a_savepoint_around_the_block_rolls_back(
    fresh_database: Database, truth: psycopg.Connection[tuple[object, ...]]
) -> None:
    with migrating(fresh_database) as op:
        savepoint = op.get_bind().begin_nested()
        with op.lift_force("people"):
            sql(op, "UPDATE people SET name = 'half'")
        savepoint.rollback()

    assert forced(truth) == ALL_FORCED
    assert names(truth) == ["acme", "globex"]


def test_table_without_force_is_left_without(
    fresh_database: Database, truth: psycopg.Connection[tuple[object, ...]]
) -> None:
    truth.execute("ALTER TABLE notes NO FORCE ROW LEVEL SECURITY")

    with migrating(fresh_database) as op, op.lift_force("people", "notes"):
        pass

    assert forced(truth) == [("companies",), ("people",)]


def test_commit_inside_the_block_is_refused(
    fresh_database: Database, truth: psycopg.Connection[tuple[object, ...]]
) -> None:
    with (
        pytest.raises(MigrationError, match="a commit inside lift_force"),
        migrating(fresh_database) as op,
        op.lift_force("people"),
    ):
        op.get_bind().commit()

    assert forced(truth) == ALL_FORCED


def test_force_is_on_after_a_refused_commit_that_is_caught(
    fresh_database: Database, truth: psycopg.Connection[tuple[object, ...]]
) -> None:
    engine = create_engine(fresh_database.url("tenancy_migrator"), poolclass=NullPool)
    with engine.connect() as connection:
        op = Operations(MigrationContext.configure(connection))
        with pytest.raises(MigrationError), op.lift_force("people"):
            connection.commit()

        with pytest.raises(PendingRollbackError):
            connection.commit()

    assert forced(truth) == ALL_FORCED


@pytest.mark.usefixtures("truth")
def test_connection_in_autocommit_is_refused(fresh_database: Database) -> None:
    engine = create_engine(fresh_database.url("tenancy_migrator"), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        op = Operations(MigrationContext.configure(connection))
        with pytest.raises(MigrationError, match="commits each statement"), op.lift_force("people"):
            pass
        with pytest.raises(MigrationError, match="commits each statement"):
            list(op.for_each_tenant())
        with pytest.raises(MigrationError, match="commits each statement"):
            op.create_lookup("person_named", "people", key="name", returns=["tenant_id"])


@pytest.mark.usefixtures("truth")
def test_loop_of_a_role_past_every_policy_is_refused(fresh_database: Database) -> None:
    with migrating(fresh_database, "postgres") as op, pytest.raises(MigrationError, match="passes every policy"):
        list(op.for_each_tenant())


def test_app_session_waits_while_force_is_lifted(
    fresh_database: Database, truth: psycopg.Connection[tuple[object, ...]]
) -> None:
    """T127: and when it may go on, it sees its own tenant's rows."""
    seen: list[tuple[object, ...]] = []

    def read() -> None:
        with fresh_database.connect("tenancy_app") as app, app.transaction():
            app.execute(f"SET LOCAL app.tenant_id = '{ACME}'")
            seen.extend(app.execute("SELECT name FROM people").fetchall())

    reader = threading.Thread(target=read)
    with migrating(fresh_database) as op, op.lift_force("people"):
        reader.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'people'::regclass"
        while truth.execute(waiting).fetchone() != (1,):
            assert reader.is_alive()
        seen_meanwhile = list(seen)
    reader.join(timeout=10)

    assert seen_meanwhile == []
    assert seen == [("acme",)]


@pytest.mark.usefixtures("truth")
def test_loop_over_tenants_does_not_hold_up_the_registry(fresh_database: Database) -> None:
    """T127."""
    with migrating(fresh_database) as op:
        for _ in op.for_each_tenant():
            with fresh_database.connect("tenancy_app") as app, app.transaction():
                app.execute("SET LOCAL lock_timeout = '1s'")
                app.execute(f"SET LOCAL app.tenant_id = '{GLOBEX}'")
                assert app.execute("SELECT name FROM tenants").fetchall() == [("globex",)]
                with pytest.raises(errors.InsufficientPrivilege):
                    app.execute("UPDATE tenants SET status = 'closed'")
