"""The rules of the fuzzer: each does one thing to what is open, whatever the moment."""

from __future__ import annotations

from contextvars import copy_context
from typing import Any

import psycopg
from hypothesis import strategies as st
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError

from tenancy.errors import ScopeError, StatementRefusedError, TenancyError
from tenancy.testing.oracle import HalfRead, Kind, Work, tenant_of
from tenancy.testing.places import KNOWN, PLACES, Asynchronous, Where, quietly, refuse_stall, run
from tenancy.testing.retelling import step
from tenancy.testing.story import KINDS, Story, nothing, saved
from tenancy.testing.venue import APPLICATION

SOME = st.integers(0, 7)  # picks one of what is there, by its remainder
FORMS = st.sampled_from(["objects", "core", "text"])


class LeakMachine(Story):
    """The rules: each does one thing to what is open, and holds what comes of it against the oracle."""

    # Scopes -------------------------------------------------------------------------------------------

    @step(lambda self: len(self.blocks) < 4, which=st.integers(0, 1))
    def enter_a_scope(self, which: int) -> None:
        self._note("enter_a_scope")
        self._enter(self.tenants[which])

    @step(lambda self: self.blocks, which=st.sampled_from([0, 0, 0, 1, 2]))
    def leave_a_scope(self, which: int) -> None:
        """The innermost mostly; else one around it, which must be said and must end it all the same."""
        self._note("leave_a_scope")
        block, manager = self.blocks.pop(-1 - which % len(self.blocks))
        in_order = self.scopes.leave(block)
        try:
            manager.__exit__(None, None, None)
        except ScopeError:
            self._demand(not in_order, "a scope left in order was refused")
        else:
            self._demand(in_order, "a scope left out of order was not refused")

    @step(lambda self: len(self.contexts) < 3)
    def copy_the_context(self) -> None:
        """What a task or thread takes with it; it may outlive the scope."""
        self._note("copy_the_context")
        self.contexts.append((copy_context(), self.scopes.inner))

    @step(lambda self: self.contexts, n=SOME, keep=st.booleans())
    def read_in_a_copied_context(self, n: int, keep: bool) -> None:
        self._note("read_in_a_copied_context")
        context, block = self.contexts[n % len(self.contexts)]
        if not keep:
            self.contexts.remove((context, block))
        context.run(self._read_afresh, tenant_of(block))

    # Opening and closing ------------------------------------------------------------------------------

    @step(lambda self: len(self.flows) < 4, kind=st.sampled_from(KINDS))
    def open_a_flow(self, kind: Kind) -> None:
        self._note(f"open_a_{kind}")
        self._open_a_flow(kind)

    @step(lambda self: self.flows, n=SOME)
    def close_a_flow(self, n: int) -> None:
        self._note("close_a_flow")
        flow = self.flows.pop(n % len(self.flows))
        sound = flow.health == "sound" and flow.pid not in self.killed
        try:
            flow.handle.close()
        except KNOWN as error:
            refuse_stall(error)
            self._demand(not sound, f"closing failed: {error!r}")
        self._end(flow)

    @step(lambda self: self.flows, n=SOME)
    def commit(self, n: int) -> None:
        flow = self._pick(n)
        if flow.health == "unsure":
            return
        self._note("commit")
        sound = flow.health == "sound" and flow.pid not in self.killed
        try:
            flow.handle.commit()
        except KNOWN as error:
            refuse_stall(error)
            self._demand(not sound or flow.work is None, f"committing failed: {error!r}")
            quietly(flow.handle.rollback)
        else:
            self._demand(flow.work is None or flow.health != "cut", "a transaction that was cut off was committed")
            if sound and flow.work is not None:
                self.book.commit(flow.work)
        self._end(flow)

    @step(lambda self: self.flows, n=SOME)
    def roll_back(self, n: int) -> None:
        self._note("roll_back")
        flow = self._pick(n)
        quietly(flow.handle.rollback)
        self._end(flow)

    # Reading ------------------------------------------------------------------------------------------

    @step(lambda self: self.flows, n=SOME, form=FORMS, where=st.sampled_from(PLACES))
    def read(self, n: int, form: str, where: Where) -> None:
        """Also a session or connection that was kept across a switch, or that another thread opened."""
        self._note(f"read_in_{where.replace(' ', '_')}")
        flow = self._pick(n)
        self._attempt(flow, lambda: self._read(flow, form), self.book.seen_by, where=where)

    @step(where=st.sampled_from(PLACES))
    def read_afresh(self, where: Where) -> None:
        self._note("read_afresh")
        scope = None if where == "thread" else self.scopes.tenant
        run(lambda: self._read_afresh(scope), where)

    @step(form=FORMS)
    def read_in_a_task(self, form: str) -> None:
        self._note("read_in_a_task")
        if self.asynchronous is None:
            self.asynchronous = Asynchronous(self.ledger)
        scope, outcome = self.scopes.tenant, "rows"
        try:
            rows = self.asynchronous.read(select(self.ledger.model) if form == "objects" else text(self.text))
        except KNOWN as error:
            refuse_stall(error)
            self._demand(scope is None or self.asynchronous.may_be_cut, f"a task could not read: {error!r}")
            if not isinstance(error, TenancyError):
                self.asynchronous.may_be_cut = False
            outcome = "refused"
        else:
            self._compare([self._told(row) for row in rows], scope, self._seen(scope))
        self.tally.outcomes.update([f"task: {outcome}"])

    @step(lambda self: self._open("connection", "session"), n=SOME)
    def open_a_server_cursor(self, n: int) -> None:
        """Read one row of it, and leave the rest for later."""
        self._note("open_a_server_cursor")
        flow = self._pick(n, "connection", "session")
        options = {"stream_results": True, "max_row_buffer": 1}
        opened: list[Any] = []

        def begin() -> list[Any]:
            opened.append(flow.handle.execute(text(self.text), execution_options=options))
            return [row for row in [opened[0].fetchone()] if row is not None]

        self._attempt(flow, begin, self.book.seen_by, partly=True)
        if flow.work is not None and opened and flow.health == "sound":
            flow.cursors.append(HalfRead(opened[0], self.book.seen_by(flow.work)))
        elif opened:
            quietly(opened[0].close)

    @step(lambda self: any(flow.cursors for flow in self.flows), n=SOME, where=st.sampled_from(PLACES))
    def read_on(self, n: int, where: Where) -> None:
        """The cursor may have ended with a savepoint, so an error is always allowed; a foreign row never is."""
        self._note("read_on")
        having = [flow for flow in self.flows if flow.cursors]
        flow = having[n % len(having)]
        cursor = flow.cursors[n % len(flow.cursors)]
        scope = None if where == "thread" else self.scopes.tenant
        try:
            rows = run(lambda: cursor.result.fetchmany(1), where)
        except KNOWN as error:
            refuse_stall(error)
            flow.cursors.remove(cursor)
            quietly(cursor.result.close)
            if not isinstance(error, TenancyError):
                flow.health = "cut" if flow.pid in self.killed else "unsure"
            return
        self._compare([self._told(row) for row in rows], scope, cursor.rows, partly=True)

    # Writing ------------------------------------------------------------------------------------------

    @step(lambda self: self.flows, n=SOME, as_object=st.booleans())
    def insert(self, n: int, as_object: bool) -> None:
        self._note("insert")
        flow, scope = self._pick(n), self.scopes.tenant
        tenant = scope or self.tenants[0]
        row = self._new_row(tenant)
        told = row[self.ledger.payload]

        def added(work: Work) -> frozenset[str]:
            work.add(told)
            return frozenset([told])

        if as_object and flow.kind == "session" and self._expected(flow, scope) == "rows" and not saved(flow):
            self._attempt(flow, lambda: self._add_object(flow, row), added)
        else:
            statement = insert(self.ledger.table).values(row | {"tenant_id": tenant} | self._new_id())
            statement = statement.returning(*self.columns)
            self._attempt(flow, lambda: self._execute(flow, statement), added)

    @step(lambda self: self.flows, n=SOME, m=SOME, removes=st.booleans())
    def change(self, n: int, m: int, removes: bool) -> None:
        """Change a row that this flow sees and no other has changed: nobody waits for a lock."""
        flow = self._pick(n)
        work = flow.work or Work(self.scopes.tenant)
        rows = sorted(self.book.seen_by(work) - self._locked(flow))
        if not rows:
            return
        self._note("remove" if removes else "change")
        self._change(flow, rows[m % len(rows)], removes=removes)

    @step(lambda self: self.flows, n=SOME, m=SOME, removes=st.booleans())
    def change_a_strangers_row(self, n: int, m: int, removes: bool) -> None:
        """Name a row of the other tenant: nothing must be changed."""
        flow, scope = self._pick(n), self.scopes.tenant
        rows = sorted(row for t, found in self.book.rows.items() if t != scope for row in found - self._locked(None))
        if not rows:
            return
        self._note("change_a_strangers_row")
        self._attempt(flow, lambda: self._execute(flow, self._changing(rows[m % len(rows)], removes)), nothing)

    # Failing ------------------------------------------------------------------------------------------

    @step(lambda self: self.flows, n=SOME)
    def fail(self, n: int) -> None:
        flow = self._pick(n)
        if self._expected(flow, self.scopes.tenant) != "rows" or flow.work is None:
            return
        self._note("fail")
        with self._must_raise("a division by zero", DBAPIError, psycopg.Error):
            self._execute(flow, text("SELECT 1/0"))
        flow.health = "failed"

    @step(lambda self: self.flows, n=SOME, m=st.integers(0, 1))
    def set_a_tenant_by_hand(self, n: int, m: int) -> None:
        flow = self._pick(n)
        if self._expected(flow, self.scopes.tenant) != "rows" or flow.work is None:
            return
        self._note("set_a_tenant_by_hand")
        with self._must_raise("setting a tenant by hand", StatementRefusedError):
            self._execute(flow, text(f"SET LOCAL app.tenant_id = '{self.tenants[m]}'"))

    @step(lambda self: self.kills < 3, n=SOME)
    def kill(self, n: int) -> None:
        """End one of the server's processes that serve this story, whatever it is doing."""
        found = self.venue.processes()
        if not found:
            return
        self._note("kill")
        self.kills += 1
        pid, application = found[n % len(found)]
        self.venue.end(pid)
        self.killed.add(pid)
        if application != APPLICATION:
            self.asynchronous.may_be_cut = True

    # Savepoints ---------------------------------------------------------------------------------------

    @step(lambda self: self._open("connection", "session"), n=SOME)
    def open_a_savepoint(self, n: int) -> None:
        flow = self._pick(n, "connection", "session")
        if flow.work is None or flow.health != "sound" or len(flow.work.savepoints) > 2:
            return
        self._note("open_a_savepoint")
        outcome = self._expected(flow, self.scopes.tenant)
        try:
            flow.work.save(flow.handle.begin_nested())
        except KNOWN as error:
            refuse_stall(error)
            self._demand(outcome != "rows", f"a savepoint could not be opened: {error!r}")
            flow.health = "cut" if flow.pid in self.killed else "unsure"
        else:
            # A session sends SAVEPOINT with the first statement that follows, so it refuses nothing yet.
            self._demand(outcome == "rows" or flow.kind == "session", "a savepoint was opened in a foreign scope")

    @step(lambda self: any(saved(flow) for flow in self.flows), n=SOME, releases=st.booleans())
    def end_a_savepoint(self, n: int, releases: bool) -> None:
        having = [flow for flow in self.flows if saved(flow)]
        flow = having[n % len(having)]
        work = flow.work
        if work is None or flow.health not in ("sound", "failed"):
            return
        goes = flow.pid not in self.killed and (not releases or flow.health == "sound")
        self._note("release_a_savepoint" if releases else "roll_back_to_a_savepoint")
        savepoint = work.release() if releases else work.restore()
        try:
            savepoint.commit() if releases else savepoint.rollback()
        except KNOWN as error:
            refuse_stall(error)
            self._demand(not goes, f"a savepoint could not be ended: {error!r}")
            flow.health = "cut" if flow.pid in self.killed else "unsure"
        else:
            is_right = goes or flow.kind == "session"  # where no statement has followed, there is none to end
            self._demand(is_right, "a savepoint was ended on no connection")
            flow.health = "sound"
