"""What the database really carries, read back and compared in the server's own canonical form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Connection, text

from tenancy.rls.names import SCHEMA, Flavour, quote
from tenancy.rls.policies import Grant, GuardedTable, Policy, grants, policies
from tenancy.rls.roles import Roles


@dataclass(frozen=True)
class TableState:
    """What one table carries. `policies` hold canonical text; `grants` are those of every role but the owner."""

    name: str
    schema: str
    is_enabled: bool
    is_forced: bool
    policies: tuple[Policy, ...]
    grants: frozenset[Grant]

    @property
    def account_key(self) -> str | None:
        """The key that the isolation policy compares with the bound account; None when it compares none with it."""
        using = self._isolation
        found = _COMPARED.match(using)
        if found is None or not ("'app.account_id'" in using or f"{SCHEMA}.current_account()" in using):
            return None
        return found["plain"] or found["quoted"].replace('""', '"')

    @property
    def is_staff(self) -> bool:
        """Whether the isolation policy asks for a platform session, and for nobody's key."""
        return f"{SCHEMA}.platform_open()" in self._isolation

    @property
    def _isolation(self) -> str:
        return next((p.using or "" for p in self.policies if p.name == "tenancy_isolation"), "")


_COMPARED = re.compile(r'\((?:(?P<plain>\w+)|"(?P<quoted>(?:[^"]|"")+)") =\s')
_TABLES = text("""
    SELECT c.oid, n.nspname, c.relname, c.relrowsecurity, c.relforcerowsecurity
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = ANY (:oids) OR c.relkind IN ('r', 'p') AND (n.nspname, c.relname) IN (
        SELECT coalesce(s, current_schema()), t
        FROM unnest(CAST(:schemas AS text[]), CAST(:names AS text[])) AS w (s, t))
    ORDER BY n.nspname, c.relname
""")
_POLICIES = text("""
    SELECT p.polrelid, p.polname, p.polpermissive, p.polcmd::text,
           ARRAY(SELECT CASE r WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(r) END
                 FROM unnest(p.polroles) AS r ORDER BY 1),
           pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)
    FROM pg_policy p WHERE p.polrelid = ANY (:oids) ORDER BY p.polrelid, p.polname
""")
_GRANTS = text("""
    SELECT c.oid, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END, a.privilege_type, a.attname
    FROM pg_class c CROSS JOIN LATERAL (
        SELECT x.grantee, x.privilege_type, NULL::name AS attname FROM aclexplode(c.relacl) x
        UNION ALL
        SELECT x.grantee, x.privilege_type, t.attname
        FROM pg_attribute t CROSS JOIN LATERAL aclexplode(t.attacl) x
        WHERE t.attrelid = c.oid AND t.attnum > 0 AND NOT t.attisdropped
    ) a WHERE c.oid = ANY (:oids) AND a.grantee <> c.relowner
""")
_COMMANDS = {"*": "ALL", "r": "SELECT", "a": "INSERT", "w": "UPDATE", "d": "DELETE"}


def read_state(connection: Connection, tables: Iterable[GuardedTable]) -> dict[tuple[str | None, str], TableState]:
    """Return the state of each table that exists, keyed by the schema and name it was asked for.

    Three queries, however many tables.
    """
    wanted = [(table.schema, table.name) for table in tables]
    found = _read(connection, wanted, oids=[])
    default = connection.dialect.default_schema_name
    by_name = {(state.schema, state.name): state for state in found.values()}
    return {(schema, name): state for schema, name in wanted if (state := by_name.get((schema or str(default), name)))}


def read_states(connection: Connection, oids: Iterable[int]) -> dict[int, TableState]:
    """Return the state of relations of any kind by oid: tables, views, sequences. Three queries."""
    return _read(connection, [], oids=list(oids))


def _read(
    connection: Connection, wanted: Sequence[tuple[str | None, str]], *, oids: list[int]
) -> dict[int, TableState]:
    names = {"schemas": [schema for schema, _ in wanted], "names": [name for _, name in wanted], "oids": oids}
    rows = connection.execute(_TABLES, names).all()
    known = {"oids": [row[0] for row in rows]}
    policies_of: dict[int, list[Policy]] = {}
    for oid, name, permissive, command, roles, using, check in connection.execute(_POLICIES, known):
        policy = Policy(name, permissive, cast("Any", _COMMANDS[command]), tuple(roles), using, check)
        policies_of.setdefault(oid, []).append(policy)
    grants_of: dict[int, set[Grant]] = {}
    for oid, role, privilege, column in connection.execute(_GRANTS, known):
        grants_of.setdefault(oid, set()).add(Grant(role, privilege, column))
    return {
        oid: TableState(
            name, schema, enabled, forced, tuple(policies_of.get(oid, ())), frozenset(grants_of.get(oid, ()))
        )
        for oid, schema, name, enabled, forced in rows
    }


