"""Marks of admin routes: which permission of platform staff each asks for."""

from __future__ import annotations

from collections.abc import Callable

from app.auth.access import Access, View, mark
from app.staff.permissions import StaffPermission

_REASON = "platform staff act for no tenant"


def staff_may(permission: StaffPermission) -> Callable[[View], View]:
    """Let in platform staff, or an API key of theirs, with this permission."""
    return mark(Access(needs_tenant=False, needs_sign_in=False, needs_staff=True, staff=permission, reason=_REASON))


def any_staff(view: View) -> View:
    """Let in whoever of the platform staff is signed in, or an API key of theirs."""
    return mark(Access(needs_tenant=False, needs_sign_in=False, needs_staff=True, reason=_REASON))(view)
