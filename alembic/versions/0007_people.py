"""Add invitations and impersonation."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_INVITATION = [
    "email",
    "role",
    "token_hash",
    "expires_at",
    "invited_by",
    "accepted_at",
    "revoked_at",
    "created_at",
    "updated_at",
]
_IMPERSONATION = [
    "member_id",
    "sign_in_id",
    "staff_id",
    "staff_email",
    "reason",
    "ends_at",
    "can_write",
    "created_at",
    "updated_at",
]
_LOOKUP = ["token_hash", "tenant_id", "id"]


def upgrade() -> None:
    op.create_table(
        "invitations",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("invited_by", sa.Uuid(), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("role IN ('owner', 'admin', 'manager', 'member')", name=op.f("ck_invitations_role_known")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_invitations")),
    )
    op.create_index(
        "uq_invitations_open_email",
        "invitations",
        ["tenant_id", "email"],
        unique=True,
        postgresql_where=sa.text("accepted_at IS NULL AND revoked_at IS NULL"),
    )
    op.create_index("uq_invitations_token_hash", "invitations", ["token_hash"], unique=True)
    op.create_index("ix_invitations_created_at", "invitations", ["tenant_id", "created_at"], unique=False)
    op.create_table(
        "impersonations",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("sign_in_id", sa.Uuid(), nullable=False),
        sa.Column("staff_id", sa.Uuid(), nullable=False),
        sa.Column("staff_email", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("can_write", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "member_id"],
            ["members.tenant_id", "members.id"],
            name=op.f("fk_impersonations_tenant_id_member_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "sign_in_id"],
            ["sign_ins.tenant_id", "sign_ins.id"],
            name=op.f("fk_impersonations_tenant_id_sign_in_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_impersonations")),
        sa.UniqueConstraint("tenant_id", "sign_in_id", name=op.f("uq_impersonations_tenant_id_sign_in_id")),
    )
    op.create_index("ix_impersonations_created_at", "impersonations", ["tenant_id", "created_at"], unique=False)
    op.create_index("ix_impersonations_member_id", "impersonations", ["tenant_id", "member_id"], unique=False)
    op.guard_table("invitations", update=_INVITATION, lookup_columns=_LOOKUP)
    op.guard_table("impersonations", update=_IMPERSONATION, app=["SELECT"], platform=["SELECT", "INSERT", "DELETE"])
    op.create_lookup(
        "invitation_by_hash", "invitations", key="token_hash", returns=["tenant_id", "id"], key_type="bytea"
    )


def downgrade() -> None:
    op.drop_lookup("invitation_by_hash", "invitations", key="token_hash", returns=["tenant_id", "id"], key_type="bytea")
    op.unguard_table("impersonations", update=_IMPERSONATION, app=["SELECT"], platform=["SELECT", "INSERT", "DELETE"])
    op.unguard_table("invitations", update=_INVITATION, lookup_columns=_LOOKUP)
    op.drop_table("impersonations")
    op.drop_table("invitations")
