"""The part of a guarded engine that SQLAlchemy asks directly, where events would cost every statement some time.

One listener for `begin` makes SQLAlchemy dispatch six events for a transaction of one statement.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache
from operator import itemgetter
from typing import Any, cast
from uuid import UUID, uuid4

import psycopg
from sqlalchemy import Engine
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import PoolProxiedConnection

from tenancy.context import PlatformAccess, current_scope
from tenancy.driver import AsyncTenantConnection, TenantConnection
from tenancy.errors import ConfigurationError, PlatformAccessError
from tenancy.transactions import TransactionState, state_of

# A platform session lives an hour on the server; a new one is opened well before.
_SESSION_LIFE_S = 50 * 60.0
_OPEN_SESSION = "INSERT INTO tenancy.platform_session (id, actor, reason) VALUES (%s, %s, %s)"


class TenantDialect(DefaultDialect):
    """Makes the driver's connections, and notes the scope of each transaction as SQLAlchemy begins it."""

    # Rows to insert travel as the values of one statement and not, by executemany, as a statement each: the server
    # would set up every policy's check for every row. Asked by preserve_rowcount, SQLAlchemy then counts the rows that
    # were sent: those that ON CONFLICT DO NOTHING skipped are told by RETURNING.
    use_insertmanyvalues_wo_returning = True

    def connect(self, *args: Any, **options: Any) -> DBAPIConnection:
        if "cursor_factory" in options:  # psycopg would use it instead of the cursor that binds
            raise unsafe_option("cursor_factory", options["cursor_factory"])
        options["autocommit"] = True
        if self.is_async:
            return super().connect(*args, **options, async_creator_fn=AsyncTenantConnection.connect)
        return cast("DBAPIConnection", TenantConnection.connect(*args, **options))

    def do_begin(self, dbapi_connection: PoolProxiedConnection) -> None:
        state = state_of(dbapi_connection.driver_connection)
        if state.is_platform:
            state.note(session_id=_open_platform_session(self, dbapi_connection, state, _platform_access()))
            return
        scope = current_scope()
        if scope is not None and scope.platform is not None and scope.tenant is None:
            raise PlatformAccessError(
                "a platform scope reads across tenants, and this engine's role may not",
                hint="use platform_sessionmaker(platform_engine), whose URL names the platform role",
            )
        state.note()

    def do_begin_twophase(self, connection: object, xid: object) -> None:
        raise ConfigurationError(
            "a prepared transaction outlives the connection that carries its tenant", hint="leave twophase off"
        )

    def set_engine_execution_options(self, engine: Engine, opts: Mapping[str, Any]) -> None:
        refuse_autocommit(opts)
        super().set_engine_execution_options(engine, opts)


def guard_dialect(engine: Engine) -> None:
    """Make the engine's dialect a TenantDialect, in place: engines made from this one share it."""
    engine.dialect.__class__ = _guarded(type(engine.dialect))  # type: ignore[arg-type]  # a class has a hash


@cache
def _guarded(existing: type) -> type:
    # SQLAlchemy looks for this attribute in the class itself, and without it compiles every statement anew.
    own = {"supports_statement_cache": existing.supports_statement_cache}  # type: ignore[attr-defined]
    return type(existing.__name__, (TenantDialect, existing), own)


def refuse_autocommit(options: Mapping[str, Any]) -> None:
    """Refuse execution options by which statements would run outside a transaction."""
    if str(options.get("isolation_level")).upper() == "AUTOCOMMIT":
        raise unsafe_option("isolation_level", "AUTOCOMMIT")


def unsafe_option(name: str, value: object) -> ConfigurationError:
    return ConfigurationError(
        f"{name}={value!r} lets a statement run without its tenant, or with the last one's",
        hint=f"leave {name} at its default on a tenant engine",
    )


def _platform_access() -> PlatformAccess:
    scope = current_scope()
    if scope is None or scope.platform is None:
        raise PlatformAccessError(
            "the platform engine was used outside a platform scope",
            hint='open one: with platform_scope(actor="...", reason="..."): ...',
        )
    return scope.platform


def _open_platform_session(
    server: object, connection: PoolProxiedConnection, state: TransactionState, access: PlatformAccess
) -> UUID:
    """Commit the audit row first, in a transaction of its own, so that no rollback erases it.

    A standby cannot take one. There the scope acts under the row that it committed on another engine, its
    primary's: once that row has been replicated the policies know it, and until then they show nothing.
    """
    known = access.session_ids.get(server)
    if known is not None and time.monotonic() - known[1] < _SESSION_LIFE_S:
        return known[0]
    session_id = uuid4()
    state.note(internal=True)
    cursor = connection.cursor()
    try:
        cursor.execute(_OPEN_SESSION, (session_id, access.actor, access.reason))
        connection.commit()
        opened = (session_id, time.monotonic())
    except psycopg.errors.ReadOnlySqlTransaction as error:
        opened = max(access.session_ids.values(), key=itemgetter(1), default=(session_id, -_SESSION_LIFE_S))
        if time.monotonic() - opened[1] >= _SESSION_LIFE_S:
            raise PlatformAccessError(
                "the audit row of a platform scope cannot be written: the server is read-only",
                hint="in the same platform_scope, use an engine of its primary first; the row arrives by replication",
            ) from error
    finally:
        cursor.close()
        connection.rollback()
    access.session_ids[server] = opened
    return opened[0]
