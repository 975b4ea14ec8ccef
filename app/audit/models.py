"""The entries of the audit, one row for each thing done."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, Text, Uuid, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.audit.actors import ActorKind
from app.db import Base, one_of
from tenancy.tables import TenantIndex, TenantTable, limit_grants


@limit_grants(app=("SELECT", "INSERT"), platform=("SELECT", "INSERT", "DELETE"))
class AuditEntry(TenantTable, Base):
    """One thing that was done in one tenant. Nobody changes it; retention removes what is old enough."""

    __tablename__ = "audit_entries"
    __table_args__ = (one_of("actor_kind", ActorKind), TenantIndex("at"))

    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
    action: Mapped[str] = mapped_column(Text)
    actor_kind: Mapped[str] = mapped_column(Text)
    actor_id: Mapped[str] = mapped_column(Text)
    actor_label: Mapped[str] = mapped_column(Text)
    impersonator: Mapped[str | None] = mapped_column(Text)
    request_id: Mapped[str | None] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)
    target_kind: Mapped[str | None] = mapped_column(Text)
    target_id: Mapped[UUID | None] = mapped_column(Uuid)
    before: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    after: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
