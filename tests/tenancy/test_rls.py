"""The text of policies, grants and functions, and that a server takes it."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Column, Integer, MetaData, Table
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import sessionmaker
from uuid_utils.compat import uuid7

from tenancy.context import tenant_scope
from tenancy.errors import ConfigurationError, ModelError
from tenancy.lookups import Lookup, lookups_of
from tenancy.rls import (
    Grant,
    GuardedTable,
    Roles,
    bootstrap_sql,
    drop_lookup_sql,
    force_sql,
    grant_added_column_sql,
    grants,
    guard_sql,
    guarded,
    guarded_table,
    install_sql,
    policies,
    qualified,
    quote,
    unguard_sql,
    uninstall_sql,
)
from tenancy.rls.functions import function_definitions
from tenancy.session import TenantSession
from tenancy.tables import platform_table
from tests.conftest import ROLES, Database, SomeTenant
from tests.models import Base, Tenant

TABLES = {table.name: table for table in guarded(Base.metadata)}


def run(database: Database, statements: Iterable[str], *, role: str | None = ROLES.owner) -> None:
    with database.connect("postgres") as connection:
        if role is not None:
            connection.execute(f"SET ROLE {role}".encode())
        for statement in statements:
            connection.execute(statement.encode())


def one(database: Database, statement: str, *, role: str = "postgres") -> Any:
    with database.connect(role) as connection:
        row = connection.execute(statement.encode()).fetchone()
        assert row is not None
        return row[0]


# Roles ------------------------------------------------------------------------------------------------


def test_roles_are_named_by_their_prefix() -> None:
    roles = Roles("shop")

    assert (roles.owner, roles.migrator, roles.app) == ("shop_owner", "shop_migrator", "shop_app")
    assert (roles.platform, roles.lookup, roles.backup) == ("shop_platform", "shop_lookup", "shop_backup")


@pytest.mark.parametrize("prefix", ["", "Shop", "a b", "a;", "1a", "a" * 42, 'a"'])
def test_prefix_that_needs_quotes_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="not a plain lower-case SQL name"):
        Roles(prefix)


def test_bootstrap_is_repeatable(fresh_database: Database) -> None:
    run(fresh_database, bootstrap_sql(ROLES, fresh_database.name), role=None)

    assert one(fresh_database, "SELECT session_user::text", role=ROLES.app) == ROLES.app


def test_bootstrap_takes_back_an_attribute_that_was_added(fresh_database: Database) -> None:
    """Under a prefix of its own: roles belong to the whole server."""
    roles = Roles(f"boot_{fresh_database.name}")
    run(fresh_database, bootstrap_sql(roles, fresh_database.name), role=None)
    run(
        fresh_database,
        [f"ALTER ROLE {roles.app} SUPERUSER BYPASSRLS CREATEROLE CREATEDB REPLICATION INHERIT"],
        role=None,
    )

    run(fresh_database, bootstrap_sql(roles, fresh_database.name), role=None)
    found = one(
        fresh_database,
        "SELECT rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication OR rolinherit"
        f" FROM pg_roles WHERE rolname = '{roles.app}'",
    )
    run(fresh_database, bootstrap_sql(ROLES, fresh_database.name), role=None)
    everyone = (roles.owner, roles.migrator, roles.app, roles.platform, roles.lookup, roles.backup)
    # One by one: PostgreSQL loses count of a default privilege whose two roles go in one statement.
    run(fresh_database, [f"DROP OWNED BY {role}" for role in everyone], role=None)
    run(fresh_database, [f"DROP ROLE {', '.join(everyone)}"], role=None)

    assert found is False


# Names ------------------------------------------------------------------------------------------------


def test_identifiers_are_quoted_where_they_must_be() -> None:
    assert quote("people") == "people"
    assert quote("order") == '"order"'
    assert quote('a"b') == '"a""b"'
    assert qualified("people") == "people"
    assert qualified("order", "Sales") == '"Sales"."order"'


# What is derived from the models ----------------------------------------------------------------------


def test_every_marked_table_is_guarded() -> None:
    assert set(TABLES) == {
        "tenants", "domains", "accounts", "companies", "people", "tags", "notes", "todos", "person_tags",
    }  # fmt: skip


def test_plain_platform_table_has_nothing_to_be_guarded_by() -> None:
    table = Table("countries", MetaData(), Column("id", Integer, primary_key=True))

    with pytest.raises(ModelError, match="nothing to be guarded by"):
        guarded_table(table)
    with pytest.raises(ModelError, match="nothing to be guarded by"):
        guarded_table(platform_table(reason="public")(table))


def test_key_columns_cannot_be_updated_by_anyone() -> None:
    assert TABLES["people"].update == ("name", "email", "company_id", "manager_id")
    assert TABLES["person_tags"].update == ()


def test_grants_of_the_registry_leave_its_status_to_the_platform() -> None:
    found = grants(TABLES["tenants"], ROLES)

    assert Grant(ROLES.app, "UPDATE", "name") in found
    assert Grant(ROLES.platform, "UPDATE", "status") in found
    assert Grant(ROLES.app, "UPDATE", "status") not in found
    assert Grant(ROLES.app, "DELETE") not in found
    assert Grant(ROLES.platform, "DELETE") in found


def test_lookup_role_reads_the_columns_of_its_lookups_only() -> None:
    columns = {g.column for g in grants(TABLES["domains"], ROLES) if g.role == ROLES.lookup}

    assert columns == {"domain", "tenant_id", "verified_at"}
    assert not [g for g in grants(TABLES["people"], ROLES) if g.role == ROLES.lookup]


def test_backup_role_reads_and_does_no_more() -> None:
    for table in TABLES.values():
        assert {g for g in grants(table, ROLES) if g.role == ROLES.backup} == {Grant(ROLES.backup, "SELECT")}


def test_policies_are_two_for_everyone_and_one_for_the_platform() -> None:
    assert [(p.name, p.permissive, p.command, p.roles) for p in policies(TABLES["people"], ROLES)] == [
        ("tenancy_isolation", True, "ALL", ("PUBLIC",)),
        ("tenancy_guard", False, "ALL", ("PUBLIC",)),
        ("tenancy_platform_read", True, "SELECT", ("tenancy_platform",)),
    ]


def test_policy_text_is_the_measured_one() -> None:
    isolation, guard, platform, lookup = policies(TABLES["tenants"], ROLES)

    assert isolation.using == isolation.check
    assert isolation.using == (
        "tenant_id = CASE WHEN nullif(pg_catalog.current_setting('app.tenant_id', true), '') IS NULL"
        " THEN tenancy.no_tenant()"
        " ELSE nullif(pg_catalog.current_setting('app.tenant_id', true), '')::pg_catalog.uuid END"
    )
    assert guard.using == (
        "(SELECT current_user = 'tenancy_lookup') OR tenant_id = (SELECT tenancy.guarded_tenant())"
        " OR (SELECT tenancy.platform_open())"
    )
    assert guard.check == "tenant_id = (SELECT tenancy.guarded_tenant())"
    assert (platform.using, platform.check) == ("(SELECT tenancy.platform_open())", None)
    assert (lookup.using, lookup.roles) == ("true", ("tenancy_lookup",))


def test_account_table_is_guarded_by_its_account() -> None:
    isolation, guard, *_ = policies(TABLES["accounts"], ROLES)

    assert isolation.using == (
        "id = CASE WHEN nullif(pg_catalog.current_setting('app.account_id', true), '') IS NULL"
        " THEN tenancy.no_account()"
        " ELSE nullif(pg_catalog.current_setting('app.account_id', true), '')::pg_catalog.uuid END"
    )
    assert guard.check == "id = (SELECT tenancy.guarded_account())"


@pytest.mark.parametrize("name", TABLES)
def test_citus_text_has_no_sub_select_and_no_force(name: str) -> None:
    """Citus rejects a sub-select in a policy, and FORCE loses rows there."""
    text = guard_sql(TABLES[name], ROLES, "citus")

    assert not [statement for statement in text if statement.startswith("CREATE POLICY") and "SELECT " in
                statement.replace("FOR SELECT", "")]  # fmt: skip
    assert [statement for statement in text if "FORCE" in statement] == [
        f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY"
    ]
    assert not [s for s in text if "EXISTS" in s and "POLICY" not in s]


def test_citus_lets_the_role_decide_about_platform_sessions() -> None:
    definition = function_definitions(ROLES, "citus")["platform_session_valid()"]

    assert definition.endswith("$$ SELECT session_user = 'tenancy_platform' $$")


def test_current_tenant_can_be_inlined() -> None:
    """No SET clause and not a definer, or the planner calls it once a row."""
    definition = function_definitions(ROLES)["current_tenant()"]

    assert "STABLE PARALLEL SAFE" in definition
    assert "SECURITY DEFINER" not in definition
    assert " SET " not in definition
    assert "coalesce" not in definition.lower()


# On a server ------------------------------------------------------------------------------------------


def test_tenant_renames_itself_by_the_orm_though_it_may_not_unsuspend_itself(
    sessions: sessionmaker[TenantSession], acme: SomeTenant
) -> None:
    """SQLAlchemy sets `updated_at` as well in every update, so that has to be granted too."""
    with tenant_scope(acme.id), sessions.begin() as session:
        session.get_one(Tenant, acme.id).name = "Acme & Daughters"

    with tenant_scope(acme.id), sessions() as session:
        tenant = session.get_one(Tenant, acme.id)
        assert tenant.name == "Acme & Daughters"
        tenant.status = "suspended"
        with pytest.raises(ProgrammingError, match="permission denied for table tenants"):
            session.flush()


def test_install_is_repeatable(fresh_database: Database) -> None:
    run(fresh_database, install_sql(ROLES))

    assert one(fresh_database, "SELECT count(*) FROM pg_proc WHERE pronamespace = 'tenancy'::regnamespace") >= 10


def test_no_function_of_the_library_is_open_to_everyone(database: Database) -> None:
    found = one(
        database,
        "SELECT count(*) FROM pg_proc p, aclexplode(coalesce(proacl, acldefault('f', proowner))) a"
        " WHERE pronamespace = 'tenancy'::regnamespace AND a.grantee = 0",
    )

    assert found == 0


def test_new_function_of_the_owner_is_open_to_nobody(fresh_database: Database) -> None:
    """T032"""
    run(fresh_database, ["CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'"])

    with fresh_database.connect(ROLES.app) as app, pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute("SELECT public.f()")


def test_unguarded_table_is_closed_to_everyone_but_its_owner(fresh_database: Database) -> None:
    run(
        fresh_database,
        ["INSERT INTO tags (tenant_id, id, label) VALUES (gen_random_uuid(), gen_random_uuid(), 'x')"],
        role=None,
    )
    run(fresh_database, unguard_sql(TABLES["tags"], ROLES))

    with fresh_database.connect(ROLES.migrator) as owner:
        assert owner.execute("SELECT count(*) FROM tags").fetchone() == (1,)
    for role in (ROLES.app, ROLES.platform, ROLES.backup):
        if role != ROLES.backup:
            with fresh_database.connect(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("SELECT count(*) FROM tags")


def test_library_is_uninstalled_after_every_table_is_unguarded(fresh_database: Database) -> None:
    lookups = [s for lookup in lookups_of(Base.metadata) for s in drop_lookup_sql(lookup, ROLES)]
    run(fresh_database, [f"SET LOCAL ROLE {ROLES.owner}", *lookups])
    for table in TABLES.values():
        run(fresh_database, unguard_sql(table, ROLES))

    run(fresh_database, uninstall_sql(ROLES))

    assert one(fresh_database, "SELECT count(*) FROM pg_namespace WHERE nspname = 'tenancy'") == 0
    assert one(fresh_database, "SELECT count(*) FROM pg_policy") == 0


def test_library_is_not_uninstalled_while_a_table_is_guarded(fresh_database: Database) -> None:
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        run(fresh_database, uninstall_sql(ROLES))


def test_guarding_again_gives_back_what_was_changed(fresh_database: Database) -> None:
    run(fresh_database, ["DROP POLICY tenancy_guard ON people", f"GRANT TRUNCATE ON people TO {ROLES.app}"])

    run(fresh_database, guard_sql(TABLES["people"], ROLES))

    assert one(fresh_database, "SELECT count(*) FROM pg_policy WHERE polrelid = 'people'::regclass") == 3
    assert one(fresh_database, f"SELECT has_table_privilege('{ROLES.app}', 'people', 'TRUNCATE')") is False


def test_table_in_another_schema_is_guarded(fresh_database: Database) -> None:
    table = GuardedTable("order", "tenant", ("note",), schema="Sales")
    run(
        fresh_database,
        [
            'CREATE SCHEMA "Sales"',
            f'GRANT USAGE ON SCHEMA "Sales" TO {ROLES.app}',
            'CREATE TABLE "Sales"."order" (tenant_id uuid, id uuid, note text, PRIMARY KEY (tenant_id, id))',
            *guard_sql(table, ROLES),
        ],
    )

    with (
        fresh_database.connect(ROLES.app) as app,
        pytest.raises(psycopg.errors.InsufficientPrivilege, match="no tenant"),
    ):
        app.execute('INSERT INTO "Sales"."order" VALUES (gen_random_uuid(), gen_random_uuid(), \'x\')')
    run(fresh_database, unguard_sql(table, ROLES))


def test_sequence_of_a_table_in_another_schema_may_be_drawn_from(fresh_database: Database) -> None:
    table = GuardedTable("order", "tenant", (), schema="Sales", sequences=("order_id_seq",))
    run(
        fresh_database,
        [
            'CREATE SCHEMA "Sales"',
            f'GRANT USAGE ON SCHEMA "Sales" TO {ROLES.app}',
            'CREATE TABLE "Sales"."order" (tenant_id uuid, id serial, PRIMARY KEY (tenant_id, id))',
            *guard_sql(table, ROLES),
        ],
    )

    assert one(fresh_database, "SELECT nextval('\"Sales\".order_id_seq')", role=ROLES.app) == 1
    run(fresh_database, unguard_sql(table, ROLES))
    with fresh_database.connect(ROLES.app) as app, pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute("SELECT nextval('\"Sales\".order_id_seq')")


@pytest.mark.parametrize("forced", [True, False])
def test_force_lets_the_owner_past_or_stops_it(fresh_database: Database, forced: bool) -> None:
    """T003"""
    run(fresh_database, [force_sql("people", forced=forced)])

    with fresh_database.connect(ROLES.migrator) as owner:
        owner.execute("SET row_security = on")
        if forced:
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="no tenant is bound"):
                owner.execute("SELECT count(*) FROM people")
        else:
            assert owner.execute("SELECT count(*) FROM people").fetchone() == (0,)


def updatable(database: Database, role: str, table: str, column: str) -> Any:
    return one(database, f"SELECT has_column_privilege('{role}', '{table}', '{column}', 'UPDATE')")


def test_added_column_may_be_updated_by_the_runtime_roles(fresh_database: Database) -> None:
    run(
        fresh_database,
        ['ALTER TABLE people ADD "Nick name" text', grant_added_column_sql("people", "Nick name", ROLES)],
    )

    assert updatable(fresh_database, ROLES.app, "people", "Nick name") is True
    assert updatable(fresh_database, ROLES.platform, "people", "Nick name") is True


def test_column_added_to_the_registry_is_left_to_the_platform(fresh_database: Database) -> None:
    run(
        fresh_database,
        ["ALTER TABLE tenants ADD plan text", grant_added_column_sql("tenants", "plan", ROLES, schema="public")],
    )

    assert updatable(fresh_database, ROLES.app, "tenants", "plan") is False
    assert updatable(fresh_database, ROLES.platform, "tenants", "plan") is True


def test_column_added_to_a_table_that_is_not_guarded_is_granted_to_nobody(fresh_database: Database) -> None:
    run(
        fresh_database,
        [
            "CREATE TABLE plain (id int PRIMARY KEY, a text)",
            "ALTER TABLE plain ADD b text",
            grant_added_column_sql("plain", "b", ROLES),
        ],
    )

    assert updatable(fresh_database, ROLES.app, "plain", "b") is False


@pytest.mark.parametrize("operation", ["INSERT", "UPDATE", "DELETE"])
def test_change_of_a_tenant_is_announced_by_its_id_only(fresh_database: Database, operation: str) -> None:
    """T051: the payload is opaque."""
    tenant: UUID = uuid7()
    insert = f"INSERT INTO tenants (tenant_id, slug, name, status) VALUES ('{tenant}', 'acme', 'Acme', 'active')"
    later = {
        "INSERT": "SELECT 1",
        "UPDATE": "UPDATE tenants SET slug = 'acme2'",
        "DELETE": "DELETE FROM tenants",
    }
    with fresh_database.connect("postgres") as listener:
        listener.autocommit = True
        if operation != "INSERT":
            listener.execute(insert.encode())
        listener.execute("LISTEN tenancy_tenant")
        run(fresh_database, [insert if operation == "INSERT" else later[operation]], role=None)
        payloads = {notice.payload for notice in listener.notifies(timeout=0.2)}

    assert payloads == {str(tenant)}


def test_lookup_over_an_account_table_keeps_its_own_guard() -> None:
    lookup = Lookup("by_email", "accounts", "email", ("id",))
    table = guarded_table(Base.metadata.tables["accounts"], [lookup])

    guard = policies(table, ROLES)[1]

    assert guard.using is not None
    assert guard.using.startswith("(SELECT current_user = 'tenancy_lookup') OR id = ")
