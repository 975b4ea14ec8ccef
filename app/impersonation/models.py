"""Impersonations of members by platform staff. Each rests on a sign-in of its own, and ends with it."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import Boolean, DateTime, Text, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, Timestamped
from app.members.permissions import Permission
from tenancy.tables import TenantForeignKey, TenantIndex, TenantTable, TenantUnique, limit_grants

# Staff never get at people and what guards them, by whatever role.
WITHHELD = frozenset({Permission.MEMBERS_MANAGE, Permission.SETTINGS_MANAGE, Permission.DOMAINS_MANAGE})


@limit_grants(app=("SELECT",), platform=("SELECT", "INSERT", "DELETE"))
class Impersonation(TenantTable, Timestamped, Base):
    """One person of the staff acting as one member. The tenant reads it; the sign-in says until when it counts.

    ends_at: the latest end, whatever becomes of the sign-in. can_write: whether it may
    change anything; reading only is the rule.
    """

    __tablename__ = "impersonations"
    __table_args__ = (
        # They end with the sign-in; that they were is in the audit.
        TenantForeignKey("member_id", "members", ondelete="CASCADE", info={"past_limits": True}),
        TenantForeignKey("sign_in_id", "sign_ins", ondelete="CASCADE", info={"past_limits": True}),
        TenantUnique("sign_in_id"),
        TenantIndex("created_at"),
        TenantIndex("member_id"),
    )

    member_id: Mapped[UUID] = mapped_column(Uuid)
    sign_in_id: Mapped[UUID] = mapped_column(Uuid)
    staff_id: Mapped[UUID] = mapped_column(Uuid)
    staff_email: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    ends_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    can_write: Mapped[bool] = mapped_column(Boolean)
