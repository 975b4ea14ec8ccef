"""Health over HTTP: two probes for whoever sends requests here, and a tenant's own health."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from app.auth.access import permits, without_tenant
from app.db import release_connection
from app.members.permissions import Permission
from app.observability.health import health
from app.observability.probes import State, worst
from app.observability.schemas import HealthAnswer
from app.openapi import answers
from tenancy.context import require_tenant

blueprint = Blueprint("health", __name__)


@blueprint.get("/health/live")
@without_tenant(reason="it asks whether the process answers at all, and touches nothing")
def live() -> Response:
    """Say that the process answers. No database: a process is not restarted because that is away."""
    return _unkept(jsonify(state=State.OK))


@blueprint.get("/health/ready")
@without_tenant(reason="it asks after the whole process, for no tenant")
def ready() -> Response:
    """Say whether requests can be served here; 503 and the part that is down when they cannot."""
    checks = health().readiness.checks()
    state = worst(checks)
    shown = [{"name": one.name, "state": one.state, "reason": one.reason, "fix": one.fix} for one in checks]
    response = jsonify(state=state, checks=shown)
    response.status_code = 503 if state is State.DOWN else 200
    return _unkept(response)


@blueprint.get("/api/v1/health")
@permits(Permission.USAGE_READ)
@answers(200, HealthAnswer, tag="health")
def show_health() -> HealthAnswer:
    """Say how the parts are that this tenant needs, and how its requests went in the last minutes."""
    release_connection()
    return HealthAnswer.for_tenant(health().of(require_tenant()))


def _unkept(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response
