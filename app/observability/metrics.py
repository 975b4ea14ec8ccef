"""Metrics: counts and times for Prometheus, with labels that nobody outside can add to.

A label is a route's template, a method, a class of status, a plan, or a code of ours: never a tenant, a host or a path.
What one tenant did is asked of its health and its usage instead.
"""

from __future__ import annotations

import hmac
import os
import threading
from time import monotonic

from flask import Flask, Response, current_app, make_response, request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector
from pydantic import SecretStr
from sqlalchemy import Engine, func, or_, select
from sqlalchemy.pool import QueuePool

from app.auth.access import access_of, without_tenant
from app.config import Settings
from app.db import Database
from app.errors import NotSignedInError
from app.observability.logs import elapsed_s
from app.observability.tags import UNMATCHED, route_template
from app.plans.standing import Standings
from app.queue.operations import count_jobs
from app.queue.tables import DEFAULT_QUEUE, JobStatus, jobs
from tenancy.context import platform_scope
from tenancy.directory import SQLDirectory
from tenancy.encryption import Keyring
from tenancy.flask.visits import VISIT
from tenancy.pools import budgets_of

PATH = "/metrics"
MULTIPROCESS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
_OTHER = "other"
_MOST_CODES = 100  # all there are, with room: a mistake of ours must not become a leak
_JOBS_KEPT_S = 15.0
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The meters of one application."""

    def __init__(self, database: Database, directory: SQLDirectory, keyring: Keyring, plans: frozenset[str]) -> None:
        self.registry = registry = CollectorRegistry()
        self._database, self._directory, self._keyring, self._plans = database, directory, keyring, plans
        self._codes: set[str] = set()
        self._lock = threading.Lock()
        self._lookups_seen = self._unwraps_seen = 0
        self._jobs_at = -_JOBS_KEPT_S
        self.requests = Counter(
            "crm_requests", "Requests answered.", ["route", "method", "status", "plan"], registry=registry
        )
        self.seconds = Histogram(
            "crm_request_seconds", "Time until the answer.", ["route", "method"], buckets=_SECONDS, registry=registry
        )
        self.resolutions = Counter(
            "crm_resolutions", "Requests by what naming a tenant came to.", ["outcome"], registry=registry
        )
        self.refusals = Counter(
            "crm_refusals",
            "Requests refused, by code; `tenant_busy` is a budget's.",
            ["status", "code"],
            registry=registry,
        )
        self.lookups = Counter(
            "crm_directory_lookups", "Times that the directory did not know and asked.", registry=registry
        )
        self.unwraps = Counter("crm_key_unwraps", "Data keys unwrapped with a master key.", registry=registry)
        self.pool = Gauge(
            "crm_pool_connections",
            "Connections in use, and those that may be.",
            ["role", "state"],
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.waiting = Gauge(
            "crm_budget_waiting",
            "Transactions that wait for a slot of their tenant's budget.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.jobs = Gauge("crm_jobs", "Jobs by state.", ["state"], multiprocess_mode="mostrecent", registry=registry)
        self.lag = Gauge(
            "crm_job_lag_seconds",
            "How long the first job that is due has waited.",
            multiprocess_mode="mostrecent",
            registry=registry,
        )

    def note(self, response: Response) -> None:
        """Count the request that is being answered."""
        status, visit = response.status_code, request.environ.get(VISIT)
        code = self._code_of(response) if status >= 400 else ""
        plan = "none" if visit is None else visit.tenant.extra.get("plan", "none")
        route = route_template()
        method = request.method if request.method in _METHODS else _OTHER
        self.requests.labels(route, method, f"{status // 100}xx", plan if plan in self._plans else "none").inc()
        self.seconds.labels(route, method).observe(elapsed_s())
        outcome = "found" if visit is not None else self._unfound(code)
        self.resolutions.labels(outcome).inc()
        if status in (401, 403, 404, 409, 429, 503):
            self.refusals.labels(str(status), code).inc()
        self._follow()

    def read(self) -> bytes:
        """Return what was counted, in Prometheus' text; of every process, where they share a folder."""
        self._follow()
        self._count_jobs()
        if MULTIPROCESS_FOLDER not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)

    def _unfound(self, code: str) -> str:
        if request.url_rule is None:
            return UNMATCHED
        access = access_of(current_app.view_functions[request.endpoint or ""])
        return "not_needed" if access is not None and not access.needs_tenant else code or _OTHER

    def _code_of(self, response: Response) -> str:
        """Return the problem's code; pages have none that is read."""
        said = response.get_json(silent=True) if response.is_json else None
        code = said.get("code") if isinstance(said, dict) else None
        if not isinstance(code, str):
            return "page"
        if code not in self._codes and len(self._codes) >= _MOST_CODES:
            return _OTHER
        self._codes.add(code)
        return code

    def _follow(self) -> None:
        """Take over what others count, and what is in use at this moment."""
        with self._lock:
            lookups, unwraps = self._directory.lookups, self._keyring.unwraps
            self.lookups.inc(lookups - self._lookups_seen)
            self.unwraps.inc(unwraps - self._unwraps_seen)
            self._lookups_seen, self._unwraps_seen = lookups, unwraps
        for role, engine in (("app", self._database.engine), ("platform", self._database.platform_engine)):
            in_use, most = _use_of(engine)
            self.pool.labels(role, "in_use").set(in_use)
            self.pool.labels(role, "most").set(most)
        budgets = budgets_of(self._database.engine)
        self.waiting.set(budgets.waiting() if budgets is not None else 0)

    def _count_jobs(self) -> None:
        """Count jobs, some seconds apart: each look across tenants is a row of the platform's audit."""
        with self._lock:
            if monotonic() - self._jobs_at < _JOBS_KEPT_S:
                return
            self._jobs_at = monotonic()
        asked = func.coalesce(jobs.c.scheduled_at, jobs.c.created_at)
        lag = select(func.extract("epoch", func.now() - func.min(asked))).where(
            jobs.c.status == JobStatus.TODO,
            jobs.c.queue_name == DEFAULT_QUEUE,
            or_(jobs.c.scheduled_at.is_(None), jobs.c.scheduled_at <= func.now()),
        )
        with (
            platform_scope(actor="system:metrics", reason="count jobs for the metrics"),
            self._database.platform_sessions() as session,
        ):
            counts, waited_s = count_jobs(session), session.scalar(lag)
        for state, number in counts.items():
            self.jobs.labels(state.value).set(number)
        self.lag.set(float(waited_s or 0))


