"""The roles of the server as the checks see them: attributes, memberships, possessions and defaults."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from sqlalchemy import Connection

from tenancy.doctor.catalog.guards import Catalog
from tenancy.doctor.findings import Subject
from tenancy.doctor.settings import Settings, read_settings

_ROLES = """
    SELECT rolname::text, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication, rolcanlogin
    FROM pg_roles ORDER BY 1
"""
# Before PostgreSQL 16 a membership has no options of its own: it is inherited as the member says, and may be set.
_MEMBERS = """
    SELECT m.member::regrole::text, pg_get_userbyid(m.member)::text, pg_get_userbyid(m.roleid)::text,
           coalesce((to_jsonb(m) ->> 'inherit_option')::boolean, r.rolinherit)
             OR coalesce((to_jsonb(m) ->> 'set_option')::boolean, true)
    FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member ORDER BY 2, 3
"""
# Large objects and default privileges have rules of their own.
_OWNED = """
    SELECT pg_get_userbyid(d.refobjid)::text, pg_describe_object(d.classid, d.objid, 0),
           d.classid = 'pg_proc'::regclass
             AND EXISTS (SELECT FROM pg_proc p WHERE p.oid = d.objid AND p.pronamespace = to_regnamespace('tenancy'))
    FROM pg_shdepend d
    WHERE d.refclassid = 'pg_authid'::regclass AND d.deptype = 'o'
      AND d.classid NOT IN ('pg_largeobject'::regclass, 'pg_default_acl'::regclass)
      AND (d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
           OR d.classid = 'pg_database'::regclass)
      AND NOT (d.classid = 'pg_class'::regclass
               AND EXISTS (SELECT FROM pg_class c WHERE c.oid = d.objid AND c.relpersistence = 't'))
    ORDER BY 1, 2
"""
_ATTRIBUTES = ("SUPERUSER", "BYPASSRLS", "CREATEROLE", "CREATEDB", "REPLICATION", "LOGIN")


@dataclass(frozen=True)
class RoleState:
    name: str
    attributes: frozenset[str]


class Cluster:
    """The roles of the server, read in four queries, beside the catalog of the database."""

    def __init__(self, connection: Connection, subject: Subject) -> None:
        self.catalog = Catalog(connection, subject)
        self.roles = subject.roles
        self.subject = subject

    @cached_property
    def states(self) -> dict[str, RoleState]:
        return {
            name: RoleState(name, frozenset(a for a, has in zip(_ATTRIBUTES, flags, strict=True) if has))
            for name, *flags in self.catalog.rows(_ROLES)
        }

    @cached_property
    def members(self) -> list[tuple[str, str]]:
        """(member, role) of each membership that gives its member anything."""
        return [(member, role) for _, member, role, is_usable in self.catalog.rows(_MEMBERS) if is_usable]

    @cached_property
    def owned(self) -> dict[str, list[tuple[str, bool]]]:
        """What each role owns, and whether that is a function of schema `tenancy`."""
        found: dict[str, list[tuple[str, bool]]] = {}
        for role, thing, is_library in self.catalog.rows(_OWNED):
            found.setdefault(role, []).append((str(thing), is_library))
        return found

    @cached_property
    def settings(self) -> Settings:
        return read_settings(self.catalog)

    def set_sql(self, role: str, name: str, value: str) -> str:
        return self.settings.set_sql(role, name, value, database=self.catalog.database)

    @property
    def ours(self) -> tuple[str, ...]:
        roles = self.roles
        return roles.owner, roles.migrator, roles.app, roles.platform, roles.lookup, roles.backup

    @property
    def strong(self) -> tuple[str, ...]:
        """Those that see or own all rows, or act as one that does."""
        return self.roles.owner, self.roles.migrator, self.roles.lookup, self.roles.backup

    def actors_of(self, role: str) -> set[str]:
        """The role itself, and the roles that act as it through memberships."""
        reached = {role}
        while more := {member for member, of in self.members if of in reached and member not in reached}:
            reached |= more
        return reached

    def logins_of(self, role: str) -> set[str]:
        return {name for name in self.actors_of(role) & self.states.keys() if "LOGIN" in self.states[name].attributes}
