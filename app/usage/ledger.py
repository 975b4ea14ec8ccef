"""The ledger: gauges are added to it, and hours and days are summed from it as often as one likes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, func, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.plans.terms import Quota
from app.usage.meters import GAUGE
from app.usage.models import UsageRecord
from tenancy.context import require_tenant
from tenancy.session import PlatformSession
from tenancy.tables import TENANT_KEY, new_id

# The sums replace those that are there: whatever ran before, or beside this, the rows say in the end what the ledger
# says. Core has no table-valued jsonb_each_text that would read better.
_ROLL_UP = text(
    """
    INSERT INTO usage_rollups (tenant_id, id, bucket, bucket_at, meter, amount)
    SELECT r.tenant_id, gen_random_uuid(), b.bucket, date_trunc(b.bucket, r.at, 'UTC'), a.key,
           CASE WHEN a.key LIKE 'gauge:%' THEN max(a.value::bigint) ELSE sum(a.value::bigint) END
    FROM usage_records r, jsonb_each_text(r.amounts) a, (VALUES ('hour'), ('day')) b (bucket)
    WHERE r.tenant_id = :tenant AND r.at >= :since
    GROUP BY r.tenant_id, b.bucket, date_trunc(b.bucket, r.at, 'UTC'), a.key
    ON CONFLICT (tenant_id, bucket, bucket_at, meter) DO UPDATE SET amount = excluded.amount
    """.replace("::", "\\:\\:")
)
# Whole days only: what is summed of a day is all of it.
_TOUCHED = text(
    "SELECT tenant_id, date_trunc('day', min(at), 'UTC') AS since FROM usage_records "
    "WHERE written_at > clock_timestamp() - make_interval(secs => :within_s) GROUP BY tenant_id"
)


def roll_up(session: Session, *, since: datetime) -> None:
    """Sum the hours and days of the session's tenant anew. session: of the platform. since: a midnight in UTC."""
    session.execute(_ROLL_UP, {"tenant": require_tenant(), "since": since})


def touched_since(session: PlatformSession, within: timedelta) -> Mapping[UUID, datetime]:
    """Return the tenants that something was written of lately, and the day of the oldest of it."""
    return {row.tenant_id: row.since for row in session.execute(_TOUCHED, {"within_s": within.total_seconds()})}


def record_gauges(session: Session, values: Mapping[Quota, int], *, key: str) -> None:
    """Add what the session's tenant has at this time; under the same key it is kept once."""
    amounts = {f"{GAUGE}{quota}": value for quota, value in values.items()}
    record = insert(UsageRecord).values(id=new_id(), key=key, at=func.clock_timestamp(), amounts=amounts)
    session.execute(record.on_conflict_do_nothing(index_elements=[TENANT_KEY, "key"]))


def prune(session: Session, *, keep_days: int) -> None:
    """Remove the records of the session's tenant of days longer ago than this; what was summed of them is kept."""
    oldest = func.date_trunc("day", func.clock_timestamp(), "UTC") - timedelta(days=keep_days)
    session.execute(delete(UsageRecord).where(UsageRecord.at < oldest))
