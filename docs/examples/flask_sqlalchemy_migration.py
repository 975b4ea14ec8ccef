"""Keep tenants apart; the to-dos there are become those of the first one."""

from uuid import UUID

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

FIRST_TENANT = UUID("0197c1a2-0000-7000-8000-00000000000a")
COLUMNS = ["tenant_id", "slug", "name", "status"]


def upgrade() -> None:
    op.install_tenancy()
    tenants = op.create_table(
        "tenants",
        sa.Column("tenant_id", sa.Uuid, primary_key=True),
        sa.Column("slug", sa.Text, nullable=False, unique=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("status", sa.Text, server_default="pending", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.CheckConstraint("slug ~ '^[a-z0-9]+(-[a-z0-9]+)*$' AND slug ~ '[a-z]' AND length(slug) <= 63"),
        sa.CheckConstraint("status IN ('pending', 'active', 'suspended', 'archived', 'deleting', 'deleted')"),
    )
    op.bulk_insert(tenants, [{"tenant_id": FIRST_TENANT, "slug": "acme", "name": "Acme", "status": "active"}])
    op.guard_table("tenants", kind="registry", app_update=["name", "updated_at"], lookup_columns=COLUMNS)
    op.create_lookup("tenant_by_id", "tenants", key="tenant_id", key_type="uuid", returns=COLUMNS)
    op.create_lookup("tenant_by_slug", "tenants", key="slug", returns=COLUMNS)
    op.adopt_table("todo", tenant_id=FIRST_TENANT)


def downgrade() -> None:
    op.abandon_table("todo", tenant_id=FIRST_TENANT)
    op.drop_lookup("tenant_by_slug", "tenants", key="slug", returns=COLUMNS)
    op.drop_lookup("tenant_by_id", "tenants", key="tenant_id", key_type="uuid", returns=COLUMNS)
    op.drop_table("tenants")
    op.uninstall_tenancy()
