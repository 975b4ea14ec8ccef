"""Impersonations of members by platform staff. Each rests on a sign-in of its own, and ends with it."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Boolean, Text, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, Timestamped
from tenancy.tables import TenantForeignKey, TenantIndex, TenantTable, TenantUnique, limit_grants


@limit_grants(app=("SELECT",), platform=("SELECT", "INSERT", "DELETE"))
class Impersonation(TenantTable, Timestamped, Base):
    """One person of the staff acting as one member. The tenant reads it; the sign-in says until when it counts.

    can_write: whether it may change anything; reading only is the rule.
    """

    __tablename__ = "impersonations"
    __table_args__ = (
        TenantForeignKey("member_id", "members", ondelete="CASCADE"),
        TenantForeignKey("sign_in_id", "sign_ins", ondelete="CASCADE"),
        TenantUnique("sign_in_id"),
        TenantIndex("created_at"),
        TenantIndex("member_id"),
    )

    member_id: Mapped[UUID] = mapped_column(Uuid)
    sign_in_id: Mapped[UUID] = mapped_column(Uuid)
    staff_id: Mapped[UUID] = mapped_column(Uuid)
    staff_email: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    can_write: Mapped[bool] = mapped_column(Boolean)
