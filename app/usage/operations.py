"""Reading usage: sums where there are some, and the ledger for what was not summed yet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.errors import InvalidInputError
from app.usage.models import Bucket
from tenancy.context import require_tenant

_RANGE = re.compile(r"([1-9][0-9]{0,3})([hd])")
LONGEST = {Bucket.HOUR: timedelta(days=31), Bucket.DAY: timedelta(days=400)}
_LENGTH = {Bucket.HOUR: timedelta(hours=1), Bucket.DAY: timedelta(days=1)}

_FRAME = text(
    "SELECT date_trunc(:bucket, clock_timestamp() - make_interval(secs => :range_s), 'UTC') AS since, "
    "clock_timestamp() AS until, "
    "(SELECT max(bucket_at) FROM usage_rollups WHERE tenant_id = :tenant AND bucket = 'hour') AS summed_to"
)
# Each time is read from one place only: days that are summed as days, then hours as hours, then what is in the ledger.
_READ = text(
    """
    SELECT u.at, u.meter, CASE WHEN u.meter LIKE 'gauge:%' THEN max(u.amount) ELSE sum(u.amount) END::bigint AS amount
    FROM (
        SELECT date_trunc(:bucket, r.bucket_at, 'UTC') AS at, r.meter, r.amount FROM usage_rollups r
        WHERE r.tenant_id = :tenant AND r.bucket_at >= :since AND (
            r.bucket = 'day' AND r.bucket_at < :days_to OR r.bucket = 'hour' AND r.bucket_at >= :days_to
            AND r.bucket_at < :hours_to)
        UNION ALL
        SELECT date_trunc(:bucket, l.at, 'UTC'), a.key, a.value::bigint
        FROM usage_records l, jsonb_each_text(l.amounts) a
        WHERE l.tenant_id = :tenant AND l.at >= greatest(:since, :hours_to)
    ) u GROUP BY u.at, u.meter ORDER BY u.at
    """.replace("::", "\\:\\:")
)


@dataclass
class Usage:
    """What was used in a time, by bucket and meter; times without any are there, too."""

    since: datetime
    until: datetime
    buckets: Mapping[datetime, dict[str, int]] = field(default_factory=dict)


def parse_range(given: str, bucket: Bucket) -> timedelta:
    """Return how far back `30d` or `24h` goes.

    Raises: InvalidInputError - it is none, or longer than there are buckets to answer.
    """
    found = _RANGE.fullmatch(given)
    if found is None:
        raise InvalidInputError.of("query.timeRange", "is no range: send a number of hours or days, as 24h or 30d")
    number = int(found[1])
    wanted = timedelta(hours=number) if found[2] == "h" else timedelta(days=number)
    if wanted > LONGEST[bucket]:
        raise InvalidInputError.of("query.timeRange", f"is too long by {bucket}: at most {LONGEST[bucket].days}d")
    return wanted


def read_usage(session: Session, wanted: timedelta, bucket: Bucket) -> Usage:
    """Return what the session's tenant used, up to what this process and others wrote last."""
    tenant = require_tenant()
    given = {"tenant": tenant, "bucket": bucket, "range_s": wanted.total_seconds()}
    since, until, summed_to = session.execute(_FRAME, given).one()
    hours_to = since if summed_to is None else max(summed_to, since)
    midnight = hours_to.replace(hour=0, minute=0, second=0, microsecond=0)
    days_to = midnight if bucket is Bucket.DAY else since
    buckets: dict[datetime, dict[str, int]] = {}
    at = since
    while at <= until:
        buckets[at] = {}
        at += _LENGTH[bucket]
    rows = session.execute(
        _READ, {"tenant": tenant, "bucket": bucket, "since": since, "days_to": days_to, "hours_to": hours_to}
    )
    for row in rows:
        buckets.setdefault(row.at, {})[row.meter] = row.amount
    return Usage(since, until, buckets)
