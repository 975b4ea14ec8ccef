"""Each hole that is made on purpose turns the matrix red, by its name."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Column, MetaData, Table, Text, Uuid

from tenancy.tables import tenant_column
from tenancy.testing.controls import CONTROLS, Control, controls_for, run_control
from tenancy.testing.matrix import Cell, Matrix
from tenancy.testing.world import World, seed
from tests.conftest import Database
from tests.models import Base

# Of the table with most verbs, how many cells must turn red.
RED = {
    "force_off": 23,
    "isolation_policy_dropped": 92,
    "guard_policy_dropped": 1,
    "using_true_added": 1,
    "rls_disabled": 98,
    "superuser_connection": 106,
    "with_check_weakened": 29,
    "null_returning_function": 53,
    "orm_predicate_off": 2,
    "table_without_rows": 130,
}


@pytest.fixture
def world(fresh_database: Database) -> Iterator[World]:
    made = seed(Base.metadata, fresh_database.url)
    yield made
    made.close()


def test_controls_are_the_ten_that_were_promised() -> None:
    assert [control.name for control in CONTROLS] == list(RED)
    assert controls_for(Base.metadata) == CONTROLS


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_hole_turns_the_matrix_red(world: World, control: Control) -> None:
    """T003, T005, T010, T011: row security disabled or not forced, a policy added or dropped; and six more."""
    verdict = run_control(control, world)

    assert verdict.passed, verdict.detail
    assert {red.cell.table for red in verdict.red} == {"people"}
    assert len(verdict.red) == RED[control.name]


def test_matrix_is_green_again_where_the_predicate_was_put_back(world: World) -> None:
    run_control(Control("orm_predicate_off", ""), world)

    matrix = Matrix(world)
    verdict = matrix.run(Cell("people", "orm_predicate", "owner"))
    matrix.close()

    assert verdict.passed, verdict


def test_hole_that_nobody_sees_fails_the_control(world: World) -> None:
    """The policies are put in place again before the matrix looks, so that the hole is none."""
    world.admin.execute(
        "CREATE FUNCTION undo() RETURNS event_trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF EXISTS (SELECT FROM pg_class WHERE relname = 'people' AND NOT relforcerowsecurity) THEN "
        "ALTER TABLE public.people FORCE ROW LEVEL SECURITY; END IF; END $$"
    )
    world.admin.execute(
        "CREATE EVENT TRIGGER undo ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION undo()"
    )

    verdict = run_control(Control("force_off", ""), world)

    assert not verdict.passed
    assert verdict.detail.startswith("on 'people' stayed green: select_core by table_owner")


def test_control_that_cannot_be_made_has_failed(world: World) -> None:
    world.admin.execute("DROP POLICY tenancy_guard ON people")

    verdict = run_control(Control("guard_policy_dropped", ""), world)

    assert not verdict.passed
    assert "could not be made" in verdict.detail


def test_control_that_does_not_exist_has_failed(world: World) -> None:
    assert not run_control(Control("black_magic", ""), world).passed


def test_models_without_a_class_have_no_predicate_to_take_off() -> None:
    metadata = MetaData()
    Table("things", metadata, tenant_column(), Column("id", Uuid, primary_key=True), Column("name", Text))

    assert "orm_predicate_off" not in {control.name for control in controls_for(metadata)}
    assert len(controls_for(metadata)) == 9
