"""Add the lives of tenants: transitions, provisioning, reserved slugs, checks of domains, erasures and bulk runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "bulk_runs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("to_status", sa.Text(), nullable=False),
        sa.Column("wanted", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor_label", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bulk_runs")),
    )
    op.create_table(
        "erasures",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("erased_tenant", sa.Uuid(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("counted", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("remaining", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_erasures")),
        sa.UniqueConstraint("erased_tenant", name=op.f("uq_erasures_erased_tenant")),
    )
    op.create_table(
        "reserved_slugs",
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("held_by", sa.Uuid(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("slug", name=op.f("pk_reserved_slugs")),
    )
    op.create_table(
        "bulk_items",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("target", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint("state IN ('waiting', 'done', 'failed')", name=op.f("ck_bulk_items_state_known")),
        sa.ForeignKeyConstraint(["run_id"], ["bulk_runs.id"], name=op.f("fk_bulk_items_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "target", name=op.f("pk_bulk_items")),
    )
    op.create_table(
        "provisioning_steps",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("given", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("state IN ('waiting', 'done', 'failed')", name=op.f("ck_provisioning_steps_state_known")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_provisioning_steps_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_provisioning_steps")),
        sa.UniqueConstraint("tenant_id", "step", name=op.f("uq_provisioning_steps_tenant_id_step")),
    )
    op.create_table(
        "tenant_transitions",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("from_status", sa.Text(), nullable=True),
        sa.Column("to_status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor_kind", sa.Text(), nullable=False),
        sa.Column("actor_label", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "actor_kind IN ('account', 'staff', 'key', 'job', 'system')",
            name=op.f("ck_tenant_transitions_actor_kind_known"),
        ),
        sa.CheckConstraint(
            "from_status IN ('pending', 'active', 'suspended', 'archived', 'deleting', 'deleted')",
            name=op.f("ck_tenant_transitions_from_status_known"),
        ),
        sa.CheckConstraint(
            "to_status IN ('pending', 'active', 'suspended', 'archived', 'deleting', 'deleted')",
            name=op.f("ck_tenant_transitions_to_status_known"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_tenant_transitions_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_tenant_transitions")),
    )
    op.create_index("ix_tenant_transitions_at", "tenant_transitions", ["tenant_id", "at"], unique=False)
    op.add_column(
        "domains",
        sa.Column("challenge", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
    )
    op.add_column(
        "domains",
        sa.Column(
            "found", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'::jsonb"), nullable=False
        ),
    )
    op.add_column("domains", sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("domains", sa.Column("checked_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("domains", sa.Column("lost_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("tenants", sa.Column("former_status", sa.Text(), nullable=True))
    op.add_column("tenants", sa.Column("erase_after", sa.DateTime(timezone=True), nullable=True))
    op.add_column("tenants", sa.Column("erasing_since", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_tenants_erase_after",
        "tenants",
        ["erase_after"],
        unique=False,
        postgresql_where=sa.text("erase_after IS NOT NULL"),
    )
    op.guard_table(
        "bulk_runs", update=["to_status", "wanted", "reason", "actor_label", "created_at", "finished_at"], kind="staff"
    )
    op.guard_table(
        "erasures", update=["erased_tenant", "slug", "started_at", "finished_at", "counted", "remaining"], kind="staff"
    )
    op.guard_table(
        "reserved_slugs", update=["held_by", "reason", "created_at"], kind="staff", lookup_columns=["slug", "held_by"]
    )
    op.guard_table("bulk_items", update=["state", "error"], kind="staff")
    op.reguard_table(
        "domains",
        update=[
            "challenge",
            "found",
            "failures",
            "checked_at",
            "lost_at",
            "domain",
            "verified_at",
            "created_at",
            "updated_at",
        ],
        app=["SELECT"],
        lookup_columns=["domain", "tenant_id", "verified_at"],
    )
    op.guard_table(
        "provisioning_steps",
        update=["step", "state", "given", "attempts", "error", "finished_at", "created_at", "updated_at"],
        app=["SELECT"],
    )
    op.guard_table(
        "tenant_transitions",
        update=["at", "from_status", "to_status", "reason", "actor_kind", "actor_label"],
        app=["SELECT"],
        platform=["SELECT", "INSERT", "DELETE"],
    )
    op.create_lookup("reserved_slug", "reserved_slugs", key="slug", returns=["held_by"])


def downgrade() -> None:
    op.drop_lookup("reserved_slug", "reserved_slugs", key="slug", returns=["held_by"])
    op.unguard_table(
        "tenant_transitions",
        update=["at", "from_status", "to_status", "reason", "actor_kind", "actor_label"],
        app=["SELECT"],
        platform=["SELECT", "INSERT", "DELETE"],
    )
    op.unguard_table(
        "provisioning_steps",
        update=["step", "state", "given", "attempts", "error", "finished_at", "created_at", "updated_at"],
        app=["SELECT"],
    )
    op.unguard_table("bulk_items", update=["state", "error"], kind="staff")
    op.unguard_table(
        "reserved_slugs", update=["held_by", "reason", "created_at"], kind="staff", lookup_columns=["slug", "held_by"]
    )
    op.unguard_table(
        "erasures", update=["erased_tenant", "slug", "started_at", "finished_at", "counted", "remaining"], kind="staff"
    )
    op.unguard_table(
        "bulk_runs", update=["to_status", "wanted", "reason", "actor_label", "created_at", "finished_at"], kind="staff"
    )
    op.drop_index("ix_tenants_erase_after", table_name="tenants", postgresql_where=sa.text("erase_after IS NOT NULL"))
    op.drop_column("tenants", "erasing_since")
    op.drop_column("tenants", "erase_after")
    op.drop_column("tenants", "former_status")
    op.drop_column("domains", "lost_at")
    op.drop_column("domains", "checked_at")
    op.drop_column("domains", "failures")
    op.drop_column("domains", "found")
    op.drop_column("domains", "challenge")
    op.reguard_table(
        "domains",
        update=["domain", "verified_at", "created_at", "updated_at"],
        lookup_columns=["domain", "tenant_id", "verified_at"],
    )
    op.drop_index("ix_tenant_transitions_at", table_name="tenant_transitions")
    op.drop_table("tenant_transitions")
    op.drop_table("provisioning_steps")
    op.drop_table("bulk_items")
    op.drop_table("reserved_slugs")
    op.drop_table("erasures")
    op.drop_table("bulk_runs")
