"""psycopg connections and cursors that send a transaction's scope with its first statement.

The driver stays in autocommit and the library writes BEGIN itself: with psycopg's own BEGIN each
transaction costs a flight more. Statements run inside a pipeline when they open a transaction, or when
they have no parameters: psycopg would otherwise send those by the simple protocol, in which
`select 1; set local ...` is two statements.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Self, cast
from uuid import UUID

import psycopg
from psycopg import IsolationLevel, sql
from psycopg.pq import TransactionStatus

from tenancy.context import Scope, current_scope
from tenancy.errors import ConfigurationError, NoTenantError, StatementRefusedError, WrongTenantError
from tenancy.statements import admit, admit_copy

_PING = ";"  # SQLAlchemy's pre-ping on PostgreSQL: it must not begin a transaction
_ISOLATION = {level: level.name.replace("_", " ") for level in IsolationLevel}


class TransactionState:
    """What a driver connection knows of its transaction: the scope noted for it, and whether it has begun.

    Kept on the driver connection, because SQLAlchemy's own `Connection.info` survives a check-in.
    """

    def __init__(self, connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
        self.connection = connection
        self.pid = os.getpid()
        self.is_platform = False
        self._forget()

    def _forget(self) -> None:
        self.scope: Scope | None = None
        self.session_id: UUID | None = None
        self.is_noted = self.has_begun = self.has_written = self.is_internal = False

    @property
    def _status(self) -> TransactionStatus:
        return TransactionStatus(self.connection.pgconn.transaction_status)

    def note(self, *, session_id: UUID | None = None, internal: bool = False) -> None:
        """Remember the scope that the next transaction will be for; nothing is sent.

        session_id: the committed platform session to act under. internal: the library's own transaction,
        which is for no scope at all.
        Raises: ConfigurationError - the previous user's transaction is still open on this connection.
        """
        if self._status != TransactionStatus.IDLE:
            raise ConfigurationError(
                "the connection came back from the pool with a transaction still open",
                hint='let the pool reset connections: pool_reset_on_return="rollback", its default',
            )
        self._forget()
        self.scope = None if internal else current_scope()
        self.session_id, self.is_noted, self.is_internal = session_id, True, internal

    def admit(self, query: Any, *, is_copy: bool = False) -> Sequence[bytes]:
        """Return what must be sent before this statement, having checked that it may run here and now.

        is_copy: psycopg will send it by the simple protocol, which would run a second statement too.
        Raises: WrongTenantError, NoTenantError - the transaction belongs to another scope than the current.
        StatementRefusedError - the statement guard does not let it pass.
        """
        text = query if isinstance(query, str) else self._text_of(query)
        if text == _PING:
            return ()
        verdict = admit_copy(text) if is_copy else admit(text)
        opening = self.open()
        if not verdict.only_reads:
            self.has_written = True
        return opening

    def open(self) -> Sequence[bytes]:
        """Return what begins the transaction for its scope; nothing when it has begun.

        Raises: WrongTenantError, NoTenantError - the transaction belongs to another scope than the current.
        """
        if self.has_begun or self.is_noted:
            self.check_scope()
        else:
            self.scope = current_scope()
        if self.has_begun:
            return ()
        self.has_begun = True
        return self._opening()

    def check_scope(self) -> None:
        """Refuse to go on with a transaction in another scope than it was begun for."""
        now, ours = current_scope(), self.scope
        if now is ours or self.is_internal or (ours is not None and ours.is_same(now)):
            return
        if now is None:
            raise NoTenantError(
                f"the transaction was begun for {ours!r}, and that scope has ended",
                hint="finish the transaction inside its scope",
            )
        raise WrongTenantError(
            f"the transaction was begun for {ours!r}, but the current scope is {now!r}",
            hint="open a new session or connection inside the scope; a transaction never changes tenant",
        )

    def ended(self) -> bool:
        """Forget the transaction; tell whether it could as well be committed as rolled back.

        psycopg drops every prepared statement on ROLLBACK, so a transaction that only read is committed.
        """
        is_clean = not self.has_written and self._status == TransactionStatus.INTRANS
        self._forget()
        return is_clean

    def _opening(self) -> Sequence[bytes]:
        """BEGIN and the three settings. All three are sent each time, so that no session-wide value shows through."""
        scope = self.scope
        if self.is_internal:  # the check of a new connection must see what is set outside any transaction
            return (self._begin(reads_across=False),)
        scoped = (
            b"CLOSE ALL",  # a WITH HOLD cursor that got past the guard; to close it at check-in costs a flight
            _set_local("app.tenant_id", scope.tenant if scope else None),
            _set_local("app.account_id", scope.account if scope else None),
            _set_local("app.platform_session", self.session_id),
        )
        if self._status != TransactionStatus.IDLE:  # inside psycopg's own transaction block
            return scoped
        return (self._begin(reads_across=bool(scope and scope.platform and scope.tenant is None)), *scoped)

    def _begin(self, *, reads_across: bool) -> bytes:
        connection = self.connection
        parts = ["BEGIN"]
        if connection.isolation_level is not None:
            parts.append(f"ISOLATION LEVEL {_ISOLATION[connection.isolation_level]}")
        if connection.read_only is not None or reads_across:
            parts.append("READ ONLY" if reads_across or connection.read_only else "READ WRITE")
        if connection.deferrable is not None:
            parts.append("DEFERRABLE" if connection.deferrable else "NOT DEFERRABLE")
        return " ".join(parts).encode()

    def _text_of(self, query: Any) -> str:
        if isinstance(query, bytes):
            return query.decode(errors="replace")
        if isinstance(query, sql.Composable):
            return query.as_string(self.connection)
        raise StatementRefusedError(
            f"a query of type {type(query).__name__} cannot be judged", hint="pass text or psycopg.sql objects"
        )


def _set_local(name: str, value: UUID | None) -> bytes:
    # Only a UUID reaches this text: SET takes no parameters, and Citus needs SET rather than set_config.
    return f"SET LOCAL {name} = '{value if isinstance(value, UUID) else ''}'".encode()


def _send_ahead(pipeline: psycopg.Pipeline | psycopg.AsyncPipeline, statements: Iterable[bytes]) -> None:
    """Put the library's own statements into libpq's buffer, to leave in one write with the next statement.

    A cursor would send each at once, which costs a system call and a server wake-up a piece, and would in
    time prepare them, one for each tenant. psycopg's own queue waits for the socket before each command.
    """
    for statement in statements:
        if pipeline.command_queue:  # a pipeline of the user's own, with commands that go first
            pipeline.command_queue.append(partial(pipeline.pgconn.send_query_params, statement, None))
        else:
            pipeline.pgconn.send_query_params(statement, None)
        pipeline.result_queue.append(None)


def _refuse_autocommit(value: bool) -> None:
    """Ignore False, which SQLAlchemy sets with an isolation level: the driver stays in autocommit."""
    if value:
        raise ConfigurationError(
            "AUTOCOMMIT would run every statement outside the transaction that carries its tenant",
            hint="remove isolation_level='AUTOCOMMIT'; use a separate engine for administration",
        )


# The two families differ in nothing but `await`; whatever can be decided is decided in TransactionState.


class TenantCursor(psycopg.Cursor[Any]):
    """A cursor whose first statement carries BEGIN and the scope."""

    __slots__ = ()

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        connection = cast("TenantConnection", self._conn)
        opening = connection.state.admit(query)
        if not opening and params:
            return super().execute(query, params, **options)
        with connection.pipeline() as pipeline:
            _send_ahead(pipeline, opening)
            return super().execute(query, params, **options)

    def executemany(self, query: Any, params_seq: Iterable[Any], **options: Any) -> None:
        cast("TenantConnection", self._conn).begin(query)
        super().executemany(query, params_seq, **options)

    def stream(self, query: Any, params: Any = None, **options: Any) -> Iterator[Any]:
        cast("TenantConnection", self._conn).begin(query)
        yield from super().stream(query, params, **options)

    @contextmanager
    def copy(self, statement: Any, params: Any = None, **options: Any) -> Iterator[psycopg.Copy]:
        cast("TenantConnection", self._conn).begin(statement, is_copy=True)
        with super().copy(statement, params, **options) as copy:
            yield copy


class TenantServerCursor(psycopg.ServerCursor[Any]):
    """A server-side cursor inside its transaction; WITH HOLD, which would outlive it, is refused."""

    __slots__ = ()

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        _refuse_hold(self.withhold)
        cast("TenantConnection", self._conn).begin(query)
        return super().execute(query, params, **options)

    def __next__(self) -> Any:
        cast("TenantConnection", self._conn).state.check_scope()
        return super().__next__()

    def fetchone(self) -> Any:
        cast("TenantConnection", self._conn).state.check_scope()
        return super().fetchone()

    def fetchmany(self, size: int = 0) -> list[Any]:
        cast("TenantConnection", self._conn).state.check_scope()
        return super().fetchmany(size)

    def fetchall(self) -> list[Any]:
        cast("TenantConnection", self._conn).state.check_scope()
        return super().fetchall()


class TenantConnection(psycopg.Connection[Any]):
    """A connection whose transactions begin with their scope. Made by `create_tenant_engine`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.state = TransactionState(self)
        self.cursor_factory = TenantCursor
        self.server_cursor_factory = TenantServerCursor

    def set_autocommit(self, value: bool) -> None:
        _refuse_autocommit(value)

    def begin(self, query: Any, *, is_copy: bool = False) -> None:
        """Begin before a statement that cannot share its flight."""
        self._send(self.state.admit(query, is_copy=is_copy))

    def _send(self, opening: Sequence[bytes]) -> None:
        if opening:
            with self.pipeline() as pipeline:
                _send_ahead(pipeline, opening)

    @contextmanager
    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> Iterator[psycopg.Transaction]:
        """psycopg's block. The outermost binds as it opens, or rolling back a block within would undo the binding."""
        is_outermost = not self.state.has_begun
        try:
            with super().transaction(savepoint_name, force_rollback) as block:
                self._send(self.state.open())
                yield block
        finally:
            if is_outermost:
                self.state.ended()

    def commit(self) -> None:
        self.state.ended()
        super().commit()

    def rollback(self) -> None:
        if self.state.ended():
            super().commit()
        else:
            super().rollback()


