"""Signing platform staff in and out, and the one-time links, over HTTP."""

from __future__ import annotations

from app.admin.access import any_staff
from app.admin.blueprint import blueprint
from app.auth.access import without_tenant
from app.auth.desk import desk
from app.errors import ForbiddenError
from app.openapi import answers
from app.staff import links, operations
from app.staff.principals import require_staff
from app.staff.schemas import (
    FirstOwner,
    PasswordByLink,
    StaffCredentials,
    StaffMe,
    StaffMember,
    StaffToken,
)


@blueprint.post("/auth/login")
@without_tenant(reason="platform staff sign in for no tenant")
@answers(200, StaffToken, tag="staff", needs_token=False)
def login_staff(json: StaffCredentials) -> StaffToken:
    """Sign in as platform staff. The token is good on `/api/v1/admin` only."""
    found = operations.sign_in(desk(), email=json.email, password=json.password)
    return StaffToken(access_token=found.token, expires_at=found.expires_at)


@blueprint.post("/auth/logout")
@any_staff
@answers(204, None, tag="staff")
def logout_staff() -> tuple[str, int]:
    """End the sign-in: its token stops working at once."""
    sign_in_id = require_staff().sign_in_id
    if sign_in_id is None:
        raise ForbiddenError("An API key has no sign-in to end: revoke the key instead.")
    operations.sign_out(sign_in_id)
    return "", 204


@blueprint.get("/auth/me")
@any_staff
@answers(200, StaffMe, tag="staff")
def show_myself() -> StaffMe:
    """Say who of the staff is asking, and what she may do."""
    principal = require_staff()
    return StaffMe(
        staff_id=principal.staff_id,
        email=principal.email,
        role=principal.role,
        key_prefix=principal.key_prefix,
        permissions=sorted(principal.permissions),
    )


@blueprint.post("/auth/first-owner")
@without_tenant(reason="there is no platform staff yet; the one-time link is what lets in")
@answers(201, StaffMember, tag="staff", needs_token=False)
def make_first_owner(json: FirstOwner) -> tuple[StaffMember, int]:
    """Make the first owner by the one-time link that the service printed; then sign in."""
    person = links.make_first_owner(desk(), json.token, email=json.email, password=json.password)
    return StaffMember.model_validate(person), 201


@blueprint.post("/auth/set-password")
@without_tenant(reason="the one-time link says who it is")
@answers(200, StaffMember, tag="staff", needs_token=False)
def set_password(json: PasswordByLink) -> StaffMember:
    """Set your password by a one-time link; every sign-in you had ends."""
    return StaffMember.model_validate(links.set_password(desk(), json.token, password=json.password))
