"""T003-T023: what policies and grants refuse, at a plain connection of the app role."""

import contextlib
from collections.abc import Callable, Iterator
from uuid import UUID

import pytest
from psycopg import errors
from uuid_utils.compat import uuid7

from tests.conftest import ROLES, Database, SomeTenant
from tests.isolation.plain import NEW, Connection, bind, names

PersonOf = Callable[..., UUID]


@pytest.fixture
def tenants(acme: SomeTenant, globex: SomeTenant, person_of: PersonOf) -> tuple[UUID, UUID]:
    """Acme with Ada, globex with Eve."""
    person_of(acme, "Ada")
    person_of(globex, "Eve")
    return acme.id, globex.id


@pytest.fixture
def app(database: Database, tenants: tuple[UUID, UUID]) -> Iterator[Connection]:
    """The app role's own connection, bound to acme by hand."""
    with database.connect(ROLES.app) as connection:
        bind(connection, tenants[0])
        yield connection
        connection.rollback()


# Reading ----------------------------------------------------------------------------------------------


def test_bound_tenant_sees_its_rows(app: Connection, tenants: tuple[UUID, UUID]) -> None:
    assert names(app) == ["Ada"]
    bind(app, tenants[1])
    assert names(app) == ["Eve"]


def test_row_security_off_is_an_error_and_no_way_around(app: Connection) -> None:
    """T014"""
    app.execute("SET LOCAL row_security = off")

    with pytest.raises(errors.InsufficientPrivilege, match="row-level security"):
        names(app)


def test_owner_without_a_tenant_gets_an_error_and_not_zero_rows(database: Database, tenants: tuple[UUID, UUID]) -> None:
    """T003: FORCE holds the owner too."""
    with database.connect(ROLES.migrator) as owner:
        with pytest.raises(errors.InsufficientPrivilege, match="row-level security"):
            names(owner)
        owner.rollback()
        owner.execute("SET row_security = on")
        with pytest.raises(errors.InsufficientPrivilege, match="no tenant is bound"):
            names(owner)


@pytest.mark.parametrize("statement", ["UPDATE people SET name = 'x'", "DELETE FROM people"])
def test_owner_changes_no_row_without_a_tenant(database: Database, tenants: tuple[UUID, UUID], statement: str) -> None:
    with database.connect(ROLES.migrator) as owner:
        owner.execute("SET row_security = on")
        with pytest.raises(errors.InsufficientPrivilege, match="no tenant is bound"):
            owner.execute(statement.encode())


def test_copy_gives_the_tenants_rows_and_takes_none(app: Connection) -> None:
    """T021"""
    with app.cursor().copy("COPY people (name) TO STDOUT") as copy:
        assert b"".join(copy) == b"Ada\n"
    with pytest.raises(errors.FeatureNotSupported), app.cursor().copy("COPY people (name) FROM STDIN") as copy:
        copy.write(b"x\n")


@pytest.mark.parametrize("oracle", ["1 / (length(name) - 3)", "name::int", "(name || 'x')::uuid"])
def test_error_oracle_answers_for_the_tenants_rows_only(
    app: Connection, tenants: tuple[UUID, UUID], truth: Connection, oracle: str
) -> None:
    """T031: a leaky expression is evaluated after the policy, so only one's own row can make it fail."""
    app.execute("DELETE FROM people")
    assert truth.execute("SELECT count(*) FROM people WHERE tenant_id = %s", [tenants[1]]).fetchone() == (1,)

    found = app.execute(f"SELECT count(*) FROM people WHERE {oracle} IS NOT NULL".encode()).fetchone()

    assert found == (0,)


def test_statistics_of_tenant_tables_are_hidden_from_the_app_role(app: Connection, truth: Connection) -> None:
    """T056"""
    truth.execute("ANALYZE people")
    assert truth.execute("SELECT count(*) > 0 FROM pg_stats WHERE tablename = 'people'").fetchone() == (True,)

    assert app.execute("SELECT count(*) FROM pg_stats WHERE tablename = 'people'").fetchone() == (0,)


@pytest.mark.parametrize("view", ["pg_stats_ext", "pg_stats_ext_exprs"])
def test_extended_statistics_of_tenant_tables_are_hidden_from_the_app_role(fresh_database: Database, view: str) -> None:
    """T056"""
    counted = f"SELECT count(*) FROM {view} WHERE tablename = 'people'".encode()
    with fresh_database.connect("postgres") as truth:
        truth.execute("SET session_replication_role = replica")
        for tenant in (uuid7(), uuid7()):
            truth.execute(NEW.encode(), [tenant])
        truth.execute("CREATE STATISTICS public.people_names ON name, upper(email) FROM people")
        truth.execute("ANALYZE people")
        assert truth.execute(counted).fetchone() == (1,)
        truth.commit()

    with fresh_database.connect(ROLES.app) as app:
        assert app.execute(counted).fetchone() == (0,)


