"""Features of one tenant, for platform staff."""

from __future__ import annotations

from uuid import UUID

from app.admin.access import staff_may
from app.admin.blueprint import blueprint
from app.admin.overrides import FeatureOverride, Withdrawal
from app.admin.scopes import in_tenant
from app.errors import RowNotFoundError
from app.openapi import answers
from app.plans.overrides import override, withdraw_override
from app.plans.schemas import FeatureAnswer, FeatureList
from app.plans.standing import standings
from app.plans.terms import Feature, TermKind
from app.staff.permissions import StaffPermission


def _known(name: str) -> Feature:
    if name not in list(Feature):
        raise RowNotFoundError
    return Feature(name)


@blueprint.get("/tenants/<uuid:tenant_id>/features")
@staff_may(StaffPermission.PLANS_READ)
@answers(200, FeatureList, tag="admin: features")
def list_features(tenant_id: UUID) -> FeatureList:
    """List every feature: whether the tenant has it, and why."""
    with in_tenant(tenant_id, reason="admin API: features") as session:
        standing = standings().read(session)
        return FeatureList(items=[FeatureAnswer.of(standing, feature) for feature in Feature])


@blueprint.put("/tenants/<uuid:tenant_id>/features/<name>")
@staff_may(StaffPermission.PLANS_WRITE)
@answers(200, FeatureAnswer, tag="admin: features")
def override_feature(tenant_id: UUID, name: str, json: FeatureOverride) -> FeatureAnswer:
    """Give a tenant a feature that its plan does not include, or take one away, until a time if one is given."""
    feature = _known(name)
    with in_tenant(tenant_id, reason=json.reason) as session:
        override(session, TermKind.FEATURE, feature, json.is_included, reason=json.reason, expires_at=json.expires_at)
        return FeatureAnswer.of(standings().read(session), feature)


@blueprint.delete("/tenants/<uuid:tenant_id>/features/<name>")
@staff_may(StaffPermission.PLANS_WRITE)
@answers(200, FeatureAnswer, tag="admin: features")
def withdraw_feature(tenant_id: UUID, name: str, query: Withdrawal) -> FeatureAnswer:
    """Let the plan say again whether the tenant has the feature."""
    feature = _known(name)
    with in_tenant(tenant_id, reason=query.reason) as session:
        withdraw_override(session, TermKind.FEATURE, feature, reason=query.reason)
        return FeatureAnswer.of(standings().read(session), feature)
