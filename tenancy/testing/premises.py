"""What a proof rests on: versions, the roles' attributes, and the policies as the server prints them."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from tenancy.rls import guarded, read_state
from tenancy.testing.world import World

_PACKAGES = {"tenancy": "sqlalchemy-tenancy", "SQLAlchemy": "SQLAlchemy", "psycopg": "psycopg"}
_ROLES = text("""
    SELECT rolname, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication, rolinherit, rolcanlogin,
           ARRAY(SELECT g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid
                 ORDER BY 1) AS member_of
    FROM pg_roles r WHERE rolname = ANY (:names) ORDER BY rolname
""")
_ATTRIBUTES = ("super", "bypassrls", "createrole", "createdb", "replication", "inherit", "canlogin")


@dataclass(frozen=True)
class Premises:
    """Plain values only, so that they travel between processes as JSON.

    versions: by name. roles: as pg_roles has them. tables: what each guarded table carries.
    tenants: the slugs of the two seeded tenants, owner first. app: the role the application connects as.
    """

    versions: dict[str, str]
    roles: list[dict[str, Any]]
    tables: list[dict[str, Any]]
    tenants: list[str]
    app: str


def read_premises(world: World) -> Premises:
    """Read them from the world's database."""
    engine = create_engine(world.url("postgres"), poolclass=NullPool)
    with engine.connect() as connection:
        return Premises(
            versions=_versions(connection),
            roles=_roles(connection, world),
            tables=_tables(connection, world),
            tenants=[tenant.slug for tenant in world.tenants],
            app=world.roles.app,
        )


def _versions(connection: Connection) -> dict[str, str]:
    found = {name: _version(package) for name, package in _PACKAGES.items()}
    server = str(connection.execute(text("SHOW server_version")).scalar_one())
    return found | {"Python": platform.python_version(), "PostgreSQL": server}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _roles(connection: Connection, world: World) -> list[dict[str, Any]]:
    roles = world.roles
    names = [roles.owner, roles.migrator, roles.app, roles.platform, roles.lookup, roles.backup]
    return [
        {
            "name": row.rolname,
            "attributes": [name for name in _ATTRIBUTES if getattr(row, f"rol{name}")],
            "member_of": list(row.member_of),
        }
        for row in connection.execute(_ROLES, {"names": names})
    ]


def _tables(connection: Connection, world: World) -> list[dict[str, Any]]:
    return [
        {
            "name": state.name,
            "enabled": state.is_enabled,
            "forced": state.is_forced,
            "policies": [policy.create_sql(state.name) for policy in state.policies],
        }
        for state in read_state(connection, guarded(world.metadata)).values()
    ]
