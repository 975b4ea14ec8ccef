"""Figures over all tenants."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime

from flask import Flask, current_app
from sqlalchemy import column, func, select

from app.admin.access import staff_may
from app.admin.blueprint import blueprint
from app.admin.schemas import Stats
from app.admin.scopes import across_tenants
from app.config import Settings
from app.openapi import answers
from app.staff.permissions import StaffPermission
from app.tenants.models import Plan
from app.tenants.states import Status

_EXTENSION = "tenant_counts"


@dataclass(frozen=True)
class Counts:
    """How many tenants there were at one moment."""

    by_status: dict[Status, int]
    by_plan: dict[Plan, int]
    counted_at: datetime


class TenantCounts:
    """The last count, kept for some seconds: to count reads every tenant, and each page of the list shows it."""

    def __init__(self, ttl_s: int) -> None:
        self._ttl_s = ttl_s
        self._lock = threading.Lock()
        self._kept: tuple[float, Counts] | None = None

    def get(self) -> Counts:
        """Return the counts, at most as old as the time they are kept. One thread counts, the others wait for it."""
        with self._lock:
            if self._kept is None or time.monotonic() - self._kept[0] >= self._ttl_s:
                self._kept = (time.monotonic(), _count())
            return self._kept[1]


def init_app(app: Flask, settings: Settings) -> None:
    app.extensions[_EXTENSION] = TenantCounts(settings.tenant_counts_ttl_s)


def tenant_counts() -> Counts:
    """Return how many tenants there are, some seconds old at most."""
    kept: TenantCounts = current_app.extensions[_EXTENSION]
    return kept.get()


def _count() -> Counts:
    counted = func.count_tenants().table_valued(column("status"), column("plan"), column("tenants"))
    with across_tenants(reason="admin API: count tenants") as session:
        rows = session.execute(select(counted.c.status, counted.c.plan, counted.c.tenants)).all()
    by_status, by_plan = Counter(dict.fromkeys(Status, 0)), Counter(dict.fromkeys(Plan, 0))
    for status, plan, tenants in rows:
        by_status[Status(status)] += tenants
        by_plan[Plan(plan)] += tenants
    return Counts(dict(by_status), dict(by_plan), datetime.now(UTC))


@blueprint.get("/stats")
@staff_may(StaffPermission.TENANTS_READ)
@answers(200, Stats, tag="tenants")
def show_stats() -> Stats:
    """Show how many tenants there are, by status and by plan."""
    counts = tenant_counts()
    return Stats(
        tenants=sum(counts.by_status.values()),
        by_status=counts.by_status,
        by_plan=counts.by_plan,
        counted_at=counts.counted_at,
    )
