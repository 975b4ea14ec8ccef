"""The matrix on tables that are not as they should be: a breach is a red cell, and so is what could not be run."""

from collections.abc import Callable, Iterator

import pytest

from tenancy.testing.matrix import Actor, Cell, Matrix, Verdict
from tenancy.testing.world import World, seed
from tests.conftest import Database
from tests.models import Base

Run = Callable[[str, str, Actor], Verdict]


@pytest.fixture
def world(fresh_database: Database) -> Iterator[World]:
    made = seed(Base.metadata, fresh_database.url)
    yield made
    made.close()


@pytest.fixture
def run(world: World) -> Run:
    """Run one cell by a matrix of its own, which has seen nothing before."""

    def once(table: str, verb: str, actor: Actor) -> Verdict:
        matrix = Matrix(world)
        try:
            return matrix.run(Cell(table, verb, actor))
        finally:
            matrix.close()

    return once


def test_cell_that_does_not_exist_is_a_failure_and_not_an_exception(run: Run) -> None:
    verdict = run("notes", "levitate", "owner")

    assert (verdict.passed, verdict.found) == (False, "not run")
    assert "there is no 'levitate' of 'notes'" in verdict.detail


def test_table_without_rows_of_one_tenant_is_a_failure(world: World, run: Run) -> None:
    world.admin.execute("DELETE FROM notes WHERE tenant_id = %s", [world.tenants[1].id])
    world.reload()

    verdict = run("notes", "select_core", "owner")

    assert not verdict.passed
    assert "no rows to prove anything on in 'notes'" in verdict.detail


def test_server_that_is_away_is_a_failure(world: World, run: Run) -> None:
    world.url = lambda role: f"postgresql+psycopg://{role}@/nowhere?host=/nonexistent"
    world.close()

    verdict = run("notes", "select_core", "owner")

    assert (verdict.passed, verdict.found) == (False, "not run")


BREACHES: list[tuple[str, str, str, Actor]] = [
    ("GRANT TRUNCATE ON person_tags TO tenancy_app", "person_tags", "truncate", "stranger"),
    ("GRANT UPDATE ON notes TO tenancy_app", "notes", "policies", "table_owner"),
    (
        "ALTER TABLE people DROP CONSTRAINT uq_people_tenant_id_email, ADD UNIQUE (email)",
        "people",
        "unique:email",
        "stranger",
    ),
    ("ALTER TABLE notes DROP CONSTRAINT fk_notes_tenant_id_person_id", "notes", "foreign_key:person_id", "owner"),
    ("ALTER TABLE notes DISABLE ROW LEVEL SECURITY", "notes", "join", "stranger"),
    ("ALTER TABLE notes DISABLE ROW LEVEL SECURITY", "notes", "merge", "stranger"),
    ("ALTER TABLE notes DISABLE ROW LEVEL SECURITY", "notes", "copy_from", "stranger"),
    ("ALTER TABLE notes DISABLE ROW LEVEL SECURITY", "notes", "copy_to", "stranger"),
    ("ALTER TABLE notes DISABLE ROW LEVEL SECURITY", "notes", "aggregate", "stranger"),
    ("ALTER TABLE notes DISABLE ROW LEVEL SECURITY", "notes", "upsert", "stranger"),
    ("ALTER TABLE notes DISABLE ROW LEVEL SECURITY", "notes", "delete_all", "stranger"),
    ("ALTER TABLE person_tags DISABLE ROW LEVEL SECURITY", "person_tags", "subquery", "stranger"),
    ("ALTER TABLE person_tags DISABLE ROW LEVEL SECURITY", "person_tags", "cte", "stranger"),
    (
        "ALTER POLICY tenancy_isolation ON tags WITH CHECK (true);"
        "ALTER POLICY tenancy_guard ON tags WITH CHECK (true);"
        "GRANT UPDATE (tenant_id) ON tags TO tenancy_app",
        "tags",
        "update_tenant",
        "stranger",
    ),
    ("REVOKE DELETE ON notes FROM tenancy_app", "notes", "delete_by_key", "owner"),
]


@pytest.mark.parametrize(("breach", "table", "verb", "actor"), BREACHES, ids=lambda value: str(value)[:40])
def test_breach_is_seen(world: World, run: Run, breach: str, table: str, verb: str, actor: Actor) -> None:
    assert run(table, verb, actor).passed
    world.admin.execute(breach.encode())

    verdict = run(table, verb, actor)

    assert not verdict.passed


def test_trigger_that_deletes_across_tenants_is_seen(world: World, run: Run) -> None:
    """T042: the row the stranger deletes is its own; what goes with it is not."""
    world.admin.execute(
        "CREATE FUNCTION sweep() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS "
        "$$ BEGIN DELETE FROM notes WHERE person_id = OLD.id; RETURN OLD; END $$"
    )
    world.admin.execute("CREATE TRIGGER sweep BEFORE DELETE ON people FOR EACH ROW EXECUTE FUNCTION sweep()")

    verdict = run("people", "delete_by_key", "stranger")

    assert not verdict.passed
    assert "notes +0 ~0 -2" in verdict.found


def test_trigger_that_meets_a_foreign_row_is_no_refusal(world: World, run: Run) -> None:
    """It stops the stranger, but only because the policies did not."""
    world.admin.execute(
        "CREATE FUNCTION stay() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'tags stay'; END $$"
    )
    world.admin.execute("CREATE TRIGGER stay BEFORE DELETE ON tags FOR EACH ROW EXECUTE FUNCTION stay()")
    assert run("tags", "delete_by_key", "stranger").passed
    world.admin.execute("ALTER TABLE tags DISABLE ROW LEVEL SECURITY")

    verdicts = [run("tags", "delete_by_key", "stranger"), run("tags", "delete_all", "unbound")]

    assert [verdict.passed for verdict in verdicts] == [False, False]
    assert verdicts[0].found == "by its key: refused by its own trigger for each row"


def test_trigger_that_tells_of_the_owner_s_rows_is_seen(world: World, run: Run) -> None:
    """T041: refused either way, and yet told apart."""
    world.admin.execute(
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS "
        "$$ BEGIN IF EXISTS (SELECT FROM people WHERE id = NEW.person_id AND tenant_id <> NEW.tenant_id) THEN "
        "RAISE foreign_key_violation USING MESSAGE = 'that person is someone else''s'; END IF; RETURN NEW; END $$"
    )
    world.admin.execute("CREATE TRIGGER tell BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION tell()")

    verdict = run("notes", "foreign_key:person_id", "stranger")

    assert not verdict.passed
    assert "someone else's" in verdict.found
