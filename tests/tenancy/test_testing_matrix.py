"""The matrix on the library's own tables: what it asks, what it finds there, and that it finds what is wrong."""

from collections import Counter
from collections.abc import Iterator
from uuid import UUID

import pytest

from tenancy.context import current_scope, tenant_scope
from tenancy.embedded import Template
from tenancy.testing.matrix import Actor, Cell, Matrix, Verdict, cells
from tenancy.testing.world import World, seed
from tests.conftest import Database
from tests.models import Base


@pytest.fixture(scope="module")
def verdicts(template: Template, worker: str) -> Iterator[dict[Cell, Verdict]]:
    """Every cell, run once."""
    name = template.clone(f"matrix_{worker}")
    world = seed(Base.metadata, Database(template.server, name).url)
    matrix = Matrix(world)
    yield {cell: matrix.run(cell) for cell in cells(Base.metadata)}
    matrix.close()
    world.close()
    template.drop(name)


@pytest.fixture
def world(fresh_database: Database) -> Iterator[World]:
    made = seed(Base.metadata, fresh_database.url)
    yield made
    made.close()


def phrases(verdicts: dict[Cell, Verdict], table: str, verb: str, actor: Actor) -> tuple[bool, str]:
    verdict = verdicts[Cell(table, verb, actor)]
    return verdict.passed, verdict.found


# What is asked ---------------------------------------------------------------------------------------


def test_cells_are_the_same_each_time_and_need_no_database() -> None:
    assert cells(Base.metadata) == cells(Base.metadata)
    assert len(set(cells(Base.metadata))) == 892


def test_every_verb_is_asked_of_a_table_that_has_all() -> None:
    asked = {cell.verb for cell in cells(Base.metadata) if cell.table == "people"}

    assert asked == {
        "select_orm", "select_core", "select_text", "copy_to", "join", "subquery", "cte", "aggregate",
        "eager_load", "lazy_load", "insert", "bulk_insert", "insert_select", "upsert",
        "update_by_key", "update_all", "update_tenant", "delete_by_key", "delete_all", "merge", "copy_from", "truncate",
        "foreign_key:company_id", "foreign_key:manager_id", "unique:id", "unique:email", "policies", "orm_predicate",
    }  # fmt: skip


def test_every_actor_tries_to_read() -> None:
    actors = [cell.actor for cell in cells(Base.metadata) if (cell.table, cell.verb) == ("notes", "select_core")]

    assert actors == ["owner", "stranger", "unbound", "empty", "table_owner"]


def test_cells_of_each_actor_are_counted() -> None:
    assert Counter(cell.actor for cell in cells(Base.metadata)) == {
        "owner": 183,
        "stranger": 183,
        "unbound": 177,
        "empty": 177,
        "table_owner": 172,
    }


def test_verb_that_means_nothing_to_a_table_has_no_cell() -> None:
    verbs = {name: {cell.verb for cell in cells(Base.metadata) if cell.table == name} for name in Base.metadata.tables}

    assert not {"eager_load", "lazy_load"} & verbs["domains"]
    assert not any(verb.startswith(("foreign_key", "unique", "eager")) for verb in verbs["tenants"])
    assert "orm_predicate" not in verbs["person_tags"]
    assert "unique:domain" not in verbs["domains"]  # across tenants, and so noticed on purpose
    assert verbs["accounts"] == {"policies"}


# What is found ---------------------------------------------------------------------------------------


def test_every_cell_of_the_library_s_own_tables_passes(verdicts: dict[Cell, Verdict]) -> None:
    """T085: what each statement does is what a filter by tenant, in Python, says it must."""
    assert [verdict for verdict in verdicts.values() if not verdict.passed] == []


def test_stranger_sees_its_own_rows_and_none_of_the_owner_s(verdicts: dict[Cell, Verdict]) -> None:
    """T085: by the ORM, Core, text, joins, subqueries, CTEs and aggregates."""
    found = phrases(verdicts, "notes", "select_core", "stranger")

    assert found == (True, "read all: sees 2 rows of the stranger's; ask for the owner's: sees no row")
    assert phrases(verdicts, "notes", "select_core", "owner") == (
        True,
        "read all: sees 2 rows of the owner's; ask for the owner's: sees 2 rows of the owner's",
    )


@pytest.mark.parametrize("actor", ["unbound", "empty", "table_owner"])
def test_who_acts_for_nobody_is_refused_and_not_shown_an_empty_table(
    verdicts: dict[Cell, Verdict], actor: Actor
) -> None:
    """T003: with no setting, with an empty one, and as the owner of the table."""
    expected = "read all: refused with 42501; ask for the owner's: refused with 42501"

    assert phrases(verdicts, "notes", "select_core", actor) == (True, expected)
    assert phrases(verdicts, "notes", "select_orm", actor) == (
        True,
        f"{expected}; by the library: refused with NoTenantError",
    )


