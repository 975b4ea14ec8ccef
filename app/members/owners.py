"""Inviting the first owner of a tenant that the platform makes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import event
from sqlalchemy.orm import Session

from app import mail
from app.audit.entries import record
from app.config import Settings
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


def _send(email: str, link: str, ends: datetime) -> None:
    try:
        mail.send(to=email, subject="You are invited", body=invitations.words(Role.OWNER, ends, link))
    except mail.MailError:
        return  # logged there; what was committed cannot be taken back for a mail
