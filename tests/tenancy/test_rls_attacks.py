"""The policies' text where the server may read it in another way: settings, plans, names that stand in, old text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from tenancy.alembic.guards import ReguardTableOp
from tenancy.doctor.catalog import examine_catalog
from tenancy.doctor.findings import Subject
from tenancy.rls import guarded, quote
from tests.conftest import ROLES, Database, SomeTenant
from tests.models import Base
from tests.tenancy.migrations import apply, compared

Driver = psycopg.Connection[tuple[object, ...]]
PARALLEL = (
    "SET LOCAL debug_parallel_query = on",
    "SET LOCAL parallel_setup_cost = 0",
    "SET LOCAL parallel_tuple_cost = 0",
    "SET LOCAL min_parallel_table_scan_size = 0",
    "SET LOCAL min_parallel_index_scan_size = 0",
)


@pytest.fixture
def two(database: Database, acme: SomeTenant, globex: SomeTenant, person_of: Callable[..., UUID]) -> Iterator[Driver]:
    """A bare connection of the app role; Ada is in acme and Eve in globex."""
    person_of(acme, "Ada")
    person_of(globex, "Eve")
    with database.connect(ROLES.app) as connection:
        yield connection


def bind(connection: Driver, tenant: object) -> None:
    connection.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant)])


def names(connection: Driver, sql: str = "SELECT name FROM people ORDER BY name") -> list[Any]:
    return [row[0] for row in connection.execute(sql).fetchall()]


@pytest.mark.parametrize("mode", ["auto", "force_generic_plan", "force_custom_plan"])
@pytest.mark.parametrize(
    "settings", [(), PARALLEL, ("SET LOCAL enable_seqscan = off",), ("SET LOCAL jit_above_cost = 0",)]
)
def test_one_prepared_statement_serves_each_tenant_its_rows(
    two: Driver, acme: SomeTenant, globex: SomeTenant, mode: str, settings: tuple[str, ...]
) -> None:
    """T050, T071"""
    two.execute("PREPARE all_people AS SELECT name FROM people ORDER BY name")
    two.execute(f"SET plan_cache_mode = {mode}")
    two.commit()
    for _ in range(4):
        for tenant, expected in ((acme, ["Ada"]), (globex, ["Eve"])):
            for setting in settings:
                two.execute(setting)
            bind(two, tenant.id)

            assert names(two, "EXECUTE all_people") == expected
            two.commit()

    for setting in settings:
        two.execute(setting)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="no tenant is bound"):
        two.execute("EXECUTE all_people")


@pytest.mark.parametrize("value", ["x", " ", "00000000-0000-0000-0000-00000000000", "{}", "null", "%", "*", "NaN"])
@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
def test_value_that_is_no_tenant_is_an_error_and_shows_nothing(
    two: Driver, acme: SomeTenant, value: str, mode: str
) -> None:
    """T064"""
    bind(two, acme.id)
    assert names(two) == ["Ada"]
    two.rollback()

    two.execute(f"SET LOCAL plan_cache_mode = {mode}")
    bind(two, value)
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        names(two)


def test_cursor_that_was_read_from_shows_nothing_after_a_switch(
    two: Driver, acme: SomeTenant, globex: SomeTenant
) -> None:
    """T070"""
    for statement in ("SELECT name FROM people", "SELECT name FROM people ORDER BY name"):
        bind(two, acme.id)
        two.execute(f"DECLARE c CURSOR FOR {statement}")
        assert names(two, "FETCH 1 FROM c") == ["Ada"]
        bind(two, globex.id)
        assert names(two) == ["Eve"]

        assert names(two, "FETCH ALL FROM c") == []
        two.execute("CLOSE c")


def test_rolled_back_savepoint_takes_its_tenant_along(two: Driver, acme: SomeTenant, globex: SomeTenant) -> None:
    """T067"""
    two.execute("PREPARE of_savepoint AS SELECT name FROM people ORDER BY name")
    bind(two, acme.id)
    two.execute("SAVEPOINT s")
    bind(two, globex.id)
    assert names(two, "EXECUTE of_savepoint") == ["Eve"]

    two.execute("ROLLBACK TO s")

    assert names(two, "EXECUTE of_savepoint") == ["Ada"]


STAND_INS = ("uuid, uuid", "text, text", "name, name", "name, text", "text, name")


@pytest.mark.parametrize("table", ["people", "tenants"])
def test_operators_and_functions_that_stand_in_open_no_policy(fresh_database: Database, table: str) -> None:
    """T033: made by a superuser, in a schema that the role puts before all others."""
    ours, theirs = UUID(int=1), UUID(int=2)
    with fresh_database.connect("postgres") as truth:
        for tenant in (ours, theirs):
            row = {"t": tenant, "slug": f"tenant-{tenant.int}"}
            truth.execute("INSERT INTO tenants (tenant_id, slug, name) VALUES (%(t)s, %(slug)s, 'T')", row)
            truth.execute("INSERT INTO people (tenant_id, id, name, email) VALUES (%(t)s, %(t)s, 'P', 'p')", row)
        truth.execute("CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC")
        for types in STAND_INS:
            left, _, right = types.partition(", ")
            for sign, name, answer in (("=", "eq", "true"), ("<>", "ne", "false")):
                truth.execute(f"CREATE FUNCTION evil.{name}({types}) RETURNS bool LANGUAGE sql AS 'SELECT {answer}'")
                arguments = f"LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = evil.{name}"
                truth.execute(f"CREATE OPERATOR evil.{sign} ({arguments})")
        body = f"SELECT '{theirs}'"
        truth.execute(f"CREATE FUNCTION evil.current_setting(text, bool) RETURNS text LANGUAGE sql AS $${body}$$")
        truth.execute("CREATE TYPE evil.uuid AS (x int)")
    with fresh_database.connect(ROLES.app) as app:
        app.execute("SET search_path = evil, pg_catalog, public, tenancy")
        app.commit()

        bind(app, ours)
        assert app.execute("SELECT 'a'::text = 'b'::text").fetchone() == (True,)
        # The guard is closed by them, for what they say of the roles; nothing is opened.
        assert names(app, f"SELECT tenant_id FROM public.{table}") == []
        app.execute("SET LOCAL search_path = public")
        assert names(app, f"SELECT tenant_id FROM public.{table}") == [ours]
        app.rollback()
        assert names(app, f"SELECT tenant_id FROM public.{table}") == []


def test_policies_of_an_older_version_hold_are_told_of_and_are_mended(fresh_database: Database) -> None:
    """They called a function where the setting is read in line now; the update of the library leaves them in place."""
    ours, theirs = UUID(int=1), UUID(int=2)
    with fresh_database.connect("postgres") as truth:
        for number, tenant in enumerate((ours, theirs)):
            row = {"t": tenant, "slug": f"tenant-{number}"}
            truth.execute("INSERT INTO tenants (tenant_id, slug, name) VALUES (%(t)s, %(slug)s, 'T')", row)
            truth.execute("INSERT INTO people (tenant_id, id, name, email) VALUES (%(t)s, %(t)s, 'P', 'p')", row)
        older = set()
        for table in guarded(Base.metadata):
            noun = "account" if table.kind == "account" else "tenant"
            own = f"{quote(table.key)} = tenancy.current_{noun}()"
            truth.execute(f"ALTER POLICY tenancy_isolation ON {table.sql_name} USING ({own}) WITH CHECK ({own})")
            older.add(table.name)

    with fresh_database.connect(ROLES.app) as app:
        bind(app, ours)
        assert names(app, "SELECT tenant_id FROM people") == [ours]
        with pytest.raises(psycopg.errors.InsufficientPrivilege), app.transaction():
            app.execute("INSERT INTO people (tenant_id, id, name, email) VALUES (%s, %s, 'Q', 'q')", [theirs, ours])
    admin = create_engine(fresh_database.url("postgres"), poolclass=NullPool)
    with admin.connect() as connection:
        findings = list(examine_catalog(Subject(connection=connection, metadata=Base.metadata)))
    upgrade = compared(fresh_database, Base.metadata)
    apply(fresh_database, upgrade)

    changed = {finding.object_name for finding in findings if finding.rule.id == "TEN104"}
    assert changed == {f"policy tenancy_isolation on table public.{name}" for name in older}
    assert {op.table.name for op in upgrade.ops if isinstance(op, ReguardTableOp)} == older
    assert compared(fresh_database, Base.metadata).ops == []