def test_insert_for_the_owner_is_refused_to_everyone_else(verdicts: dict[Cell, Verdict]) -> None:
    """T007: by VALUES, many at once, and from a SELECT; a taken key is answered like a free one."""
    assert phrases(verdicts, "tags", "insert", "owner") == (
        True,
        "a new row: affects 1 row, tags +1 ~0 -0; a taken key: refused with 23505",
    )
    assert phrases(verdicts, "tags", "insert", "stranger") == (
        True,
        "a new row: refused with 42501; a taken key: refused with 42501",
    )
    assert phrases(verdicts, "tags", "bulk_insert", "stranger")[1] == (
        "two rows by Core: refused with 42501; two rows by class: refused with 42501"
    )
    assert phrases(verdicts, "tags", "insert_select", "stranger")[1] == (
        "for the owner: refused with 42501; from the owner's row: affects no row"
    )


def test_no_row_is_moved_to_another_tenant(verdicts: dict[Cell, Verdict]) -> None:
    """T008: one row, or all."""
    for actor in ("owner", "stranger"):
        assert phrases(verdicts, "tags", "update_tenant", actor) == (
            True,
            "one row: refused with 42501; every row: refused with 42501",
        )


def test_deleting_a_shared_id_takes_along_the_actor_s_own_children_only(verdicts: dict[Cell, Verdict]) -> None:
    """T042: the server counts, in the transaction, what cascades delete."""
    assert phrases(verdicts, "people", "delete_by_key", "stranger") == (
        True,
        "by its key: affects no row; by the bare id of both: affects 1 row, "
        "notes +0 ~0 -1, people +0 ~3 -1, person_tags +0 ~0 -1",
    )


def test_foreign_key_tells_nothing_of_the_owner_s_rows(verdicts: dict[Cell, Verdict]) -> None:
    """T041: a row that is the owner's and one that is nobody's are refused in the same words."""
    passed, found = phrases(verdicts, "notes", "foreign_key:person_id", "stranger")

    assert passed
    assert found.startswith(
        "insert: the owner's row: refused with 23503; insert: no row: refused with 23503; insert: the same"
    )
    assert phrases(verdicts, "notes", "foreign_key:person_id", "owner")[1].startswith(
        "insert: the owner's row: affects 1 row, notes +1 ~0 -0; insert: no row: refused with 23503"
    )


def test_unique_value_of_the_owner_is_free_to_the_stranger(verdicts: dict[Cell, Verdict]) -> None:
    """T036, T037, T038: the primary key, a unique one, and ON CONFLICT DO NOTHING."""
    free = "insert: affects 1 row, people +1 ~0 -0; insert, do nothing: affects 1 row, people +1 ~0 -0"

    assert phrases(verdicts, "people", "unique:id", "stranger") == (True, free)
    assert phrases(verdicts, "people", "unique:email", "stranger") == (True, free)
    assert phrases(verdicts, "people", "unique:email", "owner") == (
        True,
        "insert: refused with 23505; insert, do nothing: affects no row",
    )


def test_registry_gives_each_tenant_its_own_row_and_the_narrow_update(verdicts: dict[Cell, Verdict]) -> None:
    assert phrases(verdicts, "tenants", "update_all", "stranger") == (
        True,
        "every row: sees 1 row of the stranger's, tenants +0 ~1 -0",
    )
    assert phrases(verdicts, "tenants", "delete_all", "owner") == (True, "every row: refused with 42501")


def test_lazy_loading_after_the_scope_is_refused(verdicts: dict[Cell, Verdict]) -> None:
    """An object that outlives its scope loads nothing more."""
    _, found = phrases(verdicts, "notes", "orm_predicate", "owner")
    passed, late = phrases(verdicts, "people", "lazy_load", "unbound")

    assert "sees 1 row of the owner's" in found
    assert passed
    assert "company after the scope: refused with NoTenantError" in late


def test_statement_is_shown_without_its_values(verdicts: dict[Cell, Verdict]) -> None:
    verdict = verdicts[Cell("tags", "select_core", "stranger")]

    assert verdict.statement.startswith("SELECT tags.tenant_id, tags.id, tags.label \nFROM tags")
    assert "isolation-" not in verdict.statement
    assert verdicts[Cell("tags", "copy_to", "owner")].statement == "COPY tags TO STDOUT"


# What is changed -------------------------------------------------------------------------------------


def test_matrix_changes_nothing(world: World) -> None:
    before = world.snapshot()
    matrix = Matrix(world)

    for cell in cells(Base.metadata):
        if cell.table == "people":
            matrix.run(cell)
    matrix.close()

    assert world.snapshot() == before


def test_scope_of_the_test_is_not_seen_by_the_matrix(world: World) -> None:
    matrix = Matrix(world)

    with tenant_scope(UUID(int=7)):
        verdict = matrix.run(Cell("notes", "select_orm", "unbound"))
        assert current_scope() is not None
    matrix.close()

    assert verdict.passed, verdict
