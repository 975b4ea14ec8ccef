"""The values that tenants set themselves, and what they were before."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, DateTime, Text, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, Timestamped
from tenancy.encryption import encrypted_column
from tenancy.tables import TenantIndex, TenantTable, TenantUnique, limit_grants


class ConfigurationValue(TenantTable, Timestamped, Base):
    """What a tenant has set one key to: `value`, or `secret` where the key is one, encrypted for this row."""

    __tablename__ = "configuration_values"
    __table_args__ = (
        TenantUnique("key"),
        CheckConstraint("(value IS NULL) <> (secret IS NULL)", name="value_or_secret"),
    )

    key: Mapped[str] = mapped_column(Text)
    value: Mapped[Any] = mapped_column(JSONB(none_as_null=True), nullable=True)
    secret: Mapped[str | None] = encrypted_column(nullable=True)


@limit_grants(app=("SELECT", "INSERT"), platform=("SELECT", "INSERT", "DELETE"))
class ConfigurationChange(TenantTable, Base):
    """One change of one key: what the tenant had set before and after, and who did it. Nobody changes it.

    Of a secret it says only that one was set.
    """

    __tablename__ = "configuration_changes"
    __table_args__ = (TenantIndex("at"), TenantIndex("key", "at"))

    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
    key: Mapped[str] = mapped_column(Text)
    # SQL's NULL where nothing was set; no value of a key is JSON's null.
    before: Mapped[Any] = mapped_column(JSONB(none_as_null=True), nullable=True)
    after: Mapped[Any] = mapped_column(JSONB(none_as_null=True), nullable=True)
    actor_label: Mapped[str] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)
