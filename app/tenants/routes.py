"""A tenant's own domains, and whether a slug can still be had."""

from __future__ import annotations

from uuid import UUID

from flask import Blueprint, url_for
from sqlalchemy import select

from app.auth.access import permits, without_tenant
from app.auth.desk import desk
from app.db import release_connection, session
from app.errors import InvalidInputError, RowNotFoundError
from app.members.permissions import Permission
from app.openapi import answers
from app.tenants import domains
from app.tenants.models import Domain, reserved_slug, tenant_by_slug
from app.tenants.registrar import registrar
from app.tenants.schemas import DomainAnswer, DomainList, NewDomain, SlugAnswer, SlugQuery
from app.tenants.slugs import refuse_unusable_slug, slug_candidates
from tenancy.context import require_tenant

blueprint = Blueprint("tenants", __name__, url_prefix="/api/v1")


@blueprint.get("/domains")
@permits(Permission.DOMAINS_MANAGE)
@answers(200, DomainList, tag="domains")
def list_domains() -> DomainList:
    """List the domains this tenant has claimed."""
    rows = session().scalars(select(Domain).order_by(Domain.domain, Domain.id))
    return DomainList(items=[DomainAnswer.of(row) for row in rows])


@blueprint.post("/domains")
@permits(Permission.DOMAINS_MANAGE)
@answers(201, DomainAnswer, tag="domains")
def claim_domain(json: NewDomain) -> tuple[DomainAnswer, int, dict[str, str]]:
    """Claim a domain; it leads here once the TXT record in `expected` was found. The same claim twice is one."""
    release_connection()
    claim = domains.claim_domain(registrar(), require_tenant(), json.domain)
    return DomainAnswer.of(claim), 201, {"Location": url_for(".read_domain", row_id=claim.id)}


@blueprint.get("/domains/<uuid:row_id>")
@permits(Permission.DOMAINS_MANAGE)
@answers(200, DomainAnswer, tag="domains")
def read_domain(row_id: UUID) -> DomainAnswer:
    """Read one claim, as it was when last looked at."""
    claim = session().get(Domain, row_id)
    if claim is None:
        raise RowNotFoundError
    return DomainAnswer.of(claim)


@blueprint.post("/domains/<uuid:row_id>/check")
@permits(Permission.DOMAINS_MANAGE)
@answers(200, DomainAnswer, tag="domains")
def check_domain(row_id: UUID) -> DomainAnswer:
    """Ask the DNS now. A resolver may go on giving the old answer until that expires."""
    release_connection()
    return DomainAnswer.of(domains.check_domain(registrar(), require_tenant(), row_id))


@blueprint.delete("/domains/<uuid:row_id>")
@permits(Permission.DOMAINS_MANAGE)
@answers(204, None, tag="domains")
def release_domain(row_id: UUID) -> tuple[str, int]:
    """Give a domain up; it leads nowhere at once."""
    release_connection()
    domains.release_domain(registrar(), require_tenant(), row_id)
    return "", 204


@blueprint.get("/slugs/availability")
@without_tenant(reason="the tenant does not exist yet")
@answers(200, SlugAnswer, tag="auth", needs_token=False)
def slug_availability(query: SlugQuery) -> SlugAnswer:
    """Say whether a slug can be had, as somebody types it; and if not, one like it that can."""
    try:
        wanted = refuse_unusable_slug(query.slug)
    except InvalidInputError as error:
        return SlugAnswer(
            slug=query.slug, is_available=False, reason=error.errors[0].message, suggestion=_free(query.slug)
        )
    if _is_had(wanted):
        return SlugAnswer(slug=wanted, is_available=False, reason="it is in use", suggestion=_free(wanted))
    return SlugAnswer(slug=wanted, is_available=True, reason=None, suggestion=None)


def _is_had(slug: str) -> bool:
    """By whom, and whether that tenant is open, closed or gone, is not said."""
    return bool(desk().look_up(tenant_by_slug, slug) or desk().look_up(reserved_slug, slug))


def _free(text: str) -> str | None:
    return next((slug for slug in slug_candidates(text) if not _is_had(slug)), None)
