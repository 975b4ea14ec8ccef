"""Read replicas: sessions of reading scopes use a standby that is known to have replayed what they must see."""

from __future__ import annotations

import asyncio
import itertools
import os
import select
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, cast
from weakref import WeakMethod

import psycopg
from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import ConnectionPoolEntry, Pool, PoolProxiedConnection

from tenancy.context import Scope, current_scope, require_tenant
from tenancy.errors import UnsafeConnectionError
from tenancy.positions import Positions
from tenancy.standbys import IDENTITY_SQL, LOOK_SQL, Look, Replica, ReplicaRules, Watch, row_of
from tenancy.transactions import state_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["Replica", "ReplicaRules", "add_replicas", "position_of", "reading_engine", "replicas_of"]

_OPTION = "tenancy_replicas"  # the execution option of the primary's engine that holds its Replicas
_STARTED_AT = "tenancy_started_at"  # in a connection's info: when its server was started


class Replicas:
    """The replicas of one primary, and the threads that look at them: a request never waits for a server to answer."""

    def __init__(
        self, primary: Engine, engines: Sequence[Engine], rules: ReplicaRules, connect_args: Mapping[str, Any]
    ) -> None:
        self.positions = Positions()
        self.all = [Replica(engine, rules, connect_args) for engine in engines]
        self._rules = rules
        self._is_async = primary.dialect.is_async
        self._identity = ""
        self._turn = itertools.count()
        self._reader: tuple[Engine, Mapping[str, Any], ReadingEngine] | None = None
        self._forget()
        event.listen(primary, "connect", self._meet_primary)
        event.listen(primary, "handle_error", self._on_error)
        for replica in self.all:
            event.listen(replica.engine, "connect", self._greeter(replica))

    def _forget(self) -> None:
        self._pid: int | None = None  # of the process whose threads look
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._asked = [threading.Event() for _ in self.all]
        self._waiting: list[tuple[int, Future[Replica]]] = []

    def reader_of(self, engine: Engine) -> ReadingEngine:
        """Return the reading form of the primary's engine, or of one that was made from it."""
        options = engine.get_execution_options()
        made = self._reader
        if made is not None and made[0] is engine and made[1] is options:
            return made[2]
        reader = ReadingEngine(engine, {})
        reader.replicas = self
        self._reader = (engine, options, reader)
        return reader

    def take(self, scope: Scope | None) -> PoolProxiedConnection | None:
        """Return a connection to a replica on which the scope sees all it must; None for the primary."""
        if scope is None or not scope.reads_only or scope.tenant is None or scope.platform is not None:
            return None
        if not self._identity:
            return None  # the first connection of a process is the primary's: it tells who is its replica
        if self._pid != os.getpid():
            self._start()
        needed = max(self.positions.needed(scope), scope.after)
        replica = self._choose(needed) or self._wait(needed)
        for _ in self.all:
            if replica is None:
                break
            connection = self._connect(replica)
            if connection is not None:
                if replica.replayed >= needed:  # still, if the connection is to a server that was restarted
                    return connection
                connection.close()
            replica = self._choose(needed)
        return None

    def _connect(self, replica: Replica) -> PoolProxiedConnection | None:
        """Return a connection; None when there is none to be had, and nothing was sent yet."""
        try:
            connection = replica.engine.raw_connection()
            while _is_stale(connection, replica):  # a new one is not
                connection.invalidate()
                connection = replica.engine.raw_connection()
            return connection
        except (psycopg.OperationalError, OperationalError, UnsafeConnectionError) as error:
            was_cut = isinstance(error.__cause__, psycopg.OperationalError)
            if isinstance(error, UnsafeConnectionError) and replica.is_healthy and not was_cut:
                raise  # a role that sees past the policies: nobody should get used to that
            replica.set_aside(str(error), for_s=self._rules.look_every_s)
            return None

    def _choose(self, needed: int) -> Replica | None:
        first = next(self._turn) % len(self.all)
        in_turn = self.all[first:] + self.all[:first]
        return next((replica for replica in in_turn if replica.replayed >= needed and replica.is_healthy), None)

    def _wait(self, needed: int) -> Replica | None:
        """Wait for a replica to get there. One that has not moved since the last time is not waited for again."""
        hopeful = [each for each in self.all if each.is_healthy and each.replayed != each.waited_in_vain_at]
        if not hopeful or not self._rules.wait_s:
            return None
        waiter: Future[Replica] = Future()
        entry = (needed, waiter)
        with self._lock:
            self._waiting.append(entry)
        try:
            for asked in self._asked:
                asked.set()
            self._pause(waiter)
        finally:
            with self._lock, suppress(ValueError):  # the engine was disposed of meanwhile
                self._waiting.remove(entry)
        if waiter.done():
            return waiter.result()
        for replica in hopeful:
            replica.waited_in_vain_at = replica.replayed
        return None

    def _pause(self, waiter: Future[Replica]) -> None:
        if not self._is_async:
            with suppress(TimeoutError):
                waiter.result(timeout=self._rules.wait_s)
            return
        from sqlalchemy.util import await_only  # not at the top: it needs greenlet

        await_only(asyncio.wait([asyncio.wrap_future(waiter)], timeout=self._rules.wait_s))

    # Looking ------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Start the threads: at the first read, and again in a forked child or after Engine.dispose."""
        if self._pid not in (None, os.getpid()):
            self._forget()  # the parent's threads are not here, and its locks may be held
        with self._lock:
            if self._pid is not None:
                return
            self._pid = os.getpid()
            look = cast("WeakMethod[Look]", WeakMethod(self._look))
            for replica, asked in zip(self.all, self._asked, strict=True):
                Watch(replica, look, asked=asked, stopping=self._stopping)

    def _look(self, replica: Replica, connection: psycopg.Connection[Any]) -> bool:
        """Look at a replica; tell whether somebody waits for it to move on."""
        asked_at = monotonic()
        cursor = connection.execute(LOOK_SQL)
        if replica.see(row_of(cursor.description, cursor.fetchone()), self._identity, asked_at=asked_at):
            self._tell(replica)
        return bool(self._waiting) and replica.is_healthy

    def _tell(self, replica: Replica) -> None:
        with self._lock:
            for needed, waiter in self._waiting:
                if needed <= replica.replayed and not waiter.done():
                    with suppress(InvalidStateError):  # cancelled in this moment
                        waiter.set_result(replica)

    def dispose(self) -> None:
        """Do to the replicas' pools what is done to the primary's; the next read starts anew."""
        self._stopping.set()
        for asked in self._asked:
            asked.set()
        is_ours = self._pid in (None, os.getpid())
        self._forget()
        for replica in self.all:
            replica.engine.dispose(close=is_ours)

    # New connections ----------------------------------------------------------------------------------

    def _meet_primary(self, connection: Any, entry: ConnectionPoolEntry) -> None:
        state_of(entry.driver_connection).positions = self.positions
        with _closing_on_error(connection):
            self._identity = _ask(connection, entry, IDENTITY_SQL)["identity"]

    def _greeter(self, replica: Replica) -> Callable[[Any, ConnectionPoolEntry], None]:
        def greet(connection: Any, entry: ConnectionPoolEntry) -> None:
            state_of(entry.driver_connection).replica = replica
            asked_at = monotonic()
            with _closing_on_error(connection):
                found = _ask(connection, entry, LOOK_SQL)
                if not replica.see(found, self._identity, asked_at=asked_at):
                    raise UnsafeConnectionError(
                        f"the server is no standby to be read from now: {found}",
                        hint="the log of tenancy.replicas says why it was set aside",
                    )
            entry.info[_STARTED_AT] = found["started_at"]

        return greet

    def _on_error(self, context: ExceptionContext) -> None:
        """Set a replica aside whose connection broke; the primary's connections are none the worse for it."""
        connection = context.connection
        if not context.is_disconnect or connection is None or connection.closed or connection.invalidated:
            return
        replica = state_of(connection.connection.driver_connection).replica
        if isinstance(replica, Replica):
            context.invalidate_pool_on_disconnect = False
            replica.set_aside(str(context.original_exception))


