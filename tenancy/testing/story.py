"""What the fuzzer's rules are made of: one story's engine, oracle and open things, and how outcomes are judged."""

from __future__ import annotations

import contextlib
import gc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
from hypothesis import strategies as st
from sqlalchemy import Engine, Uuid, delete, insert, select, text, update
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import sessionmaker
from uuid_utils.compat import uuid7

from tenancy.context import outside_any_scope, tenant_scope
from tenancy.errors import TenancyError
from tenancy.testing.ledger import Ledger
from tenancy.testing.oracle import Block, Book, Flow, Kind, LeakError, OracleError, Outcome, Scopes, Work, expected
from tenancy.testing.places import KNOWN, Where, pid_of, quietly, refuse_stall, run
from tenancy.testing.retelling import Teller, beginning
from tenancy.testing.venue import Venue

KINDS: tuple[Kind, ...] = ("session", "session", "connection", "raw")


@dataclass
class Tally:
    """How much a run has done. steps: rules that were carried out. outcomes: of what was tried, by kind."""

    steps: int = 0
    stories: int = 0
    rows: int = 0
    rules: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)

    def text(self) -> str:
        return "\n".join(
            [
                f"{self.steps:,} steps in {self.stories:,} stories, {self.rows:,} rows compared",
                "rules: " + ", ".join(f"{name} {count:,}" for name, count in sorted(self.rules.items())),
                "outcomes: " + ", ".join(f"{name} {count:,}" for name, count in sorted(self.outcomes.items())),
            ]
        )


