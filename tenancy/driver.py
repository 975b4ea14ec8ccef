"""psycopg connections and cursors that send a transaction's scope with its first statement.

The driver stays in autocommit and the library writes BEGIN itself: with psycopg's own BEGIN each
transaction costs a flight more. Statements run inside a pipeline when they open a transaction, or when
they have no parameters: psycopg would otherwise send those by the simple protocol, in which
`select 1; set local ...` is two statements.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from typing import Any, Self

import psycopg
from psycopg.pq import TransactionStatus

from tenancy.errors import ConfigurationError, ScopeError, StatementRefusedError
from tenancy.flights import AsyncFlight, Flight, Message, send_ahead
from tenancy.placeholders import RememberedQuery
from tenancy.positions import COMMIT, POSITION_SQL, Write
from tenancy.statements import releases, rolls_back_to
from tenancy.transactions import Statement, TransactionState

_OPEN = (TransactionStatus.INTRANS, TransactionStatus.INERROR)


def _admit(state: TransactionState, query: Any) -> Sequence[Message]:
    """Do what TransactionState.admit does, and let the end of a savepoint pass in any scope.

    It reads and writes nothing, and SQLAlchemy sends it when a session is closed or committed that has a savepoint
    open: refused, as the scope has ended by then, it would leave the connection to nobody.
    """
    try:
        return state.admit(query)
    except ScopeError:
        if state.has_begun and (rolls_back_to(query) or releases(query)):
            return ()
        raise


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
    _conn: TenantConnection
    _query_cls = RememberedQuery

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        connection = self._conn
        opening = _admit(connection.state, query)
        if not opening and (params or rolls_back_to(query)):
            return super().execute(query, params, **options)
        with connection.flight() as flight:
            send_ahead(flight, opening)
            return super().execute(query, params, **options)

    def executemany(self, query: Any, params_seq: Iterable[Any], **options: Any) -> None:
        self._conn.begin(query)
        super().executemany(query, params_seq, **options)

    def stream(self, query: Any, params: Any = None, **options: Any) -> Iterator[Any]:
        self._conn.begin(query)
        yield from super().stream(query, params, **options)

    @contextmanager
    def copy(self, statement: Any, params: Any = None, **options: Any) -> Iterator[psycopg.Copy]:
        self._conn.begin(statement, is_copy=True)
        with super().copy(statement, params, **options) as copy:
            yield copy


class TenantServerCursor(psycopg.ServerCursor[Any]):
    """A server-side cursor inside its transaction; WITH HOLD, which would outlive it, is refused."""

    __slots__ = ()
    _conn: TenantConnection

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        _refuse_hold(self.withhold)
        self._conn.begin(query)
        return super().execute(query, params, **options)

    def __next__(self) -> Any:
        self._conn.state.check_scope()
        return super().__next__()

    def fetchone(self) -> Any:
        self._conn.state.check_scope()
        return super().fetchone()

    def fetchmany(self, size: int = 0) -> list[Any]:
        self._conn.state.check_scope()
        return super().fetchmany(size)

    def fetchall(self) -> list[Any]:
        self._conn.state.check_scope()
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

    def _send(self, opening: Sequence[Message]) -> None:
        if opening:
            with self.flight() as flight:
                send_ahead(flight, opening)

    def flight(self) -> AbstractContextManager[psycopg.Pipeline]:
        """Return what sends everything within it at once; the user's own pipeline when one is open."""
        return Flight(self) if self._pipeline is None else self.pipeline()

    @contextmanager
    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> Iterator[psycopg.Transaction]:
        """psycopg's block. The outermost binds as it opens, or rolling back a block within would undo the binding."""
        is_outermost, write = not self.state.has_begun, None
        try:
            with ExitStack() as noting:
                with super().transaction(savepoint_name, force_rollback) as block:
                    self._send(self.state.open())
                    yield block
                    write = self.state.write_to_note() if is_outermost else None
                    if write is not None:
                        noting.enter_context(write)
                if write is not None:
                    write.ended_at(psycopg.Cursor(self).execute(POSITION_SQL).fetchall()[0][0])
        finally:
            if is_outermost:
                self.state.ended()
                self.state.leave()

    def execute_last(self, query: str, params: Sequence[Any]) -> None:
        """Run a statement that answers nothing as the transaction's last, in the flight of its COMMIT.

        A failure fails the COMMIT; a rollback forgets it, that of a savepoint does not. Where nothing has begun yet,
        it runs at once.
        """
        if not self.state.put_last(query, params):
            self.cursor().execute(query, params)  # pyright: ignore[reportArgumentType]  # its types want literals

    def commit(self) -> None:
        write, last = self.state.write_to_note(), self.state.last
        self.state.ended()
        try:
            if self.pgconn.transaction_status == TransactionStatus.INERROR:
                super().rollback()  # as a COMMIT would, but then psycopg would keep what failed to be prepared in it
            elif write is None and not last:
                super().commit()
            else:
                self._commit_in_one_flight(last, write)
        except BaseException:
            if self.pgconn.transaction_status in _OPEN:
                super().rollback()  # the last statement failed, and SQLAlchemy takes a COMMIT for the end
            raise
        finally:
            self.state.leave()

    def _commit_in_one_flight(self, last: Sequence[Statement], write: Write | None) -> None:
        """Commit behind the last statements, and ask where in the write-ahead log that was if somebody has to know."""
        asking = psycopg.Cursor(self)
        with write or nullcontext():
            with self.flight() as flight:
                for query, params in last:
                    psycopg.Cursor(self).execute(query, params)  # pyright: ignore[reportArgumentType]  # its types want literals
                send_ahead(flight, (COMMIT,))
                if write is not None:
                    asking.execute(POSITION_SQL)
            if write is not None:
                write.ended_at(asking.fetchall()[0][0])

    def rollback(self) -> None:
        if self.state.is_over():  # as the pool finds it after each commit
            return
        try:
            if self.state.ended():
                super().commit()
            else:
                super().rollback()
        finally:
            self.state.leave()

    def close(self) -> None:
        try:
            super().close()
        finally:
            self.state.leave()


