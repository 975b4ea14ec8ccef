"""What platform staff do for the first owner of a tenant: nobody of the tenant is there yet to do it."""

from __future__ import annotations

from uuid import UUID

from flask import url_for

from app.admin.access import staff_may
from app.admin.blueprint import blueprint
from app.admin.idempotency import answers_with_secret
from app.admin.scopes import in_tenant
from app.members import invitations
from app.members.owners import renew_owners
from app.members.schemas import InvitationAnswer
from app.openapi import answers
from app.pages.addresses import addresses
from app.staff.permissions import StaffPermission
from app.staff.schemas import BecauseOf
from app.tenants.models import Tenant


@blueprint.post("/tenants/<uuid:tenant_id>/owner-invitation")
@staff_may(StaffPermission.TENANTS_WRITE)
@answers(200, InvitationAnswer, tag="tenants")
@answers_with_secret
def resend_owner_invitation(tenant_id: UUID, json: BecauseOf) -> InvitationAnswer:
    """Send the first owner's invitation anew, also when it has run out; the link in the earlier mail stops working."""
    with in_tenant(tenant_id, reason=json.reason) as session:
        slug = session.get_one(Tenant, tenant_id).slug
        invitation, token = renew_owners(session, reason=json.reason)

    def link_of(token: str) -> str:
        return addresses().of_tenant(slug, url_for("member_pages.invitation", token=token))

    return InvitationAnswer.of(invitations.send(invitation, token, link_of))