class ReadingEngine(OptionEngine):
    """The primary's engine in every respect, but its connections are a replica's whenever one may be read."""

    replicas: Replicas

    def raw_connection(self) -> PoolProxiedConnection:
        return self.replicas.take(current_scope()) or super().raw_connection()


class FollowedPool(Pool):
    """The pool of a primary. Engine.dispose makes it anew, in a forked child too, and the replicas' with it."""

    replicas: ClassVar[Replicas]

    def recreate(self) -> Pool:
        self.replicas.dispose()
        return super().recreate()


def add_replicas(
    primary: Engine, engines: Sequence[Engine], rules: ReplicaRules, *, connect_args: Mapping[str, Any]
) -> None:
    """Let sessions of reading scopes on the primary's engine read from these, guarded as it is.

    connect_args: what the engines pass to their driver beside their URLs.
    """
    replicas = Replicas(primary, engines, rules, connect_args)
    primary.update_execution_options(**{_OPTION: replicas})
    # In place, as in tenancy.pools: one listener for `engine_disposed` would make every statement dispatch events.
    existing = type(primary.pool)
    primary.pool.__class__ = type(existing.__name__, (FollowedPool, existing), {"replicas": replicas})


def reading_engine(bind: Engine) -> Engine:
    """Return what a session of a reading scope is bound to instead: the same where there are no replicas."""
    replicas: Replicas | None = bind.get_execution_options().get(_OPTION)
    return bind if replicas is None else replicas.reader_of(bind)


