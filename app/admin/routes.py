"""Every module of admin routes: to be imported is what adds its routes to the blueprint."""

from __future__ import annotations

from app.admin import configuration, features, limits, plans, staff, stats, tenants
from app.admin.blueprint import blueprint
from app.staff import routes as staff_auth

__all__ = ["blueprint", "configuration", "features", "limits", "plans", "staff", "staff_auth", "stats", "tenants"]
