"""The scope: whom the running code acts for. One context variable, opened only by `with`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Protocol, runtime_checkable
from uuid import UUID

from tenancy.errors import NoTenantError, PlatformAccessError, ScopeError


@runtime_checkable
class HasId(Protocol):
    """Anything with a UUID `id`: a tenant row, a directory record, an account."""

    @property
    def id(self) -> UUID: ...


class PlatformAccess:
    """Who reads across tenants, why, and the ids of the audit rows already committed for it."""

    __slots__ = ("actor", "reads_only", "reason", "session_ids")

    def __init__(self, actor: str, reason: str, *, reads_only: bool) -> None:
        self.actor = actor
        self.reason = reason
        self.reads_only = reads_only
        self.session_ids: dict[object, tuple[UUID, float]] = {}  # by engine: the id, and time.monotonic() of its making


class Scope:
    """One opened scope. Values never change; `is_open` turns False when its block ends.

    A task or thread that copied the context and outlives the block still holds this object, and so
    finds it closed rather than finding a tenant.
    """

    __slots__ = ("account", "after", "is_open", "platform", "reads_only", "tenant")

    def __init__(
        self,
        *,
        tenant: UUID | None,
        account: UUID | None,
        platform: PlatformAccess | None,
        reads_only: bool = False,
        after: int = 0,
    ) -> None:
        self.tenant = tenant
        self.account = account
        self.platform = platform
        self.reads_only = reads_only
        self.after = after
        self.is_open = True

    def is_same(self, other: Scope | None) -> bool:
        """Tell whether both act for the same tenant, account and platform access, and may do the same."""
        return self is other or (
            other is not None
            and self.tenant == other.tenant
            and self.account == other.account
            and self.platform is other.platform
            and self.reads_only == other.reads_only
        )

    def __repr__(self) -> str:
        parts = [f"tenant {self.tenant!r}"] if self.tenant else []
        parts += [f"account {self.account!r}"] if self.account else []
        parts += [f"the platform ({self.platform.actor})"] if self.platform else []
        parts += ["reading only"] if self.reads_only else []
        return ", ".join(parts)


# Positions in PostgreSQL's write-ahead log have 64 bits.
LAST_POSITION = 2**64 - 1

_current: ContextVar[Scope | None] = ContextVar("tenancy_scope", default=None)


def current_scope() -> Scope | None:
    """Return the open scope of this context; None when none was opened or it has ended."""
    scope = _current.get()
    return scope if scope is not None and scope.is_open else None


def current_tenant() -> UUID | None:
    """Return the id of the tenant in scope; None in an account or platform scope, or in none."""
    scope = current_scope()
    return None if scope is None else scope.tenant


def current_account() -> UUID | None:
    """Return the id of the account in scope; None when nobody is signed in."""
    scope = current_scope()
    return None if scope is None else scope.account


def require_tenant() -> UUID:
    """Return the id of the tenant in scope.

    Raises: NoTenantError - no tenant is in scope here; says which kind of scope is, if any.
    """
    scope = _current.get()
    if scope is None:
        found = "no tenant is in scope"
    elif not scope.is_open:
        found = "the tenant scope this code was started in has ended"
    elif scope.tenant is None:
        found = f"the current scope is {'the platform' if scope.platform else 'an account'}, not a tenant"
    else:
        return scope.tenant
    raise NoTenantError(found, hint="open one around this code: with tenant_scope(tenant): ...")


class _ScopeBlock:
    """The context manager behind the three scope functions; each may be entered once."""

    __slots__ = ("_scope", "_token")

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._token: Token[Scope | None] | None = None

    def __enter__(self) -> None:
        if self._token is not None or not self._scope.is_open:
            raise ScopeError("this scope was already entered", hint="call the scope function again for each `with`")
        self._token = _current.set(self._scope)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._scope.is_open = False
        is_innermost = _current.get() is self._scope
        try:
            if self._token is not None and is_innermost:
                _current.reset(self._token)
        except ValueError:
            # A generator finalised in another context: there is nothing to restore there.
            return
        if not is_innermost and kind is None:
            raise ScopeError(
                "a scope ended while another one, opened inside it, was still open",
                hint="close scopes innermost first; do not keep one open across a `yield`",
            )


def tenant_scope(
    tenant: UUID | HasId,
    account: UUID | HasId | None = None,
    *,
    reads_only: bool | None = None,
    after: int | None = None,
) -> AbstractContextManager[None]:
    """Act for one tenant inside the `with` block; the enclosing scope returns afterwards, also on error.

    tenant: its UUID or an object with a UUID `id`. Text is refused: parse it where it enters the program.
    account: who acts. None keeps the account of the enclosing scope, if there is one.
    reads_only: True begins every transaction READ ONLY, and lets sessions read from a replica. None keeps what the
    enclosing scope says; only an explicit False lets a block inside a reading scope write.
    after: a position from `tenancy.replicas.position_of`; a replica that is not as far is not read. None for what
    this process has written itself, which is always waited for.
    Inside `platform_scope` the block acts as platform staff in this one tenant and may write.
    Raises: TypeError - the tenant is neither a UUID nor has one as its `id`. ValueError - `after` is no position.
    """
    outer = current_scope()
    acting = _uuid_of(account, "account") if account is not None else (outer.account if outer else None)
    scope = Scope(tenant=_uuid_of(tenant, "tenant"), account=acting, platform=outer.platform if outer else None)
    if after is not None and not 0 <= after <= LAST_POSITION:
        raise ValueError(f"after must be a position in the write-ahead log, not {after!r}")
    if outer is not None:
        scope.reads_only, scope.after = outer.reads_only, outer.after
    if reads_only is not None:
        scope.reads_only = reads_only
    if after is not None:
        scope.after = max(scope.after, after)
    return _ScopeBlock(scope)


def account_scope(account: UUID | HasId) -> AbstractContextManager[None]:
    """Act for one account and no tenant: its own row and memberships can be read, no tenant table can."""
    return _ScopeBlock(Scope(tenant=None, account=_uuid_of(account, "account"), platform=None))


def platform_scope(*, actor: str, reason: str, reads_only: bool = True) -> AbstractContextManager[None]:
    """Act for the platform, across tenants and read-only; every use leaves an audit row that no rollback erases.

    actor: who does it, as the audit should name them. reason: why, in words. Neither may be blank.
    reads_only: False lets its sessions write staff tables. Tenants' rows stay out of their reach: to write
    in one tenant, open `tenant_scope` inside.
    The row is committed when the scope first uses a platform engine.
    Raises: PlatformAccessError - actor or reason is blank.
    """
    if not actor.strip() or not reason.strip():
        raise PlatformAccessError(
            "platform access without an actor or a reason", hint="name both: platform_scope(actor=..., reason=...)"
        )
    return _ScopeBlock(Scope(tenant=None, account=None, platform=PlatformAccess(actor, reason, reads_only=reads_only)))


@contextmanager
def outside_any_scope() -> Iterator[None]:
    """Run the block in no scope, and return to the caller's however the block leaves its own.

    For the edge of a program, such as a server thread that takes one request after another: a scope that
    code inside never closed must not reach the next one.
    """
    outer = _current.set(None)
    try:
        yield
    finally:
        _current.reset(outer)


def _uuid_of(value: object, kind: str) -> UUID:
    if isinstance(value, UUID):
        return value
    if isinstance(value, HasId) and isinstance(value.id, UUID):
        return value.id
    raise TypeError(f"{kind} must be a uuid.UUID or have one as its `id`, not {type(value).__name__}")
