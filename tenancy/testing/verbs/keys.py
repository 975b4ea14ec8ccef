"""Keys as oracles: a foreign key or a unique key that tells one tenant what another has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import ForeignKeyConstraint, insert, text, update
from sqlalchemy.dialects.postgresql import insert as upserting
from sqlalchemy.orm import Session

from tenancy.tables import TENANT_KEY
from tenancy.testing.rows import OWN, Row, foreign_keys, is_unique, pairs_of
from tenancy.testing.values import Guess
from tenancy.testing.verbs.attempts import NO_SUCH_ROW, TAKEN, Attempt, Outcome
from tenancy.testing.verbs.writes import counting, one, run

_NOBODY = ("nobody", 9_999)


def point_at_stranger(key: ForeignKeyConstraint) -> Callable[[Attempt], None]:
    """Point at a row that only the owner has: to the stranger, it must be as if there were none."""

    def verb(attempt: Attempt) -> None:
        me = attempt.me or attempt.owner
        theirs = attempt.world.rows[key.referred_table.key][attempt.owner.id][OWN]
        aimed = {local: theirs[there] for local, there in pairs_of(key)}
        missing = {local: Guess(key.referred_table.c[there], *_NOBODY).value() for local, there in pairs_of(key)}
        if not attempt.shape.is_single and attempt.shape.can_insert:
            row = attempt.fresh(me)
            # A unique foreign key may already be in use: the owner's positive side then is a target of its own.
            mine = row if is_unique(key) and attempt.actor == "owner" else row | aimed
            _compare(
                attempt, "insert", lambda values: insert(attempt.table).values(values).inline(), mine, row | missing
            )
        if all(attempt.shape.updates(local) for local in aimed):
            where = attempt.where_key(_row_that_points(attempt, key))
            _compare(
                attempt,
                "update",
                lambda values: update(attempt.shape.plain).where(*where).values(values),
                aimed,
                missing,
            )

    return verb


def _row_that_points(attempt: Attempt, key: ForeignKeyConstraint) -> Row:
    rows = attempt.rows_of(attempt.me or attempt.owner)
    return rows[min(OWN, len(rows) - 1)]


def _compare(attempt: Attempt, what: str, build: Callable[[Row], Any], aimed: Row, missing: Row) -> None:
    """The stranger's row and no row at all are refused in the same words."""
    done = one(attempt, inserted=1) if what == "insert" else one(attempt, updated=1)
    no_row = Outcome(NO_SUCH_ROW)
    hit = attempt.step(f"{what}: the owner's row", _checked(attempt, build(aimed)), owner=done, stranger=no_row)
    missed = attempt.step(f"{what}: no row", _checked(attempt, build(missing)), owner=no_row, stranger=no_row)
    if attempt.actor == "stranger":
        expected = Outcome(words=_masked(missed.message, missing))
        attempt.judge(f"{what}: the same words", expected, Outcome(words=_masked(hit.message, aimed)))


def _masked(message: str, values: Row) -> str:
    for value in values.values():
        message = message.replace(str(value), "?")
    return message


def _checked(attempt: Attempt, statement: Any) -> Callable[[Session], Outcome]:
    def act(connection: Any) -> int | None:
        count = run(statement)(connection)
        connection.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))  # or a deferred one would never be asked
        return count

    return counting(attempt, act)


def probe_unique(names: tuple[str, ...]) -> Callable[[Attempt], None]:
    """Use a value the owner has: the stranger finds it free, and nothing tells it otherwise."""

    def verb(attempt: Attempt) -> None:
        taken = {name: attempt.own_row[name] for name in names if name != TENANT_KEY}
        if attempt.actor != "owner":
            pointing = {local for key in foreign_keys(attempt.table) for local, _ in pairs_of(key)}
            taken = {name: value for name, value in taken.items() if name not in pointing}
        row = attempt.fresh(attempt.me or attempt.owner) | taken
        free = one(attempt, inserted=1)
        plain = insert(attempt.table).values(row).inline()
        attempt.step("insert", counting(attempt, run(plain)), owner=Outcome(TAKEN), stranger=free)
        quiet = upserting(attempt.table).values(row).on_conflict_do_nothing().inline()
        attempt.step("insert, do nothing", counting(attempt, run(quiet)), owner=Outcome(count=0), stranger=free)

    return verb
