"""The start-up check: one query on the application's own connection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection

from tenancy.doctor.catalog.row_security import POLICY_MISSING, ROW_SECURITY_NOT_FORCED, ROW_SECURITY_OFF
from tenancy.doctor.findings import Finding
from tenancy.rls import Flavour, qualified

# By what the role may do, and by what tables carry; nothing here needs a privilege of its own.
_REACHED = """
    SELECT n.nspname, c.relname, c.relrowsecurity, c.relforcerowsecurity,
           ARRAY(SELECT w FROM unnest(ARRAY['tenancy_isolation', 'tenancy_guard']) w
                 WHERE NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = w))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_'
      AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id'
                  AND a.attnum > 0 AND NOT a.attisdropped)
      AND (has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
           OR has_any_column_privilege(c.oid, 'SELECT, INSERT, UPDATE, REFERENCES'))
    ORDER BY 1, 2
"""


def brief(connection: Connection, flavour: Flavour = "postgres") -> list[Finding]:
    """Find the tables with a `tenant_id` that the current role can reach and that are not guarded.

    One query, on the application's own connection. An error of the database is raised, not reported: what
    starts up on this answer must not start without one.
    """
    rows = connection.exec_driver_sql(_REACHED, execution_options={"no_parameters": True}).all()
    return [finding for row in rows for finding in _examine(row, flavour)]


def _examine(row: Any, flavour: Flavour) -> Iterator[Finding]:
    schema, name, is_enabled, is_forced, lacking = row
    table = qualified(name, schema)
    remedy = f"op.guard_table({name!r}{f', schema={schema!r}' if schema != 'public' else ''})"
    if not is_enabled:
        yield ROW_SECURITY_OFF.finding(f"table {table}", f"row-level security is off on {name!r}", remedy=remedy)
        return
    if not is_forced and flavour != "citus":
        what = f"row-level security is not forced on {name!r}"
        yield ROW_SECURITY_NOT_FORCED.finding(f"table {table}", what, remedy=remedy)
    for policy in lacking:
        what = f"policy {policy!r} is missing on {name!r}"
        yield POLICY_MISSING.finding(f"policy {policy} on table {table}", what, remedy=remedy)
