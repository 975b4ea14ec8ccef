"""Invitations: made, sent anew, revoked and accepted."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import UUID

from flask import Flask, current_app
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app import mail
from app.audit.actors import Actor, ActorKind, acting_as
from app.audit.entries import record
from app.auth.desk import Desk
from app.auth.passwords import refuse_weak
from app.config import Settings
from app.configuration.keys import PASSWORD_POLICY
from app.configuration.operations import setting_of
from app.errors import FieldError, ForbiddenError, ProblemError, TakenError
from app.members.models import Account, Invitation, Member, account_of_email, invitation_by_hash
from app.members.operations import check_gift, check_rank
from app.members.permissions import Permission, Role
from app.usage.quotas import Quota, consume, release
from tenancy.context import account_scope, tenant_scope
from tenancy.directory import Reference, TenantRecord
from tenancy.tables import new_id

log = logging.getLogger(__name__)

BY_THE_PLATFORM = UUID(int=0)  # instead of an account, where provisioning invites the first owner
_EXTENSION = "invitation_ttl"


class InvitationEndedError(ProblemError):
    """The token opens nothing: unknown, used, revoked, replaced, expired, of a closed tenant, or somebody else's."""

    code = 404
    kind = "invitation_ended"

    def __init__(self) -> None:
        super().__init__("This invitation no longer counts: ask whoever invited you to send it anew.")


class MailUnavailableError(ProblemError):
    """No mail can go out, and an invitation reaches people by nothing else."""

    code = 503
    kind = "mail_unavailable"


@dataclass(frozen=True)
class Sent:
    """An invitation that was sent. link: only in development, where whoever asks runs the program."""

    invitation: Invitation
    link: str | None


def init_app(app: Flask, settings: Settings) -> None:
    app.extensions[_EXTENSION] = timedelta(seconds=settings.invitation_ttl_s)


def invite(session: Session, *, email: str, role: Role, by: Member, link_of: Callable[[str], str]) -> Sent:
    """Invite an address, and send the invitation; says nothing of whether the address has an account.

    by: the member who invites. link_of: the address of the page for a token. Commits, so that no connection is held
    while the mail goes out.
    Raises: ForbiddenError - the role is above hers, or holds what was withdrawn from her. TakenError - the address is
    a member's, or is invited already.
    MailUnavailableError - no mail can go out; nothing is left behind. QuotaExceededError - every seat that the plan has
    is taken, by a member or by an open invitation.
    """
    check_gift(by, role)
    check_mail()
    if session.scalar(select(Member.id).where(Member.email == email)) is not None:
        raise _taken("is a member's here already")
    token = new_token()
    invitation = Invitation(
        id=new_id(),
        email=email,
        role=role,
        token_hash=hash_of(token),
        expires_at=datetime.now(UTC) + _ttl(),
        invited_by=by.account_id,
    )
    _end_expired(session)
    consume(session, Quota.USERS)
    session.add(invitation)
    record(session, "member.invited", target=("invitation", invitation.id), after={"email": email, "role": role})
    try:
        session.commit()
    except IntegrityError:
        session.rollback()
        raise _taken("is invited already: send that invitation anew") from None
    return send(invitation, token, link_of)


def send_anew(session: Session, invitation_id: UUID, *, by: Member, link_of: Callable[[str], str]) -> Sent | None:
    """Send an open invitation with a new token and a new life; the old token is dead. None: there is no open one."""
    check_mail()
    invitation = _open(session, invitation_id)
    if invitation is None:
        return None
    check_gift(by, Role(invitation.role))
    token = renew(invitation)
    invitation.invited_by = by.account_id
    record(session, "invitation.sent_anew", target=("invitation", invitation.id), after={"email": invitation.email})
    session.commit()
    return send(invitation, token, link_of)


def renew(invitation: Invitation) -> str:
    """Give an open invitation a new life, and return its new token; the old one is dead."""
    token = new_token()
    invitation.token_hash = hash_of(token)
    invitation.expires_at = datetime.now(UTC) + _ttl()
    return token


def revoke(session: Session, invitation_id: UUID, *, by: Member) -> bool:
    """Revoke an open invitation; False when there is no open one.

    Raises: ForbiddenError - its role is above hers.
    """
    invitation = _open(session, invitation_id)
    if invitation is None:
        return False
    check_rank(by, Role(invitation.role))
    release(session, Quota.USERS)
    invitation.revoked_at = datetime.now(UTC)
    record(session, "invitation.revoked", target=("invitation", invitation.id), before={"email": invitation.email})
    return True


