"""Whom admin code acts for: one tenant, all tenants for reading, or the staff's own tables. Each use is audited.

Outside of a request they need an application context and `acting_as(...)`, as the command line has.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState, Session

from app.audit.actors import Actor, require_actor
from app.audit.entries import REFUSAL
from app.auth.desk import desk
from app.errors import RowNotFoundError
from app.tenants.models import Tenant
from app.tenants.states import InvalidTransitionError, Status
from tenancy.context import platform_scope, tenant_scope
from tenancy.session import PlatformSession, TenantSession


@contextmanager
def in_tenant(tenant_id: UUID, *, reason: str) -> Iterator[TenantSession]:
    """Act in one tenant as the current actor; what the block writes is committed at its end, or not at all.

    Raises: RowNotFoundError - there is no such tenant. InvalidTransitionError - something is written, and the tenant
    is erased.
    """
    with (
        platform_scope(actor=name_of(require_actor()), reason=reason),
        tenant_scope(tenant_id),
        # What was committed can still be answered after the scope has ended.
        desk().database.staff_sessions(expire_on_commit=False) as session,
        session.begin(),
    ):
        tenant = session.get(Tenant, tenant_id)
        if tenant is None:
            raise RowNotFoundError
        if tenant.status == Status.DELETED:
            # Nothing is left of it, and that is certified.
            session.info[REFUSAL] = _refuse
            event.listen(session, "before_flush", _refuse_flush)
            event.listen(session, "do_orm_execute", _refuse_change)
        yield session


@contextmanager
def across_tenants(*, reason: str) -> Iterator[PlatformSession]:
    """Read across all tenants as the current actor."""
    with (
        platform_scope(actor=name_of(require_actor()), reason=reason),
        desk().database.platform_sessions(expire_on_commit=False) as session,
        session.begin(),
    ):
        yield session


@contextmanager
def on_staff_tables(*, reason: str) -> Iterator[PlatformSession]:
    """Write the staff's own tables as the current actor; committed at the block's end, or not at all."""
    with (
        platform_scope(actor=name_of(require_actor()), reason=reason, reads_only=False),
        desk().database.platform_sessions(expire_on_commit=False) as session,
        session.begin(),
    ):
        yield session


def _refuse_flush(_session: Session, _context: object, _instances: object) -> None:
    _refuse()


def _refuse() -> None:
    raise InvalidTransitionError("The tenant is erased: nothing can be kept for it.", status=Status.DELETED, allowed=())


def _refuse_change(state: ORMExecuteState) -> None:
    if state.is_insert or state.is_update or state.is_delete:
        _refuse()


def name_of(actor: Actor) -> str:
    """Return the actor as the audit of platform sessions names it."""
    return f"{actor.kind}:{actor.label}"
