"""What autogenerate finds in a database that somebody changed by hand, and that its own operations repair it."""

from __future__ import annotations

import pytest
from alembic.operations.ops import MigrateOperation
from sqlalchemy import Column, Integer, MetaData, Table

from tenancy.alembic.operations import TenancyOp
from tenancy.errors import ModelError
from tests.conftest import Database
from tests.models import Base
from tests.tenancy.migrations import apply, compared

REGUARD_PEOPLE = [("reguard_table", "people")]
TAMPERED = {
    "RLS off": ("ALTER TABLE people DISABLE ROW LEVEL SECURITY", REGUARD_PEOPLE),
    "FORCE off": ("ALTER TABLE people NO FORCE ROW LEVEL SECURITY", REGUARD_PEOPLE),
    "isolation opened": ("ALTER POLICY tenancy_isolation ON people USING (true)", REGUARD_PEOPLE),
    "check opened": ("ALTER POLICY tenancy_guard ON people WITH CHECK (true)", REGUARD_PEOPLE),
    "policy for one role only": ("ALTER POLICY tenancy_guard ON people TO tenancy_app", REGUARD_PEOPLE),
    "isolation dropped": ("DROP POLICY tenancy_isolation ON people", REGUARD_PEOPLE),
    "guard dropped": ("DROP POLICY tenancy_guard ON people", REGUARD_PEOPLE),
    "platform policy dropped": ("DROP POLICY tenancy_platform_read ON people", REGUARD_PEOPLE),
    "lookup policy added": ("CREATE POLICY tenancy_lookup ON people TO tenancy_lookup USING (true)", REGUARD_PEOPLE),
    "lookup policy dropped": ("DROP POLICY tenancy_lookup ON domains", [("reguard_table", "domains")]),
    "all policies dropped": (
        "DROP POLICY tenancy_isolation ON notes; DROP POLICY tenancy_guard ON notes; "
        "DROP POLICY tenancy_platform_read ON notes",
        [("guard_table", "notes")],
    ),
    "insert revoked": ("REVOKE INSERT ON people FROM tenancy_app", REGUARD_PEOPLE),
    "column revoked": ("REVOKE UPDATE (name) ON people FROM tenancy_platform", REGUARD_PEOPLE),
    "backup revoked": ("REVOKE SELECT ON people FROM tenancy_backup", REGUARD_PEOPLE),
    "key made updatable": ("GRANT UPDATE (tenant_id) ON people TO tenancy_app", REGUARD_PEOPLE),
    "status made updatable": ("GRANT UPDATE (status) ON tenants TO tenancy_app", [("reguard_table", "tenants")]),
    "truncate granted": ("GRANT TRUNCATE ON people TO tenancy_app", REGUARD_PEOPLE),
    "public granted": ("GRANT SELECT ON people TO PUBLIC", REGUARD_PEOPLE),
    "announcement dropped": ("DROP TRIGGER tenancy_announce ON tenants", [("reguard_table", "tenants")]),
    "announcement disabled": ("ALTER TABLE tenants DISABLE TRIGGER tenancy_announce", [("reguard_table", "tenants")]),
    "sequence revoked": ("REVOKE USAGE ON SEQUENCE todos_id_seq FROM tenancy_app", [("reguard_table", "todos")]),
    "permissive policy added": (
        "CREATE POLICY let_in ON people FOR SELECT TO tenancy_app USING (name = 'Ada')",
        [("drop_permissive_policy", "people")],
    ),
    "lookup dropped": ("DROP FUNCTION tenancy.tenant_by_slug", [("create_lookup", "tenant_by_slug")]),
    "lookup not a definer": (
        "ALTER FUNCTION tenancy.tenant_by_slug(text) SECURITY INVOKER",
        [("recreate_lookup", "tenant_by_slug")],
    ),
    "lookup without search path": (
        "ALTER FUNCTION tenancy.tenant_by_slug(text) RESET search_path",
        [("recreate_lookup", "tenant_by_slug")],
    ),
    "lookup given away": (
        "ALTER FUNCTION tenancy.tenant_by_slug(text) OWNER TO tenancy_owner",
        [("recreate_lookup", "tenant_by_slug")],
    ),
    "lookup made public": (
        "GRANT EXECUTE ON FUNCTION tenancy.tenant_by_slug(text) TO PUBLIC",
        [("recreate_lookup", "tenant_by_slug")],
    ),
    "lookup rewritten": (
        "CREATE OR REPLACE FUNCTION tenancy.account_of_email(key text) RETURNS TABLE (id uuid) LANGUAGE sql "
        "SECURITY DEFINER AS 'SELECT id FROM public.accounts'",
        [("recreate_lookup", "account_of_email")],
    ),
    "function rewritten": (
        "CREATE OR REPLACE FUNCTION tenancy.current_tenant() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE "
        "AS 'SELECT NULL::uuid'",
        [("reinstall_tenancy",)],
    ),
    "function immutable": ("ALTER FUNCTION tenancy.current_tenant() IMMUTABLE", [("reinstall_tenancy",)]),
    "function dearer to the planner": ("ALTER FUNCTION tenancy.no_tenant() COST 100", [("reinstall_tenancy",)]),
    "function as it was in older versions": (
        "CREATE OR REPLACE FUNCTION tenancy.guarded_tenant() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE "
        "AS $$ SELECT CASE WHEN session_user = 'tenancy_platform' AND NOT tenancy.platform_session_valid() "
        "THEN NULL ELSE tenancy.current_tenant() END $$",
        [("reinstall_tenancy",)],
    ),
    "function dropped": ("DROP FUNCTION tenancy.current_tenant()", [("reinstall_tenancy",)]),
    "function unreachable": (
        "REVOKE EXECUTE ON FUNCTION tenancy.current_tenant() FROM tenancy_app",
        [("reinstall_tenancy",)],
    ),
    "function dropped with its policies": (
        "DROP FUNCTION tenancy.platform_open() CASCADE",
        [("reinstall_tenancy",), *(("reguard_table", table) for table in Base.metadata.tables)],
    ),
}


