"""Usage and quotas of one tenant, for platform staff."""

from __future__ import annotations

from uuid import UUID

from app.admin.access import staff_may
from app.admin.blueprint import blueprint
from app.admin.scopes import in_tenant
from app.openapi import answers
from app.plans.changes import HELD
from app.staff.permissions import StaffPermission
from app.usage import schemas
from app.usage.quotas import recount
from app.usage.routes import events_of, quotas_of, usage_of


@blueprint.get("/tenants/<uuid:tenant_id>/usage")
@staff_may(StaffPermission.USAGE_READ)
@answers(200, schemas.UsageAnswer, tag="admin: usage")
def show_usage(tenant_id: UUID, query: schemas.UsageQuery) -> schemas.UsageAnswer:
    """Show what a tenant used, by hour or by day."""
    with in_tenant(tenant_id, reason="admin API: usage") as session:
        return usage_of(session, query)


@blueprint.get("/tenants/<uuid:tenant_id>/quotas")
@staff_may(StaffPermission.USAGE_READ)
@answers(200, schemas.QuotaList, tag="admin: usage")
def list_quotas(tenant_id: UUID) -> schemas.QuotaList:
    """List what a tenant has of each quota, and how much it may have."""
    with in_tenant(tenant_id, reason="admin API: quotas") as session:
        return quotas_of(session)


@blueprint.get("/tenants/<uuid:tenant_id>/quotas/events")
@staff_may(StaffPermission.USAGE_READ)
@answers(200, schemas.QuotaEventList, tag="admin: usage")
def list_quota_events(tenant_id: UUID, query: schemas.QuotaEventQuery) -> schemas.QuotaEventList:
    """List when a tenant reached 80 and 100 percent of a quota, the latest first."""
    with in_tenant(tenant_id, reason="admin API: quotas") as session:
        return events_of(session, query)


@blueprint.post("/tenants/<uuid:tenant_id>/quotas/recount")
@staff_may(StaffPermission.PLANS_WRITE)
@answers(200, schemas.RecountAnswer, tag="admin: usage")
def recount_quotas(tenant_id: UUID, json: schemas.Recounting) -> schemas.RecountAnswer:
    """Count again what a tenant has, and set right what was off."""
    with in_tenant(tenant_id, reason=json.reason) as session:
        return schemas.RecountAnswer(off={str(quota): off for quota in HELD if (off := recount(session, quota))})
