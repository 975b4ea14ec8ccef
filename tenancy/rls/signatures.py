"""Signed scopes: the keys' table, the function that binds, and the functions that verify what was bound."""

from __future__ import annotations

from tenancy.rls.names import SCHEMA
from tenancy.rls.roles import Roles

KEY_TABLE = f"{SCHEMA}.signing_key"
SIGNED_MARK = "bind_scope"
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
        "  retires_at timestamptz\n"
        ")",
        f"REVOKE ALL ON {KEY_TABLE} FROM {everyone}",
    ]


def signed_definitions(roles: Roles) -> dict[str, str]:
    """Return the text of the functions that only a signed database has, by signature."""
    bound = "".join(
        f"  done := pg_catalog.set_config('{name}', ${number}, true);\n" for number, name in enumerate(_SETTINGS, 1)
    )
    return {
        # A definer, for hardened databases, where set_config is the owner's. Parameters, unlike the text of
        # SET LOCAL, are not shown in pg_stat_activity. Assignments: PERFORM would run a query for each.
        f"{SIGNED_MARK}(text, text, text, text)": (
            f"RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$\nDECLARE done text;\nBEGIN\n{bound}END $$"
        ),
        **{f"signed_{noun}()": _verify(noun, roles) for noun in ("tenant", "account")},
    }


def _verify(noun: str, roles: Roles) -> str:
    # Returns the very value it verified. The clock is the transaction's start, so a long one outlives its token.
    return (
        "RETURNS uuid LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER "
        "SET search_path = pg_catalog, pg_temp AS $$\n"
        "DECLARE\n"
        "  tenant text := current_setting('app.tenant_id', true);\n"
        "  account text := current_setting('app.account_id', true);\n"
        "  token text := current_setting('app.tenant_token', true);\n"
        "  expiry text := split_part(token, '.', 2);\n"
        "  wanted text;\n"
        "BEGIN\n"
        "  SELECT encode(sha256(k.outer_pad || sha256(k.inner_pad\n"
        "      || convert_to(concat_ws('|', expiry, coalesce(tenant, ''), coalesce(account, '')), 'UTF8'))), 'hex')\n"
        f"    INTO wanted FROM {KEY_TABLE} k\n"
        "    WHERE k.id = split_part(token, '.', 1) AND (k.retires_at IS NULL OR k.retires_at > now());\n"
        "  IF wanted = split_part(token, '.', 3) AND to_timestamp(expiry::float8) > now() THEN\n"
        f"    RETURN {noun}::uuid;\n"
        "  END IF;\n"
        # Migrations bind tenants without a key: who may act as the owner could turn the policies off.
        f"  IF pg_has_role(session_user, '{roles.owner}', 'MEMBER') THEN\n"
        f"    RETURN {noun}::uuid;\n"
        "  END IF;\n"
        "  RAISE insufficient_privilege USING MESSAGE = CASE\n"
        "      WHEN coalesce(token, '') = '' THEN 'the scope of this transaction carries no signature'\n"
        "      WHEN wanted IS NULL THEN 'the scope is signed by a key that is unknown or retired'\n"
        "      WHEN wanted <> split_part(token, '.', 3) THEN\n"
        "        'the signature was not made for this tenant and account'\n"
        "      ELSE 'the signature of the scope has expired' END,\n"
        "    HINT = 'give the engine the current signing_key (tenancy keys list), and check both clocks';\n"
        "END $$"
    )


def add_key_sql() -> str:
    """Return the statement, with parameters `id`, `inner_pad` and `outer_pad`, that makes a key valid."""
    return f"INSERT INTO {KEY_TABLE} (id, inner_pad, outer_pad) VALUES (:id, :inner_pad, :outer_pad)"


def list_keys_sql() -> str:
    """Return the query for the keys' ids and dates, oldest first, and whether each is still valid; no secret."""
    return (
        "SELECT id, created_at, retires_at, coalesce(retires_at > now(), true) AS is_valid "
        f"FROM {KEY_TABLE} ORDER BY created_at, id"
    )


def retire_key_sql() -> str:
    """Return the statement, with parameters `id` and `seconds`, that ends a key; it answers with the time."""
    return (
        f"UPDATE {KEY_TABLE} SET retires_at = clock_timestamp() + make_interval(secs => :seconds) "
        "WHERE id = :id RETURNING retires_at"
    )
