"""One transaction on one driver connection: which scope it is for, what opens it, and what it may run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any
from uuid import UUID

import psycopg
from psycopg import IsolationLevel, sql
from psycopg.pq import TransactionStatus

from tenancy.budgets import Budgets, Slot
from tenancy.context import Scope, current_scope
from tenancy.errors import ConfigurationError, NoTenantError, StatementRefusedError, WrongTenantError
from tenancy.flights import Message
from tenancy.positions import Positions, Write
from tenancy.signing import Tokens
from tenancy.statements import admit, admit_copy

Statement = tuple[str, Sequence[Any]]  # with its parameters

_PING = ";"  # SQLAlchemy's pre-ping on PostgreSQL: it must not begin a transaction
# A WITH HOLD cursor that got past the guard; to close it at check-in costs a flight.
_CLOSE_ALL: Message = (b"CLOSE ALL", None)
_READ_ONLY: Message = (b"SET TRANSACTION READ ONLY", None)
_BIND = b"CALL tenancy.bind_scope($1, $2, $3, $4)"
_ISOLATION = {level: level.name.replace("_", " ") for level in IsolationLevel}


class TransactionState:
    """What a driver connection knows of its transaction: the scope noted for it, and whether it has begun.

    Kept on the driver connection, because SQLAlchemy's own `Connection.info` survives a check-in.
    """

    def __init__(self, connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
        self.connection = connection
        self.pid = os.getpid()
        self.is_platform = False
        self.tokens: Tokens | None = None  # of a database that verifies scopes
        self.budgets: Budgets | None = None  # of an engine that has any
        self.positions: Positions | None = None  # of an engine that has replicas
        self.replica: object | None = None  # the one that the connection is to
        self._slot: Slot | None = None
        self._forget()

    def _forget(self) -> None:
        self.scope: Scope | None = None
        self.session_id: UUID | None = None
        self.is_noted = self.has_begun = self.has_written = self.is_internal = False
        self.last: list[Statement] = []  # to leave with the COMMIT

    @property
    def _status(self) -> int:  # a TransactionStatus; to make one of it takes longer than all that is asked of it
        return self.connection.pgconn.transaction_status

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

    def admit(self, query: Any, *, is_copy: bool = False) -> Sequence[Message]:
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

    def open(self) -> Sequence[Message]:
        """Return what begins the transaction for its scope; nothing when it has begun.

        Raises: WrongTenantError, NoTenantError - the transaction belongs to another scope than the current.
        """
        if self.has_begun or self.is_noted:
            self.check_scope()
        else:
            self.scope = current_scope()
        if self.has_begun:
            return ()
        if self.budgets is not None:
            self._take_slot(self.budgets)
        self.has_begun = True
        return self._opening()

    def put_last(self, query: str, params: Sequence[Any]) -> bool:
        """Keep a statement for the flight of the COMMIT; False when nothing has begun that a COMMIT would end.

        Raises: as `admit`.
        """
        if not self.has_begun:
            return False
        self.admit(query)
        self.last.append((query, params))
        return True

    def hold(self, slot: Slot | None) -> None:
        """Keep a slot, taken before this connection was, for the transaction to come; in place of any other."""
        held, self._slot = self._slot, slot
        if held is not None and self.budgets is not None:
            self.budgets.leave(held)

    def leave(self) -> None:
        """Give the transaction's slot back: it has ended on the server, or its connection has."""
        if self._slot is not None:
            self.hold(None)

    def _take_slot(self, budgets: Budgets) -> None:
        """Take a slot for a transaction on a connection that was taken from the pool for another one, or none."""
        tenant = self.scope.tenant if self.scope is not None and not self.is_internal else None
        if self._slot is not None and self._slot.tenant == tenant:
            return
        self.hold(None)
        if tenant is not None:
            # Here an asynchronous program would stand still for as long as it waits.
            can_wait = isinstance(self.connection, psycopg.Connection)
            self.hold(budgets.enter(tenant) if can_wait else budgets.enter_at_once(tenant))

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

    def write_to_note(self) -> Write | None:
        """Return what is told where the transaction's commit ends; None when nobody needs to know."""
        if self.positions is None or not self.has_written or self.is_internal:
            return None
        if self._status != TransactionStatus.INTRANS or (self.scope is not None and self.scope.reads_only):
            return None
        return Write(self.positions, self.scope)

    def is_over(self) -> bool:
        """Tell that there is nothing to end: the last transaction is forgotten here, and over on the server."""
        if self.has_begun or self.is_noted or self._slot is not None or self.connection._pipeline is not None:
            return False
        return self.connection.pgconn.transaction_status == TransactionStatus.IDLE

    def ended(self) -> bool:
        """Forget the transaction; tell whether it could as well be committed as rolled back.

        psycopg drops every prepared statement on ROLLBACK, so a transaction that only read is committed.
        """
        is_clean = not self.has_written and self._status == TransactionStatus.INTRANS
        self._forget()
        return is_clean

    def _opening(self) -> Sequence[Message]:
        """BEGIN and the settings. All are sent each time, so that no session-wide value shows through."""
        scope = self.scope
        if self.is_internal:  # the check of a new connection must see what is set outside any transaction
            return (self._begin(only_reads=False),)
        tenant, account = (scope.tenant, scope.account) if scope else (None, None)
        scoped: tuple[Message, ...]
        if self.tokens is not None:
            scoped = (_CLOSE_ALL, _bind(tenant, account, self.session_id, self.tokens))
        else:
            scoped = _settings(tenant, account, self.session_id)
        if self._slot is not None:
            scoped += self._slot.budget.settings
        only_reads = scope is not None and (
            scope.reads_only or (scope.platform is not None and scope.platform.reads_only and scope.tenant is None)
        )
        if self._status != TransactionStatus.IDLE:  # inside psycopg's own transaction block
            return (_READ_ONLY, *scoped) if only_reads else scoped
        return (self._begin(only_reads=only_reads), *scoped)

    def _begin(self, *, only_reads: bool) -> Message:
        connection = self.connection
        return _begin(connection.isolation_level, only_reads or connection.read_only, connection.deferrable)

    def _text_of(self, query: Any) -> str:
        if isinstance(query, bytes):
            return query.decode(errors="replace")
        if isinstance(query, sql.Composable):
            return query.as_string(self.connection)
        raise StatementRefusedError(
            f"a query of type {type(query).__name__} cannot be judged", hint="pass text or psycopg.sql objects"
        )


