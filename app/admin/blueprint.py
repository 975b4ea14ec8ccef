"""The blueprint that every module of admin routes adds to."""

from __future__ import annotations

from flask import Blueprint

ADMIN_PREFIX = "/api/v1/admin"

blueprint = Blueprint("admin", __name__, url_prefix=ADMIN_PREFIX)
