"""`tenancy harden`: what it prints, applies, checks and gives back, and everything that still runs afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from psycopg import errors
from sqlalchemy import Engine, MetaData, Table, create_engine, inspect, select, text
from sqlalchemy.pool import NullPool

from tenancy.binding import create_tenant_engine
from tenancy.cli import main
from tenancy.context import platform_scope, tenant_scope
from tenancy.directory import Reference, SQLDirectory
from tenancy.embedded import Template
from tenancy.session import platform_sessionmaker, tenant_sessionmaker
from tests.conftest import ROLES, Database
from tests.isolation.test_dumps import dump
from tests.models import TENANT_BY_SLUG, Base, Company, Person, Tenant
from tests.signed import ACME, GLOBEX, KEY, as_owner, fill, filled_clone, sign
from tests.tenancy.engines import column, on_both_drivers
from tests.tenancy.migrations import Project

ACLS = """
    SELECT 'function', p.oid::regprocedure::text, a.* FROM pg_proc p,
        aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
    UNION ALL SELECT 'language', lanname::text, a.* FROM pg_language,
        aclexplode(coalesce(lanacl, acldefault('l', lanowner))) a
    UNION ALL SELECT 'table', oid::regclass::text, a.* FROM pg_class,
        aclexplode(coalesce(relacl, acldefault('r', relowner))) a WHERE relkind IN ('r', 'v')
    UNION ALL SELECT 'schema', nspname::text, a.* FROM pg_namespace,
        aclexplode(coalesce(nspacl, acldefault('n', nspowner))) a WHERE nspname !~ '^pg_(temp|toast)'
    UNION ALL SELECT 'database', datname::text, a.* FROM pg_database,
        aclexplode(coalesce(datacl, acldefault('d', datdba))) a WHERE datname = current_database()
