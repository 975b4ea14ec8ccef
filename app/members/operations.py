"""Changing and removing members: a tenant always keeps an owner, and nobody hands on more than she has."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from uuid import UUID

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from app.audit.entries import record
from app.audit.redaction import changes_of
from app.errors import ForbiddenError, ProblemError, RowNotFoundError
from app.members.models import Member
from app.members.permissions import MATRIX, Permission, Role, permissions_of
from app.usage.quotas import Quota, release

RANK: Mapping[Role, int] = {Role.MEMBER: 0, Role.MANAGER: 1, Role.ADMIN: 2, Role.OWNER: 3}


class LastOwnerError(ProblemError):
    """The tenant would be left without an owner who can manage its members."""

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
    member, actor, has_other_owner = _locked(session, member_id, by)
    check_rank(actor, Role(member.role))
    role = role or Role(member.role)
    check_rank(actor, role)
    exceptions = member.permissions if permissions is None else {str(name): on for name, on in permissions.items()}
    granted = permissions_of(role, exceptions)
    # What a role brings, and what a lifted exception gives back, is given, too; she may be changing herself.
    _check_reach(actor, (granted - member.granted) | {name for name, on in (permissions or {}).items() if on})
    stays_able = role is Role.OWNER and Permission.MEMBERS_MANAGE in granted
    if _is_able_owner(member) and not stays_able and not has_other_owner:
        raise LastOwnerError
    if role != member.role:
        member.role = role
    if permissions is not None:
        member.permissions = exceptions
    before, after = changes_of(member)
    if after:
        record(session, "member.changed", target=("member", member.id), before=before, after=after)
    session.flush()
    return member


def remove_member(session: Session, member_id: UUID, *, by: UUID) -> None:
    """Remove a member; her sign-ins in this tenant end with it. Her account, and her other tenants, stay.

    Raises: RowNotFoundError, ForbiddenError, LastOwnerError
    """
    member, actor, has_other_owner = _locked(session, member_id, by)
    check_rank(actor, Role(member.role))
    if _is_able_owner(member) and not has_other_owner:
        raise LastOwnerError
    before = {"email": member.email, "role": member.role, "account_id": member.account_id}
    record(session, "member.removed", target=("member", member.id), before=before)
    release(session, Quota.USERS)
    session.delete(member)
    session.flush()


def _locked(session: Session, member_id: UUID, by: UUID) -> tuple[Member, Member, bool]:
    """Lock the member, who asks, and every owner, in one order; return the two, and whether there is another owner.

    Whoever comes second waits here, and then sees what the first has done: also that she is no owner any more.
    """
    wanted = or_(Member.id.in_((member_id, by)), Member.role == Role.OWNER)
    locking = select(Member).where(wanted).order_by(Member.id).with_for_update()
    found = {row.id: row for row in session.scalars(locking, execution_options={"populate_existing": True})}
    if member_id not in found:
        raise RowNotFoundError
    if by not in found or Permission.MEMBERS_MANAGE not in found[by].granted:
        raise ForbiddenError("Your role here does not include members.manage any more.")
    others = (row for row in found.values() if row.id != member_id)
    return found[member_id], found[by], any(map(_is_able_owner, others))


def _is_able_owner(member: Member) -> bool:
    return member.role == Role.OWNER and Permission.MEMBERS_MANAGE in member.granted


def check_rank(actor: Member, role: Role) -> None:
    """See that a role is not above the actor's own.

    Raises: ForbiddenError
    """
    if RANK[role] > RANK[Role(actor.role)]:
        raise ForbiddenError(f"Your role here is {actor.role}, which does not reach up to {role}.")


def check_gift(actor: Member, role: Role) -> None:
    """See that a role is not above the actor's own, and holds nothing that was withdrawn from her.

    Raises: ForbiddenError
    """
    check_rank(actor, role)
    _check_reach(actor, MATRIX[role])


def _check_reach(actor: Member, given: AbstractSet[Permission]) -> None:
    # An owner's own exceptions bind nobody who could undo them, so that no tenant shuts itself out of anything.
    beyond = sorted(given - (MATRIX[Role.OWNER] if actor.role == Role.OWNER else actor.granted))
    if beyond:
        raise ForbiddenError(f"You cannot give what you do not have: {', '.join(beyond)}.")
