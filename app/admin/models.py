"""What the search over all tenants reads: a copy of the registry without policies, behind functions that check."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import DateTime, Index, Text, Uuid
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from tenancy.tables import platform_table


@platform_table(
    reason="policies keep the indexes of a search from being used; no role is granted anything on it, and the "
    "functions that read it demand an open platform session"
)
class SearchedTenant(Base):
    """One tenant, as the search sees it; kept by a trigger on the registry, and by nothing else.

    words: name and slug in small letters. grams: every three characters in a row of it.
    """

    __tablename__ = "searched_tenants"
    __table_args__ = (
        Index("ix_searched_tenants_grams", "grams", postgresql_using="gin", postgresql_with={"fastupdate": "off"}),
        Index("ix_searched_tenants_slug", "slug", postgresql_ops={"slug": "text_pattern_ops"}),
        Index("ix_searched_tenants_words", "words", postgresql_ops={"words": "text_pattern_ops"}),
        Index("ix_searched_tenants_created_at", "created_at", "found_id"),
        Index("ix_searched_tenants_name", "name", "found_id"),
        Index("ix_searched_tenants_status", "status", "created_at", "found_id"),
        Index("ix_searched_tenants_plan", "plan", "created_at", "found_id"),
    )

    found_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    slug: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text)
    plan: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    words: Mapped[str] = mapped_column(Text)
    grams: Mapped[list[str]] = mapped_column(ARRAY(Text))
