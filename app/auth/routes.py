"""Registering, signing in, refreshing, switching and signing out over HTTP."""

from __future__ import annotations

from flask import Blueprint

from app.auth import operations
from app.auth.access import require_principal, signed_in, without_tenant
from app.auth.desk import desk
from app.auth.operations import SignedIn
from app.auth.schemas import Credentials, Impersonated, Me, Refresh, Registration, Switch, TenantSummary, Tokens, User
from app.db import evidence_of_tenant, release_connection, session, tenancy
from app.impersonation.reach import even_impersonated
from app.openapi import answers
from tenancy.errors import ConflictingReferencesError

blueprint = Blueprint("auth", __name__, url_prefix="/api/v1")


def _tenant_wanted(asked: str | None) -> str | None:
    """Return the tenant to sign in to: the one asked for, or else the one at whose address she asks."""
    here = evidence_of_tenant()
    if here is None:
        return asked
    if asked not in (None, here.slug, str(here.id)):
        raise ConflictingReferencesError(
            "the request names different tenants by its address and its body", hint="sign in at the other's address"
        )
    return here.slug


def _tokens(found: SignedIn) -> Tokens:
    return Tokens.of(found, expires_in_s=desk().access_tokens.ttl_s)


@blueprint.post("/auth/register-organization")
@without_tenant(reason="the tenant does not exist yet")
@answers(201, Tokens, tag="auth", needs_token=False)
def register_organization(json: Registration) -> tuple[Tokens, int]:
    """Create a tenant with its first owner, and sign her in."""
    found = operations.register_organization(
        desk(),
        name=json.organization_name,
        email=json.admin_email,
        password=json.admin_password,
        plan=json.plan,
    )
    return _tokens(found), 201


@blueprint.post("/auth/login")
@without_tenant(reason="the tenant follows from who signs in")
@answers(200, Tokens, tag="auth", needs_token=False)
def login(json: Credentials) -> Tokens:
    """Sign in to a tenant.

    Who belongs to several and names none gets 409 `choose_tenant`, with her own tenants under `tenants`.
    """
    return _tokens(
        operations.sign_in(desk(), email=json.email, password=json.password, tenant=_tenant_wanted(json.tenant))
    )


@blueprint.post("/auth/refresh")
@without_tenant(reason="the refresh token names the tenant")
@answers(200, Tokens, tag="auth", needs_token=False)
def refresh(json: Refresh) -> Tokens:
    """Exchange a refresh token for a new pair.

    Each works once. A second use ends the whole sign-in, because one of the two users is not its owner.
    """
    here = evidence_of_tenant()
    return _tokens(operations.refresh(desk(), json.refresh_token, at_tenant=here.id if here else None))


@blueprint.post("/auth/logout")
@signed_in
@even_impersonated
@answers(204, None, tag="auth")
def logout() -> tuple[str, int]:
    """End the sign-in: its access and refresh tokens stop working at once."""
    operations.sign_out(session(), require_principal().sign_in_id)
    session().commit()
    return "", 204


@blueprint.post("/auth/switch")
@signed_in
@answers(200, Tokens, tag="auth")
def switch(json: Switch) -> Tokens:
    """Sign in to another of your tenants without the password."""
    release_connection()
    return _tokens(operations.switch_tenant(desk(), require_principal().account_id, json.tenant))


@blueprint.get("/me")
@signed_in
@even_impersonated
@answers(200, Me, tag="auth")
def me() -> Me:
    """Say who is asking, for which tenant, and what she may do there."""
    principal = require_principal()
    release_connection()
    tenants = [
        TenantSummary(tenant_id=one.tenant.id, slug=one.tenant.slug, name=one.tenant.name, role=one.role)
        for one in operations.memberships_of(desk(), principal.account_id)
        if principal.impersonation is None  # her other tenants are no business of who acts as her in this one
    ]
    # By this request's own tenant: it may have been closed since, and then it is not among those one can go to.
    tenant = tenancy().tenant
    here = TenantSummary(tenant_id=tenant.id, slug=tenant.slug, name=tenant.name, role=principal.role)
    return Me(
        user=User(id=principal.account_id, member_id=principal.member_id, email=principal.email, role=principal.role),
        tenant=here,
        permissions=sorted(principal.permissions),
        memberships=tenants,
        impersonation=Impersonated.model_validate(principal.impersonation) if principal.impersonation else None,
    )
