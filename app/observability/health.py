"""Health: how the parts are that one tenant needs, why, and what to do about it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from uuid import UUID

from flask import Flask, Response, current_app, request
from sqlalchemy import func, or_, select

from app.caches import tenant_cache
from app.config import Settings
from app.db import Database
from app.files.storage import files
from app.models import Base
from app.observability.logs import elapsed_s
from app.observability.probes import Check, Finding, Probe, Prober, State, worst
from app.observability.readiness import Parts, Readiness
from app.observability.windows import Window, Windows
from app.queue.operations import JobState, count_jobs
from app.queue.tables import DEFAULT_QUEUE, JobStatus, jobs, workers
from app.tenants.models import Tenant
from tenancy.context import platform_scope, tenant_scope
from tenancy.directory import SQLDirectory
from tenancy.flask.visits import VISIT

_EXTENSION = "health"
_KEPT_S = 5.0
_MOST_KEPT = 1_000
_PATIENT = timedelta(minutes=5)
_FEWEST_REQUESTS = 20  # below it, one error more or less is no rate
FIXES: Mapping[str, str] = {
    "database": "Look at the database's load and log; a tenant that is busy itself waits for its own transactions.",
    "cache": "See that the cache of APP_CACHE_URL answers; until then everything is computed anew.",
    "storage": "See that the storage of APP_STORAGE_URL answers and has room; pictures fail until then.",
    "queue": "See that a worker runs: python -m app worker.",
    "requests": "Find the failing requests in the log by tenant_id, and the slow ones by duration_ms.",
}


@dataclass(frozen=True)
class TenantHealth:
    """How the parts are that one tenant needs. window: its requests of the last minutes, in this process."""

    state: State
    checks: list[Check]
    window: Window
    checked_at: datetime


class Health:
    """Asks after the parts, for one tenant at a time. What was found is kept for some seconds: probes are no load."""

    def __init__(self, database: Database, prober: Prober, readiness: Readiness, *, stalled_after_s: float) -> None:
        self.readiness = readiness
        self.windows = Windows()
        self._database = database
        self._prober = prober
        self._stalled_after = timedelta(seconds=stalled_after_s)
        self._lock = threading.Lock()
        self._kept: OrderedDict[UUID, tuple[float, TenantHealth]] = OrderedDict()

    def of(self, tenant_id: UUID) -> TenantHealth:
        """Return how things are for a tenant; in no transaction, for the probes open their own."""
        with self._lock:
            kept = self._kept.get(tenant_id)
        if kept is not None and monotonic() - kept[0] < _KEPT_S:
            return kept[1]
        window = self.windows.of(tenant_id)
        checks = self._prober.ask(self._probes(tenant_id), fixes=FIXES)
        checks.append(_judge(window))
        found = TenantHealth(worst(checks), checks, window, datetime.now(UTC))
        with self._lock:
            self._kept[tenant_id] = (monotonic(), found)
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return found

    def close(self) -> None:
        self._prober.close()

    def _probes(self, tenant_id: UUID) -> dict[str, Probe]:
        cache, storage = tenant_cache(), files().storage  # here: the probes' threads have no application

        def ask_database() -> Finding:
            with tenant_scope(tenant_id), self._database.sessions() as session:
                if session.scalar(select(Tenant.id).where(Tenant.id == tenant_id)) is None:
                    return Finding(State.DOWN, "The tenant's own row is not there.", "See what became of the tenant.")
            return Finding()

        def ask_cache() -> Finding:
            with tenant_scope(tenant_id):
                cache.inc(("health",))  # `get` would call an outage a miss
            return Finding()

        def ask_storage() -> Finding:
            with tenant_scope(tenant_id):
                next(iter(storage.list()), None)
            return Finding()

        def ask_queue() -> Finding:
            return self._ask_queue(tenant_id)

        return {"database": ask_database, "cache": ask_cache, "storage": ask_storage, "queue": ask_queue}

    def _ask_queue(self, tenant_id: UUID) -> Finding:
        due = (
            jobs.c.tenant == tenant_id,
            jobs.c.status == JobStatus.TODO,
            jobs.c.queue_name == DEFAULT_QUEUE,
            or_(jobs.c.scheduled_at.is_(None), jobs.c.scheduled_at <= func.now()),
        )
        asked = func.coalesce(jobs.c.scheduled_at, jobs.c.created_at)
        alive = select(func.count()).where(workers.c.last_heartbeat > func.now() - self._stalled_after)
        with (
            platform_scope(actor="system:health", reason="health of a tenant's queue"),
            self._database.platform_sessions() as session,
        ):
            counts = count_jobs(session, tenant_id=tenant_id)
            waiting, waited, alive_workers = session.execute(
                select(func.count(), func.now() - func.min(asked), alive.scalar_subquery()).where(*due)
            ).one()
        link = f"/api/v1/admin/jobs?for_tenant={tenant_id}"
        if waiting and not alive_workers:
            return Finding(State.DOWN, f"{waiting} jobs wait, and no worker is alive.", FIXES["queue"], link)
        if waiting and waited > _PATIENT:
            said = f"{waiting} jobs wait, the first for {int(waited.total_seconds() // 60)} minutes."
            return Finding(State.DEGRADED, said, "Start more workers, or let each run more: APP_JOB_CONCURRENCY.", link)
        if counts[JobState.FAILED]:
            said = f"{counts[JobState.FAILED]} jobs have failed."
            return Finding(State.DEGRADED, said, "Look why, then retry or cancel them.", f"{link}&state=failed")
        return Finding()


def init_app(app: Flask, settings: Settings, database: Database, directory: SQLDirectory) -> None:
    """Watch the requests of each tenant, and be ready to be asked; nothing connects before that."""
    prober = Prober(timeout_s=settings.health_timeout_s)
    parts = Parts(database.engine, settings.platform_database_url.get_secret_value(), directory, Base.metadata)
    app.extensions[_EXTENSION] = Health(
        database, prober, Readiness(parts, prober), stalled_after_s=settings.job_stalled_after_s
    )
    app.after_request(_note)


def close_app(app: Flask) -> None:
    """Let go of the probes' threads."""
    health_of(app).close()


def health() -> Health:
    """Return what the current application knows of its health."""
    return health_of(current_app)


def health_of(app: Flask) -> Health:
    """Return what an application knows of its health."""
    found = app.extensions[_EXTENSION]
    if not isinstance(found, Health):
        raise TypeError(f"extension {_EXTENSION!r} is {type(found).__name__}, not Health")
    return found


def _note(response: Response) -> Response:
    visit = request.environ.get(VISIT)
    if visit is not None:
        is_error = response.status_code >= 500
        health().windows.note(visit.tenant.id, is_error=is_error, took_ms=elapsed_s() * 1000)
    return response


def _judge(window: Window) -> Check:
    """Say how the tenant's requests go."""

    def judged(state: State, reason: str) -> Check:
        fix = "" if state is State.OK else FIXES["requests"]
        return Check("requests", state, window.mean_ms or 0.0, reason, fix, None)

    if window.requests < _FEWEST_REQUESTS or window.error_rate is None or window.p95_ms is None:
        return judged(State.OK, "")
    if window.error_rate >= 0.5:
        return judged(State.DOWN, f"{window.error_rate:.0%} of {window.requests} requests failed.")
    if window.error_rate >= 0.05:
        return judged(State.DEGRADED, f"{window.error_rate:.0%} of {window.requests} requests failed.")
    if window.p95_ms > 2_500:
        return judged(State.DEGRADED, f"One in twenty requests took longer than {window.p95_ms / 1000:g} s.")
    return judged(State.OK, "")
