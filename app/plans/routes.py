"""A tenant's own plan over HTTP. It changes through platform staff."""

from __future__ import annotations

from flask import Blueprint

from app.auth.access import permits
from app.members.permissions import Permission
from app.openapi import answers
from app.plans.schemas import PlanAnswer
from app.plans.standing import current_standing

blueprint = Blueprint("plans", __name__, url_prefix="/api/v1")


@blueprint.get("/plan")
@permits(Permission.SETTINGS_READ)
@answers(200, PlanAnswer, tag="plan")
def read_plan() -> PlanAnswer:
    """Say what the tenant has: its plan, each feature and limit, and why each is what it is."""
    return PlanAnswer.of(current_standing())