def canonical_policies(
    connection: Connection, tables: Sequence[GuardedTable], roles: Roles, flavour: Flavour = "postgres"
) -> dict[GuardedTable, tuple[Policy, ...]]:
    """Return, by table, the wanted policies as this server would print them.

    The server parses and deparses them on temporary copies of the key column, in a savepoint that is
    rolled back: no text is compared that the server did not write itself. Needs schema `tenancy` to exist
    and the right to make temporary tables.
    """
    shapes: dict[tuple[str, str, bool], GuardedTable] = {}
    for table in tables:
        shapes.setdefault(_shape(table), table)
    savepoint = connection.begin_nested()
    try:
        oids = {shape: _probe(connection, i, t, roles, flavour) for i, (shape, t) in enumerate(shapes.items())}
        states = _read(connection, [], oids=list(oids.values()))
    finally:
        savepoint.rollback()
    return {table: states[oids[_shape(table)]].policies for table in tables}


def _shape(table: GuardedTable) -> tuple[str, str, bool]:
    return ("tenant" if table.kind == "registry" else table.kind, table.key, bool(table.lookup_columns))


def _probe(connection: Connection, number: int, table: GuardedTable, roles: Roles, flavour: Flavour) -> int:
    name = f"pg_temp.tenancy_probe_{number}"
    connection.exec_driver_sql(f"CREATE TEMPORARY TABLE tenancy_probe_{number} ({quote(table.key)} uuid)")
    for policy in policies(table, roles, flavour):
        connection.exec_driver_sql(policy.create_sql(name))
    return int(connection.execute(text("SELECT CAST(CAST(:name AS regclass) AS oid)"), {"name": name}).scalar_one())


@dataclass(frozen=True)
class Difference:
    """One way in which a table is not what its model asks for. `policy` or `grant`: the one that differs."""

    table: GuardedTable
    kind: str
    what: str
    policy: str | None = None
    grant: Grant | None = None


def differences(
    connection: Connection, tables: Sequence[GuardedTable], roles: Roles, flavour: Flavour = "postgres"
) -> list[Difference]:
    """Compare every guarded table with its model. Policies with names that are not ours are left alone,
    unless they are permissive and so could open a row.
    """
    states = read_state(connection, tables)
    wanted = canonical_policies(connection, tables, roles, flavour) if tables else {}
    found: list[Difference] = []
    for table in tables:
        state = states.get((table.schema, table.name))
        if state is not None:
            found += compare_row_security(table, state, wanted[table], flavour)
            found += compare_grants(table, state, roles)
    return found


def compare_row_security(
    table: GuardedTable, state: TableState, wanted: tuple[Policy, ...], flavour: Flavour = "postgres"
) -> Iterator[Difference]:
    """Compare the switches and the policies of one table; `wanted` in the server's words."""
    if not state.is_enabled:
        yield Difference(table, "rls_disabled", f"row-level security is off on {table.name!r}")
    if state.is_forced == (flavour == "citus"):
        yield Difference(table, "rls_not_forced", f"row-level security is not forced on {table.name!r}")
    actual = {policy.name: policy for policy in state.policies}
    for policy in wanted:
        there = actual.pop(policy.name, None)
        if there is None:
            what = f"policy {policy.name!r} is missing on {table.name!r}"
            yield Difference(table, "policy_missing", what, policy=policy.name)
        elif there != policy:
            what = f"policy {policy.name!r} on {table.name!r} was changed"
            yield Difference(table, "policy_changed", what, policy=policy.name)
    for policy in actual.values():
        if policy.permissive:
            what = f"permissive policy {policy.name!r} on {table.name!r} is not the library's"
            yield Difference(table, "policy_permissive", what, policy=policy.name)


def compare_grants(table: GuardedTable, state: TableState, roles: Roles) -> Iterator[Difference]:
    """Compare what the library's roles and PUBLIC may do with one table; other roles are left alone."""
    ours = {roles.app, roles.platform, roles.lookup, roles.backup, "PUBLIC"}
    granted = frozenset(grant for grant in state.grants if grant.role in ours)
    for grant in sorted(grants(table, roles) - granted, key=str):
        what = f"{_grant_text(grant)} on {table.name!r} is missing"
        yield Difference(table, "grant_missing", what, grant=grant)
    for grant in sorted(granted - grants(table, roles), key=str):
        what = f"{_grant_text(grant)} on {table.name!r} was not given by the library"
        yield Difference(table, "grant_extra", what, grant=grant)


def _grant_text(grant: Grant) -> str:
    column = f" ({grant.column})" if grant.column else ""
    return f"{grant.privilege}{column} to {grant.role}"
