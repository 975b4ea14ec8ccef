"""Tenants at the command line, as far as they are looked at; what is done to them is in app/tenants/cli.py."""

from __future__ import annotations

import click
from rich.console import Group, RenderableType
from rich.table import Table

from app.admin.schemas import TenantDetail, TenantPage, TenantQuery
from app.admin.tenants import describe_tenant, page_of_tenants
from app.cli.operators import TENANT, operated, table_of, tenant_named
from app.tenants.cli import tenants
from app.tenants.models import Plan
from app.tenants.states import Status

__all__ = ["tenants"]


def _page(page: TenantPage) -> RenderableType:
    rows = [(one.slug, one.name, one.status, one.plan, f"{one.created_at:%Y-%m-%d}", one.id) for one in page.items]
    counts = ", ".join(f"{number} {status}" for status, number in page.counts.items() if number)
    more = f"There are more: --cursor {page.next_cursor}" if page.next_cursor else ""
    return Group(table_of(("slug", "name", "status", "plan", "since", "id"), rows), counts, more)


def _detail(found: TenantDetail) -> RenderableType:
    facts = Table.grid(padding=(0, 2))
    for name in ("id", "slug", "name", "status", "plan", "plan_version", "created_at", "updated_at", "erase_after"):
        facts.add_row(name, str(getattr(found, name) or ""))
    facts.add_row("may become", ", ".join(found.allowed))
    return Group(
        facts,
        table_of(("step", "state", "attempts", "error"), [(s.step, s.state, s.attempts, s.error) for s in found.steps]),
    )


@tenants.command("list")
@click.option("--status", type=click.Choice([one.value for one in Status]))
@click.option("--plan", type=click.Choice([one.value for one in Plan]))
@click.option("--search", help="Part of a name or slug, or a whole id.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)
@click.option("--cursor", help="Where the page before ended.")
@operated(_page)
def list_tenants(
    status: str | None, plan: str | None, search: str | None, limit: int, cursor: str | None
) -> TenantPage:
    """List tenants, the newest first, and count them by state."""
    query = TenantQuery(
        tenant=None,
        status=Status(status) if status else None,
        plan=Plan(plan) if plan else None,
        search=search,
        limit=limit,
        cursor=cursor,
        sort="-created_at",
    )
    return page_of_tenants(query, reason="command line: list tenants")


@tenants.command("show")
@TENANT
@operated(_detail)
def show(tenant: str) -> TenantDetail:
    """Show TENANT, a slug or an id: what it is, what may become of it, how far its provisioning is."""
    return describe_tenant(tenant_named(tenant), reason="command line: show tenant")
