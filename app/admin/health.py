"""Health of one tenant, for platform staff."""

from __future__ import annotations

from uuid import UUID

from app.admin.access import staff_may
from app.admin.blueprint import blueprint
from app.admin.scopes import in_tenant
from app.observability.health import health
from app.observability.schemas import HealthAnswer
from app.openapi import answers
from app.staff.permissions import StaffPermission


@blueprint.get("/tenants/<uuid:tenant_id>/health")
@staff_may(StaffPermission.TENANTS_READ)
@answers(200, HealthAnswer, tag="health")
def show_tenant_health(tenant_id: UUID) -> HealthAnswer:
    """Say how the parts are that a tenant needs, what is wrong with them, and what to do about it."""
    with in_tenant(tenant_id, reason="admin API: health of a tenant"):
        pass  # it is there
    return HealthAnswer.of(health().of(tenant_id))
