"""Who acts as this tenant's members, as the tenant sees it."""

from __future__ import annotations

from uuid import UUID

from flask import Blueprint

from app.auth.access import permits
from app.db import session
from app.impersonation import operations
from app.impersonation.schemas import ImpersonationAnswer, ImpersonationList
from app.members.permissions import Permission
from app.openapi import answers

blueprint = Blueprint("impersonation", __name__, url_prefix="/api/v1/impersonations")


@blueprint.get("")
@permits(Permission.MEMBERS_READ)
@answers(200, ImpersonationList, tag="members")
def list_impersonations() -> ImpersonationList:
    """List who of the platform's staff acts as a member now; the audit has those that have ended."""
    return ImpersonationList(items=list(map(ImpersonationAnswer.model_validate, operations.active(session()))))


@blueprint.delete("/<uuid:row_id>")
@permits(Permission.MEMBERS_MANAGE)
@answers(204, None, tag="members")
def stop_impersonation(row_id: UUID) -> tuple[str, int]:
    """End an impersonation at once."""
    operations.stop(session(), row_id)
    session().commit()
    return "", 204
