"""Roles: their attributes, memberships, possessions and settings."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.exc import SQLAlchemyError

from tenancy.doctor import connection
from tenancy.doctor.catalog.guards import Catalog
from tenancy.doctor.checks import Check, not_checked, rules_of, run_checks
from tenancy.doctor.cluster import Cluster
from tenancy.doctor.findings import NOT_CHECKED, Finding, Rule, Subject
from tenancy.doctor.settings import SCOPE_SETTINGS
from tenancy.rls import quote

ROLE_MISSING = Rule(
    "TEN201",
    "role-missing",
    "error",
    "Without the role, what it was meant to do is done by a stronger one.",
)
ROLE_ATTRIBUTE = Rule(
    "TEN202",
    "role-attribute",
    "error",
    "The attribute lets the role pass policies, or make a role that does.",
)
ROLE_MEMBER = Rule(
    "TEN203",
    "role-member",
    "error",
    "A member acts with the rights of the role it belongs to.",
)
ROLE_OWNS = Rule(
    "TEN204",
    "role-owns",
    "error",
    "An owner can change or share what it owns, and switch its policies off.",
)
SCOPE_PRESET = Rule(
    "TEN205",
    "scope-preset",
    "error",
    "A scope that is set before any transaction makes forgotten bindings read one tenant's rows instead of failing.",
)
ROLE_SETTING = Rule(
    "TEN206",
    "role-setting",
    "error",
    "The setting takes effect at each login, before the library can object.",
)
SEARCH_PATH = Rule(
    "TEN207",
    "search-path",
    "warning",
    "The path decides which object a plain name means; temporary objects must come last.",
)
TIMEOUT_MISSING = Rule(
    "TEN208",
    "timeout-missing",
    "warning",
    "One tenant's statement, lock or idle transaction can hold up all others for ever.",
)
MIGRATOR_FILTERED = Rule(
    "TEN209",
    "migrator-filtered",
    "warning",
    "Without row_security = off a data migration changes no row, or one tenant's, and reports success.",
)
LOGIN_UNEXPECTED = Rule(
    "TEN210",
    "login-unexpected",
    "warning",
    "A login that the library does not know has privileges on tenants' rows.",
)


def examine_presence(cluster: Cluster) -> Iterator[Finding]:
    """Look for the six roles."""
    for role in cluster.ours:
        if role not in cluster.states:
            yield ROLE_MISSING.finding(f"role {role}", "it does not exist", remedy="tenancy bootstrap")


def examine_attributes(cluster: Cluster) -> Iterator[Finding]:
    """Look for attributes that bootstrap does not give."""
    roles = cluster.roles
    for role in cluster.ours:
        allowed = {"BYPASSRLS"} if role == roles.backup else set()
        allowed |= {"LOGIN"} if role in (roles.migrator, roles.app, roles.platform) else set()
        state = cluster.states.get(role)
        for attribute in sorted(state.attributes - allowed) if state is not None else ():
            remedy = f"ALTER ROLE {role} NO{attribute};"
            yield ROLE_ATTRIBUTE.finding(f"role {role}", f"it has {attribute}", remedy=remedy)


def examine_members(cluster: Cluster) -> Iterator[Finding]:
    """Look for memberships of the six roles, and in those that see or own all rows."""
    roles = cluster.roles
    expected = {(roles.migrator, roles.owner), (roles.owner, roles.lookup)}
    for member, role in cluster.members:
        state = cluster.states.get(member)
        if (member, role) in expected or (state is not None and "SUPERUSER" in state.attributes):
            continue
        if member in cluster.ours or role in cluster.strong:
            remedy = f"REVOKE {quote(role)} FROM {quote(member)};"
            yield ROLE_MEMBER.finding(f"role {member}", f"it is a member of {role}", remedy=remedy)


def examine_possessions(cluster: Cluster) -> Iterator[Finding]:
    """Look for what is owned by a role that should own nothing, or by the lookup role besides its lookups."""
    roles = cluster.roles
    for role in (roles.app, roles.platform, roles.migrator, roles.backup, roles.lookup):
        things = [thing for thing, is_library in cluster.owned.get(role, ()) if role != roles.lookup or not is_library]
        if things:
            more = f" and {len(things) - 3} more" if len(things) > 3 else ""
            taken = " ".join(f"ALTER {thing} OWNER TO {roles.owner};" for thing in things)
            remedy = taken if role == roles.lookup else f"REASSIGN OWNED BY {role} TO {roles.owner};"
            yield ROLE_OWNS.finding(f"role {role}", f"it owns {', '.join(things[:3])}{more}", remedy=remedy)


def examine_logins(cluster: Cluster) -> Iterator[Finding]:
    """Look for logins other than the library's that may read or write guarded tables, or views of them."""
    reach = _reach(cluster.catalog)
    told = {member for member, role in cluster.members if role in cluster.strong}
    found: dict[str, set[str]] = {}
    for role in reach:
        for login in cluster.logins_of(role) - {*cluster.ours, *told}:
            if "SUPERUSER" not in cluster.states[login].attributes:
                found.setdefault(login, set()).add(role)
    for login, by_way_of in sorted(found.items()):
        names = sorted(set().union(*(reach[role] for role in by_way_of)))
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        revoked = [f"REVOKE ALL ON {', '.join(sorted(reach[login]))} FROM {quote(login)};"] if login in reach else []
        revoked += [
            f"REVOKE {quote(role)} FROM {quote(login)};"
            for member, role in cluster.members
            if member == login and any(role in cluster.actors_of(other) for other in by_way_of)
        ]
        remedy = " ".join(revoked)
        yield LOGIN_UNEXPECTED.finding(f"role {login}", f"it has privileges on {shown}", remedy=remedy)


