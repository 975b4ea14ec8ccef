"""The matrix: every tenant table, every verb, every actor; what must come of each, and what came."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import MetaData

from tenancy.testing.world import World

# owner: acts for the tenant whose rows are aimed at. stranger: acts for the other tenant, at the same rows.
# unbound: no setting was ever made. empty: the settings are there, and ''. table_owner: the role that owns the
# tables, with no tenant bound; FORCE is what stops it.
Actor = Literal["owner", "stranger", "unbound", "empty", "table_owner"]


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
    raise NotImplementedError


class Matrix:
    """Runs cells against a world, over connections it keeps from one to the next."""

    def __init__(self, world: World) -> None:
        self.world = world

    def run(self, cell: Cell) -> Verdict:
        """Run one cell in transactions that are rolled back. Whatever goes wrong is a verdict, never an exception."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the connections; those of the world are its own."""
