"""The world and the matrix on tables of every odd shape: types, cycles, counted keys, triggers, no class, no key."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from tenancy.embedded import Template
from tenancy.testing.matrix import Cell, Matrix, Verdict, cells
from tenancy.testing.world import OWNER, STRANGER, World, seed
from tests.conftest import Database
from tests.tenancy.odd_models import Colour, OddBase, make_odd_tables


@pytest.fixture(scope="module")
def world(empty_template: Template, worker: str) -> Iterator[World]:
    name = empty_template.clone(f"odd_{worker}")
    database = Database(empty_template.server, name)
    make_odd_tables(database)
    made = seed(OddBase.metadata, database.url)
    yield made
    made.close()
    empty_template.drop(name)


@pytest.fixture(scope="module")
def verdicts(world: World) -> dict[Cell, Verdict]:
    matrix = Matrix(world)
    found = {cell: matrix.run(cell) for cell in cells(OddBase.metadata)}
    matrix.close()
    return found


def rows(world: World, table: str, tenant: UUID = OWNER.id) -> list[dict[str, Any]]:
    return world.rows[table][tenant]


def test_every_cell_of_every_odd_table_passes(verdicts: dict[Cell, Verdict]) -> None:
    assert [verdict for verdict in verdicts.values() if not verdict.passed] == []
    assert len({cell.table for cell in verdicts}) == 18


def test_every_type_is_guessed(world: World) -> None:
    first = rows(world, "everything")[0]

    assert [name for name, value in first.items() if value is None] == []
    assert (first["colour"], first["plain_colour"], first["checked"]) == (Colour.RED, "red", "low")
    assert (first["backwards"], first["short"]) == ("isolation-owner backwards 2", "2isolation-o")
    assert (first["doubled"], first["defaulted"], first["grid"]) == (4, "by Python", [["isolation-owner grid 2"]])


def test_catalog_that_a_migration_filled_is_used_as_it_is(world: World) -> None:
    assert rows(world, "countries") == [{"code": "DE"}]
    assert {row["country_code"] for row in rows(world, "currencies")} == {"DE"}


def test_catalog_that_nobody_filled_gets_rows_that_are_pointed_at(world: World) -> None:
    codes = {row["code"] for row in rows(world, "currencies")}

    assert {row["currency_code"] for row in rows(world, "everything")} <= codes


def test_tenants_that_are_no_registry_get_the_tenants_ids(world: World) -> None:
    organisations = [
        (row["id"], row["slug"]) for tenant in world.tenants for row in rows(world, "organisations", tenant.id)
    ]

    assert organisations == [(OWNER.id, "isolation-owner"), (STRANGER.id, "isolation-stranger")]


def test_short_codes_differ_and_dates_follow_each_other(world: World) -> None:
    assert [row["code"] for row in rows(world, "periods")] == ["01", "04"]
    assert [row["label"] for row in rows(world, "periods")] == ["01!", "04!"]
    assert all(row["ends_on"] > row["starts_on"] for row in rows(world, "periods"))


def test_keys_that_only_the_server_counts_overlap_too(world: World) -> None:
    assert [row["id"] for row in rows(world, "invoices")][:2] == [1_000_001, 1_000_004]
    assert [row["id"] for row in rows(world, "invoices", STRANGER.id)][:2] == [1_000_001, 1_000_005]


def test_cycle_is_closed_afterwards(world: World) -> None:
    things = {row["id"] for row in rows(world, "things")}

    assert {row["favourite_id"] for row in rows(world, "holders")} <= things


def test_cycle_of_deferred_constraints_is_closed_at_once(world: World) -> None:
    hens = {row["egg_id"]: row["id"] for row in rows(world, "hens")}

    assert [hens[row["id"]] for row in rows(world, "eggs")][:2] == [row["hen_id"] for row in rows(world, "eggs")][:2]


def test_row_that_needs_a_row_of_its_own_table_points_at_itself(world: World) -> None:
    first, second = rows(world, "nodes")

    assert (first["parent_id"], second["parent_id"]) == (first["id"], first["id"])


def test_table_of_another_schema_is_told_from_its_namesake(verdicts: dict[Cell, Verdict]) -> None:
    verdict = verdicts[Cell("archive.things", "delete_all", "stranger")]

    assert verdict.found == "every row: affects 2 rows, archive.things +0 ~0 -2"


def test_unique_foreign_keys_leave_targets_for_new_rows(world: World) -> None:
    """A stamp takes a passport and a passport takes a holder: two more of each, down the chain."""
    assert [len(rows(world, table)) for table in ("stamps", "passports", "holders")] == [2, 4, 6]


def test_rows_that_a_trigger_adds_belong_to_the_world(world: World) -> None:
    whats = [row["what"] for row in rows(world, "entries")]

    assert whats.count("thing") == len(rows(world, "things"))


def test_trigger_that_refuses_is_said_to(verdicts: dict[Cell, Verdict]) -> None:
    verdict = verdicts[Cell("entries", "delete_all", "owner")]

    assert verdict.found == "every row: refused by its own trigger for each row"
    assert verdicts[Cell("entries", "delete_all", "unbound")].found == "every row: refused with 42501"


def test_key_of_a_part_of_the_rows_limits_nothing(world: World, verdicts: dict[Cell, Verdict]) -> None:
    assert len(rows(world, "plans")) == 2
    assert [cell.verb for cell in verdicts if cell.table == "plans" and cell.verb.startswith("unique")] == [
        "unique:id"
    ] * 5


def test_table_with_one_row_a_tenant_has_no_new_rows(verdicts: dict[Cell, Verdict]) -> None:
    verbs = {cell.verb for cell in verdicts if cell.table == "settings"}

    assert not {"bulk_insert", "insert_select"} & verbs
    assert verdicts[Cell("settings", "insert", "owner")].found == "a taken key: refused with 23505"
    assert verdicts[Cell("settings", "insert", "stranger")].found == "a taken key: refused with 42501"


def test_table_without_a_class_is_read_by_core_in_the_orm_s_place(verdicts: dict[Cell, Verdict]) -> None:
    verdict = verdicts[Cell("unmapped links", "select_orm", "unbound")]

    assert "no class is mapped" in verdict.found
    assert "NoTenantError" not in verdict.found


def test_table_without_a_primary_key_is_found_by_its_unique_one(verdicts: dict[Cell, Verdict]) -> None:
    assert "affects 1 row, keyless +0 ~0 -1" in verdicts[Cell("keyless", "delete_by_key", "owner")].found


def test_restrict_is_the_same_refusal_on_every_server(verdicts: dict[Cell, Verdict]) -> None:
    """PostgreSQL 18 has a code of its own for it."""
    assert verdicts[Cell("invoices", "delete_all", "stranger")].found == "every row: refused with 23503"


def test_restoring_puts_back_computed_and_counted_columns(world: World) -> None:
    before = world.snapshot()
    world.admin.execute("UPDATE everything SET small = small + 1")
    world.admin.execute("UPDATE invoice_lines SET invoice_id = 1000001")

    assert sorted(world.restore()) == ["everything", "invoice_lines"]
    assert world.snapshot() == before