def _open(session: Session, invitation_id: UUID) -> Invitation | None:
    wanted = (Invitation.id == invitation_id, Invitation.accepted_at.is_(None), Invitation.revoked_at.is_(None))
    return session.scalar(select(Invitation).where(*wanted).with_for_update())


def _end_expired(session: Session) -> None:
    """Invitations that have run out do not stand in the way of the next, and give their seats back."""
    now = datetime.now(UTC)
    is_open = (Invitation.accepted_at.is_(None), Invitation.revoked_at.is_(None))
    ended = select(Invitation).where(*is_open, Invitation.expires_at < now).order_by(Invitation.id)
    expired = session.scalars(ended.with_for_update(skip_locked=True)).all()
    if expired:
        release(session, Quota.USERS, len(expired))
    for old in expired:
        old.revoked_at = now
    session.flush()


# Accepting --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Invited:
    """What whoever holds the token of an open invitation may know. is_known: her address has an account already."""

    tenant: TenantRecord
    email: str
    role: Role
    is_known: bool


def show(desk: Desk, token: str) -> Invited:
    """Return what an invitation is for.

    Raises: InvitationEndedError
    """
    tenant, invitation = _find(desk, token)
    is_known = bool(desk.look_up(account_of_email, invitation.email))
    return Invited(tenant, invitation.email, Role(invitation.role), is_known)


@dataclass(frozen=True)
class Accepted:
    """Somebody who has just become a member."""

    tenant: TenantRecord
    account_id: UUID


def accept_with_password(desk: Desk, token: str, password: str) -> Accepted:
    """Become a member as whoever the invitation was sent to; an account is made if the address has none.

    The password is the account's; a new one must be as strong as the tenant asks for.
    Raises: InvitationEndedError. TakenError - the address has an account with another password, or is a member
    already. InvalidInputError - the password is too weak.
    """
    tenant, invitation = _find(desk, token)
    found = desk.look_up(account_of_email, invitation.email)
    if not found:
        with tenant_scope(tenant), desk.database.sessions() as session:
            refuse_weak(password, setting_of(session, PASSWORD_POLICY), field="password")
        account = Account(id=new_id(), email=invitation.email, password_hash=desk.passwords.hash(password))
        return _join(desk, tenant, invitation, token, account.id, new=account)
    account_id: UUID = found[0].id
    with account_scope(account_id), desk.database.sessions() as session:
        stored = session.scalar(select(Account.password_hash).where(Account.id == account_id))
    if not desk.passwords.check(stored, password):
        raise _password_refused()
    return _join(desk, tenant, invitation, token, account_id)


def accept_as(desk: Desk, token: str, account_id: UUID) -> Accepted:
    """Become a member as an account that is signed in somewhere; its address must be the one invited.

    Raises: InvitationEndedError, TakenError
    """
    tenant, invitation = _find(desk, token)
    with account_scope(account_id), desk.database.sessions() as session:
        email = session.scalar(select(Account.email).where(Account.id == account_id))
    if email != invitation.email:
        raise InvitationEndedError
    return _join(desk, tenant, invitation, token, account_id)


def _find(desk: Desk, token: str) -> tuple[TenantRecord, Invitation]:
    found = desk.look_up(invitation_by_hash, hash_of(token))
    tenant = desk.directory.find(Reference("id", str(found[0].tenant_id))) if found else None
    if tenant is None or tenant.status != "active":
        raise InvitationEndedError
    with tenant_scope(tenant), desk.database.sessions(expire_on_commit=False) as session:
        invitation: Invitation | None = session.get(Invitation, found[0].id)
        if invitation is None or not _counts(invitation, token):
            raise InvitationEndedError
        session.expunge(invitation)
    return tenant, invitation


def _counts(invitation: Invitation, token: str) -> bool:
    is_open = invitation.accepted_at is None and invitation.revoked_at is None
    return is_open and invitation.token_hash == hash_of(token) and invitation.expires_at > datetime.now(UTC)


