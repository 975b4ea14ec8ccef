"""The staff, and the API keys of their programs, over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

from sqlalchemy import select

from app.admin.access import staff_may
from app.admin.blueprint import blueprint
from app.admin.idempotency import answers_with_secret
from app.admin.scopes import across_tenants
from app.auth.desk import desk
from app.errors import ForbiddenError, RowNotFoundError
from app.openapi import answers
from app.paging import Sorts
from app.staff import keys, links, operations
from app.staff.models import StaffAccount, StaffKey
from app.staff.permissions import MATRIX, StaffPermission
from app.staff.principals import StaffPrincipal, check_reach, require_staff
from app.staff.schemas import (
    BecauseOf,
    KeyAnswer,
    KeyPage,
    KeyQuery,
    KeyWithSecret,
    LinkAnswer,
    NewKeyBody,
    NewStaff,
    StaffChange,
    StaffMember,
    StaffPage,
    StaffQuery,
    StaffWithLink,
)

Row = TypeVar("Row")

_STAFF = Sorts(StaffAccount, ("email", "created_at"))
_KEYS = Sorts(StaffKey, ("created_at", "expires_at", "name"))


# The people -------------------------------------------------------------------------------------------


@blueprint.get("/staff")
@staff_may(StaffPermission.STAFF_MANAGE)
@answers(200, StaffPage, tag="staff")
def list_staff(query: StaffQuery) -> StaffPage:
    """List the staff, also who is disabled."""
    with across_tenants(reason="admin API: list staff") as session:
        page = _STAFF.page(session, select(StaffAccount), sort=query.sort, cursor=query.cursor, limit=query.limit)
    return StaffPage(items=[StaffMember.model_validate(row) for row in page.rows], next_cursor=page.next_cursor)


@blueprint.post("/staff")
@staff_may(StaffPermission.STAFF_MANAGE)
@answers(201, StaffWithLink, tag="staff")
@answers_with_secret
def add_staff(json: NewStaff) -> tuple[StaffWithLink, int]:
    """Add somebody to the staff; give her the one-time link, by which she sets her password."""
    check_reach(_herself(), MATRIX[json.role])
    person = operations.add_staff(email=json.email, role=json.role, reason=json.reason)
    link = _link_for(person.id, reason=json.reason)
    return StaffWithLink(**StaffMember.model_validate(person).model_dump(), **link.model_dump()), 201


@blueprint.get("/staff/<uuid:staff_id>")
@staff_may(StaffPermission.STAFF_MANAGE)
@answers(200, StaffMember, tag="staff")
def show_staff(staff_id: UUID) -> StaffMember:
    """Show one person of the staff."""
    with across_tenants(reason="admin API: show staff") as session:
        return StaffMember.model_validate(_found(session.get(StaffAccount, staff_id)))


@blueprint.patch("/staff/<uuid:staff_id>")
@staff_may(StaffPermission.STAFF_MANAGE)
@answers(200, StaffMember, tag="staff")
def change_staff(staff_id: UUID, json: StaffChange) -> StaffMember:
    """Give somebody another role; it counts at once, for her keys too."""
    check_reach(_herself(), MATRIX[json.role])
    return StaffMember.model_validate(operations.change_role(staff_id, json.role, reason=json.reason))


@blueprint.post("/staff/<uuid:staff_id>/disable")
@staff_may(StaffPermission.STAFF_MANAGE)
@answers(200, StaffMember, tag="staff")
def disable_staff(staff_id: UUID, json: BecauseOf) -> StaffMember:
    """Let somebody no longer in; her sign-ins and her keys stop at once."""
    return StaffMember.model_validate(operations.disable_staff(staff_id, reason=json.reason))


@blueprint.post("/staff/<uuid:staff_id>/enable")
@staff_may(StaffPermission.STAFF_MANAGE)
@answers(200, StaffMember, tag="staff")
def enable_staff(staff_id: UUID, json: BecauseOf) -> StaffMember:
    """Let somebody in again."""
    _herself()
    return StaffMember.model_validate(operations.enable_staff(staff_id, reason=json.reason))


@blueprint.post("/staff/<uuid:staff_id>/password-link")
@staff_may(StaffPermission.STAFF_MANAGE)
@answers(201, LinkAnswer, tag="staff")
@answers_with_secret
def make_password_link(staff_id: UUID, json: BecauseOf) -> tuple[LinkAnswer, int]:
    """Make a one-time link that sets somebody's password; it voids the one before."""
    _herself()
    return _link_for(staff_id, reason=json.reason), 201


def _link_for(staff_id: UUID, *, reason: str) -> LinkAnswer:
    token = links.issue_password_link(desk(), staff_id, reason=reason)
    return LinkAnswer(link_token=token, link_expires_at=datetime.now(UTC) + desk().staff_link_ttl)


# The keys ---------------------------------------------------------------------------------------------


@blueprint.get("/api-keys")
@staff_may(StaffPermission.STAFF_MANAGE)
@answers(200, KeyPage, tag="staff")
def list_api_keys(query: KeyQuery) -> KeyPage:
    """List the API keys; those that were revoked only when asked for."""
    wanted = select(StaffKey) if query.include_revoked else select(StaffKey).where(StaffKey.revoked_at.is_(None))
    with across_tenants(reason="admin API: list keys") as session:
        page = _KEYS.page(session, wanted, sort=query.sort, cursor=query.cursor, limit=query.limit)
    return KeyPage(items=[KeyAnswer.model_validate(row) for row in page.rows], next_cursor=page.next_cursor)


@blueprint.post("/api-keys")
@staff_may(StaffPermission.STAFF_MANAGE)
@answers(201, KeyWithSecret, tag="staff")
@answers_with_secret
def make_api_key(json: NewKeyBody) -> tuple[KeyWithSecret, int]:
    """Make an API key with permissions that you have yourself; its secret is shown this once."""
    principal, wanted = _herself(), frozenset(json.permissions)
    check_reach(principal, wanted)
    made = keys.make_key(
        principal.staff_id, name=json.name, permissions=wanted, expires_at=json.expires_at, reason=json.reason
    )
    return KeyWithSecret(**KeyAnswer.model_validate(made.key).model_dump(), secret=made.secret), 201


@blueprint.get("/api-keys/<uuid:key_id>")
@staff_may(StaffPermission.STAFF_MANAGE)
@answers(200, KeyAnswer, tag="staff")
def show_api_key(key_id: UUID) -> KeyAnswer:
    """Show one API key."""
    with across_tenants(reason="admin API: show key") as session:
        return KeyAnswer.model_validate(_found(session.get(StaffKey, key_id)))


@blueprint.post("/api-keys/<uuid:key_id>/revoke")
@staff_may(StaffPermission.STAFF_MANAGE)
@answers(200, KeyAnswer, tag="staff")
def revoke_api_key(key_id: UUID, json: BecauseOf) -> KeyAnswer:
    """Stop an API key at once, for good."""
    return KeyAnswer.model_validate(keys.revoke_key(key_id, reason=json.reason))


def _herself() -> StaffPrincipal:
    """Return the person who asks. A key lets nobody in: whom it let in would stay when the key has ended.

    Raises: ForbiddenError
    """
    principal = require_staff()
    if principal.role is None:
        raise ForbiddenError("An API key lets nobody in, and makes no keys: sign in as a person.")
    return principal


def _found(row: Row | None) -> Row:
    if row is None:
        raise RowNotFoundError
    return row
