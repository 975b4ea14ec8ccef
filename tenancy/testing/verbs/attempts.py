"""One actor's attempt at one verb: what it does, what must come of it, and what came."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import psycopg
from sqlalchemy import ColumnElement, Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Mapper, Session

from tenancy.errors import SeedError, TenancyError
from tenancy.testing.cascades import Changes
from tenancy.testing.rows import OWN, SHARED, Row, identity_of, kind_of
from tenancy.testing.shapes import Shape
from tenancy.testing.stage import Actor, Counts, Stage
from tenancy.testing.world import OWNER, STRANGER, SeededTenant

REFUSED = "42501"
NO_SUCH_ROW = "23503"
TAKEN = "23505"
RESTRICTED = "23001"  # what PostgreSQL 18 says of ON DELETE RESTRICT, and earlier ones call NO_SUCH_ROW
TRIGGER = "its own trigger"
ROW_TRIGGER = "its own trigger for each row"
Identity = tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What one statement did. Two are equal when they would look the same to the actor, but for `message`.

    error: an SQLSTATE, or the name of the library's error; "" for none. count: rows affected; None when the
    statement does not tell, or it is not compared. seen: the identities of the rows that came back.
    changes: what was inserted, updated and deleted, by table, cascades included. words: for what is no row.
    """

    error: str = ""
    count: int | None = None
    seen: tuple[Identity, ...] | None = None
    changes: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    words: str = ""
    message: str = field(default="", compare=False)

    def __str__(self) -> str:
        if self.error:
            return f"refused by {self.error}" if self.error in (TRIGGER, ROW_TRIGGER) else f"refused with {self.error}"
        if self.words:
            return self.words
        parts = [] if self.seen is None else [f"sees {_whose(self.seen)}"]
        parts += [] if self.count is None else [f"affects {_counted(self.count)}"]
        parts += [f"{name} +{i} ~{u} -{d}" for name, (i, u, d) in sorted(self.changes.items())]
        return ", ".join(parts) or "changes nothing"


@dataclass(frozen=True)
class Step:
    """One statement of an attempt: what was expected of it, and what it did."""

    what: str
    expected: Outcome
    found: Outcome
    passed: bool


