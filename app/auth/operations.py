"""Registering, signing in and out, refreshing, switching: the verbs of `auth`, without HTTP."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.audit.actors import Actor, ActorKind, acting_as
from app.audit.entries import record
from app.auth.desk import Desk
from app.auth.models import RefreshToken, SignIn, refresh_token_by_hash
from app.auth.passwords import refuse_weak
from app.auth.timeouts import timeout_of
from app.auth.tokens import Subject, new_refresh_token, refresh_token_hash
from app.configuration.keys import PASSWORD_POLICY, SESSION_TIMEOUT
from app.errors import ChoiceNeededError, FieldError, ForbiddenError, NotSignedInError, TakenError
from app.members.models import Account, Member, account_of_email, memberships
from app.members.permissions import Role
from app.plans.catalogue import shipped_catalogue
from app.tenants.models import Plan, tenant_by_slug
from app.tenants.provisioning import HeldError, take_steps, violated, write_record
from app.tenants.slugs import slug_candidates
from app.tenants.states import Status
from tenancy.context import account_scope, tenant_scope
from tenancy.directory import Reference, TenantRecord
from tenancy.tables import new_id

log = logging.getLogger(__name__)

_REGISTERS = "an organisation registers itself"
_WRONG = "The e-mail address or the password is wrong."
_NOT_REFRESHABLE = "This refresh token no longer counts: sign in again."


@dataclass(frozen=True)
class Membership:
    """One tenant an account belongs to."""

    tenant: TenantRecord
    member_id: UUID
    role: Role


@dataclass(frozen=True)
class SignedIn:
    """A sign-in that just happened, and the secrets to hand out; they are stored nowhere in this form."""

    subject: Subject
    tenant: TenantRecord
    member_id: UUID
    role: Role
    email: str
    access_token: str
    refresh_token: str


# Registering ------------------------------------------------------------------------------------------


def register_organization(desk: Desk, *, name: str, email: str, password: str, plan: Plan) -> SignedIn:
    """Create a tenant and its first owner in one transaction, and sign her in.

    email: normalised. Where it already has an account, the password must be that account's, and the
    account becomes the owner.
    Raises: TakenError - the e-mail address cannot be used with this password; nothing is written.
    InvalidInputError - the plan asks for a better password; also of an account there is, or this would tell of it.
    """
    policy = shipped_catalogue().newest(plan).setting(PASSWORD_POLICY)
    refuse_weak(password, policy, field="admin_password")
    account_id, password_hash = _known_or_new(desk, email, password)
    for slug in slug_candidates(name):
        if desk.look_up(tenant_by_slug, slug):
            continue
        tenant = TenantRecord(new_id(), slug, name, Status.ACTIVE)
        try:
            return _write_organization(desk, tenant, account_id, password_hash, email=email, plan=plan)
        except HeldError:
            continue
        except IntegrityError as error:
            # Somebody was faster: with the slug, try the next one; with the address, she is a stranger now.
            constraint = violated(error)
            if constraint == "uq_accounts_email":
                raise _address_refused() from None
            if constraint != "uq_tenants_slug":
                raise
    raise TakenError("No free address was found for this name: choose another.")


def _known_or_new(desk: Desk, email: str, password: str) -> tuple[UUID, str | None]:
    """Return the account and, if it must still be created, its password hash."""
    found = desk.look_up(account_of_email, email)
    if not found:
        return new_id(), desk.passwords.hash(password)
    account_id: UUID = found[0].id
    if not desk.passwords.check(_password_hash(desk, account_id), password):
        raise _address_refused()
    return account_id, None


def _address_refused() -> TakenError:
    return TakenError(
        "This e-mail address cannot be used with this password.",
        errors=[FieldError(field="admin_email", message="use another address, or the password you already have here")],
    )


def _write_organization(
    desk: Desk, tenant: TenantRecord, account_id: UUID, password_hash: str | None, *, email: str, plan: Plan
) -> SignedIn:
    """Take every step of provisioning in one transaction: the password is kept nowhere to go on with later."""
    members: list[Member] = []

    def make_owner(session: Session) -> None:
        if password_hash is not None:
            session.add(Account(id=account_id, email=email, password_hash=password_hash))
            session.flush()
        member = Member(account_id=account_id, email=email, role=Role.OWNER)
        session.add(member)
        session.flush()
        about = {"email": email, "role": member.role}
        record(session, "member.registered", target=("member", member.id), after=about)
        members.append(member)

    timeout = timedelta(seconds=shipped_catalogue().newest(plan).setting(SESSION_TIMEOUT))
    registrant = Actor(ActorKind.ACCOUNT, str(account_id), email)
    with (
        acting_as(registrant),
        desk.registrar.in_tenant(tenant.id, reason=_REGISTERS, account_id=account_id) as session,
    ):
        opened = write_record(session, tenant, plan=plan, given={}, reason=_REGISTERS)
        take_steps(desk.registrar, session, opened, reason=_REGISTERS, owner=make_owner)
        return _open_sign_in(desk, session, tenant, members[0], timeout=timeout)


# Signing in -------------------------------------------------------------------------------------------


def sign_in(desk: Desk, *, email: str, password: str, tenant: str | None) -> SignedIn:
    """Sign somebody in to one of her tenants.

    email: normalised. tenant: a slug or an id; None takes the only one she has.
    Raises: NotSignedInError - address or password is wrong, and which of the two is not said.
    ChoiceNeededError - she has several tenants; it lists hers. ForbiddenError - she has none, or not this one.
    """
    account_id = authenticate(desk, email=email, password=password)
    chosen = _choose(memberships_of(desk, account_id), tenant)
    return _sign_in_to(desk, account_id, chosen)


def authenticate(desk: Desk, *, email: str, password: str) -> UUID:
    """Return the account that the address and the password open; takes as long when there is none.

    Raises: NotSignedInError
    """
    found = desk.look_up(account_of_email, email)
    # An unknown address takes the same steps, for an account that is nobody's.
    account_id: UUID = found[0].id if found else new_id()
    stored = _password_hash(desk, account_id)
    if not desk.passwords.check(stored, password) or stored is None:
        raise NotSignedInError(_WRONG)
    if desk.passwords.is_outdated(stored):
        renewed = desk.passwords.hash(password)
        with account_scope(account_id), desk.database.sessions.begin() as session:
            session.execute(update(Account).where(Account.id == account_id).values(password_hash=renewed))
    return account_id


def _password_hash(desk: Desk, account_id: UUID) -> str | None:
    with account_scope(account_id), desk.database.sessions() as session:
        return session.scalar(select(Account.password_hash).where(Account.id == account_id))


def memberships_of(desk: Desk, account_id: UUID) -> Sequence[Membership]:
    """Return the tenants an account may act in now, by name: those that are active."""
    found = []
    for row in desk.look_up_for(account_id, memberships):
        tenant = desk.directory.find(Reference("id", str(row.tenant_id)))
        if tenant is not None and tenant.status == "active":
            found.append(Membership(tenant, row.id, Role(row.role)))
    return sorted(found, key=lambda membership: (membership.tenant.name, membership.tenant.slug))


def _choose(found: Sequence[Membership], tenant: str | None) -> Membership:
    if tenant is not None:
        found = [membership for membership in found if tenant in (membership.tenant.slug, str(membership.tenant.id))]
        if not found:
            raise ForbiddenError("You are not a member of this tenant, or it is not open.")
    if not found:
        raise ForbiddenError("You are not a member of any tenant that is open.")
    if len(found) > 1:
        choices = [
            {"tenant_id": str(one.tenant.id), "slug": one.tenant.slug, "name": one.tenant.name, "role": one.role}
            for one in found
        ]
        raise ChoiceNeededError(
            "You belong to several tenants: send one of these slugs as `tenant`.", members={"tenants": choices}
        )
    return found[0]


def _sign_in_to(desk: Desk, account_id: UUID, chosen: Membership) -> SignedIn:
    with tenant_scope(chosen.tenant, account=account_id), desk.database.sessions.begin() as session:
        member = session.get(Member, chosen.member_id)
        if member is None:  # removed since the memberships were read
            raise ForbiddenError("You are not a member of this tenant, or it is not open.")
        return _open_sign_in(desk, session, chosen.tenant, member, timeout=timeout_of(desk, session))


def switch_tenant(desk: Desk, account_id: UUID, tenant: str) -> SignedIn:
    """Sign the same person in to another of her tenants; the sign-in she came with stays open.

    Raises: ForbiddenError - she is not a member there; the same for a tenant that does not exist.
    """
    return _sign_in_to(desk, account_id, _choose(memberships_of(desk, account_id), tenant))


def _open_sign_in(
    desk: Desk, session: Session, tenant: TenantRecord, member: Member, *, timeout: timedelta
) -> SignedIn:
    opened = SignIn(id=new_id(), member_id=member.id, expires_at=datetime.now(UTC) + min(timeout, desk.sign_in_ttl))
    session.add(opened)
    with acting_as(_as_herself(member)):
        record(session, "member.signed_in", target=("member", member.id), after={"sign_in_id": opened.id})
    session.flush()
    return _hand_out(desk, session, tenant, member, opened)


def _as_herself(member: Member) -> Actor:
    return Actor(ActorKind.ACCOUNT, str(member.account_id), member.email)


def _hand_out(desk: Desk, session: Session, tenant: TenantRecord, member: Member, opened: SignIn) -> SignedIn:
    subject = Subject(account_id=member.account_id, tenant_id=tenant.id, sign_in_id=opened.id)
    return SignedIn(
        subject=subject,
        tenant=tenant,
        member_id=member.id,
        role=Role(member.role),
        email=member.email,
        access_token=desk.access_tokens.issue(subject, tenant),
        refresh_token=_add_refresh_token(desk, session, opened),
    )


def _add_refresh_token(desk: Desk, session: Session, opened: SignIn) -> str:
    secret = new_refresh_token()
    # The sign-in may be carried on by use, up to its longest life; its own end is looked at, too.
    expires_at = min(datetime.now(UTC) + desk.refresh_token_ttl, opened.created_at + desk.sign_in_ttl)
    session.add(RefreshToken(sign_in_id=opened.id, token_hash=refresh_token_hash(secret), expires_at=expires_at))
    return secret


# Refreshing and signing out ---------------------------------------------------------------------------


def refresh(desk: Desk, token: str, *, at_tenant: UUID | None) -> SignedIn:
    """Exchange a refresh token for a new pair.

    at_tenant: the tenant the request names besides, by host or header; None when it names none.
    Raises: NotSignedInError - the token is unknown, expired or ended. Used before, or brought to another
    tenant, it was stolen or mislaid: then the whole sign-in is ended as well.
    """
    found = desk.look_up(refresh_token_by_hash, refresh_token_hash(token))
    if not found:
        raise NotSignedInError(_NOT_REFRESHABLE)
    tenant = desk.directory.find(Reference("id", str(found[0].tenant_id)))
    if tenant is None or tenant.status != "active":
        raise NotSignedInError(_NOT_REFRESHABLE)
    is_mislaid = at_tenant is not None and at_tenant != tenant.id
    with tenant_scope(tenant), desk.database.sessions.begin() as session:
        renewed = _rotate(desk, session, tenant, found[0].id, found[0].sign_in_id, is_mislaid=is_mislaid)
    if renewed is None:  # outside of the block: that the sign-in ended must be committed
        raise NotSignedInError(_NOT_REFRESHABLE)
    return renewed


def _rotate(
    desk: Desk, session: Session, tenant: TenantRecord, token_id: UUID, sign_in_id: UUID, *, is_mislaid: bool
) -> SignedIn | None:
    # The lock comes first: of two uses at one moment, the second must see the first.
    opened = session.scalar(select(SignIn).where(SignIn.id == sign_in_id).with_for_update())
    token = session.get(RefreshToken, token_id)
    now = datetime.now(UTC)
    if opened is None or token is None or opened.ended_at is not None:
        return None
    if token.used_at is not None or is_mislaid:
        opened.ended_at = now
        log.warning("auth.refresh_token_misused", extra={"sign_in_id": str(opened.id), "is_mislaid": is_mislaid})
        with acting_as(_as_herself(session.get_one(Member, opened.member_id))):
            misuse = {"sign_in_id": opened.id, "at_another_tenant": is_mislaid}
            record(session, "refresh_token.misused", target=("member", opened.member_id), after=misuse)
        return None
    if min(token.expires_at, opened.expires_at) <= now:
        return None
    member = session.get_one(Member, opened.member_id)
    token.used_at = now
    opened.expires_at = min(now + timeout_of(desk, session), opened.created_at + desk.sign_in_ttl)
    return _hand_out(desk, session, tenant, member, opened)


def sign_out(session: Session, sign_in_id: UUID) -> None:
    """End a sign-in: its access tokens, cookie and refresh tokens stop counting at once."""
    ended = update(SignIn).where(SignIn.id == sign_in_id).values(ended_at=func.now()).returning(SignIn.member_id)
    for member_id in session.scalars(ended):
        record(session, "member.signed_out", target=("member", member_id), after={"sign_in_id": sign_in_id})
