"""Add platform staff, their sign-ins, keys and links, and the answers kept for repeated requests."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

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


def downgrade() -> None:
    for name, (table, lookup) in reversed(_LOOKUPS.items()):
        op.drop_lookup(name, table, **lookup)
    for table, guard in reversed(_GUARDS.items()):
        op.unguard_table(table, kind="staff", **guard)
        op.drop_table(table)


def _stamps() -> list[sa.Column[Any]]:
    return [
        sa.Column(name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False) for name in _STAMPS
    ]
