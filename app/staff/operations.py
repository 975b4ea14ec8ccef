"""The people of the staff: signing in and out, being added, disabled and given a role. The verbs, without HTTP."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from app.admin.scopes import across_tenants, on_staff_tables
from app.audit.actors import Actor, ActorKind, acting_as
from app.audit.entries import record_platform
from app.auth.desk import Desk
from app.errors import FieldError, NotSignedInError, RowNotFoundError, TakenError
from app.staff import secrets
from app.staff.models import StaffAccount, StaffSignIn, staff_of_email
from app.staff.permissions import StaffRole
from tenancy.session import PlatformSession
from tenancy.tables import new_id

log = logging.getLogger(__name__)

_WRONG = "The e-mail address or the password is wrong."


class LastOwnerError(TakenError):
    """The change would leave the service without an owner."""

    kind = "last_owner"


@dataclass(frozen=True)
class StaffSignedIn:
    """A sign-in that just happened, and its secret; that is stored nowhere in this form."""

    staff: StaffAccount
    token: str
    expires_at: datetime


# Signing in -------------------------------------------------------------------------------------------


def sign_in(desk: Desk, *, email: str, password: str) -> StaffSignedIn:
    """Sign somebody of the staff in. It takes the same steps, and as long, for an address that nobody has.

    email: normalised.
    Raises: NotSignedInError - address or password is wrong, or she is disabled; which of them is not said.
    """
    found = desk.look_up(staff_of_email, email)
    staff_id: UUID = found[0].id if found else new_id()
    with acting_as(Actor(ActorKind.STAFF, str(staff_id), email)):
        with across_tenants(reason="staff sign-in: check the password") as session:
            person = session.get(StaffAccount, staff_id)
        stored = None if person is None else person.password_hash
        # Checked outside of any transaction, also for who is disabled.
        is_right = desk.passwords.check(stored, password)
        if not is_right or stored is None or person is None or person.disabled_at is not None:
            log.warning("staff.sign_in_refused")
            raise NotSignedInError(_WRONG)
        renewed = desk.passwords.hash(password) if desk.passwords.is_outdated(stored) else None
        return _open_sign_in(desk, staff_id, stored, renewed)


def _open_sign_in(desk: Desk, staff_id: UUID, checked: str, renewed: str | None) -> StaffSignedIn:
    token = secrets.new_sign_in_token()
    expires_at = datetime.now(UTC) + desk.staff_sign_in_ttl
    with on_staff_tables(reason="staff sign-in") as session:
        person = _locked(session, staff_id)
        # What was checked may have changed since: she was disabled, or set another password.
        if person.disabled_at is not None or person.password_hash != checked:
            raise NotSignedInError(_WRONG)
        if renewed is not None:
            person.password_hash = renewed
        session.add(StaffSignIn(staff_id=staff_id, token_hash=secrets.hash_of(token), expires_at=expires_at))
        record_platform(session, "staff.signed_in", target=("staff", staff_id))
    return StaffSignedIn(person, token, expires_at)


def sign_out(sign_in_id: UUID) -> None:
    """End a sign-in: its token stops counting at once."""
    with on_staff_tables(reason="staff sign-out") as session:
        ended = update(StaffSignIn).where(StaffSignIn.id == sign_in_id, StaffSignIn.ended_at.is_(None))
        for staff_id in session.scalars(ended.values(ended_at=func.now()).returning(StaffSignIn.staff_id)).all():
            record_platform(session, "staff.signed_out", target=("staff", staff_id))


def end_sign_ins(session: PlatformSession, staff_id: UUID) -> None:
    """End every sign-in of one person, in the session's transaction."""
    session.execute(
        update(StaffSignIn)
        .where(StaffSignIn.staff_id == staff_id, StaffSignIn.ended_at.is_(None))
        .values(ended_at=func.now())
    )


# The people -------------------------------------------------------------------------------------------


def add_staff(*, email: str, role: StaffRole, reason: str) -> StaffAccount:
    """Add somebody to the staff; without a password, until she uses a link that sets one.

    email: normalised.
    Raises: TakenError - somebody of the staff has this address, disabled or not.
    """
    with on_staff_tables(reason=reason) as session:
        person = insert_staff(session, email=email, role=role, password_hash=None)
        record_platform(
            session, "staff.added", target=("staff", person.id), after={"email": email, "role": role}, reason=reason
        )
    return person