class AsyncTenantCursor(psycopg.AsyncCursor[Any]):
    """The asynchronous TenantCursor."""

    __slots__ = ()

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        connection = cast("AsyncTenantConnection", self._conn)
        opening = connection.state.admit(query)
        if not opening and params:
            return await super().execute(query, params, **options)
        async with connection.pipeline() as pipeline:
            _send_ahead(pipeline, opening)
            return await super().execute(query, params, **options)

    async def executemany(self, query: Any, params_seq: Iterable[Any], **options: Any) -> None:
        await cast("AsyncTenantConnection", self._conn).begin(query)
        await super().executemany(query, params_seq, **options)

    async def stream(self, query: Any, params: Any = None, **options: Any) -> AsyncIterator[Any]:
        await cast("AsyncTenantConnection", self._conn).begin(query)
        async for row in super().stream(query, params, **options):
            yield row

    @asynccontextmanager
    async def copy(self, statement: Any, params: Any = None, **options: Any) -> AsyncIterator[psycopg.AsyncCopy]:
        await cast("AsyncTenantConnection", self._conn).begin(statement, is_copy=True)
        async with super().copy(statement, params, **options) as copy:
            yield copy


class AsyncTenantServerCursor(psycopg.AsyncServerCursor[Any]):
    """The asynchronous TenantServerCursor."""

    __slots__ = ()

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        _refuse_hold(self.withhold)
        await cast("AsyncTenantConnection", self._conn).begin(query)
        return await super().execute(query, params, **options)

    async def __anext__(self) -> Any:
        cast("AsyncTenantConnection", self._conn).state.check_scope()
        return await super().__anext__()

    async def fetchone(self) -> Any:
        cast("AsyncTenantConnection", self._conn).state.check_scope()
        return await super().fetchone()

    async def fetchmany(self, size: int = 0) -> list[Any]:
        cast("AsyncTenantConnection", self._conn).state.check_scope()
        return await super().fetchmany(size)

    async def fetchall(self) -> list[Any]:
        cast("AsyncTenantConnection", self._conn).state.check_scope()
        return await super().fetchall()


