"""What the routes of usage and quotas take and answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Self

from pydantic import ConfigDict, Field, StringConstraints

from app.plans.terms import Quota
from app.schemas import Answer, Body, ListQuery, Query, Text
from app.staff.schemas import Reason
from app.usage import meters
from app.usage.models import Bucket
from app.usage.operations import Usage
from app.usage.quotas import Used


class UsageQuery(Query):
    """Of which time, and how finely."""

    model_config = ConfigDict(populate_by_name=True)

    time_range: Annotated[Text, StringConstraints(max_length=10)] = Field(
        "30d", alias="timeRange", description="Hours or days up to now: `24h`, `30d`."
    )
    bucket: Bucket = Field(Bucket.DAY, description="What it is summed by; by hour at most 31 days.")


class Amounts(Answer):
    """What was used."""

    requests: int
    refusals: int = Field(description="Requests that were answered with 4xx.")
    errors: int = Field(description="Requests that were answered with 5xx.")
    latency_ms: float | None = Field(description="Mean time of a request; null where there was none.")
    rows: int = Field(description="Rows written, those of the audit included.")
    bytes_in: int
    bytes_out: int
    members: int | None = Field(description="The most people and open invitations there were; null if nobody counted.")
    storage_bytes: int | None
    cards: int | None
    features: dict[str, int] = Field(description="Requests by the part of the application that served them.")

    @classmethod
    def of(cls, found: Mapping[str, int], **more: object) -> Self:
        requests = found.get(meters.REQUESTS, 0)
        latency_us = found.get(meters.LATENCY_US, 0)
        return cls.model_validate(
            {
                **{name: found.get(name, 0) for name in _SUMS},
                "latency_ms": round(latency_us / requests / 1000, 3) if requests else None,
                "members": found.get(meters.GAUGE + Quota.USERS),
                "storage_bytes": found.get(meters.GAUGE + Quota.STORAGE_BYTES),
                "cards": found.get(meters.GAUGE + Quota.CARDS),
                "features": {
                    name.removeprefix(meters.FEATURE): amount
                    for name, amount in sorted(found.items())
                    if name.startswith(meters.FEATURE)
                },
                **more,
            }
        )


_SUMS = (meters.REQUESTS, meters.REFUSALS, meters.ERRORS, meters.ROWS, meters.BYTES_IN, meters.BYTES_OUT)


class UsageBucket(Amounts):
    """What was used in one hour or day."""

    at: datetime = Field(description="When it began, in UTC.")


class UsageAnswer(Answer):
    """What a tenant used, from the first of its buckets until now."""

    since: datetime
    until: datetime
    bucket: Bucket
    total: Amounts
    buckets: list[UsageBucket]

    @classmethod
    def of(cls, usage: Usage, bucket: Bucket) -> UsageAnswer:
        return cls(
            since=usage.since,
            until=usage.until,
            bucket=bucket,
            total=Amounts.of(_together(usage.buckets.values())),
            buckets=[UsageBucket.of(found, at=at) for at, found in sorted(usage.buckets.items())],
        )


def _together(buckets: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for bucket in buckets:
        for meter, amount in bucket.items():
            is_gauge = meter.startswith(meters.GAUGE)
            total[meter] = max(total.get(meter, 0), amount) if is_gauge else total.get(meter, 0) + amount
    return total


class QuotaAnswer(Answer):
    """What one quota stands at."""

    quota: Quota
    used: int
    limit: int | None = Field(description="null is unlimited.")
    percent: float | None
    resets_in_s: float | None = Field(description="Seconds until it begins anew; null of what a tenant has.")

    @classmethod
    def of(cls, quota: Quota, found: Used) -> QuotaAnswer:
        percent = None if found.most is None else round(100 * found.used / found.most, 2) if found.most else 100.0
        return cls(quota=quota, used=found.used, limit=found.most, percent=percent, resets_in_s=found.resets_in_s)


class QuotaList(Answer):
    """Every quota. Calls are counted as they are handed to processes, so a few may not have been made yet."""

    items: list[QuotaAnswer]


class QuotaEventQuery(ListQuery):
    """The query of the list of events."""

    sort: str = Field("-at", description="`at`, or `-at` for downwards.")


class QuotaEventAnswer(Answer):
    """A limit that was neared or reached."""

    at: datetime
    quota: Quota
    percent: int = Field(description="80 or 100.")
    used: int
    most: int = Field(description="The limit as it was then.")


class QuotaEventList(Answer):
    """One page of events."""

    items: list[QuotaEventAnswer]
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last one.")


class Recounting(Body):
    """Why a tenant's counters are counted again."""

    reason: Reason


class RecountAnswer(Answer):
    """How far each counter was off; those that were right are left out."""

    off: dict[str, int]
