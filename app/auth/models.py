"""Sign-ins, and the refresh tokens of each."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import DateTime, Index, LargeBinary, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, Timestamped
from tenancy.lookups import Lookup, declare_lookup
from tenancy.tables import TenantForeignKey, TenantIndex, TenantTable


class SignIn(TenantTable, Timestamped, Base):
    """One sign-in of one member: what an access token, a page's cookie and a family of refresh tokens hang on.

    Ending it ends them all.
    """

    __tablename__ = "sign_ins"
    __table_args__ = (TenantForeignKey("member_id", "members", ondelete="CASCADE"), TenantIndex("member_id"))

    member_id: Mapped[UUID] = mapped_column(Uuid)
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    ended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class RefreshToken(TenantTable, Timestamped, Base):
    """One refresh token, by its hash. Used once: a second use means that someone else has it."""

    __tablename__ = "refresh_tokens"
    __table_args__ = (
        TenantForeignKey("sign_in_id", "sign_ins", ondelete="CASCADE"),
        TenantIndex("sign_in_id"),
        Index("uq_refresh_tokens_token_hash", "token_hash", unique=True, info={"across_tenants": True}),
    )

    sign_in_id: Mapped[UUID] = mapped_column(Uuid)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary)
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    used_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


refresh_token_by_hash = declare_lookup(
    Base.metadata,
    Lookup(
        "refresh_token_by_hash", "refresh_tokens", "token_hash", ("tenant_id", "id", "sign_in_id"), key_type="bytea"
    ),
)
