"""Overrides: what one tenant has instead of what its plan says."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import DateTime, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, Timestamped, one_of
from app.plans.terms import TermKind
from tenancy.tables import TenantTable, TenantUnique, limit_grants


@limit_grants(app=("SELECT",))
class Override(TenantTable, Timestamped, Base):
    """One feature, limit or key of the configuration, as it counts for one tenant until it expires.

    A tenant reads its own; only the platform writes them. What came before is in the audit.
    """

    __tablename__ = "overrides"
    __table_args__ = (TenantUnique("kind", "name"), one_of("kind", TermKind))

    kind: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    value: Mapped[Any] = mapped_column(JSONB, nullable=False)  # JSON's null is an unlimited limit
    reason: Mapped[str] = mapped_column(Text)
    author: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
