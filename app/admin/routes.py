"""Every module of admin routes: to be imported is what adds its routes to the blueprint."""

from __future__ import annotations

from app.admin import (
    audit,
    bulk,
    configuration,
    domains,
    features,
    health,
    impersonation,
    invitations,
    jobs,
    keys,
    lifecycle,
    limits,
    plans,
    staff,
    stats,
    tenants,
    usage,
)
from app.admin.blueprint import blueprint
from app.staff import routes as staff_auth

__all__ = [
    "audit",
    "blueprint",
    "bulk",
    "configuration",
    "domains",
    "features",
    "health",
    "impersonation",
    "invitations",
    "jobs",
    "keys",
    "lifecycle",
    "limits",
    "plans",
    "staff",
    "staff_auth",
    "stats",
    "tenants",
    "usage",
]