def init_app(
    app: Flask,
    settings: Settings,
    database: Database,
    directory: SQLDirectory,
    *,
    keyring: Keyring,
    standings: Standings,
) -> None:
    """Count, and serve the counts to who has the token; without one in the settings, do neither."""
    if settings.metrics_token is None:
        return
    metrics = Metrics(database, directory, keyring, frozenset(standings.catalogue.plans))
    token = settings.metrics_token

    @app.after_request
    def count(response: Response) -> Response:
        metrics.note(response)
        return response

    @app.get(PATH, endpoint="metrics")
    @without_tenant(reason="figures of the whole process, for a collector with the token of the settings")
    def show() -> Response:
        _require(token)
        response = make_response(metrics.read())
        response.headers["Content-Type"] = CONTENT_TYPE_LATEST
        response.headers["Cache-Control"] = "no-store"
        return response


def _require(token: SecretStr) -> None:
    sent = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
    if not hmac.compare_digest(sent, f"Bearer {token.get_secret_value()}".encode()):
        raise NotSignedInError("Send `Authorization: Bearer <APP_METRICS_TOKEN>`.")


def _use_of(engine: Engine) -> tuple[int, int]:
    pool = engine.pool
    return (pool.checkedout(), pool.size()) if isinstance(pool, QueuePool) else (0, 0)
