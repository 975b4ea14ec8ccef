"""How far an impersonation reaches: reading what the member reads, and writing only where that was asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from flask import request

from app import db
from app.audit.entries import record
from app.auth.desk import desk
from app.configuration.keys import IMPERSONATION
from app.configuration.operations import setting_of
from app.errors import ForbiddenError, NotSignedInError
from app.staff.models import staff_by_id
from app.staff.permissions import MATRIX, StaffPermission, StaffRole

if TYPE_CHECKING:
    from app.auth.access import Access, Principal

View = TypeVar("View", bound=Callable[..., Any])
_MARK = "_even_impersonated"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class ImpersonationError(ForbiddenError):
    """Whoever acts as a member has come to the end of how far that reaches."""

    kind = "impersonation"


def even_impersonated(view: View) -> View:
    """Let staff who act as a member call a route that asks only for a sign-in; others of its kind refuse them.

    Those are the person's own: her password, her other tenants, the way to another host.
    """
    setattr(view, _MARK, True)
    return view


def check_reach(principal: Principal, access: Access, view: Callable[..., Any] | None) -> None:
    """Refuse what an impersonation does not reach, and record what it changes.

    Raises: ImpersonationError. NotSignedInError - the person of the staff is none any more, or may not do this any
    more, or the tenant has forbidden it since.
    """
    found = principal.impersonation
    if found is None:
        return
    is_own = bool(getattr(view, _MARK, False))
    db.release_connection()  # the lookup takes another
    staff = desk().look_up(staff_by_id, found.staff_id)
    held = MATRIX[StaffRole(staff[0].role)] if staff and staff[0].disabled_at is None else frozenset()
    if StaffPermission.IMPERSONATE not in held:
        raise NotSignedInError("This impersonation has ended with the staff account, or with its role.")
    if not setting_of(db.session(), IMPERSONATION):
        raise NotSignedInError("This tenant forbids impersonation by now (security.impersonation).")
    if access.needs_sign_in and access.permission is None and not is_own:
        raise ImpersonationError("This belongs to the person herself; no impersonation reaches it.")
    if request.method in _SAFE or is_own:
        return
    if not found.can_write or StaffPermission.TENANTS_WRITE not in held:
        raise ImpersonationError("This impersonation may read only: begin one that may write, and say why.")
    target = ("impersonation", found.id)
    record(db.session(), "impersonation.wrote", target=target, after={"call": f"{request.method} {request.endpoint}"})
