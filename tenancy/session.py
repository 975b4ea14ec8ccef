"""Sessions: each belongs to one scope for life, and every ORM statement names its tenant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from sqlalchemy import Engine, Uuid, bindparam, event, inspect
from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.orm import (
    InstanceState,
    Mapper,
    ORMExecuteState,
    Session,
    scoped_session,
    sessionmaker,
    with_loader_criteria,
)

from tenancy.binding import guard_engine
from tenancy.context import Scope, current_scope, require_tenant
from tenancy.errors import ConfigurationError, NoTenantError, PlatformAccessError, WrongTenantError
from tenancy.replicas import reading_engine
from tenancy.tables import TENANT_KEY, TenantTable

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker


class _ScopedSession(Session):
    """A session that remembers the scope it was made in and refuses to act in another."""

    def __init__(self, *args: Any, **options: Any) -> None:
        if options.get("twophase"):
            raise ConfigurationError(
                "a prepared transaction outlives the connection that carries its tenant", hint="leave twophase off"
            )
        self._scope = self._scope_for_life()
        super().__init__(*args, **options)
        if self._scope.reads_only and isinstance(self.bind, Engine):
            self.bind = reading_engine(self.bind)

    def _scope_for_life(self) -> Scope:
        raise ConfigurationError("this session class has no scope", hint="use tenant_sessionmaker(engine)")

    def check_scope(self) -> None:
        """Refuse to act in another scope than the session's own, even where no SQL would be sent.

        Raises: WrongTenantError, NoTenantError
        """
        now = current_scope()
        if now is self._scope or self._scope.is_same(now):
            return
        if now is None:
            raise NoTenantError(
                f"the session belongs to {self._scope!r}, and that scope has ended",
                hint="use a session only inside the scope it was made in",
            )
        raise WrongTenantError(
            f"the session belongs to {self._scope!r}, but the current scope is {now!r}",
            hint="make a new session inside the scope; a session never changes tenant",
        )

    def close(self) -> None:
        """Close, also past a savepoint that could not be released.

        SQLAlchemy gives up at such a savepoint, and leaves the transaction around it open on a connection taken.
        """
        try:
            super().close()
        except PendingRollbackError:
            if not self.in_transaction():
                raise
            self.close()

    def get(self, entity: Any, ident: Any, **options: Any) -> Any:
        self.check_scope()
        return super().get(entity, self._identity(inspect(entity), ident), **options)

    def get_one(self, entity: Any, ident: Any, **options: Any) -> Any:
        self.check_scope()
        return super().get_one(entity, self._identity(inspect(entity), ident), **options)

    def _identity(self, mapper: Mapper[Any], ident: Any) -> Any:
        return ident


class TenantSession(_ScopedSession):
    """A session of one tenant, for life. `get(Person, id)` takes the bare id.

    Raises, when made: NoTenantError - there is no scope, or the platform's, which reads across tenants.
    In an account scope it reaches the account's own row, and no tenant table.
    """

    def _scope_for_life(self) -> Scope:
        scope = current_scope()
        if scope is None or scope.account is None:
            require_tenant()
        return cast("Scope", scope)

    @property
    def tenant_id(self) -> UUID | None:
        """The tenant the session belongs to; None in an account scope."""
        return self._scope.tenant

    def merge(self, instance: Any, **options: Any) -> Any:
        self.check_scope()
        _check_owner(self, instance)
        return super().merge(instance, **options)

    def _identity(self, mapper: Mapper[Any], ident: Any) -> Any:
        tenant, key = self._scope.tenant, mapper.primary_key
        place = _place_of_tenant(mapper)
        if tenant is None or place is None or len(key) == 1:
            return ident
        if isinstance(ident, dict):
            return {TENANT_KEY: tenant, **ident}
        values = list(ident) if isinstance(ident, tuple | list) else [ident]
        if len(values) == len(key) - 1:
            values.insert(place, tenant)
        return tuple(values)


class PlatformSession(_ScopedSession):
    """A read-only session across tenants. `get(Person, (tenant_id, id))` needs the whole key.

    Raises, when made: PlatformAccessError - no platform scope is open, or a tenant is in scope inside it.
    """

    def _scope_for_life(self) -> Scope:
        scope = current_scope()
        if scope is None or scope.platform is None:
            raise PlatformAccessError(
                "a platform session was made outside a platform scope",
                hint='open one: with platform_scope(actor="...", reason="..."): ...',
            )
        if scope.tenant is not None:
            raise PlatformAccessError(
                "a platform session reads across tenants, but one tenant is in scope",
                hint="leave tenant_scope out, or write in one tenant by tenant_sessionmaker(platform_engine)",
            )
        return scope


# The parameter asks for its value at each execution: no tenant is frozen in a cached statement, and one
# option object serves them all.
_BOUND_TENANT = bindparam("tenancy_tenant_id", callable_=require_tenant, type_=Uuid())
_OF_THE_TENANT = with_loader_criteria(
    TenantTable, lambda cls: cls.tenant_id == _BOUND_TENANT, include_aliases=True, track_closure_variables=False
)


@event.listens_for(_ScopedSession, "do_orm_execute", propagate=True)
def _name_the_tenant(state: ORMExecuteState) -> None:
    """Add the explicit predicate: it serves plans and shard routing, while the policy is the wall."""
    session: _ScopedSession = state.session  # type: ignore[assignment]  # the only kind that it listens to
    session.check_scope()
    if session._scope.tenant is None or state.is_column_load or state.is_relationship_load or state.is_insert:
        return
    state.statement = state.statement.options(_OF_THE_TENANT)


@event.listens_for(_ScopedSession, "after_begin", propagate=True)
def _check_begun(session: _ScopedSession, _transaction: object, _connection: object) -> None:
    """Stop what passes by the other events: bulk operations, and `connection()`."""
    session.check_scope()


@event.listens_for(TenantSession, "before_attach", propagate=True, raw=True)
def _check_attached(session: TenantSession, state: InstanceState[Any]) -> None:
    instance, tenant = state.obj(), session._scope.tenant
    if tenant is None or instance is None or instance.__dict__.get(TENANT_KEY) is not tenant:
        _check_owner(session, instance)  # seldom: a call less for every object


def _check_owner(session: TenantSession, instance: object) -> None:
    if not isinstance(instance, TenantTable):
        return
    stamped = instance.__dict__.get(TENANT_KEY) or _identity_tenant(instance)
    tenant = session._scope.tenant
    if stamped is not None and stamped is not tenant and stamped != tenant:
        raise WrongTenantError(
            f"{type(instance).__name__} belongs to tenant {stamped!r}, the session to {session._scope!r}",
            hint="load or make the object in a session of its own tenant",
        )


def _identity_tenant(instance: object) -> UUID | None:
    state = inspect(instance, raiseerr=True)
    if state.identity is None:
        return None
    found: UUID = state.identity[[column.name for column in state.mapper.primary_key].index(TENANT_KEY)]
    return found


def _place_of_tenant(mapper: Mapper[Any]) -> int | None:
    for place, column in enumerate(mapper.primary_key):
        if column.name == TENANT_KEY:
            return place
    return None


@event.listens_for(_ScopedSession, "before_flush", propagate=True)
def _check_pending(session: _ScopedSession, _context: object, _instances: Iterable[object] | None) -> None:
    session.check_scope()
    if isinstance(session, TenantSession):
        tenant = session._scope.tenant
        for instance in (*session.new, *session.deleted):
            if tenant is None or instance.__dict__.get(TENANT_KEY) is not tenant:
                _check_owner(session, instance)


def tenant_sessionmaker(engine: Engine, **options: Any) -> sessionmaker[TenantSession]:
    """Return a factory of sessions that belong to the tenant in scope when they are made.

    engine: from `create_tenant_engine`. On the platform engine, inside `platform_scope` and `tenant_scope`,
    the session reads and writes that one tenant as platform staff. options: those of `sessionmaker`.
    """
    return sessionmaker(engine, class_=TenantSession, **_checked(options))


def async_tenant_sessionmaker(engine: AsyncEngine, **options: Any) -> async_sessionmaker[AsyncSession]:
    """Return the asynchronous form of `tenant_sessionmaker`; the rules live in the same TenantSession."""
    from sqlalchemy.ext.asyncio import async_sessionmaker  # not at the top: it needs greenlet

    return async_sessionmaker(engine, sync_session_class=TenantSession, **_checked(options))


def platform_sessionmaker(engine: Engine, **options: Any) -> sessionmaker[PlatformSession]:
    """Return a factory of read-only sessions across tenants, for use inside `platform_scope`.

    engine: from `create_tenant_engine`, with a URL that names the platform role.
    """
    return sessionmaker(engine, class_=PlatformSession, **_checked(options))


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    for name in ("class_", "sync_session_class", "twophase"):
        if options.get(name):
            raise ConfigurationError(
                f"{name} cannot be set on a tenant session factory", hint=f"leave {name} out; subclass nothing"
            )
    return options


def guard_sessions(sessions: scoped_session[Any] | sessionmaker[Any], engine: Engine) -> None:
    """Make a session factory that someone else created, such as Flask-SQLAlchemy's, produce tenant sessions.

    engine: the one its sessions use; guarded too, so call this before its first connection.
    """
    factory = sessions.session_factory if isinstance(sessions, scoped_session) else sessions
    existing = factory.class_
    if not issubclass(existing, TenantSession):
        factory.class_ = type(existing.__name__, (TenantSession, existing), {})
    guard_engine(engine)
