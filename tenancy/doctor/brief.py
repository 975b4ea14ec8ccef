"""The start-up check: one query on the application's own connection."""

from __future__ import annotations

from sqlalchemy import Connection

from tenancy.doctor.findings import Finding
from tenancy.rls import Flavour


def brief(connection: Connection, flavour: Flavour = "postgres") -> list[Finding]:
    """Find the tables with a `tenant_id` that the current role can reach and that are not guarded."""
    return []
