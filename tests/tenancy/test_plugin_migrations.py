"""The suite on tables that the application's own migrations made: what they forget turns it red."""

from __future__ import annotations

from pathlib import Path

from tenancy.embedded import Server
from tests.tenancy.plugin_runs import LINE, ROLES, Stranger

ENVIRONMENT = """
from alembic import context
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

url = context.config.attributes["url"]
assert context.config.get_main_option("sqlalchemy.url") == url
with create_engine(url, poolclass=NullPool).connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
"""
REVISION = """
from alembic import op
from shop import Base
from sqlalchemy import text
from tenancy.lookups import lookups_of
from tenancy.rls import Roles, create_lookup_sql, guard_sql, guarded, install_sql

revision, down_revision = "1", None


def upgrade():
    run, roles = op.get_bind(), Roles("shop")
    for statement in install_sql(roles):
        run.execute(text(statement))
    Base.metadata.create_all(run)
    for table in guarded(Base.metadata):
        for statement in guard_sql(table, roles):
            run.execute(text(statement))
    for lookup in lookups_of(Base.metadata):
        for statement in create_lookup_sql(lookup, roles):
            run.execute(text(statement))
"""
FORGETS = REVISION + '    run.execute(text("ALTER TABLE orders DISABLE ROW LEVEL SECURITY"))\n'


def migrated(folder: Path, server: Server, revision: str) -> Stranger:
    stranger = Stranger(folder, server, LINE, ROLES, "tenancy_migrations = alembic.ini")
    (stranger.folder / "migrations" / "versions").mkdir(parents=True)
    stranger.write("alembic.ini", "[alembic]\nscript_location = %(here)s/migrations\n")
    stranger.write("migrations/env.py", ENVIRONMENT)
    stranger.write("migrations/versions/1_first.py", revision)
    return stranger


def test_suite_runs_on_what_the_migrations_made(tmp_path: Path, server: Server) -> None:
    finished = migrated(tmp_path / "good", server, REVISION).run("-q", "-k", "orders and select_core")

    assert (finished.code, "5 passed" in finished.output) == (0, True), finished.output


def test_table_that_a_migration_leaves_open_turns_its_cells_red_and_says_how(tmp_path: Path, server: Server) -> None:
    finished = migrated(tmp_path / "open", server, FORGETS).run("-q", "-k", "matrix and select_core")

    assert finished.code == 1
    red = {(cell["table"], cell["actor"]) for cell in finished.report["cells"] if not cell["passed"]}
    assert {table for table, _ in red} == {"orders"}
    assert ("orders", "stranger") in red
    told = finished.output.partition("select_core[stranger]")[2].splitlines()[1:8]
    assert [line.split(":")[0].strip() for line in told[1:6]] == ["table", "verb", "actor", "expected", "found"]
    assert "sees 2 rows of the owner's" in told[0]
    assert "hint:      compare the table with its model" in finished.output
    assert "orders     S" in finished.output
