"""Binding: engines whose every transaction is begun for the scope it is used in."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection, reset_rollback

from tenancy.budgets import BudgetOf, Budgets
from tenancy.connections import CHECK_SQL, check_connection
from tenancy.context import current_scope
from tenancy.dialects import TenantDialect, guard_dialect, refuse_autocommit, unsafe_option
from tenancy.errors import ConfigurationError, ScopeError, UnsafeConnectionError
from tenancy.pools import budgets_of, ration
from tenancy.replicas import ReplicaRules, add_replicas
from tenancy.signing import SigningKey, Tokens
from tenancy.standbys import CONNECT_TIMEOUT_S
from tenancy.transactions import TransactionState, state_of

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

_ENDED = (psycopg.errors.AdminShutdown, psycopg.errors.CrashShutdown)  # by the server, which says so


def create_tenant_engine(
    url: Any,
    *,
    replicas: Sequence[Any] = (),
    replica_rules: ReplicaRules | None = None,
    signing_key: SigningKey | None = None,
    budget_of: BudgetOf | None = None,
    **options: Any,
) -> Engine:
    """Create an engine whose transactions carry the scope they are used in.

    url: `postgresql+psycopg://...` for the app or the platform role. options: those of `create_engine`.
    replicas: URLs of standbys, in the role of `url`; sessions of scopes that only read use one when it is fit to be.
    replica_rules: when it is; None for the defaults.
    signing_key: for a database whose policies demand signed scopes, and only for such a one.
    budget_of: the work budget of a tenant, None for none. Asked before each transaction, so it answers from memory.
    Every new connection's role, settings and server are checked once, when it is made.
    Raises: ConfigurationError - another driver, or an option that would let a statement run unbound.
    UnsafeConnectionError - later, at the first connection, if its role could see past the policies.
    """
    _refuse(url, options)
    engine = guard_engine(create_engine(url, **options), signing_key=signing_key, budget_of=budget_of)
    if replicas:
        _add_replicas(engine, create_engine, replicas, replica_rules, signing_key=signing_key, options=options)
    return engine


def create_async_tenant_engine(
    url: Any,
    *,
    replicas: Sequence[Any] = (),
    replica_rules: ReplicaRules | None = None,
    signing_key: SigningKey | None = None,
    budget_of: BudgetOf | None = None,
    **options: Any,
) -> AsyncEngine:
    """Create the asynchronous form of `create_tenant_engine`, with the same refusals. Needs the extra `asyncio`."""
    from sqlalchemy.ext.asyncio import create_async_engine  # not at the top: it needs greenlet

    _refuse(url, options)
    engine = create_async_engine(url, **options)
    guard_engine(engine.sync_engine, signing_key=signing_key, budget_of=budget_of)
    if replicas:
        _add_replicas(
            engine.sync_engine,
            lambda url, **options: create_async_engine(url, **options).sync_engine,
            replicas,
            replica_rules,
            signing_key=signing_key,
            options=options,
        )
    return engine


def _add_replicas(
    primary: Engine,
    create: Callable[..., Engine],
    urls: Sequence[Any],
    rules: ReplicaRules | None,
    *,
    signing_key: SigningKey | None,
    options: Mapping[str, Any],
) -> None:
    connect_args = {"connect_timeout": CONNECT_TIMEOUT_S, **options.get("connect_args", {})}
    budgets = budgets_of(primary)
    engines = []
    for url in map(make_url, urls):
        _refuse(url, dict(options))
        timeout = {name: value for name, value in connect_args.items() if name not in url.query}
        engines.append(guard_engine(create(url, **{**options, "connect_args": timeout}), signing_key=signing_key))
        if budgets is not None:
            _give_a_share(engines[-1], budgets)
    add_replicas(primary, engines, rules or ReplicaRules(), connect_args=connect_args)


def guard_engine(engine: Engine, *, signing_key: SigningKey | None = None, budget_of: BudgetOf | None = None) -> Engine:
    """Make an engine that someone else created carry the scope; before its first connection. Repeatable.

    signing_key, budget_of: as for `create_tenant_engine`; they belong to the first call.
    Raises: ConfigurationError - it uses another driver, AUTOCOMMIT or a pool that does not roll back; or later, at
    a transaction, if a connection made earlier turns up.
    """
    if getattr(engine.dialect, "driver", "") != "psycopg":
        raise _wrong_driver(f"{engine.dialect.name}+{engine.dialect.driver}")
    if getattr(engine.dialect, "skip_autocommit_rollback", False):
        raise unsafe_option("skip_autocommit_rollback", True)
    if getattr(engine.pool, "_reset_on_return", reset_rollback) is not reset_rollback:
        raise unsafe_option("pool_reset_on_return", "not rollback")
    refuse_autocommit(engine.get_execution_options())
    if isinstance(engine.dialect, TenantDialect):
        for name, given in (("signing_key", signing_key), ("budget_of", budget_of)):
            if given is not None:
                raise ConfigurationError(
                    f"the engine is guarded already, and its connections may be open without the {name}",
                    hint=f"pass {name} where the engine is guarded first",
                )
        return engine
    guard_dialect(engine)
    event.listen(engine, "connect", _check, insert=True)  # before SQLAlchemy's own first statements
    if signing_key is not None:
        event.listen(engine, "connect", partial(_give_tokens, Tokens(signing_key)), insert=True)  # before the check
    if budget_of is not None:
        _give_a_share(engine, Budgets(budget_of))
    event.listen(engine, "checkout", _refuse_inherited)
    event.listen(engine, "handle_error", _say_who_only_reads)
    return engine


def _refuse(url: Any, options: dict[str, Any]) -> None:
    parsed = make_url(url)
    if parsed.drivername not in ("postgresql+psycopg", "postgresql+psycopg_async"):
        raise _wrong_driver(parsed.drivername)
    levels = (options.get("isolation_level"), options.get("execution_options", {}).get("isolation_level"))
    if any(str(level).upper() == "AUTOCOMMIT" for level in levels):
        raise unsafe_option("isolation_level", "AUTOCOMMIT")
    if options.get("skip_autocommit_rollback"):
        raise unsafe_option("skip_autocommit_rollback", True)
    if options.get("pool_reset_on_return", "rollback") not in ("rollback", True):
        raise unsafe_option("pool_reset_on_return", options["pool_reset_on_return"])
    for name in ("creator", "async_creator", "pool"):
        if name in options:
            raise unsafe_option(name, options[name])


def _wrong_driver(found: str) -> ConfigurationError:
    return ConfigurationError(
        f"a tenant engine needs the psycopg driver, not {found!r}", hint="write the URL as postgresql+psycopg://..."
    )


def _check(connection: Any, entry: ConnectionPoolEntry) -> None:
    state = state_of(entry.driver_connection)
    try:
        found = _look_at(connection, state)
        check_connection(found)
        _check_signing(found, state)
    except BaseException as error:
        was_cut = state.connection.broken
        connection.close()  # a pool forgets a connection whose listener failed, and would leave it open
        # What is cut without a word may have a pooler behind it.
        if not was_cut or not isinstance(error, psycopg.OperationalError) or isinstance(error, _ENDED):
            raise
        raise UnsafeConnectionError(
            "the connection was cut as soon as a transaction began on it, as a pooler in statement mode does",
            hint="such a pooler cannot carry a tenant: set pool_mode = transaction; without one, the server ended it",
        ) from error
    state.is_platform = found["is_platform"]


def _give_tokens(tokens: Tokens, _connection: object, entry: ConnectionPoolEntry) -> None:
    state_of(entry.driver_connection).tokens = tokens


def _give_budgets(budgets: Budgets, _connection: object, entry: ConnectionPoolEntry) -> None:
    state_of(entry.driver_connection).budgets = budgets


def _give_a_share(engine: Engine, budgets: Budgets) -> None:
    event.listen(engine, "connect", partial(_give_budgets, budgets))
    ration(engine, budgets)


def _check_signing(found: Mapping[str, Any], state: TransactionState) -> None:
    if found["is_signed"] and state.tokens is None:
        raise ConfigurationError(
            "the database demands a signature of every scope, and this engine has no key",
            hint="pass signing_key=SigningKey.parse(...) with what `tenancy keys add` printed",
        )
    if state.tokens is not None and not found["is_signed"]:
        raise ConfigurationError(
            "the engine signs its scopes, and the database verifies no signature",
            hint="migrate it with tenancy.alembic.install(signed=True), or leave signing_key out",
        )


def _look_at(connection: Any, state: TransactionState) -> dict[str, Any]:
    state.note(internal=True)
    cursor = connection.cursor()
    cursor.execute(CHECK_SQL)
    names = [column[0] for column in cursor.description]
    row = cursor.fetchone()
    cursor.close()
    connection.rollback()
    return dict(zip(names, row, strict=True))


def _refuse_inherited(_connection: object, entry: ConnectionPoolEntry, proxy: PoolProxiedConnection) -> None:
    """Replace a connection opened before a fork: parent and child would read each other's answers from it."""
    if state_of(entry.driver_connection).pid != os.getpid():
        entry.dbapi_connection = proxy.dbapi_connection = None  # type: ignore[misc]  # SQLAlchemy's recipe
        raise DisconnectionError("the connection belongs to the parent process")


def _say_who_only_reads(context: ExceptionContext) -> ScopeError | None:
    scope = current_scope()
    if scope is None or not scope.reads_only:
        return None
    if not isinstance(context.original_exception, psycopg.errors.ReadOnlySqlTransaction):
        return None
    return ScopeError(
        f"the statement writes or locks, and the scope is {scope!r}",
        hint="open tenant_scope(tenant, reads_only=False) around what writes, with a session of its own",
    )
