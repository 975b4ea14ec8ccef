"""A tenant's own usage and quotas over HTTP."""

from __future__ import annotations

from flask import Blueprint
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.auth.access import permits
from app.db import session
from app.members.permissions import Permission
from app.openapi import answers
from app.paging import Sorts
from app.plans.terms import Quota
from app.usage import schemas
from app.usage.models import QuotaEvent
from app.usage.operations import parse_range, read_usage
from app.usage.quotas import held

blueprint = Blueprint("usage", __name__, url_prefix="/api/v1")
EVENTS = Sorts(QuotaEvent, ("at",))


@blueprint.get("/usage")
@permits(Permission.USAGE_READ)
@answers(200, schemas.UsageAnswer, tag="usage")
def show_usage(query: schemas.UsageQuery) -> schemas.UsageAnswer:
    """Show what the tenant used, by hour or by day; the last seconds may be missing."""
    return usage_of(session(), query)


@blueprint.get("/quotas")
@permits(Permission.USAGE_READ)
@answers(200, schemas.QuotaList, tag="usage")
def list_quotas() -> schemas.QuotaList:
    """List what the tenant has of each quota, and how much it may have."""
    return quotas_of(session())


@blueprint.get("/quotas/events")
@permits(Permission.USAGE_READ)
@answers(200, schemas.QuotaEventList, tag="usage")
def list_quota_events(query: schemas.QuotaEventQuery) -> schemas.QuotaEventList:
    """List when 80 and 100 percent of a quota were reached, the latest first."""
    return events_of(session(), query)


def usage_of(here: Session, query: schemas.UsageQuery) -> schemas.UsageAnswer:
    """Answer a query on the usage of the session's tenant."""
    return schemas.UsageAnswer.of(
        read_usage(here, parse_range(query.time_range, query.bucket), query.bucket), query.bucket
    )


def quotas_of(here: Session) -> schemas.QuotaList:
    """Answer with every quota of the session's tenant."""
    return schemas.QuotaList(items=[schemas.QuotaAnswer.of(quota, held(here, quota)) for quota in Quota])


def events_of(here: Session, query: schemas.QuotaEventQuery) -> schemas.QuotaEventList:
    """Answer with one page of the events of the session's tenant."""
    page = EVENTS.page(here, select(QuotaEvent), sort=query.sort, cursor=query.cursor, limit=query.limit)
    return schemas.QuotaEventList.model_validate({"items": page.rows, "next_cursor": page.next_cursor})
