"""Usage and limits of one tenant at the command line."""

from __future__ import annotations

import click
from flask.cli import AppGroup
from rich.console import RenderableType

from app.admin.scopes import in_tenant
from app.cli.operators import REASON, TENANT, amount_of, operated, table_of, tenant_named
from app.plans.changes import HELD
from app.usage.models import Bucket
from app.usage.operations import parse_range, read_usage
from app.usage.quotas import recount
from app.usage.routes import quotas_of
from app.usage.schemas import QuotaList, RecountAnswer, UsageAnswer

usage = AppGroup("usage", help="Show what a tenant used, and how much of its limits.")


def _used(found: UsageAnswer) -> RenderableType:
    rows = [(f"{one.at:%Y-%m-%d %H:%M}", *_amounts(one)) for one in found.buckets]
    return table_of(
        ("from", "requests", "refused", "errors", "ms", "rows", "bytes out", "members", "stored bytes"),
        [*rows, ("all", *_amounts(found.total))],
    )


def _amounts(one: object) -> list[str]:
    names = ("requests", "refusals", "errors", "latency_ms", "rows", "bytes_out", "members", "storage_bytes")
    return ["" if getattr(one, name) is None else amount_of(getattr(one, name)) for name in names]


def _limits(found: QuotaList) -> RenderableType:
    return table_of(
        ("limit", "used", "of"), [(one.quota, amount_of(one.used), amount_of(one.limit)) for one in found.items]
    )


def _recounted(found: RecountAnswer) -> RenderableType:
    return table_of(("limit", "was off by"), list(found.off.items()))


@usage.command("show")
@TENANT
@click.option("--range", "given", default="30d", show_default=True, help="Hours or days up to now: 24h, 30d.")
@click.option("--bucket", type=click.Choice([one.value for one in Bucket]), default=Bucket.DAY.value, show_default=True)
@operated(_used)
def show(tenant: str, given: str, bucket: str) -> UsageAnswer:
    """Show what TENANT used, by hour or by day."""
    with in_tenant(tenant_named(tenant), reason="command line: usage") as session:
        by = Bucket(bucket)
        return UsageAnswer.of(read_usage(session, parse_range(given, by), by), by)


@usage.command("limits")
@TENANT
@operated(_limits)
def limits(tenant: str) -> QuotaList:
    """Show how much of each limit TENANT has used."""
    with in_tenant(tenant_named(tenant), reason="command line: limits") as session:
        return quotas_of(session)


@usage.command("recount")
@TENANT
@REASON
@operated(_recounted)
def count_again(tenant: str, reason: str) -> RecountAnswer:
    """Count again what TENANT has, and set right what was off."""
    with in_tenant(tenant_named(tenant), reason=reason) as session:
        return RecountAnswer(off={str(quota): off for quota in HELD if (off := recount(session, quota))})
