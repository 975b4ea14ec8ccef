"""Accounts, which belong to people, and members, which belong to tenants."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import DateTime, ForeignKey, ForeignKeyConstraint, Index, LargeBinary, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, Timestamped, one_of
from app.members.permissions import Permission, Role, permissions_of
from tenancy.lookups import Lookup, declare_lookup
from tenancy.tables import TenantIndex, TenantTable, TenantUnique, new_id, platform_table


@platform_table(reason="a person may belong to many tenants", account_key="id")
class Account(Timestamped, Base):
    """A person's sign-in. Guarded by `app.account_id`: only the account itself reads its row."""

    __tablename__ = "accounts"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=new_id)
    email: Mapped[str] = mapped_column(Text, unique=True)
    password_hash: Mapped[str] = mapped_column(Text)


class Member(TenantTable, Timestamped, Base):
    """One account in one tenant. The e-mail address is the one its colleagues see; it signs nobody in."""

    __tablename__ = "members"
    __table_args__ = (
        TenantUnique("account_id"),
        ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
        one_of("role", Role),
    )

    account_id: Mapped[UUID] = mapped_column(Uuid, ForeignKey("accounts.id"), index=True)
    email: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(Text)
    permissions: Mapped[dict[str, bool]] = mapped_column(JSONB, default=dict)

    @property
    def granted(self) -> frozenset[Permission]:
        """What the member may do."""
        return permissions_of(Role(self.role), self.permissions)


account_of_email = declare_lookup(Base.metadata, Lookup("account_of_email", "accounts", "email", ("id",)))
memberships = declare_lookup(
    Base.metadata, Lookup("memberships", "members", "account_id", ("tenant_id", "id", "role"), by_account=True)
)


class Invitation(TenantTable, Timestamped, Base):
    """An invitation of one e-mail address to one tenant. Of its token only the hash is kept; sending anew replaces it.

    invited_by: the account that sent it last. accepted_at, revoked_at: at most one is set, and once.
    """

    __tablename__ = "invitations"
    __table_args__ = (
        one_of("role", Role),
        Index(
            "uq_invitations_open_email",
            "tenant_id",
            "email",
            unique=True,
            postgresql_where=text("accepted_at IS NULL AND revoked_at IS NULL"),
        ),
        Index("uq_invitations_token_hash", "token_hash", unique=True, info={"across_tenants": True}),
        TenantIndex("created_at"),
    )

    email: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(Text)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary)
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    invited_by: Mapped[UUID] = mapped_column(Uuid)
    accepted_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


invitation_by_hash = declare_lookup(
    Base.metadata,
    Lookup("invitation_by_hash", "invitations", "token_hash", ("tenant_id", "id"), key_type="bytea"),
)