# Writing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        NEW,
        NEW + " RETURNING id",
        "INSERT INTO people (tenant_id, id, name, email) SELECT %s, gen_random_uuid(), 'New', gen_random_uuid()::text",
        "WITH n AS (" + NEW + " RETURNING 1) SELECT * FROM n",
    ],
)
def test_insert_for_another_tenant_is_refused(
    app: Connection, tenants: tuple[UUID, UUID], truth: Connection, statement: str
) -> None:
    """T007"""
    app.execute(statement.encode(), [tenants[0]])

    with pytest.raises(errors.InsufficientPrivilege, match="row-level security"), app.transaction():
        app.execute(statement.encode(), [tenants[1]])

    assert truth.execute("SELECT name FROM people WHERE tenant_id = %s", [tenants[1]]).fetchall() == [("Eve",)]


def test_insert_of_many_with_one_for_another_tenant_is_refused(app: Connection, tenants: tuple[UUID, UUID]) -> None:
    """T007"""
    with pytest.raises(errors.InsufficientPrivilege, match="row-level security"), app.transaction():
        app.cursor().executemany(NEW, [(tenants[0],), (tenants[1],)])

    assert names(app) == ["Ada"]


@pytest.mark.parametrize("where", ["", " WHERE name = 'Ada'"])
def test_row_cannot_be_moved_to_another_tenant(
    app: Connection, tenants: tuple[UUID, UUID], truth: Connection, where: str
) -> None:
    """T008, T009: the column privilege refuses, before any policy."""
    with pytest.raises(errors.InsufficientPrivilege, match="permission denied"):
        app.execute(f"UPDATE people SET tenant_id = %s{where}".encode(), [tenants[1]])

    assert truth.execute("SELECT name FROM people WHERE tenant_id = %s", [tenants[0]]).fetchall() == [("Ada",)]


def test_row_cannot_be_moved_even_with_the_privilege(fresh_database: Database) -> None:
    """T009: the WITH CHECK of both policies is behind it."""
    ours, theirs = uuid7(), uuid7()
    with fresh_database.connect("postgres") as truth:
        truth.execute(f"GRANT UPDATE ON people TO {ROLES.app}".encode())
        truth.execute("ALTER POLICY tenancy_isolation ON people WITH CHECK (true)")
        truth.execute("SELECT set_config('session_replication_role', 'replica', true)")
        truth.execute(NEW.encode(), [ours])

    with fresh_database.connect(ROLES.app) as app:
        bind(app, ours)
        assert names(app) == ["New"]
        with pytest.raises(errors.InsufficientPrivilege, match='policy "tenancy_guard"'):
            app.execute("UPDATE people SET tenant_id = %s", [theirs])


@pytest.mark.parametrize(
    "statement", ["UPDATE people SET name = 'x' WHERE name = 'Eve'", "DELETE FROM people WHERE name = 'Eve'"]
)
def test_foreign_row_is_neither_updated_nor_deleted(
    app: Connection, tenants: tuple[UUID, UUID], truth: Connection, statement: str
) -> None:
    assert app.execute(statement.encode()).rowcount == 0
    app.commit()

    assert truth.execute("SELECT name FROM people WHERE tenant_id = %s", [tenants[1]]).fetchall() == [("Eve",)]


def test_merge_matches_no_foreign_row(app: Connection, tenants: tuple[UUID, UUID], truth: Connection) -> None:
    """T022"""
    (eve,) = truth.execute("SELECT id FROM people WHERE tenant_id = %s", [tenants[1]]).fetchone() or (None,)

    merged = app.execute(
        "MERGE INTO people p USING (SELECT %s::uuid AS id) s ON p.id = s.id WHEN MATCHED THEN UPDATE SET name = 'x'",
        [eve],
    ).rowcount
    app.commit()

    assert merged == 0
    assert truth.execute("SELECT name FROM people WHERE id = %s", [eve]).fetchone() == ("Eve",)


def test_row_without_a_tenant_is_refused(app: Connection) -> None:
    """T017"""
    with pytest.raises((errors.NotNullViolation, errors.InsufficientPrivilege)):
        app.execute("INSERT INTO people (id, name, email) VALUES (gen_random_uuid(), 'New', 'new@test.example')")


