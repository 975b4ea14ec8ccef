"""What a guarded table carries: its policies and grants, derived from the models and written as SQL."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import MetaData, Table

from tenancy.errors import ModelError
from tenancy.lookups import Lookup, lookups_of
from tenancy.marks import EVERY_PRIVILEGE
from tenancy.rls.functions import current_value
from tenancy.rls.names import SCHEMA, Flavour, qualified, quote
from tenancy.rls.roles import Roles
from tenancy.tables import TENANT_KEY, guarded_tables, mark_of

POLICY_NAMES = ("tenancy_isolation", "tenancy_guard", "tenancy_platform_read", "tenancy_lookup")


@dataclass(frozen=True)
class Policy:
    """One row-level security policy. In the server's canonical form when read back by `read_state`."""

    name: str
    permissive: bool
    command: Literal["ALL", "SELECT", "INSERT", "UPDATE", "DELETE"]
    roles: tuple[str, ...]
    using: str | None
    check: str | None

    def create_sql(self, table: str) -> str:
        parts = [
            f"CREATE POLICY {quote(self.name)} ON {table}",
            f"AS {'PERMISSIVE' if self.permissive else 'RESTRICTIVE'} FOR {self.command}",
            f"TO {', '.join(self.roles)}",
        ]
        parts += [f"USING ({self.using})"] if self.using else []
        parts += [f"WITH CHECK ({self.check})"] if self.check else []
        return " ".join(parts)


@dataclass(frozen=True)
class Grant:
    """One privilege of one role on a table, or on a column of it."""

    role: str
    privilege: str
    column: str | None = None


@dataclass(frozen=True)
class GuardedTable:
    """What guarding one table needs to know; enough to write its policies and grants without the models.

    update: the columns anyone may update: all but the primary key. app_update: narrower list for the app
    role, None for the same. app, platform: what each role may do with rows. lookup_columns: what the lookup
    role reads, empty when no lookup uses the table.
    sequences: names of the sequences its columns draw from.
    """

    name: str
    kind: Literal["tenant", "registry", "account", "staff"]
    update: tuple[str, ...]
    key: str = TENANT_KEY
    schema: str | None = None
    app_update: tuple[str, ...] | None = None
    app: tuple[str, ...] = EVERY_PRIVILEGE
    platform: tuple[str, ...] = EVERY_PRIVILEGE
    lookup_columns: tuple[str, ...] = ()
    sequences: tuple[str, ...] = ()

    @property
    def sql_name(self) -> str:
        return qualified(self.name, self.schema)


def guarded(metadata: MetaData) -> list[GuardedTable]:
    """Derive, from the models, every table to guard, in FK order."""
    return [guarded_table(table, lookups_of(metadata)) for table in guarded_tables(metadata)]


def guarded_table(table: Table, lookups: Iterable[Lookup] = ()) -> GuardedTable:
    """Derive what guarding one table needs from its definition and the lookups that read it.

    Raises: ModelError - the table is a plain platform table, or not marked at all.
    """
    mark = mark_of(table)
    if mark is None or mark.kind == "platform":
        raise ModelError(f"table {table.name!r} has nothing to be guarded by", hint="give it a tenant_id")
    keys = {column.name for column in table.primary_key} | {TENANT_KEY, mark.account_key}
    read = dict.fromkeys(column for lookup in lookups if lookup.table == table.name for column in lookup.columns)
    serial = table.autoincrement_column
    return GuardedTable(
        name=table.name,
        schema=table.schema,
        kind=mark.kind,
        key=mark.account_key or TENANT_KEY,
        update=tuple(column.name for column in table.columns if column.name not in keys),
        app_update=mark.app_update,
        app=mark.app,
        platform=mark.platform,
        lookup_columns=tuple(read),
        sequences=() if serial is None else (f"{table.name}_{serial.name}_seq",),
    )


