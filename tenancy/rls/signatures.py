"""Signed scopes: the keys' table, the function that binds, and the functions that verify what was bound."""

from __future__ import annotations

from tenancy.rls.names import SCHEMA
from tenancy.rls.roles import Roles

KEY_TABLE = f"{SCHEMA}.signing_key"
BIND = "bind_scope"
_SETTINGS = ("app.tenant_id", "app.account_id", "app.platform_session", "app.tenant_token")


def key_table_sql(roles: Roles) -> list[str]:
    """Return the statements, run as the owner, that make the table of keys; nobody else may read it.

    The backup role neither: a dump would hold every key. The two pads are what HMAC makes of a secret, kept
    ready so that a signature is two hashes.
    """
    everyone = f"PUBLIC, {roles.app}, {roles.platform}, {roles.lookup}, {roles.backup}"
    return [
        f"CREATE TABLE IF NOT EXISTS {KEY_TABLE} (\n"
        "  id text COLLATE \"C\" PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9-]{0,31}$'),\n"
        "  inner_pad bytea NOT NULL CHECK (length(inner_pad) = 64),\n"
        "  outer_pad bytea NOT NULL CHECK (length(outer_pad) = 64),\n"
        "  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),\n"
        "  retires_at timestamptz NOT NULL DEFAULT 'infinity'\n"
        ")",
        f"REVOKE ALL ON {KEY_TABLE} FROM {everyone}",
    ]


def bind_sql(roles: Roles) -> list[str]:
    """Return the statements that make the procedure by which a transaction is bound.

    A definer, for hardened databases, where `set_config` is the owner's. Its values travel as parameters,
    which pg_stat_activity does not show. CALL is planned by nobody, so it costs less than a SELECT.
    """
    values = ", ".join(f"pg_catalog.set_config('{name}', ${n}, true)" for n, name in enumerate(_SETTINGS, 1))
    name = f"{SCHEMA}.{BIND}"
    return [
        f"CREATE OR REPLACE PROCEDURE {name}(text, text, text, text) LANGUAGE plpgsql SECURITY DEFINER AS $$\n"
        f"DECLARE done pg_catalog.text;\nBEGIN\n  done := pg_catalog.concat({values});\nEND $$",
        f"REVOKE ALL ON PROCEDURE {name} FROM PUBLIC",
        f"GRANT EXECUTE ON PROCEDURE {name} TO {roles.app}, {roles.platform}",
    ]


def signed_definitions(roles: Roles) -> dict[str, str]:
    """Return the text of the functions that only a signed database has, by signature."""
    return {f"signed_{noun}()": _verify(noun, roles) for noun in ("tenant", "account")}


def unsigned_sql() -> list[str]:
    """Return the statements that drop what only a signed database has. Lost: every key."""
    return [
        f"DROP PROCEDURE IF EXISTS {SCHEMA}.{BIND}",
        *(f"DROP FUNCTION IF EXISTS {SCHEMA}.signed_{noun}()" for noun in ("account", "tenant")),
        f"DROP TABLE IF EXISTS {KEY_TABLE}",
    ]


