"""Members and invitations over HTTP."""

from __future__ import annotations

from uuid import UUID

from flask import Blueprint
from sqlalchemy import select

from app.auth import operations as auth
from app.auth.access import permits, require_principal, signed_in, without_tenant
from app.auth.desk import desk
from app.auth.schemas import Tokens
from app.db import release_connection, session, tenancy
from app.errors import RowNotFoundError
from app.members import invitations, operations, schemas
from app.members.models import Invitation, Member
from app.members.permissions import Permission
from app.openapi import answers
from app.pages.addresses import addresses
from app.paging import Sorts

blueprint = Blueprint("members", __name__, url_prefix="/api/v1")

MEMBERS = Sorts(Member, ("email", "created_at"))
INVITATIONS = Sorts(Invitation, ("created_at", "email"))


# Members ----------------------------------------------------------------------------------------------


@blueprint.get("/members")
@permits(Permission.MEMBERS_READ)
@answers(200, schemas.MemberList, tag="members")
def list_members(query: schemas.MemberQuery) -> schemas.MemberList:
    """List the members, a page at a time."""
    rows = select(Member) if query.role is None else select(Member).where(Member.role == query.role)
    page = MEMBERS.page(session(), rows, sort=query.sort, cursor=query.cursor, limit=query.limit)
    return schemas.MemberList(items=list(map(schemas.MemberAnswer.of, page.rows)), next_cursor=page.next_cursor)


@blueprint.get("/members/<uuid:row_id>")
@permits(Permission.MEMBERS_READ)
@answers(200, schemas.MemberAnswer, tag="members")
def read_member(row_id: UUID) -> schemas.MemberAnswer:
    """Read one member."""
    member: Member | None = session().get(Member, row_id)
    if member is None:
        raise RowNotFoundError
    return schemas.MemberAnswer.of(member)


@blueprint.patch("/members/<uuid:row_id>")
@permits(Permission.MEMBERS_MANAGE)
@answers(200, schemas.MemberAnswer, tag="members")
def change_member(row_id: UUID, json: schemas.MemberChange) -> schemas.MemberAnswer:
    """Change a member's role, or the exceptions to it; it counts with her next request."""
    member = operations.change_member(
        session(), row_id, by=require_principal().member_id, role=json.role, permissions=json.permissions
    )
    session().refresh(member)  # for `updated_at`, which the server sets
    session().commit()
    return schemas.MemberAnswer.of(member)


@blueprint.delete("/members/<uuid:row_id>")
@permits(Permission.MEMBERS_MANAGE)
@answers(204, None, tag="members")
def remove_member(row_id: UUID) -> tuple[str, int]:
    """Remove a member: she is signed out of this tenant at once."""
    operations.remove_member(session(), row_id, by=require_principal().member_id)
    session().commit()
    return "", 204


# Invitations ------------------------------------------------------------------------------------------


def _link(token: str) -> str:
    return addresses().of_tenant(tenancy().tenant.slug, f"/invitation?token={token}")


@blueprint.get("/invitations")
@permits(Permission.MEMBERS_MANAGE)
@answers(200, schemas.InvitationList, tag="members")
def list_invitations(query: schemas.InvitationQuery) -> schemas.InvitationList:
    """List the invitations, a page at a time."""
    page = INVITATIONS.page(session(), select(Invitation), sort=query.sort, cursor=query.cursor, limit=query.limit)
    return schemas.InvitationList(items=list(map(schemas.InvitationAnswer.of, page.rows)), next_cursor=page.next_cursor)


@blueprint.post("/invitations")
@permits(Permission.MEMBERS_MANAGE)
@answers(201, schemas.InvitationAnswer, tag="members")
def create_invitation(json: schemas.NewInvitation) -> tuple[schemas.InvitationAnswer, int]:
    """Invite somebody by e-mail. The answer is the same whether or not the address has an account."""
    here = session()
    by = invitations.require_member(here, require_principal().member_id)
    return schemas.InvitationAnswer.of(
        invitations.invite(here, email=json.email, role=json.role, by=by, link_of=_link)
    ), 201


@blueprint.post("/invitations/<uuid:row_id>/resend")
@permits(Permission.MEMBERS_MANAGE)
@answers(200, schemas.InvitationAnswer, tag="members")
def resend_invitation(row_id: UUID) -> schemas.InvitationAnswer:
    """Send an open invitation anew; the link in the earlier mail stops working."""
    here = session()
    by = invitations.require_member(here, require_principal().member_id)
    sent = invitations.send_anew(here, row_id, by=by, link_of=_link)
    if sent is None:
        raise RowNotFoundError
    return schemas.InvitationAnswer.of(sent)


@blueprint.delete("/invitations/<uuid:row_id>")
@permits(Permission.MEMBERS_MANAGE)
@answers(204, None, tag="members")
def revoke_invitation(row_id: UUID) -> tuple[str, int]:
    """Revoke an open invitation: its link stops working at once."""
    by = invitations.require_member(session(), require_principal().member_id)
    if not invitations.revoke(session(), row_id, by=by):
        raise RowNotFoundError
    session().commit()
    return "", 204


@blueprint.post("/auth/accept-invitation")
@without_tenant(reason="the invitation's token names the tenant")
@answers(201, Tokens, tag="auth", needs_token=False)
def accept_invitation(json: schemas.Acceptance) -> tuple[Tokens, int]:
    """Accept an invitation by the token in the mail, and sign in.

    Where the address has an account, the password is that account's; else an account is made with it.
    """
    return _welcome(invitations.accept_with_password(desk(), json.token, json.password)), 201


@blueprint.post("/auth/join")
@signed_in
@answers(201, Tokens, tag="auth")
def join(json: schemas.Joining) -> tuple[Tokens, int]:
    """Accept an invitation to another tenant as whoever is signed in, and sign in there."""
    account_id = require_principal().account_id
    release_connection()
    return _welcome(invitations.accept_as(desk(), json.token, account_id)), 201


def _welcome(accepted: invitations.Accepted) -> Tokens:
    found = auth.switch_tenant(desk(), accepted.account_id, str(accepted.tenant.id))
    return Tokens.of(found, expires_in_s=desk().access_tokens.ttl_s)
