"""The registrar: everything that the lives of tenants take, put together once by `create_app`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from flask import current_app
from sqlalchemy.orm import Session

from app.audit.actors import ActorKind, require_actor
from app.config import Settings
from app.db import Database
from app.errors import RowNotFoundError
from app.tenants.dns import SystemTexts, Texts
from app.tenants.models import Tenant
from tenancy.context import current_scope, platform_scope, tenant_scope
from tenancy.directory import Directory
from tenancy.session import PlatformSession, TenantSession

EXTENSION = "tenants"

# Called in the tenant's own transaction, as the platform, with what the step was given. Must bear being called again.
Filling = Callable[[Session, Mapping[str, Any]], None]
# Called outside of any transaction with the tenant's id, before its rows go. Must bear being called again.
Eraser = Callable[[UUID], None]
# Called in the transaction that changes a status, as the platform: the tenant's id, and the status it will have.
Listener = Callable[[Session, UUID, str], None]
# Called in the tenant's own transaction, as the platform, with a normalised e-mail address.
Inviting = Callable[[Session, str], None]


@dataclass(frozen=True)
class Hooks:
    """What other packages do at the turns of a tenant's life.

    defaults, seeds: fill a new tenant; settings first, then whatever it starts with. invite_owner: None while
    nobody can be invited. erasers: remove what is kept outside of the database, and destroy keys; the keys first.
    listeners: take part in changes of status, such as the queue, which puts back what it had parked.
    """

    defaults: tuple[Filling, ...] = ()
    seeds: tuple[Filling, ...] = ()
    invite_owner: Inviting | None = None
    erasers: tuple[Eraser, ...] = ()
    listeners: tuple[Listener, ...] = ()


@dataclass(frozen=True)
class Registrar:
    """What the operations on tenants work with.

    deletion_grace: between asking for a deletion and the erasure. base_domain: below it nobody claims a domain.
    domain_failures: checks of a verified domain that fail in a row before it is given up.
    """

    database: Database
    directory: Directory
    base_domain: str
    deletion_grace: timedelta
    domain_recheck: timedelta
    domain_failures: int
    texts: Texts
    hooks: Hooks

    def at_work(self, *, reason: str) -> AbstractContextManager[None]:
        """Act for the platform in the current actor's name: one entry in its log for all that is done inside.

        What is done inside for another reason, or by another actor, has an entry of its own.
        Raises: RuntimeError - nobody is named as acting.
        """
        actor, scope = _named(), current_scope()
        if scope is not None and scope.tenant is None and scope.account is None and scope.platform is not None:
            outer = scope.platform
            if (outer.actor, outer.reason, outer.reads_only) == (actor, reason, True):
                return nullcontext()
        return platform_scope(actor=actor, reason=reason)

    @contextmanager
    def in_tenant(self, tenant_id: UUID, *, reason: str, account_id: UUID | None = None) -> Iterator[TenantSession]:
        """Open a transaction of the platform in one tenant, in the current actor's name; commit it at the end.

        account_id: whose account can be written too, as when she registers.
        Raises: RuntimeError - nobody is named as acting.
        """
        with (
            self.at_work(reason=reason),
            tenant_scope(tenant_id, account=account_id),
            self.database.staff_sessions(expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextmanager
    def across_tenants(self, *, reason: str) -> Iterator[PlatformSession]:
        """Open a session that reads all tenants' rows, in the current actor's name."""
        with platform_scope(actor=_named(), reason=reason), self.database.platform_sessions() as session:
            yield session

    @contextmanager
    def on_staff_tables(self, *, reason: str) -> Iterator[PlatformSession]:
        """Open a transaction that writes staff's own tables, in the current actor's name; commit it at the end."""
        with (
            platform_scope(actor=_named(), reason=reason, reads_only=False),
            self.database.platform_sessions(expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session


def locked_tenant(session: Session, tenant_id: UUID) -> Tenant:
    """Return the tenant's row, locked until the transaction ends: of two changes at once, the second sees the first.

    Raises: RowNotFoundError - there is no such tenant.
    """
    tenant = session.get(Tenant, tenant_id, with_for_update=True, populate_existing=True)
    if tenant is None:
        raise RowNotFoundError
    return tenant


def _named() -> str:
    actor = require_actor()
    # What names the scope is kept for good: of a tenant's people it has the id, and no address.
    return f"{actor.kind}:{actor.id if actor.kind is ActorKind.ACCOUNT else actor.label}"


def open_registrar(
    settings: Settings, database: Database, directory: Directory, *, hooks: Hooks, texts: Texts | None = None
) -> Registrar:
    """Put the registrar together from the settings.

    texts: how TXT records are read; None asks the resolvers of this machine.
    """
    return Registrar(
        database=database,
        directory=directory,
        base_domain=settings.base_domain,
        deletion_grace=timedelta(days=settings.deletion_grace_days),
        domain_recheck=timedelta(hours=settings.domain_recheck_h),
        domain_failures=settings.domain_failures,
        texts=texts or SystemTexts(),
        hooks=hooks,
    )


def registrar() -> Registrar:
    """Return the registrar of the current application."""
    found = current_app.extensions[EXTENSION]
    if not isinstance(found, Registrar):
        raise TypeError(f"extension {EXTENSION!r} is {type(found).__name__}, not a Registrar")
    return found
