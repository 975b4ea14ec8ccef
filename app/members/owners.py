"""Inviting the first owner of a tenant that the platform makes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import event, select
from sqlalchemy.orm import Session

from app import mail
from app.audit.entries import record
from app.config import Settings
from app.errors import ProblemError
from app.members import invitations
from app.members.models import Invitation
from app.members.permissions import Role
from app.tenants.models import Tenant
from tenancy.context import require_tenant
from tenancy.tables import new_id


def owner_inviter(settings: Settings) -> Callable[[Session, str], None]:
    """Return what invites an owner; the address of the link follows from the settings, as no request may be there."""
    scheme = "http" if settings.is_development else "https"

    def invite_owner(session: Session, email: str) -> None:
        """Invite the owner in the caller's transaction; the mail goes out once it is committed.

        One that is lost on the way is sent anew by the platform, as by whoever provisions the tenant again.
        Raises: MailUnavailableError - no mail can go out.
        """
        invitations.check_mail()
        slug = session.get_one(Tenant, require_tenant()).slug  # who provisions it has read it
        token = invitations.new_token()
        invitation = Invitation(
            id=new_id(),
            email=email,
            role=Role.OWNER,
            token_hash=invitations.hash_of(token),
            expires_at=datetime.now(UTC) + timedelta(seconds=settings.invitation_ttl_s),
            invited_by=invitations.BY_THE_PLATFORM,
        )
        session.add(invitation)
        about = {"email": email, "role": Role.OWNER}
        record(session, "member.invited", target=("invitation", invitation.id), after=about)
        link = f"{scheme}://{slug}.{settings.base_domain}/invitation?token={token}"
        ends = invitation.expires_at
        event.listen(session, "after_commit", lambda _session: _send(email, link, ends), once=True)

    return invite_owner


class NoOwnerInvitedError(ProblemError):
    """There is no open invitation of a first owner: she has accepted, or none was ever sent."""

    code = 409
    kind = "no_owner_invited"


def renew_owners(session: Session, *, reason: str) -> tuple[Invitation, str]:
    """Renew the open invitation of the first owner, and return it with its token; also when it has run out.

    The caller sends it once this is committed. Raises: NoOwnerInvitedError, MailUnavailableError
    """
    invitations.check_mail()
    is_open = (Invitation.accepted_at.is_(None), Invitation.revoked_at.is_(None))
    of_platform = (Invitation.invited_by == invitations.BY_THE_PLATFORM, Invitation.role == Role.OWNER)
    invitation = session.scalar(select(Invitation).where(*is_open, *of_platform).with_for_update())
    if invitation is None:
        raise NoOwnerInvitedError("No invitation of a first owner is open: she has accepted it, or none was sent.")
    token = invitations.renew(invitation)
    about = {"email": invitation.email}
    record(session, "invitation.sent_anew", target=("invitation", invitation.id), after=about, reason=reason)
    return invitation, token


def _send(email: str, link: str, ends: datetime) -> None:
    try:
        mail.send(to=email, subject="You are invited", body=invitations.words(Role.OWNER, ends, link))
    except mail.MailError:
        return  # logged there; what was committed cannot be taken back for a mail
