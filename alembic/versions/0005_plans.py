"""Add plan versions, overrides and configuration. Tenants there are keep the first version of their plan."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_lookup(
        "tenant_by_id",
        "tenants",
        key="tenant_id",
        returns=["tenant_id", "slug", "name", "status", "plan"],
        key_type="uuid",
    )
    op.drop_lookup("tenant_by_slug", "tenants", key="slug", returns=["tenant_id", "slug", "name", "status", "plan"])
    op.create_table(
        "configuration_changes",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("before", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("after", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("actor_label", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_configuration_changes")),
    )
    op.create_index("ix_configuration_changes_at", "configuration_changes", ["tenant_id", "at"], unique=False)
    op.create_index(
        "ix_configuration_changes_key_at", "configuration_changes", ["tenant_id", "key", "at"], unique=False
    )
    op.create_table(
        "configuration_values",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("secret", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("(value IS NULL) <> (secret IS NULL)", name=op.f("ck_configuration_values_value_or_secret")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_configuration_values")),
        sa.UniqueConstraint("tenant_id", "key", name=op.f("uq_configuration_values_tenant_id_key")),
    )
    op.create_table(
        "overrides",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind IN ('feature', 'limit', 'configuration')", name=op.f("ck_overrides_kind_known")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_overrides")),
        sa.UniqueConstraint("tenant_id", "kind", "name", name=op.f("uq_overrides_tenant_id_kind_name")),
    )
    op.add_column("tenants", sa.Column("plan_version", sa.Integer(), nullable=False, server_default="1"))
    op.alter_column("tenants", "plan_version", server_default=None)
    op.guard_table(
        "configuration_changes",
        update=["at", "key", "before", "after", "actor_label", "reason"],
        app=["SELECT", "INSERT"],
        platform=["SELECT", "INSERT", "DELETE"],
    )
    op.guard_table("configuration_values", update=["key", "value", "secret", "created_at", "updated_at"])
    op.guard_table(
        "overrides",
        update=["kind", "name", "value", "reason", "author", "expires_at", "created_at", "updated_at"],
        app=["SELECT"],
    )
    op.reguard_table(
        "tenants",
        update=[
            "plan",
            "plan_version",
            "former_status",
            "erase_after",
            "erasing_since",
            "slug",
            "name",
            "status",
            "created_at",
            "updated_at",
        ],
        kind="registry",
        app_update=["name", "updated_at"],
        lookup_columns=["tenant_id", "slug", "name", "status", "plan", "plan_version", "updated_at"],
        was={"lookup_columns": ["name", "plan", "slug", "status", "tenant_id"]},
    )
    op.create_lookup(
        "tenant_by_id",
        "tenants",
        key="tenant_id",
        returns=["tenant_id", "slug", "name", "status", "plan", "plan_version", "updated_at"],
        key_type="uuid",
    )
    op.create_lookup(
        "tenant_by_slug",
        "tenants",
        key="slug",
        returns=["tenant_id", "slug", "name", "status", "plan", "plan_version", "updated_at"],
    )


def downgrade() -> None:
    op.drop_lookup(
        "tenant_by_slug",
        "tenants",
        key="slug",
        returns=["tenant_id", "slug", "name", "status", "plan", "plan_version", "updated_at"],
    )
    op.drop_lookup(
        "tenant_by_id",
        "tenants",
        key="tenant_id",
        returns=["tenant_id", "slug", "name", "status", "plan", "plan_version", "updated_at"],
        key_type="uuid",
    )
    op.reguard_table(
        "tenants",
        update=[
            "plan",
            "plan_version",
            "former_status",
            "erase_after",
            "erasing_since",
            "slug",
            "name",
            "status",
            "created_at",
            "updated_at",
        ],
        kind="registry",
        app_update=["name", "updated_at"],
        lookup_columns=["name", "plan", "slug", "status", "tenant_id"],
        was={"lookup_columns": ["tenant_id", "slug", "name", "status", "plan", "plan_version", "updated_at"]},
    )
    op.unguard_table(
        "overrides",
        update=["kind", "name", "value", "reason", "author", "expires_at", "created_at", "updated_at"],
        app=["SELECT"],
    )
    op.unguard_table("configuration_values", update=["key", "value", "secret", "created_at", "updated_at"])
    op.unguard_table(
        "configuration_changes",
        update=["at", "key", "before", "after", "actor_label", "reason"],
        app=["SELECT", "INSERT"],
        platform=["SELECT", "INSERT", "DELETE"],
    )
    op.drop_column("tenants", "plan_version")
    op.drop_table("overrides")
    op.drop_table("configuration_values")
    op.drop_index("ix_configuration_changes_key_at", table_name="configuration_changes")
    op.drop_index("ix_configuration_changes_at", table_name="configuration_changes")
    op.drop_table("configuration_changes")
    op.create_lookup("tenant_by_slug", "tenants", key="slug", returns=["tenant_id", "slug", "name", "status", "plan"])
    op.create_lookup(
        "tenant_by_id",
        "tenants",
        key="tenant_id",
        returns=["tenant_id", "slug", "name", "status", "plan"],
        key_type="uuid",
    )
