"""The database read back and compared with the models."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from tenancy.rls import (
    Grant,
    GuardedTable,
    Policy,
    canonical_policies,
    differences,
    guard_sql,
    guarded,
    policies,
    read_state,
)
from tenancy.rls.catalog import TableState, read_states
from tests.conftest import ROLES, Database
from tests.models import Base

TABLES = guarded(Base.metadata)
BY_NAME = {table.name: table for table in TABLES}


@pytest.fixture
def owner(database: Database) -> Iterator[Connection]:
    """The owner's connection; what it changes is rolled back."""
    engine = create_engine(database.url("postgres"), poolclass=NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"SET LOCAL ROLE {ROLES.owner}")
        yield connection


def found(connection: Connection) -> list[tuple[str, str]]:
    return [(difference.table.name, difference.kind) for difference in differences(connection, TABLES, ROLES)]


def test_canonical_schema_has_no_difference(owner: Connection) -> None:
    """T133"""
    assert found(owner) == []


MUTATIONS: dict[str, tuple[str, str]] = {
    "FORCE off": ("ALTER TABLE people NO FORCE ROW LEVEL SECURITY", "rls_not_forced"),
    "RLS off": ("ALTER TABLE people DISABLE ROW LEVEL SECURITY", "rls_disabled"),
    "isolation dropped": ("DROP POLICY tenancy_isolation ON people", "policy_missing"),
    "guard dropped": ("DROP POLICY tenancy_guard ON people", "policy_missing"),
    "platform read dropped": ("DROP POLICY tenancy_platform_read ON people", "policy_missing"),
    "isolation opened": ("ALTER POLICY tenancy_isolation ON people USING (true)", "policy_changed"),
    "check opened": ("ALTER POLICY tenancy_guard ON people WITH CHECK (true)", "policy_changed"),
    "roles narrowed": (f"ALTER POLICY tenancy_guard ON people TO {ROLES.platform}", "policy_changed"),
    "sub-select lost": (
        "ALTER POLICY tenancy_guard ON people USING (tenant_id = tenancy.guarded_tenant() OR tenancy.platform_open())",
        "policy_changed",
    ),
    "command narrowed": (
        "DROP POLICY tenancy_isolation ON people; CREATE POLICY tenancy_isolation ON people FOR UPDATE"
        " USING (tenant_id = tenancy.current_tenant()) WITH CHECK (tenant_id = tenancy.current_tenant())",
        "policy_changed",
    ),
    "renamed": ("ALTER POLICY tenancy_guard ON people RENAME TO mine", "policy_missing"),
    "permissive policy": ("CREATE POLICY mine ON people USING (true)", "policy_permissive"),
    "permissive policy for one role": (
        f"CREATE POLICY mine ON people FOR SELECT TO {ROLES.app} USING (true)",
        "policy_permissive",
    ),
    "grant missing": (f"REVOKE DELETE ON people FROM {ROLES.app}", "grant_missing"),
    "column grant missing": (f"REVOKE UPDATE (name) ON people FROM {ROLES.platform}", "grant_missing"),
    "TRUNCATE granted": (f"GRANT TRUNCATE ON people TO {ROLES.app}", "grant_extra"),
    "key column granted": (f"GRANT UPDATE (tenant_id) ON people TO {ROLES.app}", "grant_extra"),
    "whole UPDATE granted": (f"GRANT UPDATE ON people TO {ROLES.app}", "grant_extra"),
    "granted to PUBLIC": ("GRANT SELECT ON people TO PUBLIC", "grant_extra"),
    "granted to the lookup role": (f"GRANT SELECT (name) ON people TO {ROLES.lookup}", "grant_extra"),
    "backup may write": (f"GRANT INSERT ON people TO {ROLES.backup}", "grant_extra"),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_each_change_by_hand_is_one_difference(owner: Connection, mutation: str) -> None:
    """T003, T005, T009, T010, T011, T133"""
    statement, kind = MUTATIONS[mutation]

    owner.exec_driver_sql(statement)

    assert found(owner) == [("people", kind)]


def test_registry_that_lets_the_app_role_change_status_is_a_difference(owner: Connection) -> None:
    owner.exec_driver_sql(f"GRANT UPDATE (status) ON tenants TO {ROLES.app}")

    (difference,) = differences(owner, TABLES, ROLES)
    assert (difference.kind, difference.what) == (
        "grant_extra",
        f"UPDATE (status) to {ROLES.app} on 'tenants' was not given by the library",
    )
    assert difference.grant == Grant(ROLES.app, "UPDATE", "status")


def test_missing_grant_is_named(owner: Connection) -> None:
    owner.exec_driver_sql(f"REVOKE DELETE ON people FROM {ROLES.app}")

    (difference,) = differences(owner, TABLES, ROLES)
    assert difference.grant == Grant(ROLES.app, "DELETE")
    assert difference.policy is None


@pytest.mark.parametrize(
    ("change", "policy"),
    [
        ("DROP POLICY tenancy_guard ON people", "tenancy_guard"),
        ("ALTER POLICY tenancy_isolation ON people USING (true)", "tenancy_isolation"),
        ("CREATE POLICY mine ON people USING (true)", "mine"),
    ],
)
def test_policy_that_differs_is_named(owner: Connection, change: str, policy: str) -> None:
    owner.exec_driver_sql(change)

    (difference,) = differences(owner, TABLES, ROLES)
    assert difference.policy == policy
    assert difference.grant is None


def test_state_of_a_view_is_read_by_its_oid(owner: Connection) -> None:
    owner.exec_driver_sql("CREATE VIEW names AS SELECT name FROM people")
    owner.exec_driver_sql(f"GRANT SELECT ON names TO {ROLES.app}")
    oid = owner.exec_driver_sql("SELECT 'names'::regclass::oid").scalar_one()

    states = read_states(owner, [oid])

    assert states[oid].name == "names"
    assert Grant(ROLES.app, "SELECT") in states[oid].grants


def test_grant_on_a_whole_table_is_told_without_a_column(owner: Connection) -> None:
    owner.exec_driver_sql(f"GRANT TRUNCATE ON people TO {ROLES.app}")

    (difference,) = differences(owner, TABLES, ROLES)
    assert difference.what == f"TRUNCATE to {ROLES.app} on 'people' was not given by the library"


def test_changed_account_policy_is_a_difference(owner: Connection) -> None:
    owner.exec_driver_sql("ALTER POLICY tenancy_isolation ON accounts USING (true)")

    assert found(owner) == [("accounts", "policy_changed")]


def test_restrictive_policy_by_hand_is_left_alone(owner: Connection) -> None:
    owner.exec_driver_sql("CREATE POLICY mine ON people AS RESTRICTIVE USING (name <> 'hidden')")

    assert found(owner) == []


def test_grant_to_a_role_of_someone_else_is_left_alone(owner: Connection) -> None:
    owner.exec_driver_sql("GRANT SELECT ON people TO pg_monitor")

    assert found(owner) == []


def test_guarding_again_leaves_no_difference(owner: Connection) -> None:
    for statement in (
        "ALTER TABLE people NO FORCE ROW LEVEL SECURITY",
        "ALTER POLICY tenancy_guard ON people USING (true)",
        f"GRANT ALL ON people TO {ROLES.app}",
        f"REVOKE ALL ON people FROM {ROLES.platform}",
    ):
        owner.exec_driver_sql(statement)
    assert len(found(owner)) > 3

    for statement in guard_sql(BY_NAME["people"], ROLES):
        owner.exec_driver_sql(statement)

    assert found(owner) == []


def test_table_that_does_not_exist_is_no_difference(owner: Connection) -> None:
    assert differences(owner, [GuardedTable("nowhere", "tenant", ())], ROLES) == []
    assert differences(owner, [], ROLES) == []


def test_comparison_leaves_nothing_in_the_database(owner: Connection) -> None:
    differences(owner, TABLES, ROLES)

    left = owner.exec_driver_sql("SELECT count(*) FROM pg_class WHERE relname LIKE 'tenancy_probe%%'").scalar()
    assert left == 0


def test_state_is_read_by_the_name_it_was_asked_for(owner: Connection) -> None:
    owner.exec_driver_sql("CREATE SCHEMA sales")
    owner.exec_driver_sql("CREATE TABLE sales.people (tenant_id uuid)")
    asked = [BY_NAME["people"], GuardedTable("people", "tenant", (), schema="sales")]

    state = read_state(owner, asked)

    assert set(state) == {(None, "people"), ("sales", "people")}
    assert state[None, "people"].is_forced
    assert not state["sales", "people"].is_enabled
    assert state["sales", "people"].grants == {Grant(ROLES.backup, "SELECT")}  # the owner's default
    assert Grant(ROLES.app, "UPDATE", "name") in state[None, "people"].grants


def test_tables_of_one_name_in_two_schemas_are_compared_apart(owner: Connection) -> None:
    """An account table and a tenant table may share a name; each is held to its own policies."""
    there = GuardedTable("people", "account", (), key="id", schema="sales")
    owner.exec_driver_sql("CREATE SCHEMA sales")
    owner.exec_driver_sql("CREATE TABLE sales.people (id uuid PRIMARY KEY)")
    for statement in guard_sql(there, ROLES):
        owner.exec_driver_sql(statement)

    assert differences(owner, [there, BY_NAME["people"]], ROLES) == []
    assert differences(owner, [BY_NAME["people"], there], ROLES) == []


def test_account_table_with_the_key_of_a_tenant_table_wants_its_own_policies(owner: Connection) -> None:
    account = GuardedTable("members", "account", (), key="tenant_id")

    wanted = canonical_policies(owner, [BY_NAME["people"], account], ROLES)

    people, members = (policies[0].using for policies in wanted.values())
    assert people is not None
    assert members is not None
    assert "tenancy.guarded_tenant()" in people
    assert "tenancy.guarded_account()" in members


def test_wanted_policies_are_those_of_the_server_in_its_own_words(owner: Connection) -> None:
    wanted = canonical_policies(owner, [BY_NAME["people"]], ROLES)
    (printed,) = wanted.values()

    assert printed == read_state(owner, [BY_NAME["people"]])[None, "people"].policies
    assert {policy.name for policy in printed} == {policy.name for policy in policies(BY_NAME["people"], ROLES)}


def test_citus_flavour_wants_no_force(owner: Connection) -> None:
    kinds = {difference.kind for difference in differences(owner, [BY_NAME["people"]], ROLES, "citus")}

    assert kinds == {"rls_not_forced", "policy_changed"}


@pytest.mark.parametrize(
    ("using", "account_key", "is_staff"),
    [
        ("(tenant_id =\nCASE\n WHEN (current_setting('app.tenant_id'::text, true) IS NULL) END)", None, False),
        ("(id =\nCASE\n WHEN (current_setting('app.account_id'::text, true) IS NULL) END)", "id", False),
        (
            '("An = ""Id""" =\nCASE\n WHEN (current_setting(\'app.account_id\'::text, true) IS NULL) END)',
            'An = "Id"',
            False,
        ),
        ("(tenant_id = tenancy.current_tenant())", None, False),
        ('("Id" = tenancy.current_account())', "Id", False),
        ("( SELECT tenancy.platform_open() AS platform_open)", None, True),
        ("tenancy.platform_open()", None, True),
        ("true", None, False),
    ],
)
def test_isolation_policy_of_any_age_tells_whose_rows_it_keeps(
    using: str, account_key: str | None, is_staff: bool
) -> None:
    isolation = Policy("tenancy_isolation", True, "ALL", ("PUBLIC",), using, using)
    state = TableState("some", "public", True, True, (isolation,), frozenset())

    assert (state.account_key, state.is_staff) == (account_key, is_staff)