class Story(Teller):
    """Two tenants, a pool of one to three connections, and all that is open at the moment."""

    ledger: Ledger
    tally: Tally
    open_engine: Callable[..., Engine]
    open_sessions: Callable[[Engine], sessionmaker[Any]]

    @beginning(
        pool_size=st.integers(1, 3),
        has_budgets=st.booleans(),
        which=st.sampled_from([None, 0, 0, 1]),
        kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=2),
    )
    def begin_the_story(self, pool_size: int, has_budgets: bool, which: int | None, kinds: list[Kind]) -> None:
        self._set_the_stage(pool_size, has_budgets=has_budgets)
        if which is not None:
            self._enter(self.tenants[which])
        for kind in kinds:
            self._open_a_flow(kind)

    def _set_the_stage(self, pool_size: int, *, has_budgets: bool) -> None:
        self.tally.stories += 1
        self.pool_size, self.serial = pool_size, 0
        self.venue = Venue(self.ledger, type(self).open_engine, pool_size=pool_size, has_budgets=has_budgets)
        self.outside = outside_any_scope()
        self.outside.__enter__()
        self.tenants = self.venue.tenants
        self.book, self.scopes = Book(self.tenants), Scopes()
        self.blocks: list[tuple[Block, AbstractContextManager[None]]] = []
        self.contexts: list[tuple[Context, Block | None]] = []
        self.flows: list[Flow] = []
        self.killed: set[int] = set()
        self.asynchronous: Any = None
        self.kills = 0
        table, payload = self.ledger.table, self.ledger.table.c[self.ledger.payload]
        self.columns = (table.c.tenant_id, payload)
        self.text = str(select(*self.columns).compile())
        self.engine = self.venue.engine
        self.sessions = type(self).open_sessions(self.engine)
        for tenant in self.tenants:
            self._add_the_first_row(tenant)

    def _add_the_first_row(self, tenant: UUID) -> None:
        row = self._new_row(tenant)
        try:
            with tenant_scope(tenant), self.sessions.begin() as session:
                session.execute(insert(self.ledger.table).values(row))
        except KNOWN as error:
            refuse_stall(error)
            raise
        self.book.rows[tenant].add(row[self.ledger.payload])

    def teardown(self) -> None:
        if not hasattr(self, "outside"):
            return
        try:
            for flow in self.flows:
                quietly(flow.handle.close)
                self._end(flow)
            if self.asynchronous is not None:
                quietly(self.asynchronous.close)
            if not self.is_spoiled:
                self._watch(self._judge_the_end)
        finally:
            self.outside.__exit__(None, None, None)
            if self.is_spoiled:
                gc.collect()  # what the story lost ends with it, and not in the middle of something else
            self.venue.close()

    def _judge_the_end(self) -> None:
        self._demand_that_nothing_is_left(0)
        self.engine.dispose()
        if left := self.venue.connections_left():
            raise OracleError(f"connections were left open: {left}")
        self._compare_with_the_truth()

    def _demand_that_nothing_is_left(self, open_now: int) -> None:
        """Hold what is taken of the pool, and of the tenants' budgets, against what is open."""
        for what, taken in (("connections", self.venue.connections_taken()), ("slots", self.venue.slots_taken())):
            self._demand(taken <= open_now, f"{taken} {what} are taken, where {open_now} are in use")

    def check(self) -> None:
        self._demand_that_nothing_is_left(sum(flow.holds_a_connection for flow in self.flows))

    def _compare_with_the_truth(self) -> None:
        found: dict[UUID, set[str]] = {tenant: set() for tenant in self.tenants}
        for tenant, payload in self.venue.everything():
            if not payload.startswith(tenant.hex):
                raise LeakError(f"a row of {tenant} says {payload!r}")
            found[tenant].add(payload)
        if found != self.book.rows:
            raise OracleError(f"committed is {found}, and not {self.book.rows}")

    # What the rules are made of -----------------------------------------------------------------------

    def _enter(self, tenant: UUID) -> None:
        manager = tenant_scope(tenant)
        manager.__enter__()
        self.blocks.append((self.scopes.enter(tenant), manager))

    def _open_a_flow(self, kind: Kind) -> None:
        tenant, free = self.scopes.tenant, self._free()
        try:
            if kind == "session":
                flow = Flow(kind, self.sessions(), home=tenant)
            elif kind == "connection":
                handle = self.engine.connect()
                flow = Flow(kind, handle, pid=pid_of(handle.connection))
            else:
                raw = self.engine.raw_connection()
                flow = Flow(kind, raw, pid=pid_of(raw))
        except TenancyError:
            self._demand(kind == "session" and tenant is None, "opening was refused")
        except PoolTimeoutError:
            self._demand(free <= 0, "the pool gave no connection, though one was free")
        else:
            self._demand(kind != "session" or tenant is not None, "a session was made for nobody")
            self.flows.append(flow)

    def _note(self, name: str) -> None:
        self.tally.steps += 1
        self.tally.rules.update([name])

    def _demand(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise OracleError(otherwise)

    @contextmanager
    def _must_raise(self, what: str, *kinds: type[Exception]) -> Iterator[None]:
        try:
            yield
        except kinds:
            return
        raise OracleError(f"{what} was not refused")

    def _open(self, *kinds: str) -> list[Flow]:
        return [flow for flow in self.flows if not kinds or flow.kind in kinds]

    def _pick(self, n: int, *kinds: str) -> Flow:
        found = self._open(*kinds)
        return found[n % len(found)]

    def _end(self, flow: Flow) -> None:
        """Forget the flow's transaction, however it ended, and close what was half read in it."""
        for cursor in flow.cursors:
            quietly(cursor.result.close)
        if flow.pid in self.killed:
            flow.health = "cut"
        flow.end()
        if flow.kind == "session":
            flow.pid, flow.health = None, "sound"

    def _free(self) -> int:
        return self.pool_size - sum(flow.holds_a_connection for flow in self.flows)

    def _expected(self, flow: Flow, scope: UUID | None) -> Outcome:
        found = expected(flow, scope, killed=self.killed, free=self._free(), may_be_cut=self._dead_waits())
        # A connection that was found dead has left its place in the pool to others.
        return "either" if found == "full" and any(self._is_cut(f) for f in self.flows) else found

    def _dead_waits(self) -> bool:
        """Tell whether the pool may give a connection that was killed while nobody used it."""
        return bool(self.venue.idle & self.killed)

    def _is_cut(self, flow: Flow) -> bool:
        return flow.health == "cut" or flow.pid in self.killed

    def _locked(self, flow: Flow | None) -> set[str]:
        return {row for other in self.flows if other is not flow and other.work for row in other.work.removed}

    def _seen(self, tenant: UUID | None) -> frozenset[str]:
        return self.book.seen_by(Work(tenant))

    def _new_row(self, tenant: UUID) -> dict[str, Any]:
        self.serial += 1
        return self.ledger.row(tenant, str(self.serial), number=self.serial)

    def _new_id(self) -> dict[str, Any]:
        """Return what a statement that no SQLAlchemy connection executes must say of the id; {} for a serial one."""
        return {"id": uuid7()} if isinstance(self.ledger.table.c.id.type, Uuid) else {}

    def _changing(self, row: str, removes: bool) -> Any:
        table, payload = self.ledger.table, self.columns[1]
        if removes:
            return delete(table).where(payload == row).returning(*self.columns)
        return update(table).where(payload == row).values({payload: row + "'"}).returning(*self.columns)

    def _change(self, flow: Flow, row: str, *, removes: bool) -> None:
        def changed(work: Work) -> frozenset[str]:
            work.remove(row)
            if not removes:
                work.add(row + "'")
            return frozenset([row if removes else row + "'"])

        self._attempt(flow, lambda: self._execute(flow, self._changing(row, removes)), changed)

    def _attempt(
        self,
        flow: Flow,
        act: Callable[[], list[Any]],
        foretell: Callable[[Work], frozenset[str]],
        *,
        where: Where = "here",
        partly: bool = False,
    ) -> None:
        """Do something to the table, and hold what comes of it against the oracle.

        foretell: changes the transaction as the statement does, and returns the rows it must give.
        partly: the statement may give fewer of them.
        """
        if flow.is_spent:
            return
        scope = None if where == "thread" else self.scopes.tenant
        self._attempt_for(flow, scope, lambda: run(act, where), foretell, partly=partly)

    def _attempt_for(
        self,
        flow: Flow,
        scope: UUID | None,
        act: Callable[[], list[Any]],
        foretell: Callable[[Work], frozenset[str]],
        *,
        partly: bool = False,
    ) -> None:
        outcome = self._expected(flow, scope)
        try:
            rows = [self._told(row) for row in act()]
        except KNOWN as error:
            refuse_stall(error)
            self._judge(flow, outcome, scope, error)
            return
        self._refuse_foreign(rows, scope)
        if outcome not in ("rows", "either"):
            raise OracleError(f"{outcome!r} was to come, but {len(rows)} rows of {scope} came")
        self.tally.outcomes.update(["rows"])
        if flow.work is None:
            flow.work = Work(scope)
            if flow.kind == "session" and flow.handle is not None:
                flow.pid = pid_of(flow.handle.connection().connection)
        self._compare(rows, scope, foretell(flow.work), partly=partly)

    def _judge(self, flow: Flow, outcome: Outcome, scope: UUID | None, error: Exception) -> None:
        cause = error.orig if isinstance(error, DBAPIError) else error
        is_full = isinstance(error, PoolTimeoutError)
        self.tally.outcomes.update([type(cause).__name__])
        match outcome:
            case "rows":
                raise OracleError(f"rows were to come, but {error!r} came") from error
            case "refused":
                self._demand(isinstance(error, TenancyError), f"a refusal was to come, not {error!r}")
            case "full":
                self._demand(is_full, f"the pool was to be full, but {error!r} came")
            case "unbound":
                is_right = isinstance(cause, psycopg.errors.InsufficientPrivilege)
                self._demand(is_right, f"42501 was to come, not {error!r}")
        if is_full or isinstance(error, TenancyError):
            return
        if flow.work is None:
            flow.work = Work(scope)
        is_lost = isinstance(cause, psycopg.OperationalError) or flow.pid in self.killed
        if isinstance(error, InvalidRequestError) and not is_lost and flow.health != "sound":
            return  # SQLAlchemy goes on to refuse what has failed before, on a connection that may live
        flow.health = "cut" if is_lost or isinstance(error, InvalidRequestError) else "failed"

    def _compare(
        self, rows: list[tuple[UUID, str]], scope: UUID | None, wanted: frozenset[str], *, partly: bool = False
    ) -> None:
        self._refuse_foreign(rows, scope)
        self.tally.rows += len(rows)
        found = sorted(payload for _, payload in rows)
        if not (set(found) <= wanted if partly else found == sorted(wanted)):
            raise OracleError(f"{found} was read, and not {sorted(wanted)}")

    def _refuse_foreign(self, rows: list[tuple[UUID, str]], scope: UUID | None) -> None:
        if foreign := self.ledger.foreign(rows, scope):
            raise LeakError("; ".join(foreign))

    def _told(self, row: Any) -> tuple[UUID, str]:
        if isinstance(row, self.ledger.model):
            return row.tenant_id, getattr(row, self.ledger.attribute)
        return row[0], row[1]

    def _read(self, flow: Flow, form: str) -> list[Any]:
        if flow.kind == "session" and form == "objects":
            wanted = select(self.ledger.model).execution_options(populate_existing=True)
            return list(flow.handle.scalars(wanted))
        return self._execute(flow, select(*self.columns) if form == "core" else text(self.text))

    def _read_afresh(self, scope: UUID | None) -> None:
        """Read by a session or connection of the moment's own; the calling context is in this scope."""

        def act() -> list[Any]:
            with self.engine.connect() if scope is None else self.sessions() as opened:
                return list(opened.execute(text(self.text)).all())

        self._attempt_for(Flow("session", None, home=scope), scope, act, self.book.seen_by)

    def _execute(self, flow: Flow, statement: Any) -> list[Any]:
        if flow.kind != "raw":
            result = flow.handle.execute(statement)
            return list(result.all()) if result.returns_rows else []
        compiled = statement.compile(dialect=self.engine.dialect)
        with contextlib.closing(flow.handle.cursor()) as cursor:
            cursor.execute(str(compiled), compiled.params or None)
            return list(cursor.fetchall()) if cursor.description else []

    def _add_object(self, flow: Flow, row: dict[str, Any]) -> list[Any]:
        made = self.ledger.construct(row)
        flow.handle.add(made)
        flow.handle.flush()
        return [made]


def saved(flow: Flow) -> bool:
    return flow.work is not None and bool(flow.work.savepoints)


def nothing(_work: Work) -> frozenset[str]:
    return frozenset()
