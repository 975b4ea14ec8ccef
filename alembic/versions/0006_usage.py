"""Add counters of quotas, the usage ledger and its sums, and the windows of rate limits.

The windows are in an unlogged table of a schema of their own: a crash of the server empties them, and they begin anew.
Taking it back loses all that was counted.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from tenancy.alembic.execution import current_installation

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_QUOTAS = "quota IN ('users', 'storage_bytes', 'cards', 'api_calls_hour', 'api_calls_day')"
_EVENT = ["at", "quota", "percent", "used", "most", "window_at"]
_RECORD = ["key", "at", "written_at", "amounts"]
_ROLLUP = ["bucket", "bucket_at", "meter", "amount"]
_APPEND = {"app": ["SELECT", "INSERT"], "platform": ["SELECT", "INSERT", "DELETE"]}
_COUNT = {"app": ["SELECT", "INSERT", "UPDATE"]}

# Nobody but its owner touches the table: whoever may call these adds to a window whose key it knows, or gives back what
# it took; the keys are sealed with a secret of the application.
_WINDOWS = """
CREATE SCHEMA limits;
CREATE UNLOGGED TABLE limits.windows (
    key bytea PRIMARY KEY,
    ends_at timestamptz NOT NULL,
    used bigint NOT NULL
);
CREATE INDEX windows_ends_at_idx ON limits.windows (ends_at);

CREATE FUNCTION limits.take(p_key bytea, p_window_s integer, p_amount integer, OUT taken bigint, OUT left_s float8)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    clock timestamptz := clock_timestamp();
BEGIN
    IF p_window_s NOT BETWEEN 1 AND 604800 OR p_amount NOT BETWEEN -1000 AND 1000 OR length(p_key) <> 32 THEN
        RAISE invalid_parameter_value USING MESSAGE = 'no such window';
    END IF;
    INSERT INTO limits.windows AS w (key, ends_at, used)
    VALUES (p_key, to_timestamp((floor(extract(epoch FROM clock) / p_window_s) + 1) * p_window_s),
            greatest(p_amount, 0))
    ON CONFLICT (key) DO UPDATE SET
        used = greatest(CASE WHEN w.ends_at < excluded.ends_at THEN 0 ELSE w.used END + p_amount, 0),
        ends_at = greatest(w.ends_at, excluded.ends_at)
    RETURNING w.used, extract(epoch FROM w.ends_at - clock) INTO taken, left_s;
END $$;

CREATE FUNCTION limits.look(p_key bytea, OUT taken bigint, OUT left_s float8)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT w.used, extract(epoch FROM w.ends_at - clock_timestamp())::float8 FROM limits.windows w
    WHERE w.key = p_key AND w.ends_at > clock_timestamp()
$$;

CREATE FUNCTION limits.forget(p_key bytea) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM limits.windows WHERE key = p_key
$$;

CREATE FUNCTION limits.sweep() RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH gone AS (DELETE FROM limits.windows WHERE ends_at < clock_timestamp() RETURNING 1) SELECT count(*) FROM gone
$$;
"""


def upgrade() -> None:
    _create_counters()
    _create_ledger()
    op.guard_table("quota_counters", update=["window_at", "used"], **_COUNT)
    op.guard_table("quota_events", update=_EVENT, **_APPEND)
    op.guard_table("usage_records", update=_RECORD, **_APPEND)
    op.guard_table("usage_rollups", update=_ROLLUP, app=["SELECT"])
    roles = current_installation().roles
    _run(
        _WINDOWS,
        "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA limits FROM PUBLIC",
        f"GRANT USAGE ON SCHEMA limits TO {roles.app}, {roles.platform}",
        f"GRANT EXECUTE ON FUNCTION limits.take(bytea, integer, integer), limits.look(bytea), limits.forget(bytea) "
        f"TO {roles.app}",
        f"GRANT EXECUTE ON FUNCTION limits.sweep() TO {roles.platform}",
    )


def downgrade() -> None:
    _run("DROP SCHEMA limits CASCADE")
    op.unguard_table("usage_rollups", update=_ROLLUP, app=["SELECT"])
    op.unguard_table("usage_records", update=_RECORD, **_APPEND)
    op.unguard_table("quota_events", update=_EVENT, **_APPEND)
    op.unguard_table("quota_counters", update=["window_at", "used"], **_COUNT)
    for name in ("usage_rollups", "usage_records", "quota_events", "quota_counters"):
        op.drop_table(name)


def _create_counters() -> None:
    op.create_table(
        "quota_counters",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("quota", sa.Text(), nullable=False),
        sa.Column("window_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(_QUOTAS, name=op.f("ck_quota_counters_quota_known")),
        sa.CheckConstraint("used >= 0", name=op.f("ck_quota_counters_used_positive")),
        sa.PrimaryKeyConstraint("tenant_id", "quota", name=op.f("pk_quota_counters")),
    )
    op.create_table(
        "quota_events",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("quota", sa.Text(), nullable=False),
        sa.Column("percent", sa.Integer(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.Column("most", sa.BigInteger(), nullable=False),
        sa.Column("window_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(_QUOTAS, name=op.f("ck_quota_events_quota_known")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_quota_events")),
    )
    op.create_index("ix_quota_events_at", "quota_events", ["tenant_id", "at"], unique=False)


def _create_ledger() -> None:
    op.create_table(
        "usage_records",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "written_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("amounts", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_usage_records")),
        sa.UniqueConstraint("tenant_id", "key", name=op.f("uq_usage_records_tenant_id_key")),
    )
    op.create_index("ix_usage_records_at", "usage_records", ["tenant_id", "at"], unique=False)
    op.create_index("ix_usage_records_written_at", "usage_records", ["tenant_id", "written_at"], unique=False)
    op.create_table(
        "usage_rollups",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("bucket", sa.Text(), nullable=False),
        sa.Column("bucket_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("meter", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("bucket IN ('hour', 'day')", name=op.f("ck_usage_rollups_bucket_known")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_usage_rollups")),
        sa.UniqueConstraint(
            "tenant_id", "bucket", "bucket_at", "meter", name=op.f("uq_usage_rollups_tenant_id_bucket_bucket_at_meter")
        ),
    )


def _run(*statements: str) -> None:
    """Send the statements as they are: the functions hold colons, and many statements are in one text."""
    context = op.get_context()
    for statement in statements:
        if context.as_sql:
            context.impl.static_output(statement + context.impl.command_terminator)
        else:
            op.get_bind().exec_driver_sql(statement, execution_options={"no_parameters": True})