"""


def harden(database: Database, *options: str, role: str = "postgres") -> Result:
    return CliRunner().invoke(main, ["harden", *options, database.url(role)])


def privileges(database: Database) -> set[tuple[object, ...]]:
    with database.connect("postgres") as truth:
        return set(truth.execute(ACLS).fetchall())


@pytest.fixture
def plain(template: Template, worker: str) -> Iterator[Database]:
    with filled_clone(template, f"plain_{worker}") as database:
        yield database


@pytest.fixture(scope="module")
def hardened(template: Template, worker: str) -> Iterator[Database]:
    with filled_clone(template, f"hard_{worker}") as database:
        assert harden(database, "--apply").exit_code == 0
        yield database


# The command ------------------------------------------------------------------------------------------


def test_print_is_the_default_and_changes_nothing(plain: Database) -> None:
    before = privileges(plain)

    printed = harden(plain)

    assert printed.exit_code == 0
    assert printed.output == harden(plain, "--print").output
    assert printed.output.startswith("BEGIN;\nCREATE SCHEMA IF NOT EXISTS tenancy_hardening;\n")
    assert printed.output.endswith("COMMIT;\n")
    assert "REVOKE EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) FROM PUBLIC;" in printed.output
    assert privileges(plain) == before


def test_what_is_printed_does_what_apply_does(plain: Database) -> None:
    with plain.connect("postgres") as truth:
        truth.autocommit = True
        truth.execute(harden(plain).output.encode())

    assert harden(plain, "--check").exit_code == 0


def test_check_names_each_thing_that_is_not_in_force(plain: Database) -> None:
    before = harden(plain, "--check")
    assert harden(plain, "--apply").exit_code == 0
    after = harden(plain, "--check")
    with plain.connect("postgres") as truth:
        truth.execute(f"GRANT TEMP ON DATABASE {plain.name} TO {ROLES.app}".encode())
        truth.execute("GRANT EXECUTE ON FUNCTION pg_catalog.set_config TO PUBLIC")
        truth.execute("GRANT UPDATE (setting) ON pg_catalog.pg_settings TO PUBLIC")
    opened = harden(plain, "--check")

    assert (before.exit_code, after.exit_code, opened.exit_code) == (1, 0, 1)
    assert "tenancy_app has EXECUTE on function pg_catalog.set_config(text, text, boolean): it" in before.output
    assert "hardened: tenancy_app and tenancy_platform" in after.output
    assert opened.stdout.splitlines() == [
        f"tenancy_app has TEMPORARY on database {plain.name}: temporary objects stand in for others, "
        "and hold functions",
        "tenancy_app has EXECUTE on function pg_catalog.set_config(text, text, boolean): it changes a setting",
        "tenancy_app has UPDATE on table pg_catalog.pg_settings: its rule changes a setting",
        "tenancy_platform has EXECUTE on function pg_catalog.set_config(text, text, boolean): it changes a setting",
        "tenancy_platform has UPDATE on table pg_catalog.pg_settings: its rule changes a setting",
    ]


def test_apply_twice_is_applied_once(plain: Database) -> None:
    first = harden(plain, "--apply")
    there = privileges(plain)
    again = harden(plain, "--apply")

    assert (first.exit_code, again.exit_code) == (0, 0)
    assert privileges(plain) == there
    assert harden(plain).output == "-- in force\n"


def test_revert_gives_back_exactly_what_was_there(plain: Database) -> None:
    """Also what was not as PostgreSQL has it: a grant with its option, one to the app role, one that was missing."""
    with plain.connect("postgres") as truth:
        truth.execute(f"GRANT EXECUTE ON FUNCTION pg_catalog.lo_get(oid) TO {ROLES.app} WITH GRANT OPTION".encode())
        truth.execute(f"GRANT EXECUTE ON FUNCTION pg_catalog.set_config TO {ROLES.owner}".encode())
        truth.execute("REVOKE EXECUTE ON FUNCTION pg_catalog.lo_unlink FROM PUBLIC")
        truth.execute(f"GRANT TEMP ON DATABASE {plain.name} TO PUBLIC".encode())
    before = privileges(plain)

    assert harden(plain, "--apply").exit_code == 0
    assert privileges(plain) != before
    with plain.connect("postgres") as truth:
        truth.execute(f"GRANT TEMP ON DATABASE {plain.name} TO {ROLES.platform}".encode())
    assert harden(plain, "--apply").exit_code == 0
    reverted = harden(plain, "--revert")
    with plain.connect("postgres") as truth:
        truth.execute(f"REVOKE TEMP ON DATABASE {plain.name} FROM {ROLES.platform}".encode())

    assert reverted.exit_code == 0
    assert privileges(plain) == before
    assert "nothing to revert" in harden(plain, "--revert").output


def test_extension_that_runs_sql_from_strings_is_closed_too(plain: Database) -> None:
    with plain.connect("postgres") as truth:
        truth.execute("CREATE EXTENSION tablefunc SCHEMA public")
    assert harden(plain, "--apply").exit_code == 0

    with plain.connect(ROLES.app) as app, pytest.raises(errors.InsufficientPrivilege):
        app.execute("SELECT * FROM crosstab('SELECT 1, 1, 1') AS t (a int, b int)")
    with plain.connect("postgres") as truth:
        truth.execute("DROP EXTENSION tablefunc")
    assert harden(plain, "--revert").exit_code == 0


@pytest.mark.parametrize("option", ["--apply", "--revert"])
def test_change_by_an_ordinary_role_is_refused(hardened: Database, plain: Database, option: str) -> None:
    database = plain if option == "--apply" else hardened
    before = privileges(database)

    answer = harden(database, option, role=ROLES.migrator)

    assert answer.exit_code == 1
    assert "needs a superuser; where you have none, use signed scopes" in answer.output
    assert privileges(database) == before


def test_prefix_without_roles_is_named(plain: Database) -> None:
    answer = harden(plain, "--check", "--prefix", "unheard_of")

    assert answer.exit_code == 1
    assert "there is no role unheard_of_owner" in answer.output


def test_other_databases_of_the_server_stay_as_they_were(hardened: Database, plain: Database) -> None:
    with plain.connect(ROLES.app) as app:
        assert app.execute("SELECT set_config('app.tenant_id', 'x', true)").fetchone() == ("x",)


# What still runs --------------------------------------------------------------------------------------


@on_both_drivers
def test_sessions_read_and_write_on_a_hardened_database(play: Callable[..., Any], hardened: Database) -> None:
    def story(engine: Engine) -> list[Any]:
        sessions = tenant_sessionmaker(engine)
        with tenant_scope(ACME), sessions() as session:
            session.add(Person(name="Bob", email="b", company=Company(name="Engines")))
            session.flush()
            with session.begin_nested():
                session.add(Person(name="Cy", email="c"))
            found = list(session.scalars(select(Person.name).order_by(Person.name)))
            company = session.scalars(select(Person).where(Person.name == "Bob")).one().company
            employer = company.name if company else None
            session.rollback()
        with tenant_scope(GLOBEX), engine.connect().execution_options(isolation_level="SERIALIZABLE") as connection:
            level = column(connection, "SHOW transaction_isolation")
            streamed = list(connection.execution_options(stream_results=True).scalars(select(Person.name)))
        return [found, employer, level, streamed]

    assert play(hardened.url(ROLES.app), story) == [["Ada", "Bob", "Cy"], "Engines", ["serializable"], ["Eve"]]


def test_platform_lookups_and_directory_run_on_a_hardened_database(hardened: Database) -> None:
    app, platform = (create_tenant_engine(hardened.url(role)) for role in (ROLES.app, ROLES.platform))
    across, staff = platform_sessionmaker(platform), tenant_sessionmaker(platform)

    with platform_scope(actor="ana", reason="report"), across() as session:
        everyone = list(session.scalars(select(Person.name).order_by(Person.name)))
    with platform_scope(actor="ana", reason="repair"), tenant_scope(ACME), staff.begin() as session:
        session.execute(text("UPDATE people SET email = 'repaired'"))
    with app.connect() as connection:
        looked_up = [row.tenant_id for row in TENANT_BY_SLUG.fetch(connection, "ada")]
    directory = SQLDirectory(Tenant)
    directory.bind(app)
    found = directory.find(Reference("slug", "eve"))
    directory.close()
    for engine in (app, platform):
        engine.dispose()

    assert (everyone, looked_up) == (["Ada", "Eve"], [ACME])
    assert found is not None
    assert found.id == GLOBEX


def test_reflection_runs_on_a_hardened_database(hardened: Database) -> None:
    engine = create_tenant_engine(hardened.url(ROLES.app))

    with tenant_scope(ACME), engine.connect() as connection:
        names = inspect(connection).get_table_names()
        people = Table("people", MetaData(), autoload_with=connection)
    engine.dispose()

    assert "people" in names
    assert {"tenant_id", "id", "name"} <= set(people.c.keys())


def test_migrations_run_on_a_hardened_database(empty_database: Database, tmp_path: Path) -> None:
    assert harden(empty_database, "--apply").exit_code == 0
    project = Project(tmp_path, empty_database)
    generated = project.generate(Base.metadata)
    project.upgrade()
    fill(empty_database)
    project.write(
        "op.add_column('people', sa.Column('nick', sa.Text()))\n"
        "for tenant in op.for_each_tenant():\n"
        "    op.execute(\"UPDATE people SET nick = 'x'\")",
        "op.drop_column('people', 'nick')",
    )
    project.upgrade()

    with empty_database.connect("postgres") as truth:
        nicks = truth.execute("SELECT nick FROM people").fetchall()
    project.downgrade()

    assert "op.install_tenancy()" in generated
    assert nicks == [("x",), ("x",)]
    assert project.differences(Base.metadata) == []


def test_dump_by_the_backup_role_runs_on_a_hardened_database(plain: Database, worker: str) -> None:
    dumper = f"hard_dumper_{worker}"
    with plain.connect("postgres") as truth:
        truth.execute(f"CREATE ROLE {dumper} LOGIN NOINHERIT".encode())
        truth.execute(f"GRANT {ROLES.backup} TO {dumper}".encode())
        truth.execute(f"GRANT CONNECT ON DATABASE {plain.name} TO {dumper}".encode())
        (oid,) = truth.execute("SELECT lo_from_bytea(0, 'object')").fetchone() or (None,)
        truth.execute(f"GRANT SELECT ON LARGE OBJECT {oid} TO {ROLES.backup}".encode())
    assert harden(plain, "--apply").exit_code == 0

    made = dump(plain, login=dumper, role=ROLES.backup)
    with plain.connect("postgres") as truth:
        truth.execute(f"DROP OWNED BY {dumper}".encode())
        truth.execute(f"DROP ROLE {dumper}".encode())

    assert made.returncode == 0, made.stderr
    assert "\tAda\t" in made.stdout
    assert harden(plain, "--revert").exit_code == 0  # though the dumper is gone


def test_migrator_changes_settings_on_a_hardened_database(hardened: Database) -> None:
    engine = create_engine(hardened.url(ROLES.migrator), poolclass=NullPool)

    with engine.begin() as connection:
        connection.exec_driver_sql("DO $$ BEGIN PERFORM set_config('row_security', 'on', true); END $$")
        assert column(connection, "SHOW row_security") == ["on"]


# Hardened and signed ----------------------------------------------------------------------------------


@on_both_drivers
def test_signed_scopes_bind_without_set_config(play: Callable[..., Any], plain: Database) -> None:
    """The app role may not call set_config; the owner's procedure calls it on its behalf, for the scope alone."""
    assert harden(plain, "--apply").exit_code == 0
    sign(plain)

    def story(engine: Engine) -> list[list[str]]:
        found = []
        for tenant in (ACME, GLOBEX):
            with tenant_scope(tenant), engine.connect() as connection:
                found.append(column(connection, "SELECT name FROM people"))
        return found

    assert play(plain.url(ROLES.app), story, signing_key=KEY) == [["Ada"], ["Eve"]]
    assert harden(plain, "--check").exit_code == 0
    with plain.connect(ROLES.app) as app:
        app.execute("CALL tenancy.bind_scope(%s, '', '', %s)", [str(GLOBEX), KEY.sign(ACME, None, expiry=2**32)])
        with pytest.raises(errors.InsufficientPrivilege, match="not made for this tenant and account"):
            app.execute("SELECT name FROM people")


def test_hardening_after_signing_keeps_the_binding(plain: Database) -> None:
    sign(plain)
    assert harden(plain, "--apply").exit_code == 0
    engine = create_tenant_engine(plain.url(ROLES.app), signing_key=KEY)

    with tenant_scope(ACME), engine.connect() as connection:
        found = column(connection, "SELECT name FROM people")
    engine.dispose()
    with as_owner(plain) as connection:
        kept = column(connection, "SELECT id FROM tenancy.signing_key")

    assert (found, kept) == (["Ada"], ["current"])
