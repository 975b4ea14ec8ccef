"""Schema `tenancy`: the functions that policies call, the platform's audit table, and the lookups."""

from __future__ import annotations

from tenancy.errors import ConfigurationError
from tenancy.lookups import Lookup
from tenancy.rls.names import SCHEMA, Flavour
from tenancy.rls.roles import Roles
from tenancy.rls.signatures import bind_sql, key_table_sql, raise_unbound, signed_definitions, unsigned_sql


def install_sql(roles: Roles, flavour: Flavour = "postgres", *, signed: bool = False) -> list[str]:
    """Return the statements, run as the owner, that make schema `tenancy`; repeatable over an older version.

    signed: the policies also demand a signature of the scope, by a key of table `tenancy.signing_key`.
    Raises: ConfigurationError - signed, for Citus.
    """
    statements = [
        f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}",
        f"REVOKE ALL ON SCHEMA {SCHEMA} FROM PUBLIC",
        f"GRANT USAGE ON SCHEMA {SCHEMA} TO {roles.app}, {roles.platform}, {roles.backup}",
        f"GRANT USAGE, CREATE ON SCHEMA {SCHEMA} TO {roles.lookup}",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {roles.owner} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
        *_platform_session_sql(roles),
        *(key_table_sql(roles) if signed else ()),
    ]
    for signature, definition in function_definitions(roles, flavour, signed=signed).items():
        statements += [
            f"CREATE OR REPLACE FUNCTION {SCHEMA}.{signature} {definition}",
            f"REVOKE ALL ON FUNCTION {SCHEMA}.{signature} FROM PUBLIC",
        ]
        if "RETURNS trigger" not in definition:
            callers = f"{roles.app}, {roles.platform}, {roles.lookup}"
            statements.append(f"GRANT EXECUTE ON FUNCTION {SCHEMA}.{signature} TO {callers}")
    return [
        *statements,
        *(bind_sql(roles) if signed else ()),
        *_append_only_sql(),
        f"SET LOCAL ROLE {roles.lookup}",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {roles.lookup} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
        f"SET LOCAL ROLE {roles.owner}",
    ]


def uninstall_sql(roles: Roles, *, signed: bool = False) -> list[str]:
    """Return the statements that remove schema `tenancy`; they fail while a table is still guarded."""
    tables = [f"DROP TABLE {SCHEMA}.platform_session"]
    return [
        *(f"DROP FUNCTION {SCHEMA}.{name}" for name in reversed(function_definitions(roles)) if "refuse" not in name),
        *(unsigned_sql() if signed else ()),
        *tables,
        f"DROP FUNCTION {SCHEMA}.refuse_change()",
        f"DROP SCHEMA {SCHEMA}",
    ]


def unsign_sql(roles: Roles) -> list[str]:
    """Return the statements that make a signed schema `tenancy` an unsigned one. Lost: every signing key."""
    return [*install_sql(roles), *unsigned_sql()]


def function_definitions(roles: Roles, flavour: Flavour = "postgres", *, signed: bool = False) -> dict[str, str]:
    """Return the text of each function by its signature, in order of creation."""
    if signed and flavour == "citus":
        raise ConfigurationError(
            "signed scopes need the keys' table on every node, and Citus workers have none",
            hint="leave signed out for the citus flavour, and harden the database instead",
        )
    tenant, account = _setting("app.tenant_id"), _setting("app.account_id")
    platform = f"'{roles.platform}'"
    definitions = {
        # It tests the setting itself, because Citus evaluates both arms of a CASE.
        "no_tenant()": _no_binding("tenant", tenant, roles),
        "no_account()": _no_binding("account", account, roles),
        # Not a definer and no SET clause, or it is not inlined.
        "current_tenant()": _sql("uuid", f"SELECT {current_value('tenant')}"),
        "current_account()": _sql("uuid", f"SELECT {current_value('account')}"),
        "platform_session_valid()": (
            "RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER "
            "SET search_path = pg_catalog, pg_temp AS $$\n"
            "BEGIN\n"
            f"  RETURN session_user = {platform} AND EXISTS (\n"
            f"    SELECT FROM {SCHEMA}.platform_session s\n"
            f"    WHERE s.id = {_setting('app.platform_session')}::pg_catalog.uuid AND s.role = session_user\n"
            # A row of this very transaction is not committed: its clock is past the transaction's start.
            "      AND s.opened_at < pg_catalog.now() AND s.expires_at > pg_catalog.clock_timestamp());\n"
            "END $$"
        ),
        "platform_open()": _once(
            "boolean",
            f"CASE WHEN session_user <> {platform} OR {tenant} IS NOT NULL THEN false "
            f"ELSE {SCHEMA}.platform_session_valid() END",
            flavour,
        ),
    }
    if signed:
        definitions |= signed_definitions(roles)
    verified = "signed" if signed else "current"
    for noun in ("tenant", "account"):
        definitions[f"guarded_{noun}()"] = _once(
            "uuid",
            f"CASE WHEN session_user = {platform} AND NOT {SCHEMA}.platform_session_valid() THEN NULL "
            f"ELSE {SCHEMA}.{verified}_{noun}() END",
            flavour,
        )
    definitions["refuse_change()"] = (
        "RETURNS trigger LANGUAGE plpgsql AS $$\n"
        "BEGIN\n"
        "  RAISE insufficient_privilege USING MESSAGE = 'this table is append-only',\n"
        "    HINT = 'add a row that corrects the earlier one';\n"
        "END $$"
    )
    definitions["announce_tenant()"] = (
        "RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$\n"
        "BEGIN\n"
        "  IF TG_OP <> 'INSERT' THEN\n"
        "    PERFORM pg_catalog.pg_notify('tenancy_tenant', OLD.tenant_id::text);\n"
        "  END IF;\n"
        "  IF TG_OP <> 'DELETE' THEN\n"
        "    PERFORM pg_catalog.pg_notify('tenancy_tenant', NEW.tenant_id::text);\n"
        "  END IF;\n"
        "  RETURN NULL;\n"
        "END $$"
    )
    if flavour == "citus":
        # A worker has no session row to look at: there the library writes the audit row, and the role decides.
        definitions["platform_session_valid()"] = _sql("boolean", f"SELECT session_user = {platform}")
    return definitions


