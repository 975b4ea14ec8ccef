"""Erasing a tenant: every row of every tenant table, what is kept outside, and the proof that nothing is left."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import CursorResult, Table, delete, func, literal_column, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.audit.entries import record_platform
from app.db import Base
from app.tenants.models import Erasure, Tenant
from app.tenants.operations import server_now
from app.tenants.registrar import Registrar, locked_tenant
from app.tenants.states import InvalidTransitionError, Status
from tenancy.tables import TENANT_KEY, mark_of, tenant_tables

log = logging.getLogger(__name__)

_AT_ONCE = 5_000  # rows of one statement, so that none runs into the role's time limit
ERASED_NAME = "(erased)"


class ErasureIncompleteError(Exception):
    """Rows were left after every table had been emptied: something still writes. The next run tries again."""


def erase_tenant(registrar: Registrar, tenant_id: UUID, *, reason: str) -> Erasure:
    """Erase a tenant whose deletion has fallen due; goes on where an earlier run stopped, and may be called again.

    What is outside of the database goes first, keys before all: whatever fails later is then unreadable already.
    The registry keeps the id and the slug: links to the slug must never lead to somebody else. Accounts stay, since
    a person may belong to other tenants.
    Returns: the record of it, which staff keep.
    Raises: InvalidTransitionError - no deletion is scheduled, or it is not due. RowNotFoundError - no such tenant.
    ErasureIncompleteError
    """
    slug = _begin(registrar, tenant_id, reason=reason)
    if slug is not None:
        with registrar.on_staff_tables(reason=reason) as staff:
            staff.execute(
                insert(Erasure)
                .values(
                    erased_tenant=tenant_id, slug=slug, counted=_counted(registrar, tenant_id, reason), remaining={}
                )
                .on_conflict_do_nothing()
            )
        for erase in registrar.hooks.erasers:
            erase(tenant_id)
        for table in reversed(erased_tables()):
            _empty(registrar, tenant_id, table, reason=reason)
        _close(registrar, tenant_id, reason=reason)
    return _certify(registrar, tenant_id, reason=reason)


def due_erasures(registrar: Registrar) -> Sequence[UUID]:
    """Return the tenants whose deletion is due, and those whose erasure was interrupted; the oldest first."""
    with registrar.across_tenants(reason="deletions that are due") as session:
        due = session.scalars(
            select(Tenant.id)
            .where(Tenant.status == Status.DELETING, Tenant.erase_after <= func.now())
            .order_by(Tenant.erase_after)
        ).all()
        begun = session.scalars(select(Erasure.erased_tenant).where(Erasure.finished_at.is_(None))).all()
    return list(dict.fromkeys([*due, *begun]))


def erased_tables() -> Sequence[Table]:
    """Return every table that holds a tenant's rows, referenced ones first; the registry is not among them."""
    found = []
    for table in tenant_tables(Base.metadata):
        mark = mark_of(table)
        if mark is not None and mark.kind == "tenant":
            found.append(table)
    return found


def count_rows(session: Session, tenant_id: UUID) -> dict[str, int]:
    """Return how many rows the tenant has, by table."""
    return {
        table.name: session.execute(
            select(func.count()).select_from(table).where(table.c[TENANT_KEY] == tenant_id)
        ).scalar_one()
        for table in erased_tables()
    }


def _begin(registrar: Registrar, tenant_id: UUID, *, reason: str) -> str | None:
    """Pass the point of no return, and return the slug; None if only the certificate is missing."""
    with registrar.in_tenant(tenant_id, reason=reason) as session:
        tenant = locked_tenant(session, tenant_id)
        if tenant.status == Status.DELETED:
            return None
        now = server_now(session)
        if tenant.status != Status.DELETING or tenant.erase_after is None or tenant.erase_after > now:
            due = f"; it is due at {tenant.erase_after.isoformat()}" if tenant.erase_after else ""
            raise InvalidTransitionError(
                f"The tenant is {tenant.status}, and its erasure is not due{due}.",
                status=Status(tenant.status),
                allowed=(),
            )
        tenant.erasing_since = tenant.erasing_since or now
        return tenant.slug


def _counted(registrar: Registrar, tenant_id: UUID, reason: str) -> Mapping[str, int]:
    with registrar.in_tenant(tenant_id, reason=reason) as session:
        return count_rows(session, tenant_id)


def _empty(registrar: Registrar, tenant_id: UUID, table: Table, *, reason: str) -> None:
    # By physical place, because a link table has no id of its own.
    place: Any = literal_column("ctid")
    some = select(place).select_from(table).where(table.c[TENANT_KEY] == tenant_id).limit(_AT_ONCE).scalar_subquery()
    statement = delete(table).where(table.c[TENANT_KEY] == tenant_id, place == func.any(func.array(some)))
    gone = _AT_ONCE
    while gone >= _AT_ONCE:
        with registrar.in_tenant(tenant_id, reason=reason) as session:
            result = session.execute(statement)
            assert isinstance(result, CursorResult)  # noqa: S101 - what a DELETE without RETURNING gives
            gone = result.rowcount


def _close(registrar: Registrar, tenant_id: UUID, *, reason: str) -> None:
    """Count once more, and mark the tenant deleted in the same transaction; its history has gone with the rest."""
    with registrar.in_tenant(tenant_id, reason=reason) as session:
        tenant = locked_tenant(session, tenant_id)
        left = {name: rows for name, rows in count_rows(session, tenant_id).items() if rows}
        if left:
            raise ErasureIncompleteError(f"rows of tenant {tenant_id} are left: {left}")
        tenant.status, tenant.name = Status.DELETED, ERASED_NAME
        tenant.former_status = tenant.erase_after = None


def _certify(registrar: Registrar, tenant_id: UUID, *, reason: str) -> Erasure:
    with registrar.across_tenants(reason=reason) as session:
        remaining = count_rows(session, tenant_id)
    with registrar.on_staff_tables(reason=reason) as staff:
        erasure = staff.scalars(select(Erasure).where(Erasure.erased_tenant == tenant_id).with_for_update()).one()
        if erasure.finished_at is None:
            if any(remaining.values()):
                raise ErasureIncompleteError(f"rows of tenant {tenant_id} appeared after its erasure")
            erasure.remaining = remaining
            erasure.finished_at = server_now(staff)
            record_platform(
                staff,
                "tenant.erased",
                target=("tenant", tenant_id),
                before={"slug": erasure.slug, "rows": erasure.counted},
                after={"rows": remaining},
                reason=reason,
            )
            log.info("tenant.erased", extra={"tenant": str(tenant_id), "rows": sum(erasure.counted.values())})
        return erasure
