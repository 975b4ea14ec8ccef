"""What the routes of `auth` take and answer."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import Field

from app.auth.operations import SignedIn
from app.members.permissions import Permission, Role
from app.schemas import Answer, Body, Email, GivenPassword, Name, NewPassword, Text
from app.tenants.models import Plan


class Registration(Body):
    """A new organisation and its first owner."""

    organization_name: Name
    admin_email: Email
    admin_password: NewPassword
    plan: Plan = Plan.BASIC


class Credentials(Body):
    """What somebody signs in with."""

    email: Email
    password: GivenPassword
    tenant: Text | None = Field(None, description="Slug or id of the tenant, for who belongs to several.")


class Refresh(Body):
    """A refresh token to exchange."""

    refresh_token: Text = Field(min_length=1, max_length=200)


class Switch(Body):
    """The tenant to go on in."""

    tenant: Text = Field(min_length=1, max_length=63, description="Slug or id of a tenant you belong to.")


class User(Answer):
    """The person signed in, as the tenant knows her."""

    id: UUID = Field(description="The account's id, the same in every tenant.")
    member_id: UUID
    email: str
    role: Role


class Tokens(Answer):
    """A fresh pair of tokens. The refresh token works once; keep the one that replaces it."""

    tenant_id: UUID
    slug: str
    access_token: str
    refresh_token: str
    token_type: str = "Bearer"  # noqa: S105 - the name of a scheme
    expires_in_s: int
    user: User

    @classmethod
    def of(cls, signed_in: SignedIn, *, expires_in_s: int) -> Tokens:
        return cls(
            tenant_id=signed_in.tenant.id,
            slug=signed_in.tenant.slug,
            access_token=signed_in.access_token,
            refresh_token=signed_in.refresh_token,
            expires_in_s=expires_in_s,
            user=User(
                id=signed_in.subject.account_id,
                member_id=signed_in.member_id,
                email=signed_in.email,
                role=signed_in.role,
            ),
        )


class TenantSummary(Answer):
    """A tenant, as its members see it."""

    tenant_id: UUID
    slug: str
    name: str
    role: Role


class Impersonated(Answer):
    """Who of the platform's staff acts as this member, why, and until when."""

    id: UUID
    staff_email: str
    reason: str
    can_write: bool
    ends_at: datetime


class Me(Answer):
    """Who is asking, for which tenant, and what she may do there."""

    user: User
    tenant: TenantSummary
    permissions: list[Permission]
    memberships: list[TenantSummary] = Field(description="Every tenant she can switch to, this one included.")
    impersonation: Impersonated | None = Field(None, description="There when staff of the platform act as her.")
