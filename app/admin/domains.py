"""Domains of tenants, for platform staff: the same rules as for the tenant itself, in the name of staff."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select

from app.admin.access import staff_may
from app.admin.blueprint import blueprint
from app.admin.scopes import in_tenant
from app.openapi import answers
from app.staff.permissions import StaffPermission
from app.staff.schemas import BecauseOf
from app.tenants import domains
from app.tenants.models import Domain
from app.tenants.registrar import registrar
from app.tenants.schemas import DomainAnswer, DomainList


@blueprint.get("/tenants/<uuid:tenant_id>/domains")
@staff_may(StaffPermission.TENANTS_READ)
@answers(200, DomainList, tag="tenants")
def list_tenant_domains(tenant_id: UUID) -> DomainList:
    """List the domains a tenant has claimed, and what the DNS says of them."""
    with in_tenant(tenant_id, reason="admin API: domains of a tenant") as session:
        rows = session.scalars(select(Domain).order_by(Domain.domain, Domain.id))
        return DomainList(items=[DomainAnswer.of(row) for row in rows])


@blueprint.post("/tenants/<uuid:tenant_id>/domains/<uuid:domain_id>/check")
@staff_may(StaffPermission.TENANTS_WRITE)
@answers(200, DomainAnswer, tag="tenants")
def check_tenant_domain(tenant_id: UUID, domain_id: UUID, json: BecauseOf) -> DomainAnswer:
    """Ask the DNS about a claim now."""
    return DomainAnswer.of(domains.check_domain(registrar(), tenant_id, domain_id, reason=json.reason))


@blueprint.post("/tenants/<uuid:tenant_id>/domains/<uuid:domain_id>/release")
@staff_may(StaffPermission.TENANTS_WRITE)
@answers(204, None, tag="tenants")
def release_tenant_domain(tenant_id: UUID, domain_id: UUID, json: BecauseOf) -> tuple[str, int]:
    """Take a domain from a tenant; it leads nowhere at once."""
    domains.release_domain(registrar(), tenant_id, domain_id, reason=json.reason)
    return "", 204
