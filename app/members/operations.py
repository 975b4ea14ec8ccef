"""Changing and removing members: a tenant always keeps an owner, and nobody hands on more than she has."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from app.audit.entries import record
from app.audit.redaction import changes_of
from app.errors import ForbiddenError, ProblemError, RowNotFoundError
from app.members.models import Member
from app.members.permissions import Permission, Role

RANK: Mapping[Role, int] = {Role.MEMBER: 0, Role.MANAGER: 1, Role.ADMIN: 2, Role.OWNER: 3}


class LastOwnerError(ProblemError):
    """The tenant would be left without an owner."""

    code = 409
    kind = "last_owner"

    def __init__(self) -> None:
        super().__init__("This is the tenant's last owner: make somebody else an owner first.")


def change_member(
    session: Session,
    member_id: UUID,
    *,
    by: UUID,
    role: Role | None,
    permissions: Mapping[Permission, bool] | None,
) -> Member:
    """Give a member another role, other exceptions, or both; None leaves what is there.

    by: the member who asks. It counts with her next request, also for tokens that are about.
    Raises: RowNotFoundError; ForbiddenError - either of the two roles is above hers, or she would give what she has
    not; LastOwnerError.
    """
    member, actor, owners = _locked(session, member_id, by)
    check_rank(actor, Role(member.role))
    if role is not None and role != member.role:
        check_rank(actor, role)
        if member.role == Role.OWNER and owners == 1:
            raise LastOwnerError
        member.role = role
    if permissions is not None:
        _check_reach(actor, {name for name, granted in permissions.items() if granted})
        member.permissions = {str(name): granted for name, granted in permissions.items()}
    before, after = changes_of(member)
    if after:
        record(session, "member.changed", target=("member", member.id), before=before, after=after)
    session.flush()
    return member


def remove_member(session: Session, member_id: UUID, *, by: UUID) -> None:
    """Remove a member; her sign-ins in this tenant end with it. Her account, and her other tenants, stay.

    Raises: RowNotFoundError, ForbiddenError, LastOwnerError
    """
    member, actor, owners = _locked(session, member_id, by)
    check_rank(actor, Role(member.role))
    if member.role == Role.OWNER and owners == 1:
        raise LastOwnerError
    before = {"email": member.email, "role": member.role, "account_id": member.account_id}
    record(session, "member.removed", target=("member", member.id), before=before)
    session.delete(member)
    session.flush()


def _locked(session: Session, member_id: UUID, by: UUID) -> tuple[Member, Member, int]:
    """Lock the member, who asks, and every owner, in one order; return the two, and how many owners there are now.

    Whoever comes second waits here, and then sees what the first has done: also that she is no owner any more.
    """
    wanted = or_(Member.id.in_((member_id, by)), Member.role == Role.OWNER)
    locking = select(Member).where(wanted).order_by(Member.id).with_for_update()
    found = {row.id: row for row in session.scalars(locking, execution_options={"populate_existing": True})}
    if member_id not in found:
        raise RowNotFoundError
    if by not in found or Permission.MEMBERS_MANAGE not in found[by].granted:
        raise ForbiddenError("Your role here does not include members.manage any more.")
    return found[member_id], found[by], sum(row.role == Role.OWNER for row in found.values())


def check_rank(actor: Member, role: Role) -> None:
    """See that a role is not above the actor's own.

    Raises: ForbiddenError
    """
    if RANK[role] > RANK[Role(actor.role)]:
        raise ForbiddenError(f"Your role here is {actor.role}, which does not reach up to {role}.")


def _check_reach(actor: Member, given: set[Permission]) -> None:
    beyond = sorted(given - actor.granted)
    if beyond:
        raise ForbiddenError(f"You cannot give what you do not have: {', '.join(beyond)}.")
