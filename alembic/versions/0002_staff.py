"""Add platform staff, their sign-ins, keys and links, the answers kept for repeated requests, and their search.

The search over all tenants reads a copy of the registry: under policies, no index serves a part of a name. Nobody is
granted anything on the copy; the functions that read and keep it belong to the owner, and each checks its caller.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from tenancy.alembic.execution import current_installation

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_STAMPS = ["created_at", "updated_at"]
_GUARDS: dict[str, dict[str, Any]] = {
    "staff_accounts": {
        "update": ["email", "password_hash", "role", "disabled_at", *_STAMPS],
        "lookup_columns": ["id", "email", "role", "disabled_at"],
    },
    "staff_sign_ins": {
        "update": ["staff_id", "token_hash", "expires_at", "ended_at", *_STAMPS],
        "lookup_columns": ["token_hash", "id", "staff_id", "expires_at", "ended_at"],
    },
    "staff_keys": {
        "update": [
            "staff_id",
            "name",
            "prefix",
            "key_hash",
            "permissions",
            "expires_at",
            "last_used_at",
            "revoked_at",
            *_STAMPS,
        ],
        "lookup_columns": [
            "key_hash",
            "id",
            "staff_id",
            "prefix",
            "permissions",
            "expires_at",
            "revoked_at",
            "last_used_at",
        ],
    },
    "staff_links": {
        "update": ["staff_id", "purpose", "token_hash", "expires_at", "used_at", *_STAMPS],
        "lookup_columns": ["token_hash", "id", "staff_id", "purpose", "expires_at", "used_at"],
    },
    "kept_answers": {
        "update": ["actor_id", "key", "request_hash", "status", "body", "begun_at", "expires_at"],
    },
}
_LOOKUPS: dict[str, tuple[str, dict[str, Any]]] = {
    "staff_by_id": (
        "staff_accounts",
        {"key": "id", "returns": ["id", "email", "role", "disabled_at"], "key_type": "uuid"},
    ),
    "staff_of_email": ("staff_accounts", {"key": "email", "returns": ["id"]}),
    "staff_sign_in_by_hash": (
        "staff_sign_ins",
        {"key": "token_hash", "returns": ["id", "staff_id", "expires_at", "ended_at"], "key_type": "bytea"},
    ),
    "staff_key_by_hash": (
        "staff_keys",
        {
            "key": "key_hash",
            "returns": ["id", "staff_id", "prefix", "permissions", "expires_at", "revoked_at", "last_used_at"],
            "key_type": "bytea",
        },
    ),
    "staff_link_by_hash": (
        "staff_links",
        {
            "key": "token_hash",
            "returns": ["id", "staff_id", "purpose", "expires_at", "used_at"],
            "key_type": "bytea",
        },
    ),
}

# Each says what it may be called for: they read past the policies, as the owner of the copy.
_FUNCTIONS = {
    "tenant_words": r"""(name text, slug text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT lower(name) || E'\n' || slug
$$""",
    "tenant_grams": r"""(words text) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(array_agg(DISTINCT substr(words, n, 3)), '{}') FROM generate_series(1, length(words) - 2) n
$$""",
    "keep_searched_tenant": r"""() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  w text;
BEGIN
  IF TG_OP = 'DELETE' THEN
    DELETE FROM public.searched_tenants WHERE found_id = OLD.tenant_id;
    RETURN NULL;
  END IF;
  w := public.tenant_words(NEW.name, NEW.slug);
  INSERT INTO public.searched_tenants (found_id, slug, name, status, plan, created_at, words, grams)
  VALUES (NEW.tenant_id, NEW.slug, NEW.name, NEW.status, NEW.plan, NEW.created_at, w, public.tenant_grams(w))
  ON CONFLICT (found_id) DO UPDATE SET slug = EXCLUDED.slug, name = EXCLUDED.name, status = EXCLUDED.status,
    plan = EXCLUDED.plan, words = EXCLUDED.words, grams = EXCLUDED.grams;
  RETURN NULL;
END $$""",
    # Each statement is planned for its values: a part that few names have goes through the grams, one that nearly
    # all have through the order, which ends at the limit.
    "search_tenants": r"""
(part text, of_status text, of_plan text, sort text, after_value text, after_id uuid, most integer)
RETURNS TABLE (found_id uuid)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  wanted text := lower(part);
  start text := replace(replace(replace(wanted, '\', '\\'), '%', '\%'), '_', '\_') || '%';
  is_down boolean := sort LIKE '-%';
  sorted_by text := ltrim(sort, '-');
  condition text := 'true';
BEGIN
  IF NOT tenancy.platform_open() THEN
    RAISE insufficient_privilege USING MESSAGE = 'tenants are searched in an open platform session only';
  END IF;
  IF sorted_by NOT IN ('created_at', 'name') THEN
    RAISE invalid_parameter_value USING MESSAGE = 'tenants are not sorted so';
  END IF;
  IF length(wanted) >= 3 THEN
    condition := 's.grams @> public.tenant_grams($1) AND position($1 IN s.words) > 0';
  ELSIF wanted <> '' THEN
    condition := '(s.words LIKE $2 OR s.slug LIKE $2)';
  END IF;
  IF of_status IS NOT NULL THEN
    condition := condition || ' AND s.status = $3';
  END IF;
  IF of_plan IS NOT NULL THEN
    condition := condition || ' AND s.plan = $4';
  END IF;
  IF after_id IS NOT NULL THEN
    condition := condition || format(' AND (s.%I, s.found_id) %s ($5::%s, $6)', sorted_by,
      CASE WHEN is_down THEN '<' ELSE '>' END, CASE sorted_by WHEN 'name' THEN 'text' ELSE 'timestamptz' END);
  END IF;
  RETURN QUERY EXECUTE format(
    'SELECT s.found_id FROM public.searched_tenants s WHERE %1$s ORDER BY s.%2$I %3$s, s.found_id %3$s LIMIT $7',
    condition, sorted_by, CASE WHEN is_down THEN 'DESC' ELSE 'ASC' END)
  USING wanted, start, of_status, of_plan, after_value, after_id, most;
END $$""",
    "count_tenants": """() RETURNS TABLE (status text, plan text, tenants bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  IF NOT tenancy.platform_open() THEN
    RAISE insufficient_privilege USING MESSAGE = 'tenants are counted in an open platform session only';
  END IF;
  RETURN QUERY SELECT s.status, s.plan, count(*) FROM public.searched_tenants s GROUP BY s.status, s.plan;
END $$""",
}
_FILL = """
INSERT INTO searched_tenants (found_id, slug, name, status, plan, created_at, words, grams)
SELECT tenant_id, slug, name, status, plan, created_at, w, tenant_grams(w) FROM tenants, tenant_words(name, slug) w
"""


def upgrade() -> None:
    op.create_table(
        "staff_accounts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        *_stamps(),
        sa.CheckConstraint(
            "role IN ('owner', 'support', 'billing', 'read_only')", name=op.f("ck_staff_accounts_role_known")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_staff_accounts")),
        sa.UniqueConstraint("email", name=op.f("uq_staff_accounts_email")),
    )
    op.create_table(
        "staff_sign_ins",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("staff_id", sa.Uuid(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        *_stamps(),
        sa.ForeignKeyConstraint(
            ["staff_id"], ["staff_accounts.id"], name=op.f("fk_staff_sign_ins_staff_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_staff_sign_ins")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_staff_sign_ins_token_hash")),
    )
    op.create_index(op.f("ix_staff_sign_ins_staff_id"), "staff_sign_ins", ["staff_id"], unique=False)
    op.create_table(
        "staff_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("staff_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("permissions", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        *_stamps(),
        sa.ForeignKeyConstraint(["staff_id"], ["staff_accounts.id"], name=op.f("fk_staff_keys_staff_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_staff_keys")),
        sa.UniqueConstraint("key_hash", name=op.f("uq_staff_keys_key_hash")),
        sa.UniqueConstraint("prefix", name=op.f("uq_staff_keys_prefix")),
    )
    op.create_index(op.f("ix_staff_keys_staff_id"), "staff_keys", ["staff_id"], unique=False)
    op.create_table(
        "staff_links",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("staff_id", sa.Uuid(), nullable=True),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        *_stamps(),
        sa.CheckConstraint("purpose IN ('first_owner', 'set_password')", name=op.f("ck_staff_links_purpose_known")),
        sa.ForeignKeyConstraint(
            ["staff_id"], ["staff_accounts.id"], name=op.f("fk_staff_links_staff_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_staff_links")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_staff_links_token_hash")),
    )
    op.create_index(op.f("ix_staff_links_staff_id"), "staff_links", ["staff_id"], unique=False)
    op.create_table(
        "kept_answers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("actor_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("body", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("begun_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_kept_answers")),
        sa.UniqueConstraint("actor_id", "key", name=op.f("uq_kept_answers_actor_id_key")),
    )
    op.create_index(op.f("ix_kept_answers_expires_at"), "kept_answers", ["expires_at"], unique=False)
    for table, guard in _GUARDS.items():
        op.guard_table(table, kind="staff", **guard)
    for name, (table, lookup) in _LOOKUPS.items():
        op.create_lookup(name, table, **lookup)
    _add_search()


def downgrade() -> None:
    op.execute("DROP TRIGGER keep_searched ON tenants")
    for name in reversed(_FUNCTIONS):
        op.execute(f"DROP FUNCTION {name}")
    op.drop_table("searched_tenants")
    for name, (table, lookup) in reversed(_LOOKUPS.items()):
        op.drop_lookup(name, table, **lookup)
    for table, guard in reversed(_GUARDS.items()):
        op.unguard_table(table, kind="staff", **guard)
        op.drop_table(table)


def _add_search() -> None:
    op.create_table(
        "searched_tenants",
        sa.Column("found_id", sa.Uuid(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("words", sa.Text(), nullable=False),
        sa.Column("grams", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("found_id", name=op.f("pk_searched_tenants")),
    )
    gin: dict[str, Any] = {"postgresql_using": "gin", "postgresql_with": {"fastupdate": "off"}}
    op.create_index("ix_searched_tenants_grams", "searched_tenants", ["grams"], **gin)
    for column in ("slug", "words"):
        pattern: dict[str, Any] = {"postgresql_ops": {column: "text_pattern_ops"}}
        op.create_index(f"ix_searched_tenants_{column}", "searched_tenants", [column], **pattern)
    for column in ("created_at", "name"):
        op.create_index(f"ix_searched_tenants_{column}", "searched_tenants", [column, "found_id"])
    for column in ("status", "plan"):
        op.create_index(f"ix_searched_tenants_{column}", "searched_tenants", [column, "created_at", "found_id"])
    for name, definition in _FUNCTIONS.items():
        op.execute(f"CREATE FUNCTION {name} {definition}")
        op.execute(f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC")
    for name in ("search_tenants", "count_tenants"):
        op.execute(f"GRANT EXECUTE ON FUNCTION {name} TO {current_installation().roles.platform}")
    with op.lift_force("tenants"):
        op.execute(_FILL)
    op.execute(
        "CREATE TRIGGER keep_searched AFTER INSERT OR DELETE OR UPDATE OF slug, name, status, plan ON tenants "
        "FOR EACH ROW EXECUTE FUNCTION keep_searched_tenant()"
    )


def _stamps() -> list[sa.Column[Any]]:
    return [
        sa.Column(name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False) for name in _STAMPS
    ]