def policies(table: GuardedTable, roles: Roles, flavour: Flavour = "postgres") -> tuple[Policy, ...]:
    """Return the policies a guarded table must have, no more and no fewer.

    The isolation policy reads the setting in line, so the planner sees the tenant's statistics and prunes
    partitions; by current_tenant() it would look no different, once each plan had parsed and inlined that. The
    guard's is a sub-select, so an open cursor shows no foreign row after a switch and a later permissive policy
    opens nothing.
    """
    if table.kind == "staff":
        return _staff_policies(table, roles, flavour)
    noun = "account" if table.kind == "account" else "tenant"
    key = quote(table.key)
    own = f"{key} = {SCHEMA}.current_{noun}()" if flavour == "citus" else f"{key} = {current_value(noun)}"
    everyone = ("PUBLIC",)  # a role can drop itself from a policy's list (CVE-2026-116311)
    if flavour == "citus":  # it rejects sub-selects in policies
        guard = check = f"{own} OR {SCHEMA}.platform_open()"
        platform = f"{SCHEMA}.platform_open()"
    else:
        check = f"{key} = (SELECT {SCHEMA}.guarded_{noun}())"
        platform = f"(SELECT {SCHEMA}.platform_open())"
        guard = f"{check} OR {platform}"
    found = [
        Policy("tenancy_isolation", True, "ALL", everyone, own, own),
        Policy("tenancy_guard", False, "ALL", everyone, _or_lookup(guard, table, roles, flavour), check),
        Policy("tenancy_platform_read", True, "SELECT", (roles.platform,), platform, None),
    ]
    return (*found, *_lookup_policies(table, roles))


def _staff_policies(table: GuardedTable, roles: Roles, flavour: Flavour) -> tuple[Policy, ...]:
    """A platform session that is open and names no tenant, or nothing."""
    opened = f"{SCHEMA}.platform_open()" if flavour == "citus" else f"(SELECT {SCHEMA}.platform_open())"
    return (
        Policy("tenancy_isolation", True, "ALL", ("PUBLIC",), opened, opened),
        Policy("tenancy_guard", False, "ALL", ("PUBLIC",), _or_lookup(opened, table, roles, flavour), opened),
        *_lookup_policies(table, roles),
    )


def _or_lookup(guard: str, table: GuardedTable, roles: Roles, flavour: Flavour) -> str:
    if not table.lookup_columns:
        return guard
    is_lookup = f"current_user = '{roles.lookup}'"
    return f"{is_lookup if flavour == 'citus' else f'(SELECT {is_lookup})'} OR {guard}"


def _lookup_policies(table: GuardedTable, roles: Roles) -> tuple[Policy, ...]:
    if not table.lookup_columns:
        return ()
    return (Policy("tenancy_lookup", True, "SELECT", (roles.lookup,), "true", None),)


def grants(table: GuardedTable, roles: Roles) -> frozenset[Grant]:
    """Return the privileges on a guarded table of every role but its owner, no more and no fewer."""
    found = {Grant(roles.backup, "SELECT")}
    for role, privileges in ((roles.app, table.app), (roles.platform, table.platform)):
        found |= {Grant(role, privilege) for privilege in privileges if privilege != "UPDATE"}
        columns = table.app_update if role == roles.app and table.app_update is not None else table.update
        found |= {Grant(role, "UPDATE", column) for column in columns if "UPDATE" in privileges}
    if table.kind == "registry":
        found -= {Grant(roles.app, "DELETE")}
    found |= {Grant(roles.lookup, "SELECT", column) for column in table.lookup_columns}
    return frozenset(found)


def guard_sql(table: GuardedTable, roles: Roles, flavour: Flavour = "postgres") -> list[str]:
    """Return the statements that put policies and grants on a table, replacing ours that are there."""
    name = table.sql_name
    wanted = policies(table, roles, flavour)
    inserting = drawing_roles(table, roles)
    everyone = f"PUBLIC, {roles.app}, {roles.platform}, {roles.lookup}, {roles.backup}"
    return [
        f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {name} {'NO ' if flavour == 'citus' else ''}FORCE ROW LEVEL SECURITY",
        *(f"DROP POLICY IF EXISTS {policy} ON {name}" for policy in POLICY_NAMES),
        *(policy.create_sql(name) for policy in wanted),
        f"REVOKE ALL ON {name} FROM {everyone}",
        *_grant_sql(name, grants(table, roles)),
        *(
            f"GRANT USAGE ON SEQUENCE {qualified(sequence, table.schema)} TO {', '.join(inserting)}"
            for sequence in table.sequences
            if inserting
        ),
        *(announce_sql(table.name, schema=table.schema) if table.kind == "registry" else ()),
    ]


