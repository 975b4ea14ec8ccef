"""Hardening: what a superuser takes from the runtime roles, so that no statement of theirs changes a setting.

Everything is read from the catalog of one database, where the privileges of functions belong. What was taken and
what was given is recorded in the comment of schema `tenancy_hardening`, from which it is undone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass

from sqlalchemy import Connection, text

from tenancy.errors import ConfigurationError
from tenancy.rls.names import quote
from tenancy.rls.roles import Roles

RECORD = "tenancy_hardening"

# By what they let a role do; as regular expressions over the names in pg_catalog.
_FUNCTIONS = {
    "it changes a setting": r"set_config",
    "it runs SQL from a string": r"(query|table|cursor|schema|database)_to_xml.*|ts_stat|ts_rewrite",
    "large objects know no tenant": r"lo_.*|loread|lowrite",
    "it ends other tenants' statements": r"pg_(cancel|terminate)_backend",
    "it shows other tenants' statements": r"pg_stat_get_activity|pg_stat_get_backend_activity",
    "it reads the server's files": r"pg_(read_(binary_)?file|stat_file|ls_.*)",
}
# Extensions whose functions run SQL, connect elsewhere, or show statements.
_EXTENSIONS = ("dblink", "tablefunc", "xml2", "pg_stat_statements")
_EXTENSION_REASON = "its extension runs SQL from a string, or shows other tenants' statements"
_LANGUAGE_REASON = "DO and new functions run code in it"
_OBJECTS = text("""
    WITH objects AS (
        SELECT 'EXECUTE' AS privilege, 'FUNCTION' AS kind, why.reason,
               format('%I.%I(%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes)) AS name,
               coalesce(p.proacl, acldefault('f', p.proowner)) AS acl, p.proowner AS owner
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        JOIN unnest(CAST(:reasons AS text[]), CAST(:patterns AS text[])) AS why (reason, pattern)
          ON n.nspname = 'pg_catalog' AND p.proname ~ ('^(' || why.pattern || ')$')
        WHERE p.prokind = 'f' AND NOT (p.proname = 'ts_rewrite' AND p.pronargs = 3)
        UNION ALL
        SELECT 'EXECUTE', 'FUNCTION', :extension_reason,
               format('%I.%I(%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes)),
               coalesce(p.proacl, acldefault('f', p.proowner)), p.proowner
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
        JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
        WHERE e.extname = ANY (CAST(:extensions AS text[])) AND p.prokind = 'f'
        UNION ALL
        SELECT 'USAGE', 'LANGUAGE', :language_reason, quote_ident(lanname),
               coalesce(lanacl, acldefault('l', lanowner)), lanowner
        FROM pg_language WHERE lanpltrusted
        UNION ALL
        SELECT 'UPDATE', 'TABLE', 'its rule changes a setting', 'pg_catalog.pg_settings',
               coalesce(relacl, acldefault('r', relowner)), relowner
        FROM pg_class WHERE oid = 'pg_catalog.pg_settings'::regclass
        UNION ALL
        SELECT 'TEMPORARY', 'DATABASE', 'temporary objects stand in for others, and hold functions',
               quote_ident(datname), coalesce(datacl, acldefault('d', datdba)), datdba
        FROM pg_database WHERE datname = current_database()
        UNION ALL
        SELECT 'CREATE', 'SCHEMA', 'functions and operators made there stand in for others', quote_ident(nspname),
               coalesce(nspacl, acldefault('n', nspowner)), nspowner
        FROM pg_namespace WHERE nspname !~ '^pg_(temp|toast_temp)_'
    )
    SELECT o.privilege, o.kind, o.name, o.reason,
           CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END AS grantee, a.is_grantable
    FROM objects o LEFT JOIN LATERAL (
        SELECT x.grantee, x.is_grantable FROM aclexplode(o.acl) x
        WHERE x.privilege_type = o.privilege AND x.grantee <> o.owner
    ) a ON true
    ORDER BY o.kind, o.name, grantee
""")
_HELD = text("""
    SELECT r.role, CASE w.kind
        WHEN 'FUNCTION' THEN has_function_privilege(r.role, w.name, 'EXECUTE')
        WHEN 'LANGUAGE' THEN has_language_privilege(r.role, trim('"' FROM w.name), 'USAGE')
        WHEN 'TABLE' THEN has_any_column_privilege(r.role, w.name, 'UPDATE')
        WHEN 'DATABASE' THEN has_database_privilege(r.role, current_database(), 'TEMPORARY')
        ELSE has_schema_privilege(r.role, to_regnamespace(w.name)::oid, 'CREATE') END AS is_held, w.kind, w.name
    FROM unnest(CAST(:roles AS text[])) AS r (role),
         unnest(CAST(:kinds AS text[]), CAST(:names AS text[])) AS w (kind, name)
""")
_ROLES = text("SELECT rolname::text FROM pg_roles")
_DUMPERS = text("""
    SELECT pg_get_userbyid(m.member)::text FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member
    WHERE m.roleid = to_regrole(:backup)::oid AND r.rolcanlogin ORDER BY 1
""")
_RECORDED = text("SELECT obj_description(to_regnamespace(:schema)::oid, 'pg_namespace')")


@dataclass(frozen=True)
class Change:
    """One privilege taken from a role, or given to it. `target` is the object as GRANT names it."""

    verb: str
    privilege: str
    target: str
    role: str
    is_grantable: bool = False

    def sql(self) -> str:
        role = _role(self.role)
        if self.verb == "taken":
            return f"REVOKE {self.privilege} ON {self.target} FROM {role}"
        return f"GRANT {self.privilege} ON {self.target} TO {role}"

    def undo_sql(self) -> str:
        if self.verb == "given":
            return f"REVOKE {self.privilege} ON {self.target} FROM {_role(self.role)}"
        with_option = " WITH GRANT OPTION" if self.is_grantable else ""
        return f"GRANT {self.privilege} ON {self.target} TO {_role(self.role)}{with_option}"


@dataclass(frozen=True)
class _Object:
    privilege: str
    kind: str
    name: str
    reason: str
    grants: dict[str, bool]

    @property
    def target(self) -> str:
        return f"{self.kind} {self.name}"


def hardening_sql(connection: Connection, roles: Roles) -> list[str]:
    """Return the statements, run by a superuser, that harden this database; none when there is nothing to do.

    Raises: ConfigurationError - the installation's roles do not exist.
    """
    changes = list(_changes(connection, roles))
    if not changes:
        return []
    record = [*_recorded(connection), *changes]
    return [
        f"CREATE SCHEMA IF NOT EXISTS {RECORD}",
        *(change.sql() for change in changes),
        f"COMMENT ON SCHEMA {RECORD} IS {_literal(json.dumps([astuple(change) for change in record]))}",
    ]


def revert_sql(connection: Connection) -> list[str]:
    """Return the statements that give back what `hardening_sql` took; none when it was never run.

    What has been dropped since, and roles that are gone, are passed over.
    """
    record = _recorded(connection)
    if not record:
        return []
    there = {item.target for item in _objects(connection)}
    known = {*connection.execute(_ROLES).scalars(), "PUBLIC"}
    return [
        *(change.undo_sql() for change in reversed(record) if change.target in there and change.role in known),
        f"DROP SCHEMA {RECORD}",
    ]


def weaknesses(connection: Connection, roles: Roles) -> list[str]:
    """Return what the app or the platform role may still do of all that hardening takes away, one line each.

    Whichever way it is held: by grants to PUBLIC, to the role, or to a role it is a member of.
    Raises: ConfigurationError - the installation's roles do not exist.
    """
    _check_roles(connection, roles)
    objects = {(item.kind, item.name): item for item in _objects(connection)}
    wanted = {
        "roles": [roles.app, roles.platform],
        "kinds": [kind for kind, _ in objects],
        "names": [name for _, name in objects],
    }
    found = connection.execute(_HELD, wanted).all()
    return [
        f"{role} has {objects[kind, name].privilege} on {kind.lower()} {name}: {objects[kind, name].reason}"
        for role, is_held, kind, name in found
        if is_held is not False  # NULL: it could not be checked
    ]


def _changes(connection: Connection, roles: Roles) -> Iterator[Change]:
    _check_roles(connection, roles)
    known = set(connection.execute(_ROLES).scalars())
    dumpers = list(connection.execute(_DUMPERS, {"backup": roles.backup}).scalars())
    for item in _objects(connection):
        taken = [role for role in ("PUBLIC", roles.app, roles.platform) if role in item.grants]
        for role in taken:
            yield Change("taken", item.privilege, item.target, role, item.grants[role])
        if "PUBLIC" in taken:
            for role in _keepers(item, roles, dumpers):
                if role in known and role not in item.grants:
                    yield Change("given", item.privilege, item.target, role)


def _keepers(item: _Object, roles: Roles, dumpers: Iterable[str]) -> Iterable[str]:
    """Who had it through PUBLIC and needs it: for migrations, lookups, dumps and monitoring."""
    if item.name.startswith("pg_catalog.set_config("):
        return roles.owner, roles.migrator, roles.backup, *dumpers  # a dump begins with one, as whoever logs in
    if item.kind == "LANGUAGE":
        return roles.owner, roles.lookup
    if item.kind != "FUNCTION":
        return ()
    if "activity" in item.name or "statements" in item.name:
        return ("pg_read_all_stats",)
    if item.name.endswith("_backend(integer)") or "terminate" in item.name:
        return ("pg_signal_backend",)
    if "lo_" in item.name or "loread" in item.name or "lowrite" in item.name:
        return roles.owner, roles.backup
    return (roles.owner,)


def _objects(connection: Connection) -> list[_Object]:
    asked = {
        "reasons": list(_FUNCTIONS),
        "patterns": list(_FUNCTIONS.values()),
        "extensions": list(_EXTENSIONS),
        "extension_reason": _EXTENSION_REASON,
        "language_reason": _LANGUAGE_REASON,
    }
    found: dict[tuple[str, str], _Object] = {}
    for privilege, kind, name, reason, grantee, is_grantable in connection.execute(_OBJECTS, asked):
        item = found.setdefault((kind, name), _Object(privilege, kind, name, reason, {}))
        if grantee is not None:
            item.grants[grantee] = item.grants.get(grantee, False) or is_grantable
    return list(found.values())


def _recorded(connection: Connection) -> list[Change]:
    written = connection.execute(_RECORDED, {"schema": RECORD}).scalar()
    return [] if written is None else [Change(*each) for each in json.loads(written)]


def _check_roles(connection: Connection, roles: Roles) -> None:
    known = set(connection.execute(_ROLES).scalars())
    missing = [r for r in (roles.owner, roles.migrator, roles.app, roles.platform, roles.backup) if r not in known]
    if missing:
        raise ConfigurationError(
            f"there is no role {', '.join(missing)}", hint="run `tenancy bootstrap` first, or name the right --prefix"
        )


def _role(name: str) -> str:
    return name if name == "PUBLIC" else quote(name)


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
