"""The audit as platform staff read it: that of one tenant, and the platform's own."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from flask import Response

from app.admin.access import staff_may
from app.admin.blueprint import blueprint
from app.admin.scopes import across_tenants, in_tenant
from app.audit.actors import Actor, acting_as, require_actor
from app.audit.chain import chain_of_platform, verify
from app.audit.entries import record
from app.audit.reading import export_lines, page_of_platform, page_of_tenant, refuse_part
from app.audit.routes import as_file
from app.audit.schemas import EntryList, EntryQuery, ExportQuery, VerdictAnswer
from app.openapi import answers
from app.staff.permissions import StaffPermission
from app.tenants.models import Tenant

_EXPORTS = "admin API: export the audit"


@blueprint.get("/tenants/<uuid:row_id>/audit")
@staff_may(StaffPermission.AUDIT_READ)
@answers(200, EntryList, tag="audit")
def list_tenant_audit(row_id: UUID, query: EntryQuery) -> EntryList:
    """List who did what in one tenant, the latest first."""
    with in_tenant(row_id, reason="admin API: read the audit") as session:
        return page_of_tenant(session, query)


@blueprint.get("/tenants/<uuid:row_id>/audit/verify")
@staff_may(StaffPermission.AUDIT_READ)
@answers(200, VerdictAnswer, tag="audit")
def verify_tenant_audit(row_id: UUID) -> VerdictAnswer:
    """Check one tenant's chain; names the first entry that was tampered with."""
    with in_tenant(row_id, reason="admin API: verify the audit") as session:
        return VerdictAnswer.of(verify(session))


@blueprint.get("/tenants/<uuid:row_id>/audit/export")
@staff_may(StaffPermission.AUDIT_READ)
@answers(200, None, tag="audit")
def export_tenant_audit(row_id: UUID, query: ExportQuery) -> Response:
    """Send one tenant's audit as a file, as the tenant's own members can; in its audit stands that staff did."""
    refuse_part(query)
    with in_tenant(row_id, reason=_EXPORTS) as session:
        slug = session.get_one(Tenant, row_id).slug
        record(session, "audit.exported", after={"format": query.format}, reason=_EXPORTS)
    return as_file(_lines(row_id, query, require_actor()), name=f"audit-{slug}", kind=query.format)


def _lines(tenant_id: UUID, query: ExportQuery, actor: Actor) -> Iterator[str]:
    """Read in scopes of its own, which stay open until the last line is sent, or nobody takes any more."""
    with acting_as(actor), in_tenant(tenant_id, reason=_EXPORTS) as session:
        yield from export_lines(session, query)


@blueprint.get("/audit")
@staff_may(StaffPermission.AUDIT_READ)
@answers(200, EntryList, tag="audit")
def list_platform_audit(query: EntryQuery) -> EntryList:
    """List what staff did that belongs to no tenant, the latest first."""
    with across_tenants(reason="admin API: read the platform's audit") as session:
        return page_of_platform(session, query)


@blueprint.get("/audit/verify")
@staff_may(StaffPermission.AUDIT_READ)
@answers(200, VerdictAnswer, tag="audit")
def verify_platform_audit() -> VerdictAnswer:
    """Check the platform's own chain."""
    with across_tenants(reason="admin API: verify the platform's audit") as session:
        return VerdictAnswer.of(verify(session, chain_of_platform()))
