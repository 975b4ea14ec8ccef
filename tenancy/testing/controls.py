"""Negative controls: a matrix is worth something only if a hole, made on purpose, turns it red."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import MetaData, event

from tenancy import session as sessions
from tenancy.errors import SeedError
from tenancy.rls import GuardedTable
from tenancy.rls.names import SCHEMA
from tenancy.testing.matrix import Cell, Matrix, Verdict, cells
from tenancy.testing.shapes import Shape, shapes_of
from tenancy.testing.stage import Actor, Stage
from tenancy.testing.world import ADMIN, World


@dataclass(frozen=True)
class Control:
    """One hole to make. `what` says in one sentence what is done to the database."""

    name: str
    what: str


@dataclass(frozen=True)
class ControlVerdict:
    """Whether the matrix saw the hole. `red`: the verdicts that failed, as they should."""

    name: str
    passed: bool
    red: list[Verdict] = field(default_factory=list)
    detail: str = ""


@dataclass(frozen=True)
class _Hole:
    """How to make a hole, and the verbs and actors that must see it."""

    make: Callable[[World, GuardedTable], None]
    seen_by: tuple[tuple[str, Actor], ...]


CONTROLS: tuple[Control, ...] = (
    Control("force_off", "the owner of the table is let past its policies"),
    Control("isolation_policy_dropped", "the policy that opens a tenant's rows to it is dropped"),
    Control("guard_policy_dropped", "the policy that closes everyone else's rows is dropped"),
    Control("using_true_added", "a permissive policy that opens every row is added"),
    Control("rls_disabled", "row-level security is disabled"),
    Control("superuser_connection", "the application connects as the superuser"),
    Control("with_check_weakened", "the policies no longer check what is written"),
    Control("null_returning_function", "an unbound tenant is NULL instead of an error"),
    Control("orm_predicate_off", "sessions no longer name their tenant in each statement"),
    Control("table_without_rows", "the table is emptied"),
)


def controls_for(metadata: MetaData) -> tuple[Control, ...]:
    """Return the controls that mean something to these models: sessions name a tenant only for a mapped TenantTable."""
    is_named = any(shape.is_named_by_sessions for shape in shapes_of(metadata))
    return tuple(control for control in CONTROLS if is_named or control.name != "orm_predicate_off")


def run_control(control: Control, world: World) -> ControlVerdict:
    """Make the hole in the world's database, which is lost to it, and run the matrix on one table.

    It passes when the cells that must see the hole turned red. A control that cannot be made has failed.
    """
    hole = _HOLES.get(control.name)
    if hole is None:
        return ControlVerdict(control.name, passed=False, detail="there is no such control")
    try:
        shape = _shape_for(world, hole)
        with _predicate_off() if control.name == "orm_predicate_off" else _left_as_it_is():
            hole.make(world, shape.guarded)
            red = _run(world, shape)
    except Exception as error:  # noqa: BLE001 - what hinders a control is its failure, for people to read
        return ControlVerdict(control.name, passed=False, detail=f"could not be made: {type(error).__name__}: {error}")
    there = {(verdict.cell.verb, verdict.cell.actor) for verdict in red}
    missed = [f"{verb} by {actor}" for verb, actor in hole.seen_by if (verb, actor) not in there]
    detail = f"on {shape.name!r} stayed green: {', '.join(missed)}" if missed else f"{len(red)} cells of {shape.name!r}"
    return ControlVerdict(control.name, not missed, red, detail)


def _shape_for(world: World, hole: _Hole) -> Shape:
    """The table with most verbs among those that have all that must see the hole; without triggers, if there is one.

    A trigger that refuses to write would stand before the hole.
    """
    stage = Stage(world)
    triggered = stage.triggers
    stage.close()
    by_table: dict[str, list[Cell]] = {}
    for cell in cells(world.metadata):
        by_table.setdefault(cell.table, []).append(cell)
    needed = set(hole.seen_by)
    fitting = {
        name: len(found) for name, found in by_table.items() if needed <= {(cell.verb, cell.actor) for cell in found}
    }
    if not fitting:
        raise SeedError("no table has the verbs that must see the hole", hint="map a TenantTable in this metadata")
    name = max(fitting, key=lambda table: (table not in triggered, fitting[table]))
    return next(shape for shape in shapes_of(world.metadata) if shape.name == name)


def _run(world: World, shape: Shape) -> list[Verdict]:
    matrix = Matrix(world)
    try:
        verdicts = [matrix.run(cell) for cell in cells(world.metadata) if cell.table == shape.name]
    finally:
        matrix.close()
        world.close()
    return [verdict for verdict in verdicts if not verdict.passed]


def _sql(*statements: str) -> Callable[[World, GuardedTable], None]:
    """Run statements as the superuser; `{table}` is the table, `{key}` its tenant column."""

    def make(world: World, table: GuardedTable) -> None:
        for statement in statements:
            world.admin.execute(statement.format(table=table.sql_name, key=table.key).encode())

    return make


def _connect_as_superuser(world: World, _table: GuardedTable) -> None:
    url, app = world.url, world.roles.app
    world.close()
    world.url = lambda role: url(ADMIN if role == app else role)


def _empty(world: World, table: GuardedTable) -> None:
    with world.admin.transaction():
        world.admin.execute("SET LOCAL session_replication_role = replica")
        world.admin.execute(f"DELETE FROM {table.sql_name}".encode())  # noqa: S608 - a quoted name
    world.reload()


def _nothing(_world: World, _table: GuardedTable) -> None:
    """The hole is in Python."""


@contextmanager
def _left_as_it_is() -> Iterator[None]:
    yield


@contextmanager
def _predicate_off() -> Iterator[None]:
    """Take the event away that adds the predicate, and put it back: it belongs to the whole process."""
    target, name, listener = sessions._ScopedSession, "do_orm_execute", sessions._name_the_tenant
    event.remove(target, name, listener)
    try:
        yield
    finally:
        event.listen(target, name, listener, propagate=True)


_BOTH_UNCHECKED = (
    "ALTER POLICY tenancy_isolation ON {table} WITH CHECK (true)",
    "ALTER POLICY tenancy_guard ON {table} WITH CHECK (true)",
)
_NULL_FUNCTION = (
    f"CREATE OR REPLACE FUNCTION {SCHEMA}.no_tenant() RETURNS uuid LANGUAGE plpgsql STABLE PARALLEL SAFE AS "
    "$$ BEGIN RETURN NULL; END $$"
)
_HOLES: dict[str, _Hole] = {
    "force_off": _Hole(
        _sql("ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY"),
        (("select_core", "table_owner"), ("update_all", "table_owner"), ("policies", "table_owner")),
    ),
    "isolation_policy_dropped": _Hole(
        _sql("DROP POLICY tenancy_isolation ON {table}"), (("select_core", "owner"), ("policies", "table_owner"))
    ),
    # The permissive policy still holds, so nobody sees more: it is the text that must be missed.
    "guard_policy_dropped": _Hole(_sql("DROP POLICY tenancy_guard ON {table}"), (("policies", "table_owner"),)),
    # The guard still holds.
    "using_true_added": _Hole(
        _sql("CREATE POLICY wide_open ON {table} USING (true) WITH CHECK (true)"), (("policies", "table_owner"),)
    ),
    "rls_disabled": _Hole(
        _sql("ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"),
        (
            ("select_core", "stranger"),
            ("select_core", "unbound"),
            ("select_core", "empty"),
            ("insert", "stranger"),
            ("delete_by_key", "stranger"),
            ("policies", "table_owner"),
        ),
    ),
    "superuser_connection": _Hole(
        _connect_as_superuser,
        (("select_core", "owner"), ("select_core", "stranger"), ("select_core", "unbound"), ("truncate", "unbound")),
    ),
    "with_check_weakened": _Hole(_sql(*_BOTH_UNCHECKED), (("insert", "stranger"), ("policies", "table_owner"))),
    "null_returning_function": _Hole(
        _sql(_NULL_FUNCTION), (("select_core", "unbound"), ("select_core", "empty"), ("select_core", "table_owner"))
    ),
    "orm_predicate_off": _Hole(_nothing, (("orm_predicate", "owner"), ("orm_predicate", "stranger"))),
    "table_without_rows": _Hole(_empty, (("select_core", "owner"), ("policies", "table_owner"))),
}
