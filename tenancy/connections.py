"""What is checked on every new connection: a role, a setting or a server that cannot hold the promise is refused."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from tenancy.errors import UnsafeConnectionError

log = logging.getLogger("tenancy.connections")

OLDEST_SERVER = 150000
# The last minor of each major that fixed a way round row-level security (November 2026 releases).
SECURITY_FLOORS: Mapping[int, int] = {15: 150020, 16: 160016, 17: 170012, 18: 180006}

# One round trip. The catalog is read by oid, so no schema has to be usable.
CHECK_SQL = """
SELECT session_user::text AS login, current_user::text AS acting, r.rolsuper, r.rolbypassrls, r.rolcreaterole,
       r.rolreplication, r.rolcreatedb,
       ARRAY(SELECT pg_get_userbyid(m.roleid)::text FROM pg_auth_members m WHERE m.member = r.oid) AS member_of,
       ARRAY(SELECT c.relname::text FROM pg_class c
             WHERE c.relowner = r.oid AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't' LIMIT 3) AS owns,
       current_setting('row_security') AS row_security,
       concat_ws(' ', nullif(current_setting('app.tenant_id', true), ''),
                 nullif(current_setting('app.account_id', true), ''),
                 nullif(current_setting('app.platform_session', true), '')) AS preset,
       current_setting('server_version_num')::int AS version,
       coalesce((SELECT has_column_privilege(c.oid, 'actor', 'INSERT') FROM pg_class c
                 JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE n.nspname = 'tenancy' AND c.relname = 'platform_session'), false) AS is_platform,
       EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
               WHERE n.nspname = 'tenancy' AND p.proname = 'bind_scope') AS is_signed
FROM pg_roles r WHERE r.rolname = session_user
"""
_ATTRIBUTES = {
    "rolsuper": "SUPERUSER",
    "rolbypassrls": "BYPASSRLS",
    "rolcreaterole": "CREATEROLE",
    "rolreplication": "REPLICATION",
    "rolcreatedb": "CREATEDB",
}


def check_connection(found: Mapping[str, Any]) -> None:
    """Refuse a connection by what `CHECK_SQL` found on it; warn of a server behind its security fixes.

    Raises: UnsafeConnectionError - names every fault: role attributes, memberships, owned tables, a scope
    that is set outside any transaction, or a server older than PostgreSQL 15.
    """
    faults = list(_faults(found))
    if faults:
        raise UnsafeConnectionError(
            f"role {found['login']!r} cannot keep tenants apart: {'; '.join(faults)}",
            hint="connect as the app role that `tenancy bootstrap` created; it owns nothing and can bypass nothing",
        )
    floor = SECURITY_FLOORS.get(found["version"] // 10000)
    if floor is not None and found["version"] < floor:
        log.warning(
            "server.behind_security_fixes",
            extra={"server_version": _version(found["version"]), "needed": _version(floor)},
        )


def _faults(found: Mapping[str, Any]) -> Iterator[str]:
    for column, attribute in _ATTRIBUTES.items():
        if found[column]:
            yield f"it has {attribute}"
    if found["acting"] != found["login"]:
        yield f"it acts as {found['acting']!r}"
    if found["member_of"]:
        yield f"it is a member of {', '.join(sorted(found['member_of']))}"
    if found["owns"]:
        yield f"it owns {', '.join(sorted(found['owns']))}"
    if found["row_security"] != "on":
        yield "row_security is off"
    if found["preset"]:
        yield "app.tenant_id, app.account_id or app.platform_session is set before any transaction"
    if found["version"] < OLDEST_SERVER:
        yield f"the server is PostgreSQL {_version(found['version'])}, older than 15"


def _version(number: int) -> str:
    return f"{number // 10000}.{number % 10000}"
