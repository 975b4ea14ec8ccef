"""Custom domains at the command line."""

from __future__ import annotations

import click
from flask.cli import AppGroup
from rich.console import RenderableType
from sqlalchemy import select

from app.admin.scopes import in_tenant
from app.cli.operators import REASON, TENANT, operated, table_of, tenant_named
from app.errors import RowNotFoundError
from app.tenants.domains import check_domain
from app.tenants.models import Domain
from app.tenants.registrar import registrar
from app.tenants.schemas import DomainAnswer, DomainList

domains = AppGroup("domains", help="List the custom domains of a tenant, and ask the DNS about one.")


def _table(found: DomainList) -> RenderableType:
    rows = [
        (one.domain, one.state, one.expected.name, one.expected.value, ", ".join(one.found), one.checked_at)
        for one in found.items
    ]
    return table_of(("domain", "state", "record", "expected", "found", "checked"), rows)


@domains.command("list")
@TENANT
@operated(_table)
def list_domains(tenant: str) -> DomainList:
    """List the domains that TENANT has claimed: the record each needs, and what the DNS held when last asked."""
    with in_tenant(tenant_named(tenant), reason="command line: domains") as session:
        rows = session.scalars(select(Domain).order_by(Domain.domain, Domain.id))
        return DomainList(items=[DomainAnswer.of(row) for row in rows])


@domains.command("check")
@TENANT
@click.argument("domain")
@REASON
@operated(_table)
def check(tenant: str, domain: str, reason: str) -> DomainList:
    """Ask the DNS about a DOMAIN of TENANT now."""
    tenant_id = tenant_named(tenant)
    with in_tenant(tenant_id, reason=reason) as session:
        domain_id = session.scalar(select(Domain.id).where(Domain.domain == domain.lower()))
    if domain_id is None:
        raise RowNotFoundError
    return DomainList(items=[DomainAnswer.of(check_domain(registrar(), tenant_id, domain_id, reason=reason))])