def _reach(catalog: Catalog) -> dict[str, set[str]]:
    """Return the tables and views with tenants' rows, by each role that has a privilege on them."""
    reach: dict[str, set[str]] = {}
    for oid in (*catalog.guards, *catalog.tenant_readers):
        for role in {grant.role for grant in catalog.states[oid].grants} - {"PUBLIC"}:
            reach.setdefault(role, set()).add(catalog.relations[oid].sql_name)
    everything = {guard.relation.sql_name for guard in catalog.guards.values()}
    return reach | ({"pg_read_all_data": everything, "pg_write_all_data": everything} if everything else {})


def examine_presets(cluster: Cluster) -> Iterator[Finding]:
    """Look for a scope that is set by a default, before any transaction."""
    for default in cluster.settings.defaults:
        if default.name in SCOPE_SETTINGS and default.value:
            what = f"{default.name} is set"
            yield SCOPE_PRESET.finding(default.label, what, remedy=default.reset_sql(cluster.catalog.database))


def examine_settings(cluster: Cluster) -> Iterator[Finding]:
    """Look for defaults that change who a runtime role is, or what its sessions load."""
    for default in cluster.settings.defaults:
        concerns = default.role in ("", *cluster.catalog.runtime)
        if concerns and default.is_dangerous:
            what = f"{default.name} is {default.value!r}"
            yield ROLE_SETTING.finding(default.label, what, remedy=default.reset_sql(cluster.catalog.database))


def examine_paths(cluster: Cluster) -> Iterator[Finding]:
    """Look for search paths of runtime roles that do not end in pg_temp."""
    for role in cluster.catalog.runtime:
        path = cluster.settings.effective(role, "search_path")
        schemas = [part.strip().strip('"') for part in (path or "").split(",")]
        if role in cluster.states and schemas[-1] != "pg_temp":
            what = f"its search_path is {path!r}" if path else "it has no search_path of its own"
            remedy = cluster.set_sql(role, "search_path", '"$user", public, pg_temp')
            yield SEARCH_PATH.finding(f"role {role}", f"{what}, which does not end in pg_temp", remedy=remedy)


def examine_timeouts(cluster: Cluster) -> Iterator[Finding]:
    """Look for runtime roles without one of the three timeouts that bootstrap gives them."""
    usual = {"statement_timeout": "30s", "lock_timeout": "5s", "idle_in_transaction_session_timeout": "60s"}
    for role in cluster.catalog.runtime:
        for name, value in usual.items() if role in cluster.states else ():
            if (cluster.settings.effective(role, name) or "0") in ("0", "0s", "0ms"):
                remedy = cluster.set_sql(role, name, f"'{value}'")
                yield TIMEOUT_MISSING.finding(f"role {role}", f"it has no {name}", remedy=remedy)


def examine_migrator(cluster: Cluster) -> Iterator[Finding]:
    """Look at the settings that make a migration act as the owner, and fail instead of seeing less."""
    role, owner = cluster.roles.migrator, cluster.roles.owner
    for name, value in (("row_security", "off"), ("role", owner)) if role in cluster.states else ():
        if cluster.settings.effective(role, name) != value:
            remedy = cluster.set_sql(role, name, f"'{value}'")
            yield MIGRATOR_FILTERED.finding(f"role {role}", f"{name} is not {value}", remedy=remedy)


CHECKS = (
    Check((ROLE_MISSING,), examine_presence),
    Check((ROLE_ATTRIBUTE,), examine_attributes),
    Check((ROLE_MEMBER,), examine_members),
    Check((ROLE_OWNS,), examine_possessions),
    Check((SCOPE_PRESET,), examine_presets),
    Check((ROLE_SETTING,), examine_settings),
    Check((SEARCH_PATH,), examine_paths),
    Check((TIMEOUT_MISSING,), examine_timeouts),
    Check((MIGRATOR_FILTERED,), examine_migrator),
    Check((LOGIN_UNEXPECTED,), examine_logins),
)
RULES: tuple[Rule, ...] = (*rules_of(CHECKS), *connection.RULES)


_ALL = (*rules_of(CHECKS), *rules_of(connection.SERVER_CHECKS))


def examine_roles(subject: Subject) -> Iterator[Finding]:
    """Examine the roles, their settings, the server, and the connection of the application."""
    if subject.connection is None and subject.app_engine is None:
        remedy = "give the doctor the URL of the migrator or of a superuser"
        yield NOT_CHECKED.finding("kind roles", "no connection to the database was given", remedy=remedy)
        return
    if subject.connection is None:
        yield not_checked(_ALL, LookupError("no connection to the database was given"))
    else:
        try:
            cluster = Cluster(subject.connection, subject)
            settings = cluster.settings
        except SQLAlchemyError as error:
            yield not_checked(_ALL, error)
        else:
            yield from run_checks(CHECKS, cluster)
            yield from run_checks(connection.SERVER_CHECKS, settings)
    yield from connection.examine_app_connection(subject)
