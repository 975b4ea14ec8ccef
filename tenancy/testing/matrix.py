"""The matrix: every tenant table, every verb, every actor; what must come of each, and what came."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from sqlalchemy import MetaData

from tenancy.context import outside_any_scope
from tenancy.errors import SeedError
from tenancy.testing.shapes import Shape, shapes_of
from tenancy.testing.stage import Actor, Stage
from tenancy.testing.verbs import Verb, verbs_of
from tenancy.testing.verbs.attempts import Attempt, Step
from tenancy.testing.world import World

__all__ = ["Actor", "Cell", "Matrix", "Verdict", "cells"]


@dataclass(frozen=True, order=True)
class Cell:
    """One place of the matrix: `actor` does `verb` to the rows that the first tenant has in `table`."""

    table: str
    verb: str
    actor: Actor


@dataclass(frozen=True)
class Verdict:
    """What became of one cell. `expected` and `found` are short phrases in the same words, for people to compare.

    passed: False also when the cell could not be run; `detail` then says why.
    statement: the SQL that was sent, without values; "" when nothing was.
    """

    cell: Cell
    expected: str
    found: str
    passed: bool
    detail: str = ""
    statement: str = ""


def cells(metadata: MetaData) -> list[Cell]:
    """Return every cell of the matrix, in an order that never changes; needs no database."""
    return [
        Cell(shape.name, verb.name, actor)
        for shape in shapes_of(metadata)
        for verb in verbs_of(shape)
        for actor in verb.actors
    ]


class Matrix:
    """Runs cells against a world, over connections it keeps from one to the next."""

    def __init__(self, world: World) -> None:
        self.world = world

    @cached_property
    def _stage(self) -> Stage:
        return Stage(self.world)

    @cached_property
    def _verbs(self) -> dict[tuple[str, str], tuple[Shape, Verb]]:
        return {
            (shape.name, verb.name): (shape, verb)
            for shape in shapes_of(self.world.metadata)
            for verb in verbs_of(shape)
        }

    def run(self, cell: Cell) -> Verdict:
        """Run one cell in transactions that are rolled back. Whatever goes wrong is a verdict, never an exception."""
        sent: list[str] = []
        try:
            with outside_any_scope():
                steps, sent = self._attempt(cell)
        except Exception as error:  # noqa: BLE001 - whatever hinders a proof is a failure of it, for people to read
            return Verdict(cell, "", "not run", passed=False, detail=_said(error), statement="; ".join(sent))
        return _verdict(cell, steps, sent)

    def _attempt(self, cell: Cell) -> tuple[list[Step], list[str]]:
        found = self._verbs.get((cell.table, cell.verb))
        if found is None:
            raise SeedError(f"there is no {cell.verb!r} of {cell.table!r}", hint="run the cells of this metadata")
        shape, verb = found
        rows = self.world.rows.get(cell.table, {})
        if not all(rows.get(tenant.id) for tenant in self.world.tenants):
            raise SeedError(f"no rows to prove anything on in {cell.table!r}", hint="seed rows for both tenants")
        attempt = Attempt(self._stage, shape, cell.actor)
        self._stage.sent.clear()
        verb.attempt(attempt)
        if not attempt.steps:
            raise SeedError(f"{cell.verb!r} did nothing to {cell.table!r}", hint="report this: a verb has to act")
        return attempt.steps, list(dict.fromkeys(self._stage.sent))

    def close(self) -> None:
        """Let go of the connections; those of the world are its own."""
        if "_stage" in self.__dict__:
            self._stage.close()
            del self._stage


def _verdict(cell: Cell, steps: list[Step], sent: list[str]) -> Verdict:
    """The phrases of the first step that failed, or of all."""
    failed = [step for step in steps if not step.passed]
    shown = failed[:1] or steps
    return Verdict(
        cell,
        expected=_phrase([f"{step.what}: {step.expected}" for step in shown]),
        found=_phrase([f"{step.what}: {step.found}" for step in shown]),
        passed=not failed,
        detail="; ".join(f"{step.what}: {step.found.message}" for step in failed if step.found.message),
        statement=";\n".join(sent),
    )


def _phrase(parts: list[str]) -> str:
    return "; ".join(dict.fromkeys(parts))


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
