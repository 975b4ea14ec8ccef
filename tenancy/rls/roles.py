"""The six roles, and the statements an administrator runs once to create them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tenancy.errors import ConfigurationError
from tenancy.rls.names import quote


@dataclass(frozen=True)
class Roles:
    """The six roles of one installation. They belong to the whole server, so two installations differ by prefix."""

    prefix: str = "tenancy"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,40}", self.prefix):
            raise ConfigurationError(
                f"role prefix {self.prefix!r} is not a plain lower-case SQL name",
                hint="use letters, digits and underscores, at most 41",
            )

    @property
    def owner(self) -> str:
        return f"{self.prefix}_owner"

    @property
    def migrator(self) -> str:
        return f"{self.prefix}_migrator"

    @property
    def app(self) -> str:
        return f"{self.prefix}_app"

    @property
    def platform(self) -> str:
        return f"{self.prefix}_platform"

    @property
    def lookup(self) -> str:
        return f"{self.prefix}_lookup"

    @property
    def backup(self) -> str:
        return f"{self.prefix}_backup"


def bootstrap_sql(roles: Roles, database: str) -> list[str]:
    """Return the statements that create the roles and hand them the database; an administrator runs them once.

    Repeatable. LOGIN roles get no password here. Timeouts and the migrator's `row_security = off` are
    defaults of the role, so they hold for any client.
    """
    nothing = "NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION"
    attributes = {
        roles.owner: f"NOLOGIN NOINHERIT NOBYPASSRLS {nothing}",
        roles.lookup: f"NOLOGIN NOINHERIT NOBYPASSRLS {nothing}",
        roles.backup: f"NOLOGIN NOINHERIT BYPASSRLS {nothing}",
        roles.migrator: f"LOGIN NOINHERIT NOBYPASSRLS {nothing}",
        roles.app: f"LOGIN NOINHERIT NOBYPASSRLS {nothing}",
        roles.platform: f"LOGIN NOINHERIT NOBYPASSRLS {nothing}",
    }
    name = quote(database)
    statements = [_create_role(role, wanted) for role, wanted in attributes.items()]
    statements += [
        f"GRANT {roles.owner} TO {roles.migrator}",
        f"GRANT {roles.lookup} TO {roles.owner}",
        f"ALTER ROLE {roles.migrator} SET role = '{roles.owner}'",
        f"ALTER ROLE {roles.migrator} SET row_security = off",
        f"ALTER DATABASE {name} OWNER TO {roles.owner}",
        f"REVOKE ALL ON DATABASE {name} FROM PUBLIC",
        f"GRANT CONNECT ON DATABASE {name} TO {roles.migrator}, {roles.app}, {roles.platform}, {roles.backup}",
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        f"GRANT ALL ON SCHEMA public TO {roles.owner}",
        f"GRANT USAGE ON SCHEMA public TO {roles.app}, {roles.platform}, {roles.lookup}, {roles.backup}",
        # Without these a dump stops at the first table nobody guards, such as alembic's own.
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {roles.owner} GRANT SELECT ON TABLES TO {roles.backup}",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {roles.owner} GRANT SELECT ON SEQUENCES TO {roles.backup}",
    ]
    for role in (roles.app, roles.platform):
        statements += [
            # Last, or a temporary table would stand in for a model's where TEMP was granted.
            f'ALTER ROLE {role} SET search_path = "$user", public, pg_temp',
            f"ALTER ROLE {role} SET statement_timeout = '30s'",
            f"ALTER ROLE {role} SET lock_timeout = '5s'",
            f"ALTER ROLE {role} SET idle_in_transaction_session_timeout = '60s'",
        ]
    return statements


def _create_role(role: str, attributes: str) -> str:
    # Two databases of one server may be set up at once; the loser of the race finds the role there.
    return (
        f"DO $$ BEGIN CREATE ROLE {role} {attributes}; "
        f"EXCEPTION WHEN duplicate_object OR unique_violation THEN ALTER ROLE {role} {attributes}; END $$"
    )
