"""The matrix: every tenant table, every verb, every actor; what must come of each, and what came."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
