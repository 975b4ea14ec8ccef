"""Whom admin code acts for: one tenant, all tenants for reading, or the staff's own tables. Each use is audited.

Outside of a request they need an application context and `acting_as(...)`, as the command line has.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from app.audit.actors import Actor, require_actor
from app.auth.desk import desk
from app.errors import RowNotFoundError
from app.tenants.models import Tenant
from tenancy.context import platform_scope, tenant_scope
from tenancy.session import PlatformSession, TenantSession


@contextmanager
def in_tenant(tenant_id: UUID, *, reason: str) -> Iterator[TenantSession]:
    """Act in one tenant as the current actor; what the block writes is committed at its end, or not at all.

    Raises: RowNotFoundError - there is no such tenant.
    """
    with (
        platform_scope(actor=name_of(require_actor()), reason=reason),
        tenant_scope(tenant_id),
        # What was committed can still be answered after the scope has ended.
        desk().database.staff_sessions(expire_on_commit=False) as session,
        session.begin(),
    ):
        if session.get(Tenant, tenant_id) is None:
            raise RowNotFoundError
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


def name_of(actor: Actor) -> str:
    """Return the actor as the audit of platform sessions names it."""
    return f"{actor.kind}:{actor.label}"
