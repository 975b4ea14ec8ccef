"""Limits of one tenant, for platform staff."""

from __future__ import annotations

from uuid import UUID

from app.admin.access import staff_may
from app.admin.blueprint import blueprint
from app.admin.overrides import LimitOverride, Withdrawal
from app.admin.scopes import in_tenant
from app.errors import RowNotFoundError
from app.openapi import answers
from app.plans.overrides import override, withdraw_override
from app.plans.schemas import LimitAnswer, LimitList
from app.plans.standing import standings
from app.plans.terms import Quota, TermKind
from app.staff.permissions import StaffPermission


def _known(name: str) -> Quota:
    if name not in list(Quota):
        raise RowNotFoundError
    return Quota(name)


@blueprint.get("/tenants/<uuid:tenant_id>/limits")
@staff_may(StaffPermission.PLANS_READ)
@answers(200, LimitList, tag="admin: limits")
def list_limits(tenant_id: UUID) -> LimitList:
    """List every quota: how much the tenant may have, and why."""
    with in_tenant(tenant_id, reason="admin API: limits") as session:
        standing = standings().read(session)
        return LimitList(items=[LimitAnswer.of(standing, quota) for quota in Quota])


@blueprint.put("/tenants/<uuid:tenant_id>/limits/<name>")
@staff_may(StaffPermission.PLANS_WRITE)
@answers(200, LimitAnswer, tag="admin: limits")
def override_limit(tenant_id: UUID, name: str, json: LimitOverride) -> LimitAnswer:
    """Let a tenant have more or less than its plan says, until a time if one is given."""
    quota = _known(name)
    with in_tenant(tenant_id, reason=json.reason) as session:
        override(session, TermKind.LIMIT, quota, json.limit, reason=json.reason, expires_at=json.expires_at)
        return LimitAnswer.of(standings().read(session), quota)


@blueprint.delete("/tenants/<uuid:tenant_id>/limits/<name>")
@staff_may(StaffPermission.PLANS_WRITE)
@answers(200, LimitAnswer, tag="admin: limits")
def withdraw_limit(tenant_id: UUID, name: str, query: Withdrawal) -> LimitAnswer:
    """Let the plan say again how much the tenant may have."""
    quota = _known(name)
    with in_tenant(tenant_id, reason=query.reason) as session:
        withdraw_override(session, TermKind.LIMIT, quota, reason=query.reason)
        return LimitAnswer.of(standings().read(session), quota)