def current_value(noun: str) -> str:
    """Return the expression for the tenant, or the account, that is bound; it raises when none is.

    nullif rather than coalesce, which is leaky: its condition would enter no index.
    """
    setting = _setting(f"app.{noun}_id")
    return f"CASE WHEN {setting} IS NULL THEN {SCHEMA}.no_{noun}() ELSE {setting}::pg_catalog.uuid END"


def _setting(name: str) -> str:
    # After a SET LOCAL ends the value is '', not NULL.
    return f"nullif(pg_catalog.current_setting('{name}', true), '')"


def _sql(returns: str, body: str) -> str:
    return f"RETURNS {returns} LANGUAGE sql STABLE PARALLEL SAFE AS $$ {body} $$"


def _once(returns: str, value: str, flavour: Flavour) -> str:
    """Return the text of a function that policies call in a sub-select, so once for a statement.

    plpgsql: the planner would parse, inline and plan SQL anew for each sub-select of each statement, which took
    longer than the call. Citus has no sub-selects in policies; there it is called for rows, and so inlined.
    """
    if flavour == "citus":
        return _sql(returns, f"SELECT {value}")
    return f"RETURNS {returns} LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$\nBEGIN\n  RETURN {value};\nEND $$"


def _no_binding(noun: str, setting: str, roles: Roles) -> str:
    # Written into the policy, its cost is counted for every row, though it is called for none of a bound tenant's:
    # at plpgsql's 100, a large tenant is read through the index row by row; at 1, by a scan of everybody's rows.
    return (
        "RETURNS uuid LANGUAGE plpgsql STABLE PARALLEL SAFE COST 5 AS $$\n"
        "BEGIN\n"
        f"  IF {setting} IS NOT NULL OR current_user = '{roles.lookup}' OR session_user = '{roles.platform}' THEN\n"
        "    RETURN NULL;\n"
        "  END IF;\n"
        f"{raise_unbound(noun)}"
        "END $$"
    )


def _platform_session_sql(roles: Roles) -> list[str]:
    return [
        f"CREATE TABLE IF NOT EXISTS {SCHEMA}.platform_session (\n"
        "  id uuid PRIMARY KEY,\n"
        "  role name NOT NULL DEFAULT session_user,\n"
        "  actor text NOT NULL CHECK (btrim(actor) <> ''),\n"
        "  reason text NOT NULL CHECK (btrim(reason) <> ''),\n"
        "  opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),\n"
        "  expires_at timestamptz NOT NULL DEFAULT clock_timestamp() + interval '1 hour'\n"
        ")",
        f"REVOKE ALL ON {SCHEMA}.platform_session FROM PUBLIC, {roles.app}, {roles.platform}",
        # The role and both times come from the server: nobody dates a session or opens it for another role.
        f"GRANT SELECT, INSERT (id, actor, reason) ON {SCHEMA}.platform_session TO {roles.platform}",
        f"GRANT SELECT ON {SCHEMA}.platform_session TO {roles.backup}",
    ]


def _append_only_sql() -> list[str]:
    return [
        f"CREATE OR REPLACE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {SCHEMA}.platform_session "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {SCHEMA}.refuse_change()"
    ]


def create_lookup_sql(lookup: Lookup, roles: Roles) -> list[str]:
    """Return the statements that create a lookup function as the `lookup` role. plpgsql: its plan is kept."""
    name, table = f"{SCHEMA}.{lookup.name}", lookup.table
    argument = "" if lookup.by_account else f"key {lookup.key_type}"
    returned = ", ".join(f"{column} {table}.{column}%TYPE" for column in lookup.returns)
    # Guarded, so that a signed database verifies the account; in a sub-select, so that it does so once.
    wanted = f"(SELECT {SCHEMA}.guarded_account())" if lookup.by_account else "$1"
    # The lookup role is let past no_account(), so an unbound account is refused here.
    unbound = f"IF {_setting('app.account_id')} IS NULL THEN\n{raise_unbound('account')}  END IF;\n  "
    conditions = [f"t.{lookup.key} = {wanted}", *(f"t.{column} IS NOT NULL" for column in lookup.requires)]
    return [
        f"SET LOCAL ROLE {roles.lookup}",
        f"CREATE OR REPLACE FUNCTION {name}({argument}) RETURNS TABLE ({returned}) "
        "LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$\n"
        "#variable_conflict use_column\n"
        f"BEGIN {unbound if lookup.by_account else ''}"
        f"RETURN QUERY SELECT {', '.join(f't.{c}' for c in lookup.returns)} FROM public.{table} t\n"
        f"  WHERE {' AND '.join(conditions)}; END $$",
        f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC",
        f"GRANT EXECUTE ON FUNCTION {name} TO {roles.app}, {roles.platform}",
        f"SET LOCAL ROLE {roles.owner}",
    ]


def drop_lookup_sql(lookup: Lookup, roles: Roles) -> list[str]:
    return [
        f"SET LOCAL ROLE {roles.lookup}",
        f"DROP FUNCTION {SCHEMA}.{lookup.name}",
        f"SET LOCAL ROLE {roles.owner}",
    ]