class AsyncTenantCursor(psycopg.AsyncCursor[Any]):
    """The asynchronous TenantCursor."""

    __slots__ = ()
    _conn: AsyncTenantConnection
    _query_cls = RememberedQuery

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        connection = self._conn
        opening = _admit(connection.state, query)
        if not opening and (params or rolls_back_to(query)):
            return await super().execute(query, params, **options)
        async with connection.flight() as flight:
            send_ahead(flight, opening)
            return await super().execute(query, params, **options)

    async def executemany(self, query: Any, params_seq: Iterable[Any], **options: Any) -> None:
        await self._conn.begin(query)
        await super().executemany(query, params_seq, **options)

    async def stream(self, query: Any, params: Any = None, **options: Any) -> AsyncIterator[Any]:
        await self._conn.begin(query)
        async for row in super().stream(query, params, **options):
            yield row

    @asynccontextmanager
    async def copy(self, statement: Any, params: Any = None, **options: Any) -> AsyncIterator[psycopg.AsyncCopy]:
        await self._conn.begin(statement, is_copy=True)
        async with super().copy(statement, params, **options) as copy:
            yield copy


class AsyncTenantServerCursor(psycopg.AsyncServerCursor[Any]):
    """The asynchronous TenantServerCursor."""

    __slots__ = ()
    _conn: AsyncTenantConnection

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        _refuse_hold(self.withhold)
        await self._conn.begin(query)
        return await super().execute(query, params, **options)

    async def __anext__(self) -> Any:
        self._conn.state.check_scope()
        return await super().__anext__()

    async def fetchone(self) -> Any:
        self._conn.state.check_scope()
        return await super().fetchone()

    async def fetchmany(self, size: int = 0) -> list[Any]:
        self._conn.state.check_scope()
        return await super().fetchmany(size)

    async def fetchall(self) -> list[Any]:
        self._conn.state.check_scope()
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

    async def _send(self, opening: Sequence[Message]) -> None:
        if opening:
            async with self.flight() as flight:
                send_ahead(flight, opening)

    def flight(self) -> AbstractAsyncContextManager[psycopg.AsyncPipeline]:
        """Return what sends everything within it at once; the user's own pipeline when one is open."""
        return AsyncFlight(self) if self._pipeline is None else self.pipeline()

    @asynccontextmanager
    async def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> AsyncIterator[psycopg.AsyncTransaction]:
        """psycopg's block. The outermost binds as it opens, or rolling back a block within would undo the binding."""
        is_outermost, write = not self.state.has_begun, None
        try:
            with ExitStack() as noting:
                async with super().transaction(savepoint_name, force_rollback) as block:
                    await self._send(self.state.open())
                    yield block
                    write = self.state.write_to_note() if is_outermost else None
                    if write is not None:
                        noting.enter_context(write)
                if write is not None:
                    asking = await psycopg.AsyncCursor(self).execute(POSITION_SQL)
                    write.ended_at((await asking.fetchall())[0][0])
        finally:
            if is_outermost:
                self.state.ended()
                self.state.leave()

    async def execute_last(self, query: str, params: Sequence[Any]) -> None:
        """Run a statement as the transaction's last, as TenantConnection does."""
        if not self.state.put_last(query, params):
            await self.cursor().execute(query, params)  # pyright: ignore[reportArgumentType]  # its types want literals

    async def commit(self) -> None:
        write, last = self.state.write_to_note(), self.state.last
        self.state.ended()
        try:
            if self.pgconn.transaction_status == TransactionStatus.INERROR:
                await super().rollback()
            elif write is None and not last:
                await super().commit()
            else:
                await self._commit_in_one_flight(last, write)
        except BaseException:
            if self.pgconn.transaction_status in _OPEN:
                await super().rollback()  # the last statement failed, and SQLAlchemy takes a COMMIT for the end
            raise
        finally:
            self.state.leave()

    async def _commit_in_one_flight(self, last: Sequence[Statement], write: Write | None) -> None:
        asking = psycopg.AsyncCursor(self)
        with write or nullcontext():
            async with self.flight() as flight:
                for query, params in last:
                    await psycopg.AsyncCursor(self).execute(query, params)  # pyright: ignore[reportArgumentType]  # its types want literals
                send_ahead(flight, (COMMIT,))
                if write is not None:
                    await asking.execute(POSITION_SQL)
            if write is not None:
                write.ended_at((await asking.fetchall())[0][0])

    async def rollback(self) -> None:
        if self.state.is_over():
            return
        try:
            if self.state.ended():
                await super().commit()
            else:
                await super().rollback()
        finally:
            self.state.leave()

    async def close(self) -> None:
        try:
            await super().close()
        finally:
            self.state.leave()


def _refuse_hold(withhold: bool) -> None:
    if withhold:
        raise StatementRefusedError(
            "a WITH HOLD cursor outlives the transaction that carries its tenant",
            hint="read it inside the transaction, with an ordinary server-side cursor",
        )