def insert_staff(session: PlatformSession, *, email: str, role: StaffRole, password_hash: str | None) -> StaffAccount:
    """Insert one person in the session's transaction.

    Raises: TakenError
    """
    made = session.scalar(
        insert(StaffAccount)
        .values(id=new_id(), email=email, role=role, password_hash=password_hash)
        .on_conflict_do_nothing(index_elements=[StaffAccount.email])
        .returning(StaffAccount.id)
    )
    if made is None:
        raise TakenError(
            "Somebody of the staff has this e-mail address.",
            errors=[FieldError(field="email", message="already in use: enable that account, or use another address")],
        )
    person: StaffAccount = session.get_one(StaffAccount, made)
    return person


def change_role(staff_id: UUID, role: StaffRole, *, reason: str) -> StaffAccount:
    """Give somebody another role; her sign-ins and keys have it at once.

    Raises: RowNotFoundError, LastOwnerError
    """
    with on_staff_tables(reason=reason) as session:
        person = _locked(session, staff_id, beside_owners=True)
        was = StaffRole(person.role)
        if was is StaffRole.OWNER and role is not StaffRole.OWNER:
            _refuse_last_owner(session, person)
        person.role = role
        record_platform(
            session,
            "staff.role_changed",
            target=("staff", staff_id),
            before={"role": was},
            after={"role": role},
            reason=reason,
        )
    return person


def disable_staff(staff_id: UUID, *, reason: str) -> StaffAccount:
    """Let somebody no longer in: her sign-ins end, and the keys she answers for stop, at once.

    Raises: RowNotFoundError, LastOwnerError
    """
    with on_staff_tables(reason=reason) as session:
        person = _locked(session, staff_id, beside_owners=True)
        if person.disabled_at is None:
            _refuse_last_owner(session, person)
            person.disabled_at = datetime.now(UTC)
            end_sign_ins(session, staff_id)
            record_platform(session, "staff.disabled", target=("staff", staff_id), reason=reason)
    return person


def enable_staff(staff_id: UUID, *, reason: str) -> StaffAccount:
    """Let somebody in again, by the password she had; her earlier sign-ins stay ended.

    Raises: RowNotFoundError
    """
    with on_staff_tables(reason=reason) as session:
        person = _locked(session, staff_id)
        if person.disabled_at is not None:
            person.disabled_at = None
            record_platform(session, "staff.enabled", target=("staff", staff_id), reason=reason)
    return person


def staff_by_email(desk: Desk, email: str) -> UUID:
    """Return the id of the person with this address, for the command line.

    Raises: RowNotFoundError
    """
    found = desk.look_up(staff_of_email, email)
    if not found:
        raise RowNotFoundError
    staff_id: UUID = found[0].id
    return staff_id


def _locked(session: PlatformSession, staff_id: UUID, *, beside_owners: bool = False) -> StaffAccount:
    """Return the person, locked; beside her every active owner where their number matters, in one order."""
    wanted = StaffAccount.id == staff_id
    if beside_owners:
        wanted |= (StaffAccount.role == StaffRole.OWNER) & StaffAccount.disabled_at.is_(None)
    rows = session.scalars(select(StaffAccount).where(wanted).order_by(StaffAccount.id).with_for_update()).all()
    person = next((row for row in rows if row.id == staff_id), None)
    if person is None:
        raise RowNotFoundError
    return person


def _refuse_last_owner(session: PlatformSession, person: StaffAccount) -> None:
    """Raises: LastOwnerError. The owners are locked: nobody else takes the other one away meanwhile."""
    if person.role != StaffRole.OWNER or person.disabled_at is not None:
        return
    others = session.scalar(
        select(func.count())
        .select_from(StaffAccount)
        .where(StaffAccount.role == StaffRole.OWNER, StaffAccount.disabled_at.is_(None), StaffAccount.id != person.id)
    )
    if not others:
        raise LastOwnerError("This is the last owner who can sign in: make somebody else an owner first.")
