"""Summing usage each hour; and each night counting again, noting what every tenant has, and removing what is old."""

from __future__ import annotations

import logging
from datetime import timedelta
from uuid import UUID

from flask import Flask, current_app
from sqlalchemy import func, select

from app.config import Settings
from app.db import Database
from app.plans.changes import EXTENSION as COUNTERS
from app.plans.changes import HELD
from app.queue.asking import enqueue_platform
from app.queue.tasks import Job, platform_task
from app.tenants.models import Tenant
from app.tenants.states import Status
from app.usage.ledger import prune, record_gauges, roll_up, touched_since
from app.usage.quotas import recount
from tenancy.context import platform_scope, tenant_scope

log = logging.getLogger(__name__)

# The last run may have been missed, and twice does no harm.
WITHIN = timedelta(hours=26)
_AT_ONCE = 200
_EXTENSION = "usage_keep_days"
_REASON = "usage"


def init_app(app: Flask, settings: Settings) -> None:
    app.extensions[_EXTENSION] = settings.usage_keep_days


@platform_task(name="usage.roll_up", cron="7 * * * *")
def roll_up_usage(job: Job) -> None:
    """Sum what came into the ledger lately; a tenant that fails stops no other."""
    run_rollup(job.database)


def run_rollup(database: Database, *, within: timedelta = WITHIN) -> int:
    """Sum the days of whatever was written within this time; returns of how many tenants. May be repeated."""
    with platform_scope(actor=_REASON, reason="sum usage"), database.platform_sessions() as session:
        touched = touched_since(session, within)

    def roll(tenant_id: UUID) -> None:
        with (
            platform_scope(actor=_REASON, reason="sum usage"),
            tenant_scope(tenant_id),
            database.staff_sessions.begin() as session,
        ):
            roll_up(session, since=touched[tenant_id])

    for tenant_id in touched:
        try:
            roll(tenant_id)
        except Exception:
            log.exception("usage.not_summed", extra={"tenant": str(tenant_id)})
    return len(touched)


@platform_task(name="usage.take_stock", cron="13 1 * * *")
def take_stock(job: Job, after: str | None = None) -> None:
    """Count again what every tenant has, note it in the ledger, and remove old records; a part of them at a time.

    after: id of the tenant before the first; None begins with the first of all.
    """
    with job.database.platform_sessions() as session:
        served = select(Tenant.id).where(Tenant.status.not_in((Status.DELETING, Status.DELETED)))
        ids = served.order_by(Tenant.id).limit(_AT_ONCE)
        tenants = session.scalars(ids if after is None else ids.where(Tenant.id > UUID(after))).all()
    if not tenants:
        return
    keep_days: int = current_app.extensions[_EXTENSION]
    for tenant_id in tenants:
        try:
            stock_of(job.database, tenant_id, keep_days=keep_days)
        except Exception:
            log.exception("usage.no_stock", extra={"tenant": str(tenant_id)})
    with job.database.platform_sessions.begin() as session:
        enqueue_platform(session, take_stock, after=str(tenants[-1]))


def stock_of(database: Database, tenant_id: UUID, *, keep_days: int) -> dict[str, int]:
    """Take stock of one tenant; returns how far each of its counters was off. Somebody must be named as acting."""
    with (
        platform_scope(actor=_REASON, reason="take stock"),
        tenant_scope(tenant_id),
        database.staff_sessions.begin() as session,
    ):
        off = {str(quota): found for quota in HELD if (found := recount(session, quota))}
        counters = current_app.extensions[COUNTERS]
        day = session.scalar(select(func.to_char(func.timezone("UTC", func.clock_timestamp()), "YYYY-MM-DD")))
        record_gauges(session, {quota: counters[quota](session) for quota in HELD}, key=f"stock-{day}")
        prune(session, keep_days=keep_days)
    return off
