"""Plans, for platform staff: the catalogue, what one tenant has, and moving it to another plan."""

from __future__ import annotations

from uuid import UUID

from pydantic import Field

from app.admin.access import staff_may
from app.admin.blueprint import blueprint
from app.admin.scopes import in_tenant
from app.openapi import answers
from app.plans.changes import change_plan, rehearse
from app.plans.schemas import PlanAnswer, PlanVersionAnswer, PlanVersionList, RehearsalAnswer
from app.plans.standing import standings
from app.schemas import Body, Query, Text
from app.staff.permissions import StaffPermission
from app.staff.schemas import Reason


class PlanMove(Body):
    """A plan to move a tenant to, in its newest version."""

    plan: Text = Field(max_length=63)
    reason: Reason


class RehearsalQuery(Query):
    """The plan a tenant might move to."""

    plan: Text = Field(max_length=63)


@blueprint.get("/plans")
@staff_may(StaffPermission.PLANS_READ)
@answers(200, PlanVersionList, tag="admin: plans")
def list_plans() -> PlanVersionList:
    """List every version of every plan."""
    catalogue = standings().catalogue
    return PlanVersionList(
        items=[PlanVersionAnswer.of(version) for plan in catalogue.order for version in catalogue.plans[plan]]
    )


@blueprint.get("/tenants/<uuid:tenant_id>/plan")
@staff_may(StaffPermission.PLANS_READ)
@answers(200, PlanAnswer, tag="admin: plans")
def read_plan(tenant_id: UUID) -> PlanAnswer:
    """Say what a tenant has: its plan, each feature and limit, and why each is what it is."""
    with in_tenant(tenant_id, reason="admin API: plan") as session:
        return PlanAnswer.of(standings().read(session))


@blueprint.get("/tenants/<uuid:tenant_id>/migrate")
@staff_may(StaffPermission.PLANS_READ)
@answers(200, RehearsalAnswer, tag="admin: plans")
def rehearse_migration(tenant_id: UUID, query: RehearsalQuery) -> RehearsalAnswer:
    """Say what moving a tenant to a plan would mean: gained, lost, limits before and after, and what blocks."""
    with in_tenant(tenant_id, reason="admin API: rehearsal of a plan") as session:
        return RehearsalAnswer.of(rehearse(session, query.plan))


@blueprint.post("/tenants/<uuid:tenant_id>/migrate")
@staff_may(StaffPermission.PLANS_WRITE)
@answers(200, RehearsalAnswer, tag="admin: plans")
def migrate(tenant_id: UUID, json: PlanMove) -> RehearsalAnswer:
    """Move a tenant to the newest version of a plan, unless it has more than that plan allows."""
    with in_tenant(tenant_id, reason=json.reason) as session:
        return RehearsalAnswer.of(change_plan(session, json.plan, reason=json.reason))