def drawing_roles(table: GuardedTable, roles: Roles) -> list[str]:
    """Return the roles that may draw from the table's sequences: those that may insert."""
    found = ((roles.app, table.app), (roles.platform, table.platform))
    return [role for role, privileges in found if "INSERT" in privileges]


def unguard_sql(table: GuardedTable, roles: Roles) -> list[str]:
    """Return the statements that take everything off again; nobody but the owner can read the table then."""
    name = table.sql_name
    return [
        f"REVOKE ALL ON {name} FROM PUBLIC, {roles.app}, {roles.platform}, {roles.lookup}, {roles.backup}",
        *(
            f"REVOKE ALL ON SEQUENCE {qualified(s, table.schema)} FROM {roles.app}, {roles.platform}"
            for s in table.sequences
        ),
        *(f"DROP POLICY IF EXISTS {policy} ON {name}" for policy in POLICY_NAMES),
        f"DROP TRIGGER IF EXISTS tenancy_announce ON {name}",
        f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY",
        f"ALTER TABLE {name} DISABLE ROW LEVEL SECURITY",
    ]


def _grant_sql(name: str, wanted: Iterable[Grant]) -> list[str]:
    by_role: dict[str, dict[str, list[str]]] = {}
    for grant in sorted(wanted, key=lambda g: (g.role, g.privilege, g.column or "")):
        columns = by_role.setdefault(grant.role, {}).setdefault(grant.privilege, [])
        if grant.column is not None:
            columns.append(quote(grant.column))
    return [
        "GRANT "
        + ", ".join(p + (f" ({', '.join(columns)})" if columns else "") for p, columns in privileges.items())
        + f" ON {name} TO {role}"
        for role, privileges in by_role.items()
    ]


def announce_sql(table: str, *, schema: str | None = None) -> list[str]:
    """Return the trigger that tells every process when a row behind a tenant's reference changes."""
    return [
        f"CREATE OR REPLACE TRIGGER tenancy_announce AFTER INSERT OR UPDATE OR DELETE ON {qualified(table, schema)} "
        f"FOR EACH ROW EXECUTE FUNCTION {SCHEMA}.announce_tenant()"
    ]


def force_sql(table: str, *, forced: bool) -> str:
    """Return the statement that lets the owner past the policies of a table, or stops it again."""
    return f"ALTER TABLE {table} {'' if forced else 'NO '}FORCE ROW LEVEL SECURITY"


def grant_added_column_sql(table: str, column: str, roles: Roles, *, schema: str | None = None) -> str:
    """Return a block that extends the UPDATE grants of a guarded table to a column just added.

    A role gets the column if there are others outside the key and it may update all of them, so a registry's narrow
    grant stays narrow, and a table that was nothing but its key stays closed. One that is not guarded is left alone.
    """
    name, quoted = qualified(table, schema), quote(column)
    return (
        "DO $tenancy$ DECLARE runtime text; BEGIN\n"
        f"  IF EXISTS (SELECT FROM pg_policy WHERE polrelid = '{name}'::regclass AND polname = 'tenancy_guard') THEN\n"
        f"    FOREACH runtime IN ARRAY ARRAY['{roles.app}', '{roles.platform}'] LOOP\n"
        "      IF (\n"
        "        SELECT bool_and(has_column_privilege(runtime, a.attrelid, a.attnum, 'UPDATE')) FROM pg_attribute a "
        f"WHERE a.attrelid = '{name}'::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> '{column}'\n"
        "          AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisprimary"
        " AND a.attnum = ANY (i.indkey))\n"
        "          AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = a.attrelid AND p.polname ="
        " 'tenancy_isolation'\n"
        "           AND starts_with(pg_get_expr(p.polqual, p.polrelid), '(' || quote_ident(a.attname) || ' ='))) THEN\n"
        f"        EXECUTE 'GRANT UPDATE ({quoted}) ON {name} TO ' || quote_ident(runtime);\n"
        "      END IF;\n"
        "    END LOOP;\n"
        "  END IF;\n"
        "END $tenancy$"
    )