def test_row_without_a_tenant_planted_by_a_superuser_is_seen_by_nobody(fresh_database: Database) -> None:
    """T017"""
    with fresh_database.connect("postgres") as truth:
        truth.execute("ALTER TABLE tags DROP CONSTRAINT pk_tags CASCADE")
        truth.execute("ALTER TABLE tags ALTER tenant_id DROP NOT NULL")
        truth.execute("INSERT INTO tags (id, label) VALUES (gen_random_uuid(), 'orphan')")
        assert truth.execute("SELECT count(*) FROM tags").fetchone() == (1,)

    with fresh_database.connect(ROLES.app) as app:
        bind(app, uuid7())
        assert app.execute("SELECT count(*) FROM tags").fetchone() == (0,)
        app.rollback()
        with pytest.raises(errors.InsufficientPrivilege, match="no tenant is bound"):
            app.execute("SELECT count(*) FROM tags")


# Definitions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "TRUNCATE people",
        "TRUNCATE people CASCADE",
        "ALTER TABLE people DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE people NO FORCE ROW LEVEL SECURITY",
        "ALTER POLICY tenancy_guard ON people USING (true)",
        "DROP POLICY tenancy_guard ON people",
        "CREATE POLICY mine ON people USING (true)",
        "CREATE TRIGGER mine BEFORE INSERT ON people EXECUTE FUNCTION tenancy.refuse_change()",
        "CREATE RULE mine AS ON SELECT TO people DO INSTEAD SELECT 1",
        "ALTER TABLE people OWNER TO tenancy_app",
        "DROP TABLE people",
        "CREATE TABLE mine (id int)",
        "CREATE TEMP TABLE mine (id int)",
        "CREATE SCHEMA mine",
        "CREATE EXTENSION hstore",
        "CREATE OR REPLACE FUNCTION tenancy.current_tenant() RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'",
        "ALTER FUNCTION tenancy.current_tenant() RENAME TO gone",
        "SET ROLE tenancy_owner",
        "SET SESSION AUTHORIZATION tenancy_platform",
        "ALTER ROLE tenancy_app BYPASSRLS",
        "GRANT tenancy_owner TO tenancy_app",
        "COPY people TO PROGRAM 'cat'",
        "COPY people TO '/tmp/people'",
    ],
)
def test_app_role_cannot_redefine_its_walls(app: Connection, statement: str) -> None:
    """T004, T013, T019, T020"""
    with pytest.raises((errors.InsufficientPrivilege, errors.FeatureNotSupported)):
        app.execute(statement.encode())


def test_app_role_has_no_privilege_beyond_rows(truth: Connection) -> None:
    """T020"""
    found = truth.execute(
        """
        SELECT c.relname, p FROM pg_class c, unnest(ARRAY['TRUNCATE', 'REFERENCES', 'TRIGGER', 'MAINTAIN']) AS p,
               unnest(%s::text[]) AS r
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
          AND (p <> 'MAINTAIN' OR current_setting('server_version_num')::int >= 170000)
          AND has_table_privilege(r, c.oid, CASE p WHEN 'MAINTAIN' THEN
              CASE WHEN current_setting('server_version_num')::int >= 170000 THEN p ELSE 'TRUNCATE' END ELSE p END)
        """,
        [[ROLES.app, ROLES.platform]],
    ).fetchall()
    spaces = truth.execute(
        "SELECT has_schema_privilege(r, 'public', 'CREATE') OR has_schema_privilege(r, 'tenancy', 'CREATE')"
        " OR has_database_privilege(r, current_database(), 'TEMP, CREATE') FROM unnest(%s::text[]) AS r",
        [[ROLES.app, ROLES.platform]],
    ).fetchall()

    assert found == []
    assert spaces == [(False,), (False,)]


def test_dropping_what_it_owns_takes_no_policy_away(fresh_database: Database) -> None:
    """T013: DROP OWNED also revokes, so the app role only shuts itself out."""
    ours, theirs = uuid7(), uuid7()
    with fresh_database.connect("postgres") as truth:
        truth.execute("SELECT set_config('session_replication_role', 'replica', true)")
        truth.cursor().executemany(NEW, [(ours,), (theirs,)])
        before = truth.execute("SELECT count(*) FROM pg_policy").fetchone()

    with fresh_database.connect(ROLES.app) as app:
        bind(app, ours)
        assert names(app) == ["New"]
        with contextlib.suppress(errors.InsufficientPrivilege), app.transaction():  # the server may refuse it whole
            app.execute("DROP OWNED BY CURRENT_USER")
    with fresh_database.connect("postgres") as truth:
        assert truth.execute("SELECT count(*) FROM pg_policy").fetchone() == before
        truth.execute(f"GRANT SELECT ON people TO {ROLES.app}".encode())
        truth.execute(f"GRANT USAGE ON SCHEMA tenancy, public TO {ROLES.app}".encode())
        truth.execute(f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA tenancy TO {ROLES.app}".encode())
        truth.execute(f"GRANT CONNECT ON DATABASE {fresh_database.name} TO {ROLES.app}".encode())
    with fresh_database.connect(ROLES.app) as app:
        bind(app, ours)
        assert names(app) == ["New"]
