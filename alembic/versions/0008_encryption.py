"""Add the tenants' data keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_COLUMNS = ["version", "master_key_id", "wrapped", "created_at", "destroyed_at"]


def upgrade() -> None:
    op.create_table(
        "data_keys",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("master_key_id", sa.Text(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("destroyed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("version > 0", name=op.f("ck_data_keys_version_positive")),
        sa.CheckConstraint(
            "(wrapped IS NULL) = (destroyed_at IS NOT NULL)", name=op.f("ck_data_keys_destroyed_or_not")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_data_keys")),
        sa.UniqueConstraint("tenant_id", "version", name=op.f("uq_data_keys_tenant_id_version")),
    )
    op.guard_table("data_keys", update=_COLUMNS, app=["SELECT", "INSERT"])


def downgrade() -> None:
    op.unguard_table("data_keys", update=_COLUMNS, app=["SELECT", "INSERT"])
    op.drop_table("data_keys")