def _verify(noun: str, roles: Roles) -> str:
    bound = f"pg_catalog.current_setting('app.{noun}_id', true)"
    # Every name is qualified, operators by their functions, in place of a search_path of its own: that would
    # cost as much again. The clock is the transaction's start, so a long transaction outlives its token.
    return (
        "RETURNS uuid LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER AS $$\n"
        "DECLARE\n"
        "  token pg_catalog.text := pg_catalog.current_setting('app.tenant_token', true);\n"
        "  inner_pad pg_catalog.bytea;\n"
        "  outer_pad pg_catalog.bytea;\n"
        "  is_genuine pg_catalog.bool;\n"
        "BEGIN\n"
        f"  SELECT k.inner_pad, k.outer_pad INTO inner_pad, outer_pad FROM {KEY_TABLE} k\n"
        "    WHERE pg_catalog.texteq(k.id, pg_catalog.split_part(token, '.', 1))\n"
        "      AND pg_catalog.timestamptz_gt(k.retires_at, pg_catalog.now());\n"
        "  IF pg_catalog.texteq(pg_catalog.split_part(token, '.', 3), pg_catalog.encode(\n"
        "      pg_catalog.sha256(pg_catalog.byteacat(outer_pad, pg_catalog.sha256(pg_catalog.byteacat(inner_pad,\n"
        "        pg_catalog.convert_to(pg_catalog.concat(pg_catalog.split_part(token, '.', 2),\n"
        "          '|', pg_catalog.current_setting('app.tenant_id', true),\n"
        "          '|', pg_catalog.current_setting('app.account_id', true)), 'UTF8'))))), 'hex'))\n"
        "  THEN\n"
        # Nested: AND would go on to the cast when nothing was found, and its error show what the token holds.
        "    IF pg_catalog.timestamptz_gt(\n"
        "      pg_catalog.to_timestamp(pg_catalog.split_part(token, '.', 2)::pg_catalog.float8), pg_catalog.now())\n"
        f"      AND pg_catalog.textne({bound}, '') THEN\n"
        f"      RETURN {bound}::pg_catalog.uuid;\n"
        "    END IF;\n"
        "    is_genuine := true;\n"
        "  END IF;\n"
        f"  IF pg_catalog.texteq(pg_catalog.concat({bound}), '') THEN\n"
        f"    IF pg_catalog.nameeq(session_user, '{roles.platform}') THEN\n"
        "      RETURN NULL;\n"
        "    END IF;\n"
        f"  {raise_unbound(noun)}"
        "  END IF;\n"
        # Migrations bind tenants without a key: who may act as the owner could turn the policies off.
        f"  IF pg_catalog.pg_has_role(session_user, '{roles.owner}', 'MEMBER') THEN\n"
        f"    RETURN {bound}::pg_catalog.uuid;\n"
        "  END IF;\n"
        "  RAISE insufficient_privilege USING MESSAGE = CASE\n"
        "      WHEN pg_catalog.texteq(pg_catalog.concat(token), '') THEN\n"
        "        'the scope of this transaction carries no signature'\n"
        "      WHEN inner_pad IS NULL THEN 'the scope is signed by a key that is unknown or retired'\n"
        "      WHEN is_genuine THEN 'the signature of the scope has expired'\n"
        "      ELSE 'the signature was not made for this tenant and account' END,\n"
        "    HINT = 'give the engine a valid signing_key (tenancy keys list), and compare both clocks';\n"
        "END $$"
    )


def raise_unbound(noun: str) -> str:
    """Return the statement by which a function refuses a transaction that is bound to no tenant, or account."""
    return (
        f"  RAISE insufficient_privilege USING MESSAGE = 'no {noun} is bound to this transaction',\n"
        f"    HINT = 'run it inside tenancy.{noun}_scope(...), or SET LOCAL app.{noun}_id first';\n"
    )


def add_key_sql() -> str:
    """Return the statement, with parameters `id`, `inner_pad` and `outer_pad`, that makes a key valid."""
    return f"INSERT INTO {KEY_TABLE} (id, inner_pad, outer_pad) VALUES (:id, :inner_pad, :outer_pad)"


def list_keys_sql() -> str:
    """Return the query for the keys' ids and dates, oldest first, and whether each is still valid; no secret."""
    return (
        "SELECT id, created_at, nullif(retires_at, 'infinity') AS retires_at, retires_at > now() AS is_valid "
        f"FROM {KEY_TABLE} ORDER BY created_at, id"
    )


def retire_key_sql() -> str:
    """Return the statement, with parameters `id` and `seconds`, that ends a key; it answers with the time."""
    return (
        f"UPDATE {KEY_TABLE} SET retires_at = clock_timestamp() + make_interval(secs => :seconds) "
        "WHERE id = :id RETURNING retires_at"
    )
