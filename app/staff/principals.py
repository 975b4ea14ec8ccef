"""Who of the staff is behind a request: a person by her sign-in, or a program by its API key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

from flask import g

from app.audit.actors import Actor, ActorKind
from app.auth.desk import Desk
from app.errors import ForbiddenError, NotSignedInError
from app.staff import secrets
from app.staff.models import staff_by_id, staff_key_by_hash, staff_sign_in_by_hash
from app.staff.permissions import MATRIX, StaffPermission, StaffRole

_PRINCIPAL = "staff_principal"
_ENDED = "This token no longer counts: sign in again at /api/v1/admin/auth/login."
_KEY_ENDED = "This API key no longer counts: it was revoked, has expired, or its maker has left."


@dataclass(frozen=True)
class StaffPrincipal:
    """Somebody of the staff, or a program of theirs.

    staff_id: the person; of a key, who answers for it. role: None for a key, which has permissions alone.
    sign_in_id, key_id: one of the two is there.
    """

    staff_id: UUID
    email: str
    role: StaffRole | None
    permissions: frozenset[StaffPermission]
    sign_in_id: UUID | None = None
    key_id: UUID | None = None
    key_prefix: str | None = None
    key_used_at: datetime | None = None

    def actor(self) -> Actor:
        """Return how the audit names this principal."""
        if self.key_id is not None:
            return Actor(ActorKind.KEY, str(self.key_id), f"{self.key_prefix} ({self.email})")
        return Actor(ActorKind.STAFF, str(self.staff_id), self.email)


def find_staff(desk: Desk, token: str) -> StaffPrincipal:
    """Return whom a staff token or an API key speaks for, as of now.

    Raises: NotSignedInError - it is neither, or no longer counts.
    """
    if token.startswith(secrets.SIGN_IN):
        return _by_sign_in(desk, token)
    if token.startswith(secrets.KEY):
        return _by_key(desk, token)
    raise NotSignedInError("Platform staff sign in here: send `Authorization: Bearer <staff token or API key>`.")


def _by_sign_in(desk: Desk, token: str) -> StaffPrincipal:
    found = desk.look_up(staff_sign_in_by_hash, secrets.hash_of(token))
    if not found or found[0].ended_at is not None or found[0].expires_at <= datetime.now(UTC):
        raise NotSignedInError(_ENDED)
    person = _active(desk, found[0].staff_id)
    if person is None:
        raise NotSignedInError(_ENDED)
    role = StaffRole(person.role)
    return StaffPrincipal(person.id, person.email, role, MATRIX[role], sign_in_id=found[0].id)


def _by_key(desk: Desk, token: str) -> StaffPrincipal:
    found = desk.look_up(staff_key_by_hash, secrets.hash_of(token))
    if not found or found[0].revoked_at is not None or found[0].expires_at <= datetime.now(UTC):
        raise NotSignedInError(_KEY_ENDED)
    key = found[0]
    person = _active(desk, key.staff_id)
    if person is None:
        raise NotSignedInError(_KEY_ENDED)
    # A key made by somebody whose role was narrowed since is narrowed with it.
    granted = MATRIX[StaffRole(person.role)] & {*map(StaffPermission, key.permissions)}
    return StaffPrincipal(
        person.id,
        person.email,
        None,
        granted,
        key_id=key.id,
        key_prefix=key.prefix,
        key_used_at=key.last_used_at,
    )


def _active(desk: Desk, staff_id: UUID) -> Any | None:
    found = desk.look_up(staff_by_id, staff_id)
    return found[0] if found and found[0].disabled_at is None else None


# The current request's --------------------------------------------------------------------------------


def remember_staff(principal: StaffPrincipal) -> None:
    """Note who of the staff is behind the current request; the guard does, once."""
    setattr(g, _PRINCIPAL, principal)


def current_staff() -> StaffPrincipal | None:
    """Return who of the staff is behind the current request; None on every route that is not theirs."""
    return cast("StaffPrincipal | None", g.get(_PRINCIPAL))


def require_staff() -> StaffPrincipal:
    """Return who of the staff is behind the current request.

    Raises: NotSignedInError
    """
    principal = current_staff()
    if principal is None:
        raise NotSignedInError("Platform staff sign in here: send `Authorization: Bearer <staff token or API key>`.")
    return principal


def check_reach(principal: StaffPrincipal, wanted: frozenset[StaffPermission]) -> None:
    """See that nobody hands on more than she has.

    Raises: ForbiddenError - names what is beyond her.
    """
    beyond = sorted(wanted - principal.permissions)
    if beyond:
        raise ForbiddenError(f"You cannot give what you do not have: {', '.join(beyond)}.")
