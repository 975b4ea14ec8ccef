"""Negative controls: a matrix is worth something only if a hole, made on purpose, turns it red."""

from __future__ import annotations

from dataclasses import dataclass, field

from tenancy.testing.matrix import Verdict
from tenancy.testing.world import World


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


def run_control(control: Control, world: World) -> ControlVerdict:
    """Make the hole in the world's database, which is lost to it, and run the matrix on one table."""
    raise NotImplementedError
