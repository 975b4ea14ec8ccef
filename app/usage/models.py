"""Counters of quotas, the events of nearing their limits, the ledger of usage, and what is summed from it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import BigInteger, CheckConstraint, DateTime, Integer, Text, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, one_of
from app.plans.terms import Quota
from tenancy.tables import TenantIndex, TenantTable, TenantUnique, limit_grants


class Bucket(StrEnum):
    """How long the times are that usage is summed over; they begin on the hour and at midnight, in UTC."""

    HOUR = "hour"
    DAY = "day"


@limit_grants(app=("SELECT", "INSERT", "UPDATE"))
class QuotaCounter(TenantTable, Base):
    """How much of one quota a tenant has used. What it may use is nowhere in here: that is its plan's to say.

    window_at: when the hour or the day that is counted began, by the server's clock; the epoch for what a tenant has.
    """

    __tablename__ = "quota_counters"
    __table_args__ = (one_of("quota", Quota), CheckConstraint("used >= 0", name="used_positive"))

    # What is counted, in place of an id that counts nothing.
    id: Mapped[str] = mapped_column("quota", Text, primary_key=True)  # type: ignore[assignment]
    window_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    used: Mapped[int] = mapped_column(BigInteger)


@limit_grants(app=("SELECT", "INSERT"), platform=("SELECT", "INSERT", "DELETE"))
class QuotaEvent(TenantTable, Base):
    """A tenant has come to this many percent of a limit. It stays, also where less is used later."""

    __tablename__ = "quota_events"
    __table_args__ = (one_of("quota", Quota), TenantIndex("at"))

    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
    quota: Mapped[str] = mapped_column(Text)
    percent: Mapped[int] = mapped_column(Integer)
    used: Mapped[int] = mapped_column(BigInteger)
    most: Mapped[int] = mapped_column(BigInteger)
    window_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


@limit_grants(app=("SELECT", "INSERT"), platform=("SELECT", "INSERT", "DELETE"))
class UsageRecord(TenantTable, Base):
    """What one process saw a tenant use within some seconds, by meter; written once, and never changed.

    key: who wrote it, and as which of its records: a record that is sent twice is kept once.
    at: when it was used. written_at: when it came in. Both are by the server's clock.
    """

    __tablename__ = "usage_records"
    __table_args__ = (TenantUnique("key"), TenantIndex("at"), TenantIndex("written_at"))

    key: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    written_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
    amounts: Mapped[dict[str, int]] = mapped_column(JSONB)


@limit_grants(app=("SELECT",))
class UsageRollup(TenantTable, Base):
    """What a tenant used of one meter in one hour or one day: a sum, or of a gauge its greatest value."""

    __tablename__ = "usage_rollups"
    __table_args__ = (TenantUnique("bucket", "bucket_at", "meter"), one_of("bucket", Bucket))

    bucket: Mapped[str] = mapped_column(Text)
    bucket_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    meter: Mapped[str] = mapped_column(Text)
    amount: Mapped[int] = mapped_column(BigInteger)
