"""Retention from time to time, in every tenant whose audit has something old enough."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from uuid import UUID

from flask import Flask, current_app
from sqlalchemy import select

from app.audit.actors import Actor, ActorKind, acting_as
from app.audit.models import AuditLink
from app.audit.retention import prune
from app.config import Settings
from app.db import Database
from app.queue.tasks import Job, platform_task
from tenancy.context import platform_scope, tenant_scope

log = logging.getLogger(__name__)

_JOB = Actor(ActorKind.JOB, "audit.retention", "audit retention")
_REASON = "audit retention"
_EXTENSION = "audit_keep_days"


@platform_task(name="audit.retention", cron="47 2 * * *")
def retain(job: Job) -> None:
    """Remove what is older than the setting keeps; without one, nothing."""
    keep_days: int | None = current_app.extensions[_EXTENSION]
    if keep_days is not None:
        removed = run_retention(job.database, keep_days=keep_days)
        log.info("audit.pruned", extra={"entries": removed})


def init_app(app: Flask, settings: Settings) -> None:
    app.extensions[_EXTENSION] = settings.audit_keep_days


def run_retention(database: Database, *, keep_days: int) -> int:
    """Remove what is older than this from every tenant's audit, and return how many; a failure stops no other.

    keep_days: at least 30.
    """
    removed = 0
    with acting_as(_JOB):
        for tenant_id in _tenants_with_old_entries(database, keep_days):
            try:
                removed += prune_tenant(database, tenant_id, keep_days=keep_days)
            except Exception:
                log.exception("audit.retention_failed", extra={"tenant": str(tenant_id)})
    return removed


def prune_tenant(database: Database, tenant_id: UUID, *, keep_days: int) -> int:
    """Remove what is older than this from one tenant's audit, a batch in each transaction; return how many."""
    removed = 0
    while True:
        with (
            platform_scope(actor=_JOB.label, reason=_REASON),
            tenant_scope(tenant_id),
            database.staff_sessions.begin() as session,
        ):
            found = prune(session, keep_days=keep_days)
        removed += found
        if not found:
            return removed


def _tenants_with_old_entries(database: Database, keep_days: int) -> list[UUID]:
    cutoff = datetime.now(UTC) - timedelta(days=keep_days)
    with platform_scope(actor=_JOB.label, reason=_REASON), database.platform_sessions() as session:
        return list(session.scalars(select(AuditLink.tenant_id).where(AuditLink.at < cutoff).distinct()))
