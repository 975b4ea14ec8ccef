"""T005-T023: what still holds when a policy was changed by hand, or a table was added beside the library."""

from uuid import UUID

import pytest
from psycopg import errors
from uuid_utils.compat import uuid7

from tenancy.rls import GuardedTable, guard_sql
from tests.conftest import ROLES, Database
from tests.isolation.plain import NEW, bind, names


@pytest.fixture
def changed(fresh_database: Database) -> tuple[Database, UUID]:
    """A database with one row of ours and one of theirs, for a test that changes its policies."""
    ours, theirs = uuid7(), uuid7()
    with fresh_database.connect("postgres") as truth:
        truth.execute("SELECT set_config('session_replication_role', 'replica', true)")
        truth.cursor().executemany(NEW, [(ours,), (theirs,)])
    return fresh_database, ours


def seen(database: Database, tenant: UUID, statement: str) -> int:
    """Change the database, and count the rows that the tenant then sees; two are there."""
    with database.connect("postgres") as owner:
        owner.execute(statement.encode())
    with database.connect(ROLES.app) as app:
        bind(app, tenant)
        return len(names(app))


def test_permissive_policy_added_later_opens_nothing(changed: tuple[Database, UUID]) -> None:
    """T010: the restrictive guard still holds."""
    assert seen(*changed, "CREATE POLICY mine ON people USING (true) WITH CHECK (true)") == 1


@pytest.mark.parametrize("statement", ["DROP POLICY tenancy_isolation ON people"])
def test_table_without_its_isolation_policy_shows_nothing(changed: tuple[Database, UUID], statement: str) -> None:
    """T011"""
    assert seen(*changed, statement) == 0


def test_table_without_its_guard_still_shows_one_tenant(changed: tuple[Database, UUID]) -> None:
    assert seen(*changed, "DROP POLICY tenancy_guard ON people") == 1


def test_table_with_security_on_and_no_policy_shows_and_takes_nothing(changed: tuple[Database, UUID]) -> None:
    """T006"""
    drop = "DROP POLICY {} ON people"
    policies = ("tenancy_isolation", "tenancy_guard", "tenancy_platform_read")

    assert seen(*changed, "; ".join(drop.format(policy) for policy in policies)) == 0
    with changed[0].connect(ROLES.app) as app, pytest.raises(errors.InsufficientPrivilege):
        app.execute(NEW.encode(), [changed[1]])


def test_policies_without_security_on_would_show_everything(changed: tuple[Database, UUID]) -> None:
    """T005: why the catalog comparison reports it, and why this is the owner's right alone."""
    assert seen(*changed, "ALTER TABLE people DISABLE ROW LEVEL SECURITY") == 2


def test_another_login_role_with_a_grant_sees_nothing_unbound(fresh_database: Database, worker: str) -> None:
    """T012"""
    role = f"reporter_{worker}"
    with fresh_database.connect("postgres") as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN".encode())
        admin.execute(f"GRANT CONNECT ON DATABASE {fresh_database.name} TO {role}".encode())
        admin.execute(f"GRANT USAGE ON SCHEMA public TO {role}".encode())
        admin.execute(f"GRANT SELECT ON people TO {role}".encode())
    try:
        with fresh_database.connect(role) as reporter, pytest.raises(errors.InsufficientPrivilege):
            names(reporter)
    finally:
        with fresh_database.connect("postgres") as admin:
            admin.execute(f"DROP OWNED BY {role}".encode())
            admin.execute(f"DROP ROLE {role}".encode())


def test_each_partition_is_closed_to_the_app_role(fresh_database: Database) -> None:
    """T023: policies of the parent do not hold for a partition read by its own name; a missing grant does."""
    ours = uuid7()
    with fresh_database.connect("postgres") as owner:
        owner.execute(f"SET ROLE {ROLES.owner}".encode())
        owner.execute(
            "CREATE TABLE events (tenant_id uuid, id uuid, name text, PRIMARY KEY (tenant_id, id))"
            " PARTITION BY HASH (tenant_id)"
        )
        for statement in guard_sql(GuardedTable("events", "tenant", ("name",)), ROLES):
            owner.execute(statement.encode())
        for number in range(2):
            owner.execute(
                f"CREATE TABLE events_{number} PARTITION OF events"
                f" FOR VALUES WITH (MODULUS 2, REMAINDER {number})".encode()
            )
        owner.execute("RESET ROLE")
        owner.execute("INSERT INTO events VALUES (%s, gen_random_uuid(), 'ours')", [ours])
        owner.execute(
            "INSERT INTO events SELECT gen_random_uuid(), gen_random_uuid(), 'theirs' FROM generate_series(1, 8)"
        )

    with fresh_database.connect(ROLES.app) as app:
        bind(app, ours)
        assert app.execute("SELECT name FROM events").fetchall() == [("ours",)]
        for number in range(2):
            with pytest.raises(errors.InsufficientPrivilege), app.transaction():
                app.execute(f"SELECT * FROM events_{number}".encode())


def test_guarded_partition_shows_one_tenant_by_its_own_name(fresh_database: Database) -> None:
    """T023"""
    ours = uuid7()
    with fresh_database.connect("postgres") as owner:
        owner.execute(f"SET ROLE {ROLES.owner}".encode())
        owner.execute(
            "CREATE TABLE events (tenant_id uuid, id uuid, PRIMARY KEY (tenant_id, id)) PARTITION BY HASH (tenant_id)"
        )
        owner.execute("CREATE TABLE events_0 PARTITION OF events FOR VALUES WITH (MODULUS 1, REMAINDER 0)")
        for name in ("events", "events_0"):
            for statement in guard_sql(GuardedTable(name, "tenant", ()), ROLES):
                owner.execute(statement.encode())
        owner.execute("RESET ROLE")
        owner.execute(
            "INSERT INTO events VALUES (%s, gen_random_uuid()), (gen_random_uuid(), gen_random_uuid())", [ours]
        )

    with fresh_database.connect(ROLES.app) as app:
        bind(app, ours)
        assert app.execute("SELECT count(*) FROM events_0").fetchone() == (1,)


def test_cheap_function_of_the_attackers_own_is_shown_no_foreign_row(changed: tuple[Database, UUID]) -> None:
    """T031: TEMP and plpgsql are granted here; a function that is not LEAKPROOF runs after the policies."""
    database, ours = changed
    with database.connect("postgres") as owner:
        owner.execute(f"GRANT TEMP ON DATABASE {database.name} TO {ROLES.app}".encode())
    shown: list[str | None] = []

    with database.connect(ROLES.app) as app:
        app.add_notice_handler(lambda notice: shown.append(notice.message_primary))
        app.execute(
            "CREATE FUNCTION pg_temp.f_leak(value text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS"
            " $$ BEGIN RAISE NOTICE 'tenant %', value; RETURN true; END $$"
        )
        bind(app, ours)
        app.execute("SELECT count(*) FROM people WHERE pg_temp.f_leak(tenant_id::text)")

    assert shown == [f"tenant {ours}"]