def state_of(driver_connection: Any) -> TransactionState:
    """Return the state of a connection that the library made.

    Raises: ConfigurationError - it was made by something else.
    """
    state = getattr(driver_connection, "state", None)
    if not isinstance(state, TransactionState):
        raise ConfigurationError(
            "the engine's connections are not made by the library",
            hint="guard the engine before its first connection, and pass no creator of your own",
        )
    return state


@cache
def _begin(isolation_level: IsolationLevel | None, read_only: bool | None, deferrable: bool | None) -> Message:
    parts = ["BEGIN"]
    if isolation_level is not None:
        parts.append(f"ISOLATION LEVEL {_ISOLATION[isolation_level]}")
    if read_only is not None:
        parts.append("READ ONLY" if read_only else "READ WRITE")
    if deferrable is not None:
        parts.append("DEFERRABLE" if deferrable else "NOT DEFERRABLE")
    return " ".join(parts).encode(), None


@lru_cache(maxsize=1024)
def _settings(tenant: UUID | None, account: UUID | None, session_id: UUID | None) -> tuple[Message, ...]:
    return (
        _CLOSE_ALL,
        _set_local("app.tenant_id", tenant),
        _set_local("app.account_id", account),
        _set_local("app.platform_session", session_id),
    )


def _set_local(name: str, value: UUID | None) -> Message:
    # Only a UUID reaches this text: SET takes no parameters, and Citus needs SET rather than set_config.
    return f"SET LOCAL {name} = '{value if isinstance(value, UUID) else ''}'".encode(), None


def _bind(tenant: UUID | None, account: UUID | None, session_id: UUID | None, tokens: Tokens) -> Message:
    # As parameters, which pg_stat_activity does not show: a token must not be read by another session.
    ids = [str(value).encode() if value is not None else b"" for value in (tenant, account, session_id)]
    return _BIND, [*ids, tokens.token(tenant, account)]