def _join(
    desk: Desk, tenant: TenantRecord, wanted: Invitation, token: str, account_id: UUID, *, new: Account | None = None
) -> Accepted:
    herself = Actor(ActorKind.ACCOUNT, str(account_id), wanted.email)
    try:
        with (
            acting_as(herself),
            tenant_scope(tenant, account=account_id),
            desk.database.sessions.begin() as session,
        ):
            # The lock comes first: of two acceptances at one moment, the second must see the first.
            invitation = _open(session, wanted.id)
            if invitation is None or not _counts(invitation, token) or not _may_still_invite(session, invitation):
                raise InvitationEndedError
            if new is not None:
                session.add(new)
                session.flush()
            member = Member(id=new_id(), account_id=account_id, email=wanted.email, role=invitation.role)
            # The invitation kept a seat for her, which she takes now; fewer may be allowed since it was sent.
            consume(session, Quota.USERS, 0)
            session.add(member)
            invitation.accepted_at = datetime.now(UTC)
            joined = {"email": member.email, "role": member.role, "invitation_id": invitation.id}
            record(session, "member.joined", target=("member", member.id), after=joined)
    except IntegrityError as error:
        constraint = getattr(getattr(error.orig, "diag", None), "constraint_name", None)
        if constraint == "uq_accounts_email":  # made by somebody else since it was looked up
            raise _password_refused() from None
        if constraint == "uq_members_tenant_id_account_id":
            raise TakenError("You are a member of this tenant already: sign in.") from None
        raise
    return Accepted(tenant, account_id)


def _may_still_invite(session: Session, invitation: Invitation) -> bool:
    """Whoever was removed or demoted since does not come back, or bring somebody, by what she sent before."""
    if invitation.invited_by == BY_THE_PLATFORM:
        return True
    by = session.scalar(select(Member).where(Member.account_id == invitation.invited_by))
    if by is None or Permission.MEMBERS_MANAGE not in by.granted:
        return False
    try:
        check_gift(by, Role(invitation.role))
    except ForbiddenError:
        return False
    return True


def _password_refused() -> TakenError:
    return TakenError(
        "The invited address cannot be used with this password.",
        errors=[FieldError(field="password", message="send the password this address already has here")],
    )


# Sending ----------------------------------------------------------------------------------------------


def send(invitation: Invitation, token: str, link_of: Callable[[str], str]) -> Sent:
    """Send an invitation that is committed.

    Raises: MailUnavailableError - it did not go out.
    """
    link = link_of(token)
    try:
        mail.send(
            to=invitation.email,
            subject="You are invited",
            body=words(Role(invitation.role), invitation.expires_at, link),
        )
    except mail.MailError as error:
        raise MailUnavailableError(f"The invitation is kept, but {error}: send it anew later.") from None
    # Whoever holds the link can take the address for her own, and the account with it: the inviter must not, but
    # in development, where she could read it in the log as well.
    return Sent(invitation, link if mail.is_development() and not mail.can_send() else None)


def words(role: Role, ends_at: datetime, link: str) -> str:
    """Return what an invitation says."""
    return (
        f"You are invited to join as {role}. Accept before {ends_at:%Y-%m-%d %H:%M} UTC:\n\n{link}\n\n"
        "If you did not expect this, leave it unanswered.\n"
    )


def check_mail() -> None:
    """See that an invitation can reach anybody.

    Raises: MailUnavailableError
    """
    if not mail.can_send() and not mail.is_development():
        raise MailUnavailableError("Invitations go out by mail, and this service has no mail server: ask its operator.")


def _taken(what: str) -> TakenError:
    return TakenError("This address cannot be invited.", errors=[FieldError(field="email", message=what)])


def new_token() -> str:
    """Return a fresh secret; it is in the mail, and stored nowhere."""
    return secrets.token_urlsafe(32)


def hash_of(token: str) -> bytes:
    """Return what is stored of a token. It has 256 random bits, so a plain hash is enough."""
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


def _ttl() -> timedelta:
    found: timedelta = current_app.extensions[_EXTENSION]
    return found


def require_member(session: Session, member_id: UUID) -> Member:
    """Return the member who asks, as she stands now.

    Raises: ForbiddenError - she was removed meanwhile.
    """
    found: Member | None = session.get(Member, member_id)
    if found is None:
        raise ForbiddenError("You are no member of this tenant any more.")
    return found
