"""Pools that let a tenant take no more connections at a time than its work budget allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar
from uuid import UUID

from sqlalchemy import AdaptedConnection, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry, Pool, PoolProxiedConnection, PoolResetState

from tenancy.context import current_scope
from tenancy.transactions import state_of

if TYPE_CHECKING:
    from tenancy.budgets import Budgets, Slot


class RationedPool(Pool):
    """A pool before which a tenant waits for a slot of its budget: who waits takes no connection from others."""

    budgets: ClassVar[Budgets]

    def connect(self) -> PoolProxiedConnection:
        scope = current_scope()
        if scope is None or scope.tenant is None:
            return super().connect()
        slot = self._wait(scope.tenant)
        try:
            connection = super().connect()
            state_of(connection.driver_connection).hold(slot)
        except BaseException:
            if slot is not None:
                self.budgets.leave(slot)
            raise
        return connection

    def _wait(self, tenant: UUID) -> Slot | None:
        if not self._dialect.is_async:
            return self.budgets.enter(tenant)
        from sqlalchemy.util import await_only  # not at the top: it needs greenlet

        return await_only(self.budgets.enter_async(tenant))


def ration(engine: Engine, budgets: Budgets) -> None:
    """Put the budgets before the engine's pool."""
    # In place, as SQLAlchemy has no event before a connection is taken; the class survives Engine.dispose.
    existing = type(engine.pool)
    engine.pool.__class__ = type(existing.__name__, (RationedPool, existing), {"budgets": budgets})
    event.listen(engine, "reset", _cut_forgotten)


def _cut_forgotten(connection: DBAPIConnection, _entry: ConnectionPoolEntry, reset: PoolResetState) -> None:
    """Cut an asynchronous connection that was collected while in use: SQLAlchemy drops it with its transaction open."""
    if isinstance(connection, AdaptedConnection) and not reset.asyncio_safe:
        connection.driver_connection.pgconn.finish()
        state_of(connection.driver_connection).leave()


def budgets_of(engine: Engine) -> Budgets | None:
    """Return the slots of an engine's budgets, for a gauge or a test; None when it was given none."""
    return engine.pool.budgets if isinstance(engine.pool, RationedPool) else None