def replicas_of(engine: Engine | AsyncEngine) -> Sequence[Replica]:
    """Return an engine's replicas, for a gauge or a test; empty when it was given none."""
    replicas = engine.get_execution_options().get(_OPTION)
    return () if replicas is None else tuple(replicas.all)


def position_of(engine: Engine | AsyncEngine) -> int:
    """Return how far a replica must be to show the current scope what this process has written through the engine.

    For `tenant_scope(..., after=...)` in another process. 0 when nothing was written lately, and without replicas.
    Raises: NoTenantError - there is no scope.
    """
    replicas = engine.get_execution_options().get(_OPTION)
    scope = current_scope()
    if scope is None or scope.account is None:
        require_tenant()
    found: int = 0 if replicas is None or scope is None else max(replicas.positions.needed(scope), scope.after)
    return found


def _is_stale(connection: PoolProxiedConnection, replica: Replica) -> bool:
    """Tell whether a pooled connection is to a server that has ended since, as far as this side can know."""
    if connection.info.get(_STARTED_AT) != replica.started_at:
        return True
    driver_connection = cast("psycopg.Connection[Any]", connection.driver_connection)
    ready = select.poll()
    ready.register(driver_connection.pgconn.socket, select.POLLIN)
    return bool(ready.poll(0))  # an idle server that speaks says farewell


@contextmanager
def _closing_on_error(connection: Any) -> Iterator[None]:
    """Close a new connection that is refused: a pool forgets it, and would leave it open."""
    try:
        yield
    except BaseException:
        connection.close()
        raise


def _ask(connection: Any, entry: ConnectionPoolEntry, statement: str) -> dict[str, Any]:
    """Ask a question on a new connection, outside any scope."""
    state_of(entry.driver_connection).note(internal=True)
    cursor = connection.cursor()
    try:
        cursor.execute(statement)
        return row_of(cursor.description, cursor.fetchone())
    finally:
        cursor.close()
        connection.rollback()
