"""Acting as a member of a tenant."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from flask import current_app

from app.admin.access import staff_may
from app.admin.blueprint import blueprint
from app.admin.idempotency import answers_with_secret
from app.admin.scopes import in_tenant
from app.auth.desk import desk
from app.errors import ForbiddenError, InvalidInputError, RowNotFoundError
from app.impersonation import operations
from app.impersonation.limits import longest_life
from app.impersonation.schemas import BegunImpersonation, ImpersonationAnswer, ImpersonationList, NewImpersonation
from app.openapi import answers
from app.staff.permissions import StaffPermission
from app.staff.principals import require_staff
from app.staff.schemas import BecauseOf
from tenancy.directory import Reference, TenantRecord


@blueprint.get("/tenants/<uuid:row_id>/impersonations")
@staff_may(StaffPermission.TENANTS_READ)
@answers(200, ImpersonationList, tag="impersonation")
def list_impersonations(row_id: UUID) -> ImpersonationList:
    """List who acts as a member of this tenant now."""
    with in_tenant(row_id, reason="admin API: list impersonations") as session:
        return ImpersonationList(items=list(map(ImpersonationAnswer.model_validate, operations.active(session))))


@blueprint.post("/tenants/<uuid:row_id>/impersonations")
@staff_may(StaffPermission.IMPERSONATE)
@answers(201, BegunImpersonation, tag="impersonation")
@answers_with_secret
def begin_impersonation(row_id: UUID, json: NewImpersonation) -> tuple[BegunImpersonation, int]:
    """Act as a member: for reading, or for writing where `tenants.write` is yours too.

    The customer sees it: in the audit, in `/api/v1/me`, and in the list of impersonations, where it can be ended.
    """
    staff = require_staff()
    if staff.role is None:
        raise ForbiddenError("An API key acts as nobody: sign in as a person.")
    if json.can_write and StaffPermission.TENANTS_WRITE not in staff.permissions:
        raise ForbiddenError(f"Your role is {staff.role}, which does not include {StaffPermission.TENANTS_WRITE}.")
    life = timedelta(minutes=json.minutes)
    if life > longest_life(current_app):
        longest = int(longest_life(current_app).total_seconds() // 60)
        raise InvalidInputError.of("minutes", f"too long: send at most {longest}")
    tenant = _served(row_id)
    with in_tenant(row_id, reason=json.reason) as session:
        begun = operations.begin(
            desk(),
            session,
            tenant,
            member_id=json.member_id,
            staff_id=staff.staff_id,
            staff_email=staff.email,
            reason=json.reason,
            life=life,
            can_write=json.can_write,
        )
        return BegunImpersonation.of(begun), 201


@blueprint.post("/tenants/<uuid:row_id>/impersonations/<uuid:impersonation_id>/stop")
@staff_may(StaffPermission.IMPERSONATE)
@answers(204, None, tag="impersonation")
def stop_impersonation(row_id: UUID, impersonation_id: UUID, json: BecauseOf) -> tuple[str, int]:
    """End an impersonation at once; also a colleague's."""
    with in_tenant(row_id, reason=json.reason) as session:
        operations.stop(session, impersonation_id, reason=json.reason)
    return "", 204


def _served(tenant_id: UUID) -> TenantRecord:
    tenant = desk().directory.find(Reference("id", str(tenant_id)))
    if tenant is None:
        raise RowNotFoundError
    if tenant.status != "active":
        raise ForbiddenError(f"This tenant is {tenant.status}: nobody is served there, and no impersonation.")
    return tenant