def change_by_hand(database: Database, statement: str) -> None:
    with database.connect("postgres") as connection:
        connection.execute(statement.encode())


def verbs(operations: list[MigrateOperation]) -> list[tuple[str, ...]]:
    """Name each operation of ours and what it acts on."""
    ours = [op for op in operations if isinstance(op, TenancyOp)]
    return [(op.verb, *op.arguments[0][:1]) for op in ours]


@pytest.mark.parametrize("options", [{}, {"compare_type": True, "compare_server_default": True}])
def test_untouched_database_needs_nothing(fresh_database: Database, options: dict[str, object]) -> None:
    assert compared(fresh_database, Base.metadata, **options).ops == []


@pytest.mark.parametrize(("statement", "expected"), TAMPERED.values(), ids=TAMPERED.keys())
def test_change_by_hand_is_found_and_repaired(
    fresh_database: Database, statement: str, expected: list[tuple[str, ...]]
) -> None:
    """T003, T005, T010, T011"""
    change_by_hand(fresh_database, statement)

    found = compared(fresh_database, Base.metadata)
    apply(fresh_database, found)

    assert sorted(verbs(found.ops)) == sorted(expected)
    assert compared(fresh_database, Base.metadata).ops == []


def test_dropped_permissive_policy_comes_back_on_downgrade(fresh_database: Database) -> None:
    change_by_hand(fresh_database, "CREATE POLICY let_in ON people FOR SELECT TO tenancy_app USING (name = 'Ada')")
    found = compared(fresh_database, Base.metadata)
    apply(fresh_database, found)

    apply(fresh_database, found.reverse())

    with fresh_database.connect("postgres") as connection:
        query = "SELECT cmd, roles::text, qual FROM pg_policies WHERE policyname = 'let_in'"
        assert connection.execute(query).fetchall() == [("SELECT", "{tenancy_app}", "((name)::text = 'Ada'::text)")]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE POLICY office_hours ON people AS RESTRICTIVE USING (true)",
        "CREATE TABLE others (id int); ALTER TABLE others ENABLE ROW LEVEL SECURITY; "
        "CREATE POLICY tenancy_isolation ON others USING (true)",
        "CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.people (id int); "
        "ALTER TABLE elsewhere.people ENABLE ROW LEVEL SECURITY; CREATE POLICY rows ON elsewhere.people USING (true)",
        "SET ROLE tenancy_lookup; CREATE FUNCTION tenancy.search(name text) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    ],
    ids=["restrictive policy", "table outside the metadata", "other schema", "function of another make"],
)
def test_what_is_not_ours_is_left_alone(fresh_database: Database, statement: str) -> None:
    change_by_hand(fresh_database, statement)

    found = compared(fresh_database, Base.metadata, include_object=lambda *_: _[1] != "others")

    assert found.ops == []


def test_metadata_without_any_tenant_table_is_left_alone(fresh_database: Database) -> None:
    other = MetaData()
    Table("counters", other, Column("id", Integer, primary_key=True))

    found = compared(fresh_database, other, include_object=lambda _o, _n, _t, reflected, _c: not reflected)

    assert [type(op).__name__ for op in found.ops] == ["CreateTableOp"]


def test_unmarked_table_stops_autogenerate(fresh_database: Database) -> None:
    metadata = MetaData()
    Base.metadata.tables["tenants"].to_metadata(metadata)
    Table("leaky", metadata, Column("id", Integer, primary_key=True))

    with pytest.raises(ModelError, match="'leaky' has no tenant_id and is not marked"):
        compared(fresh_database, metadata)


@pytest.mark.parametrize(
    "options",
    [
        {"include_object": lambda _object, name, kind, _reflected, _to: (kind, name) != ("table", "todos")},
        {"include_name": lambda name, kind, _parents: (kind, name) != ("table", "todos")},
    ],
    ids=["include_object", "include_name"],
)
def test_table_that_is_filtered_out_is_left_alone(fresh_database: Database, options: dict[str, object]) -> None:
    change_by_hand(fresh_database, "ALTER TABLE todos NO FORCE ROW LEVEL SECURITY")

    found = compared(fresh_database, Base.metadata, **options)

    assert [op for op in verbs(found.ops) if "reguard_table" in op] == []


def test_tables_of_schema_tenancy_are_never_dropped(fresh_database: Database) -> None:
    assert compared(fresh_database, Base.metadata, include_schemas=True).ops == []


@pytest.mark.parametrize("plugins", [["alembic.autogenerate.*"], ["alembic.autogenerate.*", "tenancy.*"]])
def test_comparison_runs_whether_or_not_plugins_name_it(fresh_database: Database, plugins: list[str]) -> None:
    change_by_hand(fresh_database, "ALTER TABLE people NO FORCE ROW LEVEL SECURITY")

    found = compared(fresh_database, Base.metadata, autogenerate_plugins=plugins)

    assert verbs(found.ops) == REGUARD_PEOPLE
