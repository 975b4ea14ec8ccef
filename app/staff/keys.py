"""API keys: made for a program, with a name, permissions and an end; shown once."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import func, or_, update

from app.admin.scopes import on_staff_tables
from app.audit.entries import record_platform
from app.errors import InvalidInputError, RowNotFoundError
from app.staff import secrets
from app.staff.models import StaffAccount, StaffKey
from app.staff.permissions import MATRIX, StaffPermission, StaffRole
from app.staff.principals import StaffPrincipal

log = logging.getLogger(__name__)

LONGEST_LIFE = timedelta(days=366)
# How far behind the truth `last_used_at` may be: a program that calls all day does not write all day.
_COARSE = timedelta(minutes=10)


@dataclass(frozen=True)
class NewKey:
    """A key that was just made, and its secret; that is stored nowhere in this form."""

    key: StaffKey
    secret: str


def make_key(
    staff_id: UUID, *, name: str, permissions: frozenset[StaffPermission], expires_at: datetime, reason: str
) -> NewKey:
    """Make an API key that one person answers for.

    expires_at: aware, in the future, at most LONGEST_LIFE away.
    Raises: InvalidInputError - it ends too early or too late, or reaches further than her role.
    RowNotFoundError - she is not of the staff, or is disabled.
    """
    now = datetime.now(UTC)
    if not now < expires_at <= now + LONGEST_LIFE:
        raise InvalidInputError.of("expires_at", f"must be in the future, at most {LONGEST_LIFE.days} days from now")
    if not permissions:
        raise InvalidInputError.of("permissions", "a key without any could do nothing: name at least one")
    secret, prefix = secrets.new_key()
    with on_staff_tables(reason=reason) as session:
        person = session.get(StaffAccount, staff_id, with_for_update=True)
        if person is None or person.disabled_at is not None:
            raise RowNotFoundError
        beyond = sorted(permissions - MATRIX[StaffRole(person.role)])
        if beyond:
            raise InvalidInputError.of("permissions", f"beyond the role {person.role}: leave out {', '.join(beyond)}")
        key = StaffKey(
            staff_id=staff_id,
            name=name,
            prefix=prefix,
            key_hash=secrets.hash_of(secret),
            permissions=sorted(permissions),
            expires_at=expires_at,
        )
        session.add(key)
        session.flush()
        after = {"name": name, "prefix": prefix, "permissions": key.permissions, "expires_at": expires_at.isoformat()}
        record_platform(session, "staff_key.made", target=("staff_key", key.id), after=after, reason=reason)
        session.refresh(key)
    return NewKey(key, secret)


def revoke_key(key_id: UUID, *, reason: str) -> StaffKey:
    """Stop a key at once; to stop it again changes nothing.

    Raises: RowNotFoundError
    """
    with on_staff_tables(reason=reason) as session:
        key: StaffKey | None = session.get(StaffKey, key_id, with_for_update=True)
        if key is None:
            raise RowNotFoundError
        if key.revoked_at is None:
            key.revoked_at = datetime.now(UTC)
            before = {"name": key.name, "prefix": key.prefix}
            record_platform(session, "staff_key.revoked", target=("staff_key", key_id), before=before, reason=reason)
    return key


def note_use(principal: StaffPrincipal) -> None:
    """Keep when a key was last used, coarsely: nearly every call writes nothing."""
    now = datetime.now(UTC)
    if principal.key_id is None or (principal.key_used_at is not None and principal.key_used_at > now - _COARSE):
        return
    with on_staff_tables(reason="note the use of an API key") as session:
        session.execute(
            update(StaffKey)
            .where(
                StaffKey.id == principal.key_id,
                or_(StaffKey.last_used_at.is_(None), StaffKey.last_used_at < now - _COARSE),
            )
            # Not by the model: to be used is no change of the key.
            .values(last_used_at=func.now(), updated_at=StaffKey.updated_at)
        )
