"""The audit as platform staff read it: that of one tenant, and the platform's own."""

from __future__ import annotations

from uuid import UUID

from app.admin.access import staff_may
from app.admin.blueprint import blueprint
from app.admin.scopes import across_tenants, in_tenant
from app.audit.chain import chain_of_platform, verify
from app.audit.reading import page_of_platform, page_of_tenant
from app.audit.schemas import EntryList, EntryQuery, VerdictAnswer
from app.openapi import answers
from app.staff.permissions import StaffPermission


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
