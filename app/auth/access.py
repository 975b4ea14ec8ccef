"""Who may call a route. Every route says so by one mark, here or in app.admin.access; one without is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar, cast
from uuid import UUID

from flask import Flask, g
from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session

from app.audit.actors import Actor, ActorKind
from app.auth.models import SignIn
from app.errors import ForbiddenError, NotSignedInError
from app.impersonation.models import WITHHELD, Impersonation
from app.members.models import Member
from app.members.permissions import Permission, Role
from app.staff.permissions import StaffPermission

View = TypeVar("View", bound=Callable[..., Any])
_MARK = "_access"
_PRINCIPAL = "principal"


@dataclass(frozen=True)
class Access:
    """What a route asks of its caller.

    permission: what the caller's role must include; None asks only for a sign-in.
    needs_staff, staff: it is for platform staff, and for those with this permission.
    reason: why a route asks for no sign-in of a tenant at all; empty where it does.
    """

    needs_tenant: bool = True
    needs_sign_in: bool = True
    permission: Permission | None = None
    needs_staff: bool = False
    staff: StaffPermission | None = None
    reason: str = ""


@dataclass(frozen=True)
class Principal:
    """The person behind a request, as a member of its tenant.

    impersonation: there when it is staff who act as her; the permissions are then what is left of hers.
    """

    account_id: UUID
    member_id: UUID
    sign_in_id: UUID
    expires_at: datetime
    tenant_id: UUID
    email: str
    role: Role
    permissions: frozenset[Permission]
    impersonation: Impersonation | None = None

    # What Flask-Login asks of a user.
    is_authenticated = True
    is_active = True
    is_anonymous = False

    def get_id(self) -> str:
        return f"{self.tenant_id}.{self.sign_in_id}"

    def actor(self) -> Actor:
        """Return how the audit names this principal."""
        impersonator = self.impersonation.staff_email if self.impersonation else None
        return Actor(ActorKind.ACCOUNT, str(self.account_id), self.email, impersonator=impersonator)


# The marks --------------------------------------------------------------------------------------------


def permits(permission: Permission) -> Callable[[View], View]:
    """Let in whoever is signed in to the tenant with this permission."""
    return mark(Access(permission=permission))


def signed_in(view: View) -> View:
    """Let in whoever is signed in to the tenant, whatever the role."""
    return mark(Access())(view)


def anyone(*, reason: str) -> Callable[[View], View]:
    """Let in anyone who names the tenant, signed in or not, such as for its sign-in page."""
    return mark(Access(needs_sign_in=False, reason=reason))


def without_tenant(*, reason: str) -> Callable[[View], View]:
    """Let in anyone, and act for no tenant; `create_app` exempts the route from the extension for this reason."""
    return mark(Access(needs_tenant=False, needs_sign_in=False, reason=reason))


def mark(access: Access) -> Callable[[View], View]:
    """Return the decorator that says this of a route."""
    if not access.needs_sign_in and not access.reason.strip():
        raise ValueError("a route that asks for no sign-in needs a reason")

    def apply(view: View) -> View:
        setattr(view, _MARK, access)
        return view

    return apply


def access_of(view: Callable[..., Any]) -> Access | None:
    """Return what a route asks of its caller; None when nobody has said."""
    return cast("Access | None", getattr(view, _MARK, None))


def check_routes(app: Flask) -> Mapping[str, Access]:
    """Return the access of every endpoint.

    Raises: RuntimeError - names each route that has no mark.
    """
    found = {endpoint: access_of(view) for endpoint, view in app.view_functions.items()}
    unmarked = sorted(endpoint for endpoint, access in found.items() if access is None)
    if unmarked:
        raise RuntimeError(f"nobody said who may call {', '.join(unmarked)}: mark them, see app.auth.access")
    return {endpoint: access for endpoint, access in found.items() if access is not None}


# The principal ----------------------------------------------------------------------------------------


def find_principal(session: Session, sign_in_id: UUID) -> Principal | None:
    """Return who holds a sign-in that still counts and is still a member, in the session's tenant. One statement."""
    row = session.execute(
        select(Member, SignIn.id, SignIn.expires_at, Impersonation)
        .join(SignIn, and_(SignIn.tenant_id == Member.tenant_id, SignIn.member_id == Member.id))
        .outerjoin(
            Impersonation,
            and_(Impersonation.tenant_id == SignIn.tenant_id, Impersonation.sign_in_id == SignIn.id),
        )
        .where(SignIn.id == sign_in_id, SignIn.ended_at.is_(None), SignIn.expires_at > func.now())
    ).one_or_none()
    if row is None:
        return None
    member, found_id, expires_at, impersonation = row
    if impersonation is not None and impersonation.ends_at <= datetime.now(UTC):
        return None
    return Principal(
        account_id=member.account_id,
        member_id=member.id,
        sign_in_id=found_id,
        expires_at=expires_at,
        tenant_id=member.tenant_id,
        email=member.email,
        role=Role(member.role),
        permissions=member.granted if impersonation is None else member.granted - WITHHELD,
        impersonation=impersonation,
    )


def remember_principal(principal: Principal | None) -> None:
    """Note who is behind the current request; the guard does, once."""
    setattr(g, _PRINCIPAL, principal)


def current_principal() -> Principal | None:
    """Return who is behind the current request; None when nobody is signed in to its tenant."""
    return cast("Principal | None", g.get(_PRINCIPAL))


def require_principal() -> Principal:
    """Return who is behind the current request.

    Raises: NotSignedInError
    """
    principal = current_principal()
    if principal is None:
        raise NotSignedInError("Sign in first: send `Authorization: Bearer <access_token>`.")
    return principal


def require_permission(permission: Permission) -> Principal:
    """Return who is behind the current request, if her role reaches this far.

    Raises: NotSignedInError, ForbiddenError
    """
    principal = require_principal()
    if permission not in principal.permissions:
        raise ForbiddenError(f"Your role here is {principal.role}, which does not include {permission}.")
    return principal