class AsyncTenantConnection(psycopg.AsyncConnection[Any]):
    """The asynchronous TenantConnection. Made by `create_async_tenant_engine`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.state = TransactionState(self)
        self.cursor_factory = AsyncTenantCursor
        self.server_cursor_factory = AsyncTenantServerCursor

    async def set_autocommit(self, value: bool) -> None:
        _refuse_autocommit(value)

    async def begin(self, query: Any, *, is_copy: bool = False) -> None:
        """Begin before a statement that cannot share its flight."""
        await self._send(self.state.admit(query, is_copy=is_copy))

    async def _send(self, opening: Sequence[bytes]) -> None:
        if opening:
            async with self.pipeline() as pipeline:
                _send_ahead(pipeline, opening)

    @asynccontextmanager
    async def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> AsyncIterator[psycopg.AsyncTransaction]:
        """psycopg's block. The outermost binds as it opens, or rolling back a block within would undo the binding."""
        is_outermost = not self.state.has_begun
        try:
            async with super().transaction(savepoint_name, force_rollback) as block:
                await self._send(self.state.open())
                yield block
        finally:
            if is_outermost:
                self.state.ended()

    async def commit(self) -> None:
        self.state.ended()
        await super().commit()

    async def rollback(self) -> None:
        if self.state.ended():
            await super().commit()
        else:
            await super().rollback()


def _refuse_hold(withhold: bool) -> None:
    if withhold:
        raise StatementRefusedError(
            "a WITH HOLD cursor outlives the transaction that carries its tenant",
            hint="read it inside the transaction, with an ordinary server-side cursor",
        )
