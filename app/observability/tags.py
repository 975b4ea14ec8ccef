"""Tags: whom the running code works for, what asked for it and who, as far as that is known by now."""

from __future__ import annotations

from flask import has_request_context, request

from app.audit.actors import ActorKind, current_actor, current_request_id
from tenancy.context import current_tenant

UNMATCHED = "unmatched"


def current_tags() -> dict[str, str]:
    """Return what is known of the work under way; read from memory, in a microsecond or two.

    tenant_id, request_id, route, actor_kind, actor_id, impersonator and task; what is not known is left out. The route
    is its template: a path could hold anything. The request id of a job is that of the request which asked for it.
    """
    tags: dict[str, str] = {}
    tenant_id, actor = current_tenant(), current_actor()
    if tenant_id is not None:
        tags["tenant_id"] = str(tenant_id)
    request_id = current_request_id() or (actor.request_id if actor is not None else None)
    if request_id is not None:
        tags["request_id"] = request_id
    if actor is not None:
        tags["actor_kind"], tags["actor_id"] = actor.kind.value, actor.id
        if actor.impersonator is not None:
            tags["impersonator"] = actor.impersonator
        if actor.kind is ActorKind.JOB:
            tags["task"] = actor.id
    if has_request_context():
        tags["route"] = route_template()
    return tags


def route_template() -> str:
    """Return the template of the route that serves the current request, such as `/api/v1/people/<uuid:person_id>`."""
    return UNMATCHED if request.url_rule is None else request.url_rule.rule
