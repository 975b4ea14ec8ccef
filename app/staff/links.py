"""One-time links: how a password is set by whoever it belongs to. There are no default credentials."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import func, select, text, update

from app.admin.scopes import across_tenants, on_staff_tables
from app.audit.actors import Actor, ActorKind, acting_as
from app.audit.entries import record_platform
from app.auth.desk import Desk
from app.auth.passwords import refuse_weak
from app.configuration.keys import PasswordPolicy
from app.errors import ForbiddenError, RowNotFoundError
from app.staff import secrets
from app.staff.models import LinkPurpose, StaffAccount, StaffLink, staff_link_by_hash
from app.staff.operations import end_sign_ins, insert_staff
from app.staff.permissions import StaffRole
from tenancy.session import PlatformSession

# Whoever makes the first owner holds it, so that two links used at one moment do not make two.
_FIRST_OWNER_LOCK = 7_310_114
# Long rather than colourful; no tenant's plan has a say in it.
_POLICY = PasswordPolicy(min_length=12, upper=False, lower=False, number=False, special=False)


class SpentLinkError(ForbiddenError):
    """A one-time link is unknown, was used, replaced or has expired; which of them is not said."""

    kind = "link_spent"

    def __init__(self) -> None:
        super().__init__("This link no longer counts: ask for a new one.")


def issue_first_owner_link(desk: Desk) -> str | None:
    """Return a fresh secret that makes the first owner, and void those before it; None once there is staff."""
    with across_tenants(reason="look for platform staff") as session:
        if _has_staff(session):
            return None
    return _issue(desk, LinkPurpose.FIRST_OWNER, None, reason="there is no platform staff yet")


def issue_password_link(desk: Desk, staff_id: UUID, *, reason: str) -> str:
    """Return a fresh secret that sets one person's password, and void those before it.

    Raises: RowNotFoundError - she is not of the staff, or is disabled.
    """
    return _issue(desk, LinkPurpose.SET_PASSWORD, staff_id, reason=reason)


def _issue(desk: Desk, purpose: LinkPurpose, staff_id: UUID | None, *, reason: str) -> str:
    token = secrets.new_link_token()
    with on_staff_tables(reason=reason) as session:
        if staff_id is not None:
            person = session.get(StaffAccount, staff_id)
            if person is None or person.disabled_at is not None:
                raise RowNotFoundError
        _void(session, purpose, staff_id)
        session.add(
            StaffLink(
                staff_id=staff_id,
                purpose=purpose,
                token_hash=secrets.hash_of(token),
                expires_at=datetime.now(UTC) + desk.staff_link_ttl,
            )
        )
        target = None if staff_id is None else ("staff", staff_id)
        record_platform(session, "staff_link.issued", target=target, after={"purpose": purpose}, reason=reason)
    return token


def make_first_owner(desk: Desk, token: str, *, email: str, password: str) -> StaffAccount:
    """Make the first owner by a one-time link, with the password of her choice.

    Raises: SpentLinkError - the link does not count, or there is staff by now. InvalidInputError - as `set_password`.
    """
    _look_at(desk, token, LinkPurpose.FIRST_OWNER)
    refuse_weak(password, _POLICY, field="password")
    password_hash = desk.passwords.hash(password)
    with (
        acting_as(Actor(ActorKind.SYSTEM, "first_owner_link", f"one-time link of {email}")),
        on_staff_tables(reason="make the first owner") as session,
    ):
        session.execute(text("SELECT pg_catalog.pg_advisory_xact_lock(:lock)"), {"lock": _FIRST_OWNER_LOCK})
        if _has_staff(session):
            raise SpentLinkError
        _use(session, token, LinkPurpose.FIRST_OWNER)
        person = insert_staff(session, email=email, role=StaffRole.OWNER, password_hash=password_hash)
        after = {"email": email, "role": StaffRole.OWNER}
        record_platform(session, "staff.added", target=("staff", person.id), after=after)
    return person


def set_password(desk: Desk, token: str, *, password: str) -> StaffAccount:
    """Set the password of the person a one-time link was made for; every sign-in she had ends.

    Raises: SpentLinkError. InvalidInputError - the password is too short.
    """
    staff_id = _look_at(desk, token, LinkPurpose.SET_PASSWORD)
    refuse_weak(password, _POLICY, field="password")
    password_hash = desk.passwords.hash(password)
    with (
        acting_as(Actor(ActorKind.STAFF, str(staff_id), "one-time link")),
        on_staff_tables(reason="set a password by a one-time link") as session,
    ):
        found = _use(session, token, LinkPurpose.SET_PASSWORD)
        person: StaffAccount = session.get_one(StaffAccount, found, with_for_update=True)
        if person.disabled_at is not None:
            raise SpentLinkError
        person.password_hash = password_hash
        end_sign_ins(session, person.id)
        record_platform(session, "staff.password_set", target=("staff", person.id))
    return person


def _look_at(desk: Desk, token: str, purpose: LinkPurpose) -> UUID | None:
    """Return whom a link is for, before anything is written or hashed.

    Raises: SpentLinkError
    """
    found = desk.look_up(staff_link_by_hash, secrets.hash_of(token))
    if not found or found[0].purpose != purpose:
        raise SpentLinkError
    if found[0].used_at is not None or found[0].expires_at <= datetime.now(UTC):
        raise SpentLinkError
    staff_id: UUID | None = found[0].staff_id
    return staff_id


def _use(session: PlatformSession, token: str, purpose: LinkPurpose) -> UUID | None:
    """Use a link up, so that of two uses at one moment the second finds it used; return whom it is for.

    Raises: SpentLinkError
    """
    row = session.execute(
        update(StaffLink)
        .where(
            StaffLink.token_hash == secrets.hash_of(token),
            StaffLink.purpose == purpose,
            StaffLink.used_at.is_(None),
            StaffLink.expires_at > func.clock_timestamp(),
        )
        .values(used_at=func.now())
        .returning(StaffLink.staff_id)
    ).one_or_none()
    if row is None:
        raise SpentLinkError
    found: UUID | None = row[0]
    return found


def _void(session: PlatformSession, purpose: LinkPurpose, staff_id: UUID | None) -> None:
    session.execute(
        update(StaffLink)
        .where(
            StaffLink.purpose == purpose,
            StaffLink.staff_id.is_not_distinct_from(staff_id),
            StaffLink.used_at.is_(None),
        )
        .values(used_at=func.now())
    )


def _has_staff(session: PlatformSession) -> bool:
    return session.scalar(select(StaffAccount.id).limit(1)) is not None
