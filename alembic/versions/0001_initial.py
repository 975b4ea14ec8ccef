"""Create the registry, accounts, members, sign-ins and the CRM."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.install_tenancy()
    op.create_table(
        "accounts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint("email", name=op.f("uq_accounts_email")),
    )
    op.create_table(
        "companies",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("website", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_companies")),
    )
    op.create_index("ix_companies_created_at", "companies", ["tenant_id", "created_at"], unique=False)
    op.create_index("ix_companies_name", "companies", ["tenant_id", "name"], unique=False)
    op.create_table(
        "tenants",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        # Checks given to a column are overlooked by autogenerate; these two are TenantMixin's.
        sa.CheckConstraint(
            """slug COLLATE "C" ~ '^[a-z0-9]+(-[a-z0-9]+)*$' AND slug ~ '[a-z]' AND length(slug) <= 63""",
            name=op.f("ck_tenants_slug_syntax"),
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'active', 'suspended', 'archived', 'deleting', 'deleted')",
            name=op.f("ck_tenants_status_known"),
        ),
        sa.CheckConstraint("plan IN ('basic', 'premium', 'enterprise', 'custom')", name=op.f("ck_tenants_plan_known")),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_tenants")),
        sa.UniqueConstraint("slug", name=op.f("uq_tenants_slug")),
    )
    op.create_table(
        "domains",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("verified_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_domains_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_domains")),
        sa.UniqueConstraint("tenant_id", "domain", name=op.f("uq_domains_tenant_id_domain")),
    )
    op.create_index(
        "domains_verified_domain_key",
        "domains",
        ["domain"],
        unique=True,
        postgresql_where=sa.text("verified_at IS NOT NULL"),
    )
    op.create_table(
        "members",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("permissions", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("role IN ('owner', 'admin', 'manager', 'member')", name=op.f("ck_members_role_known")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_members_account_id")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_members_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_members")),
        sa.UniqueConstraint("tenant_id", "account_id", name=op.f("uq_members_tenant_id_account_id")),
    )
    op.create_index(op.f("ix_members_account_id"), "members", ["account_id"], unique=False)
    op.create_table(
        "people",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("phone", sa.Text(), nullable=True),
        sa.Column("company_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "company_id"],
            ["companies.tenant_id", "companies.id"],
            name=op.f("fk_people_tenant_id_company_id"),
            ondelete="SET NULL (company_id)",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_people")),
        sa.UniqueConstraint("tenant_id", "email", name=op.f("uq_people_tenant_id_email")),
    )
    op.create_index("ix_people_company_id", "people", ["tenant_id", "company_id"], unique=False)
    op.create_index("ix_people_created_at", "people", ["tenant_id", "created_at"], unique=False)
    op.create_index("ix_people_name", "people", ["tenant_id", "name"], unique=False)
    op.create_table(
        "opportunities",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("amount_cents", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("closes_on", sa.Date(), nullable=True),
        sa.Column("company_id", sa.Uuid(), nullable=True),
        sa.Column("person_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "stage IN ('lead', 'qualified', 'proposal', 'won', 'lost')", name=op.f("ck_opportunities_stage_known")
        ),
        sa.CheckConstraint("amount_cents >= 0", name=op.f("ck_opportunities_amount_positive")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "company_id"],
            ["companies.tenant_id", "companies.id"],
            name=op.f("fk_opportunities_tenant_id_company_id"),
            ondelete="SET NULL (company_id)",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "person_id"],
            ["people.tenant_id", "people.id"],
            name=op.f("fk_opportunities_tenant_id_person_id"),
            ondelete="SET NULL (person_id)",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_opportunities")),
    )
    op.create_index("ix_opportunities_company_id", "opportunities", ["tenant_id", "company_id"], unique=False)
    op.create_index("ix_opportunities_created_at", "opportunities", ["tenant_id", "created_at"], unique=False)
    op.create_index("ix_opportunities_person_id", "opportunities", ["tenant_id", "person_id"], unique=False)
    op.create_index("ix_opportunities_stage", "opportunities", ["tenant_id", "stage"], unique=False)
    op.create_table(
        "sign_ins",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "member_id"],
            ["members.tenant_id", "members.id"],
            name=op.f("fk_sign_ins_tenant_id_member_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_sign_ins")),
    )
    op.create_index("ix_sign_ins_member_id", "sign_ins", ["tenant_id", "member_id"], unique=False)
    op.create_table(
        "refresh_tokens",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("sign_in_id", sa.Uuid(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "sign_in_id"],
            ["sign_ins.tenant_id", "sign_ins.id"],
            name=op.f("fk_refresh_tokens_tenant_id_sign_in_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_refresh_tokens")),
    )
    op.create_index("ix_refresh_tokens_sign_in_id", "refresh_tokens", ["tenant_id", "sign_in_id"], unique=False)
    op.create_index("uq_refresh_tokens_token_hash", "refresh_tokens", ["token_hash"], unique=True)
    op.guard_table(
        "accounts",
        update=["email", "password_hash", "created_at", "updated_at"],
        kind="account",
        key="id",
        lookup_columns=["email", "id"],
    )
    op.guard_table("companies", update=["name", "website", "created_at", "updated_at"])
    op.guard_table(
        "tenants",
        update=["plan", "slug", "name", "status", "created_at", "updated_at"],
        kind="registry",
        app_update=["name", "updated_at"],
        lookup_columns=["tenant_id", "slug", "name", "status", "plan"],
    )
    op.guard_table(
        "domains",
        update=["domain", "verified_at", "created_at", "updated_at"],
        lookup_columns=["domain", "tenant_id", "verified_at"],
    )
    op.guard_table(
        "members",
        update=["account_id", "email", "role", "permissions", "created_at", "updated_at"],
        lookup_columns=["account_id", "tenant_id", "id", "role"],
    )
    op.guard_table("people", update=["name", "email", "phone", "company_id", "created_at", "updated_at"])
    op.guard_table(
        "opportunities",
        update=[
            "name",
            "stage",
            "amount_cents",
            "currency",
            "closes_on",
            "company_id",
            "person_id",
            "created_at",
            "updated_at",
        ],
    )
    op.guard_table("sign_ins", update=["member_id", "expires_at", "ended_at", "created_at", "updated_at"])
    op.guard_table(
        "refresh_tokens",
        update=["sign_in_id", "token_hash", "expires_at", "used_at", "created_at", "updated_at"],
        lookup_columns=["token_hash", "tenant_id", "id", "sign_in_id"],
    )
    op.create_lookup(
        "refresh_token_by_hash",
        "refresh_tokens",
        key="token_hash",
        returns=["tenant_id", "id", "sign_in_id"],
        key_type="bytea",
    )
    op.create_lookup("account_of_email", "accounts", key="email", returns=["id"])
    op.create_lookup("memberships", "members", key="account_id", returns=["tenant_id", "id", "role"], by_account=True)
    op.create_lookup(
        "tenant_by_id",
        "tenants",
        key="tenant_id",
        returns=["tenant_id", "slug", "name", "status", "plan"],
        key_type="uuid",
    )
    op.create_lookup("tenant_by_slug", "tenants", key="slug", returns=["tenant_id", "slug", "name", "status", "plan"])
    op.create_lookup("tenant_by_domain", "domains", key="domain", returns=["tenant_id"], requires=["verified_at"])


def downgrade() -> None:
    op.drop_lookup("tenant_by_domain", "domains", key="domain", returns=["tenant_id"], requires=["verified_at"])
    op.drop_lookup("tenant_by_slug", "tenants", key="slug", returns=["tenant_id", "slug", "name", "status", "plan"])
    op.drop_lookup(
        "tenant_by_id",
        "tenants",
        key="tenant_id",
        returns=["tenant_id", "slug", "name", "status", "plan"],
        key_type="uuid",
    )
    op.drop_lookup("memberships", "members", key="account_id", returns=["tenant_id", "id", "role"], by_account=True)
    op.drop_lookup("account_of_email", "accounts", key="email", returns=["id"])
    op.drop_lookup(
        "refresh_token_by_hash",
        "refresh_tokens",
        key="token_hash",
        returns=["tenant_id", "id", "sign_in_id"],
        key_type="bytea",
    )
    op.unguard_table(
        "refresh_tokens",
        update=["sign_in_id", "token_hash", "expires_at", "used_at", "created_at", "updated_at"],
        lookup_columns=["token_hash", "tenant_id", "id", "sign_in_id"],
    )
    op.unguard_table("sign_ins", update=["member_id", "expires_at", "ended_at", "created_at", "updated_at"])
    op.unguard_table(
        "opportunities",
        update=[
            "name",
            "stage",
            "amount_cents",
            "currency",
            "closes_on",
            "company_id",
            "person_id",
            "created_at",
            "updated_at",
        ],
    )
    op.unguard_table("people", update=["name", "email", "phone", "company_id", "created_at", "updated_at"])
    op.unguard_table(
        "members",
        update=["account_id", "email", "role", "permissions", "created_at", "updated_at"],
        lookup_columns=["account_id", "tenant_id", "id", "role"],
    )
    op.unguard_table(
        "domains",
        update=["domain", "verified_at", "created_at", "updated_at"],
        lookup_columns=["domain", "tenant_id", "verified_at"],
    )
    op.unguard_table(
        "tenants",
        update=["plan", "slug", "name", "status", "created_at", "updated_at"],
        kind="registry",
        app_update=["name", "updated_at"],
        lookup_columns=["tenant_id", "slug", "name", "status", "plan"],
    )
    op.unguard_table("companies", update=["name", "website", "created_at", "updated_at"])
    op.unguard_table(
        "accounts",
        update=["email", "password_hash", "created_at", "updated_at"],
        kind="account",
        key="id",
        lookup_columns=["email", "id"],
    )
    op.drop_index("uq_refresh_tokens_token_hash", table_name="refresh_tokens")
    op.drop_index("ix_refresh_tokens_sign_in_id", table_name="refresh_tokens")
    op.drop_table("refresh_tokens")
    op.drop_index("ix_sign_ins_member_id", table_name="sign_ins")
    op.drop_table("sign_ins")
    op.drop_index("ix_opportunities_stage", table_name="opportunities")
    op.drop_index("ix_opportunities_person_id", table_name="opportunities")
    op.drop_index("ix_opportunities_created_at", table_name="opportunities")
    op.drop_index("ix_opportunities_company_id", table_name="opportunities")
    op.drop_table("opportunities")
    op.drop_index("ix_people_name", table_name="people")
    op.drop_index("ix_people_created_at", table_name="people")
    op.drop_index("ix_people_company_id", table_name="people")
    op.drop_table("people")
    op.drop_index(op.f("ix_members_account_id"), table_name="members")
    op.drop_table("members")
    op.drop_index(
        "domains_verified_domain_key", table_name="domains", postgresql_where=sa.text("verified_at IS NOT NULL")
    )
    op.drop_table("domains")
    op.drop_table("tenants")
    op.drop_index("ix_companies_name", table_name="companies")
    op.drop_index("ix_companies_created_at", table_name="companies")
    op.drop_table("companies")
    op.drop_table("accounts")
    op.uninstall_tenancy()
