"""Beginning and ending impersonations."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.audit.entries import record
from app.auth.desk import Desk
from app.auth.models import SignIn
from app.auth.tokens import Subject
from app.configuration.keys import IMPERSONATION
from app.errors import ForbiddenError, ProblemError, RowNotFoundError
from app.impersonation.models import Impersonation
from app.members.models import Member
from app.plans.standing import standings
from tenancy.directory import TenantRecord
from tenancy.locks import tenant_lock
from tenancy.tables import new_id


class NestedImpersonationError(ProblemError):
    """This person of the staff acts as a member of this tenant already."""

    code = 409
    kind = "impersonating"

    def __init__(self) -> None:
        super().__init__("You act as a member of this tenant already: end that first.")


@dataclass(frozen=True)
class Begun:
    """An impersonation that has begun; the token is stored nowhere."""

    impersonation: Impersonation
    access_token: str


def begin(
    desk: Desk,
    session: Session,
    tenant: TenantRecord,
    *,
    member_id: UUID,
    staff_id: UUID,
    staff_email: str,
    reason: str,
    life: timedelta,
    can_write: bool,
) -> Begun:
    """Act as a member for a time, without a refresh token: it cannot be drawn out.

    session: of the tenant, as staff. life: at most what the settings allow; the caller has seen to that.
    Raises: RowNotFoundError - no such member. ForbiddenError - the tenant forbids it. NestedImpersonationError.
    """
    if not standings().read(session).setting(IMPERSONATION):
        raise ForbiddenError("This tenant forbids impersonation (security.impersonation).")
    member: Member | None = session.get(Member, member_id)
    if member is None:
        raise RowNotFoundError
    tenant_lock(session, f"impersonation:{staff_id}")  # or two begun at one moment would not see each other
    if any(one.staff_id == staff_id for one in active(session)):
        raise NestedImpersonationError
    ends_at = datetime.now(UTC) + life
    opened = SignIn(id=new_id(), member_id=member.id, expires_at=ends_at)
    session.add(opened)
    session.flush()
    begun = Impersonation(
        id=new_id(),
        member_id=member.id,
        sign_in_id=opened.id,
        staff_id=staff_id,
        staff_email=staff_email,
        reason=reason,
        ends_at=ends_at,
        can_write=can_write,
    )
    session.add(begun)
    about = {"member": member.email, "ends_at": ends_at, "can_write": can_write, "impersonation_id": begun.id}
    record(session, "impersonation.began", target=("member", member.id), after=about, reason=reason)
    session.flush()
    session.refresh(begun)
    subject = Subject(account_id=member.account_id, tenant_id=tenant.id, sign_in_id=opened.id)
    return Begun(begun, desk.access_tokens.issue(subject, tenant, impersonator=staff_email))


def active(session: Session) -> list[Impersonation]:
    """Return the impersonations that count now, the latest first."""
    wanted = (Impersonation.ends_at > func.now(), SignIn.ended_at.is_(None))
    rows = select(Impersonation).join(
        SignIn, (SignIn.tenant_id == Impersonation.tenant_id) & (SignIn.id == Impersonation.sign_in_id)
    )
    return list(session.scalars(rows.where(*wanted).order_by(Impersonation.created_at.desc())))


def stop(session: Session, impersonation_id: UUID, *, reason: str | None = None) -> None:
    """End an impersonation: its token stops counting at once.

    session: of the tenant, as staff or as a member who manages members. Raises: RowNotFoundError - none is active.
    """
    found = next((one for one in active(session) if one.id == impersonation_id), None)
    if found is None:
        raise RowNotFoundError
    session.execute(update(SignIn).where(SignIn.id == found.sign_in_id).values(ended_at=func.now()))
    about = {"staff": found.staff_email, "impersonation_id": found.id}
    record(session, "impersonation.ended", target=("member", found.member_id), after=about, reason=reason)