class Attempt:
    """What a verb is given: the table, who acts, and the ways to act. Each step is a transaction of its own."""

    def __init__(self, stage: Stage, shape: Shape, actor: Actor) -> None:
        self.stage = stage
        self.world = stage.world
        self.shape = shape
        self.table = shape.table
        self.actor: Actor = actor
        self.owner, self.stranger = self.world.tenants
        self.me = stage.tenant(actor)
        self.steps: list[Step] = []
        self._counts = True

    @property
    def mapper(self) -> Mapper[Any]:
        if self.shape.mapper is None:
            raise SeedError(f"no class is mapped to {self.table.name!r}", hint="ask of the shape before")
        return self.shape.mapper

    # The rows ----------------------------------------------------------------------------------------

    def rows_of(self, tenant: SeededTenant) -> list[Row]:
        return self.world.rows.get(self.table.key, {}).get(tenant.id, [])

    @cached_property
    def own_row(self) -> Row:
        """The owner's row whose id no other tenant has; where there is one row a tenant, that one."""
        rows = self.rows_of(self.owner)
        return rows[OWN if len(rows) > OWN else SHARED]

    def shared_row(self, tenant: SeededTenant) -> Row:
        """The tenant's row whose id the other tenant has too."""
        return self.rows_of(tenant)[SHARED]

    def fresh(self, tenant: SeededTenant, number: int = 0) -> Row:
        return self.world.fresh(self.table, tenant, number)

    def where_key(self, row: Row, *, bare: bool = False) -> list[ColumnElement[bool]]:
        """Find the row by its key; `bare` leaves the tenant out, as careless code would."""
        names = [column.name for column in (self.shape.key[1:] if bare else self.shape.key)]
        return [self.shape.plain.c[name] == row[name] for name in names]

    def identities(self, rows: Iterable[Mapping[str, Any]]) -> tuple[Identity, ...]:
        return tuple(sorted(identity_of(self.table, row) for row in rows))

    # The steps ---------------------------------------------------------------------------------------

    @property
    def is_bound(self) -> bool:
        return self.me is not None

    def step(
        self,
        what: str,
        act: Callable[[Session], Outcome],
        *,
        owner: Outcome,
        stranger: Outcome,
        nobody: Outcome | None = None,
        before: Callable[[Session], None] | None = None,
    ) -> Outcome:
        """Act, and compare what came with what must come for this actor.

        nobody: for the actors without a tenant; refused by the server, unless said.
        before: what has to be there first; its own changes do not count.
        """
        expected = {"owner": owner, "stranger": stranger}.get(self.actor, nobody or Outcome(REFUSED))
        found = self._act(act, before if self.actor == "owner" else None, is_refusal=bool(expected.error))
        self.judge(what, expected, found, passed=True if self._may_be_stopped(expected, found) else None)
        return found

    def _may_be_stopped(self, expected: Outcome, found: Outcome) -> bool:
        """Whether a trigger of the application that refuses to write is as good as what was expected.

        It is where the actor's own rows would have changed, or nobody's at all. Where no row should have been
        reached, a trigger that fires for a row has met one; but before an INSERT it fires ahead of the policies.
        """
        if found.error not in (TRIGGER, ROW_TRIGGER):
            return False
        if found.error == TRIGGER or expected.changes or expected.error in (TAKEN, NO_SUCH_ROW):
            return True
        sent = self.stage.sent[-1].lstrip().upper() if self.stage.sent else ""
        return bool(expected.error) and (sent.startswith("INSERT") or "WHEN NOT MATCHED" in sent)

    def judge(self, what: str, expected: Outcome, found: Outcome, *, passed: bool | None = None) -> None:
        self.steps.append(Step(what, expected, found, expected == found if passed is None else passed))

    def _act(
        self, act: Callable[[Session], Outcome], before: Callable[[Session], None] | None, *, is_refusal: bool
    ) -> Outcome:
        """A statement that must be refused is sent without counting; if it is not, again, to say what it changes."""
        self._counts = not is_refusal
        found = self._outcome(act, before)
        if self._counts or found.error:
            return found
        self._counts = True
        return self._outcome(act, before)

    def _outcome(self, act: Callable[[Session], Outcome], before: Callable[[Session], None] | None) -> Outcome:
        with self.refusals() as refusals, self.stage.session(self.actor) as session:
            if before is not None:
                before(session)
            return act(session)
        return refusals[0]

    @contextmanager
    def refusals(self) -> Iterator[list[Outcome]]:
        """Catch what the server or the library refuses."""
        found: list[Outcome] = []
        try:
            yield found
        except DBAPIError as error:
            found.append(self._refusal(error.orig if isinstance(error.orig, psycopg.Error) else error))
        except (psycopg.Error, TenancyError) as error:
            found.append(self._refusal(error))

    def _refusal(self, error: BaseException) -> Outcome:
        if not isinstance(error, psycopg.Error) or not error.sqlstate:
            return Outcome(type(error).__name__, message=str(error))
        words = f"{error.diag.message_primary} / {error.diag.message_detail}"
        raised_in = set(re.findall(r"function (?:\S+\.)?(\S+?)\(", error.diag.context or ""))
        ours = self.stage.triggers.get(self.table.key, {})
        stopped = [ours[name] for name in raised_in if name in ours]
        if stopped:
            return Outcome(ROW_TRIGGER if any(stopped) else TRIGGER, message=words)
        return Outcome(NO_SUCH_ROW if error.sqlstate == RESTRICTED else error.sqlstate, message=words)

    def counted(self, session: Session, act: Callable[[Connection], int | None]) -> Outcome:
        """Run a statement that writes: how many rows it says it affected, and what really changed."""
        before = self.counts(session)
        count = act(session.connection())
        return Outcome(count=count, changes=self.since(session, before))

    def counts(self, session: Session) -> Counts:
        """Return what this transaction has changed so far, to tell later what has come to it."""
        return self.stage.counts(session.connection()) if self._counts else {}

    def since(self, session: Session, before: Counts) -> Changes:
        """Return what this transaction has changed since the counts were read."""
        differences = {
            name: tuple(now - then for now, then in zip(counts, before.get(name, (0, 0, 0)), strict=True))
            for name, counts in self.counts(session).items()
        }
        noted = self.stage.triggers.get(self.table.key)
        return {
            name: (i, u, d)
            for name, (i, u, d) in differences.items()
            # Rows that a trigger of the application adds elsewhere, to an audit, say; or keeps where no tenant reads.
            if (u or d or (i and (name == self.table.key or not noted))) and not (noted and self._is_nobodys(name))
        }

    def _is_nobodys(self, name: str) -> bool:
        return kind_of(self.world.metadata.tables[name]) == "platform"

    def seen(self, rows: Iterable[Mapping[str, Any]], changes: Changes | None = None) -> Outcome:
        return Outcome(seen=self.identities(rows), changes=changes or {})


def changed(table: str, *, inserted: int = 0, updated: int = 0, deleted: int = 0) -> Changes:
    return {table: (inserted, updated, deleted)} if inserted or updated or deleted else {}


def _whose(seen: tuple[Identity, ...]) -> str:
    """Count by whose rows they are, which is what a reader wants to know first."""
    names = {str(OWNER.id): "the owner's", str(STRANGER.id): "the stranger's"}
    found = Counter(next((names[part] for part in identity if part in names), "nobody's") for identity in seen)
    return " and ".join(f"{_counted(number)} of {whose}" for whose, number in sorted(found.items())) or "no row"


def _counted(number: int) -> str:
    return {0: "no row", 1: "1 row"}.get(number, f"{number} rows")
