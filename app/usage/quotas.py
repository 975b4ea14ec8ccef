"""Quotas: counted in the caller's transaction, so that what is done and what is counted are there both or neither.

A tenant has one row for each quota. To add to it is one statement that the limit is part of, and it locks the row until
the transaction ends: whoever comes at the same moment waits, and then sees what is left. So call it late, and before
the rows that it counts are written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Any
from typing import cast as cast_to

from flask import current_app
from sqlalchemy import (
    ColumnElement,
    DateTime,
    Float,
    Table,
    case,
    cast,
    func,
    literal,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.audit.entries import record
from app.errors import ProblemError
from app.plans.changes import EXTENSION as COUNTERS
from app.plans.limits import effective_limit
from app.plans.standing import standings
from app.plans.terms import Quota
from app.usage.models import QuotaCounter, QuotaEvent
from tenancy.context import require_tenant
from tenancy.tables import TENANT_KEY

log = logging.getLogger(__name__)

__all__ = ["Quota", "QuotaExceededError", "Used", "consume", "held", "plans_with_more", "recount", "release"]

# What is done in a time, and how long that is. Every other quota is of what a tenant has.
WINDOWS_S: Mapping[Quota, int] = {Quota.API_CALLS_HOUR: 3_600, Quota.API_CALLS_DAY: 86_400}
WARN_AT_PERCENT = (80, 100)
# What is used, since when, and how many seconds of that are left.
Counted = tuple[int, datetime, float | None]
_TIME = DateTime(timezone=True)
_COUNTERS = cast_to("Table", QuotaCounter.__table__)


class QuotaExceededError(ProblemError):
    """The tenant may have no more of something; names the plans that include more."""

    code = 403
    kind = "quota_exceeded"


@dataclass(frozen=True)
class Used:
    """What a quota stands at. most: None is unlimited. resets_in_s: None where nothing resets it but giving back."""

    used: int
    most: int | None
    resets_in_s: float | None


def consume(session: Session, quota: Quota, amount: int = 1) -> Used:
    """Count `amount` against a quota of the session's tenant, or refuse and count nothing.

    amount: units of the quota. 0 asks only whether what is counted already fits.
    Raises: QuotaExceededError - the whole amount does not fit. The transaction is as it was before, and may go on.
    ValueError - the amount is negative.
    """
    if amount < 0:
        raise ValueError(f"{amount} cannot be consumed: release it")
    most = effective_limit(session, quota)
    found = _add(session, quota, amount, most)
    if found is None and _begin(session, quota):
        found = _add(session, quota, amount, most)
    if found is None:
        raise _exceeded(session, quota, amount, most)
    used, window_at, resets_in_s = found
    if most is not None:
        _warn(session, quota, before=used - amount, used=used, most=most, window_at=window_at)
    return Used(used, most, resets_in_s)


def release(session: Session, quota: Quota, amount: int = 1) -> None:
    """Give back what the session's tenant has no longer, in the transaction that removes it, and before it does.

    Of an hour or a day that has ended meanwhile, nothing is given back.
    """
    if _give_back(session, quota, amount) is None and _begin(session, quota):
        _give_back(session, quota, amount)


def held(session: Session, quota: Quota) -> Used:
    """Return what the quota stands at in this transaction; what nobody counted yet is counted, and not kept."""
    most = effective_limit(session, quota)
    counted = select(_COUNTERS.c.used, _left_s(quota, _COUNTERS.c.window_at)).where(
        _COUNTERS.c.tenant_id == require_tenant(), _COUNTERS.c.quota == quota, _COUNTERS.c.window_at >= _window(quota)
    )
    row = session.execute(counted).one_or_none()
    if row is not None:
        return Used(row[0], most, row[1])
    if quota in WINDOWS_S:
        return Used(0, most, session.scalar(select(_left_s(quota, _window(quota)))))
    return Used(_counter(quota)(session), most, None)


def recount(session: Session, quota: Quota) -> int:
    """Set the counter of what the session's tenant has to what there is; returns how far it was off, and audits that.

    Whoever is adding meanwhile is waited for, and waits.
    """
    if quota in WINDOWS_S:
        raise ValueError(f"{quota} counts what was done, which nothing is left of to count again")
    used = session.scalar(select(QuotaCounter.used).where(QuotaCounter.id == quota).with_for_update())
    if used is None:
        return 0
    off = _counter(quota)(session) - used
    if off:
        session.execute(update(QuotaCounter).where(QuotaCounter.id == quota).values(used=used + off))
        record(session, "quota.recounted", before={"quota": quota, "used": used}, after={"used": used + off})
        log.warning("quota.drifted", extra={"quota": quota, "off": off})
    return off


# The statements ---------------------------------------------------------------------------------------


def _window(quota: Quota) -> ColumnElement[datetime]:
    """The beginning of the window by the server's clock; an application's own may be wrong."""
    if quota not in WINDOWS_S:
        return func.to_timestamp(0, type_=_TIME)
    unit = "hour" if quota == Quota.API_CALLS_HOUR else "day"
    return func.date_trunc(unit, func.clock_timestamp(), "UTC", type_=_TIME)


def _left_s(quota: Quota, window_at: ColumnElement[Any]) -> ColumnElement[Any]:
    """How many seconds of a window are left; NULL of what has none."""
    if quota not in WINDOWS_S:
        return literal(None)
    left = func.extract("epoch", window_at - func.clock_timestamp()) + WINDOWS_S[quota]
    return cast(func.greatest(left, 0), Float)


def _add(session: Session, quota: Quota, amount: int, most: int | None) -> Counted | None:
    """Add if it fits; returns what is used then, the window and what is left of it. None: it does not fit.

    Of what a tenant has, None also says that nobody has counted it yet.
    """
    counted = (_COUNTERS.c.used, _COUNTERS.c.window_at, _left_s(quota, _COUNTERS.c.window_at))
    if quota not in WINDOWS_S:
        fits = true() if most is None else _COUNTERS.c.used + amount <= most
        adding = update(_COUNTERS).where(_COUNTERS.c.tenant_id == require_tenant(), _COUNTERS.c.quota == quota, fits)
        return _counted(session.execute(adding.values(used=_COUNTERS.c.used + amount).returning(*counted)))
    if most is not None and amount > most:
        return None
    first = insert(_COUNTERS).values(tenant_id=require_tenant(), quota=quota, window_at=_window(quota), used=amount)
    so_far = case((_COUNTERS.c.window_at < first.excluded.window_at, 0), else_=_COUNTERS.c.used)
    upsert = first.on_conflict_do_update(
        index_elements=[TENANT_KEY, "quota"],
        # Whoever waited for the row past the end of a window adds to the next one, which the row has come to meanwhile.
        set_={"used": so_far + amount, "window_at": func.greatest(_COUNTERS.c.window_at, first.excluded.window_at)},
        where=None if most is None else so_far + amount <= most,
    )
    return _counted(session.execute(upsert.returning(*counted)))


def _counted(answer: Any) -> Counted | None:
    row: Any = answer.one_or_none()
    return None if row is None else (row[0], row[1], row[2])


def _give_back(session: Session, quota: Quota, amount: int) -> int | None:
    giving = update(_COUNTERS).where(
        _COUNTERS.c.tenant_id == require_tenant(), _COUNTERS.c.quota == quota, _COUNTERS.c.window_at >= _window(quota)
    )
    left = giving.values(used=func.greatest(_COUNTERS.c.used - amount, 0)).returning(_COUNTERS.c.used)
    used: int | None = session.execute(left).scalar_one_or_none()
    return used


def _begin(session: Session, quota: Quota) -> bool:
    """Count what the tenant has, where nobody did before, or see another do it; False where it was counted already."""
    there = select(_COUNTERS.c.used).where(_COUNTERS.c.tenant_id == require_tenant(), _COUNTERS.c.quota == quota)
    if quota in WINDOWS_S or session.scalar(there) is not None:
        return False
    with session.no_autoflush:  # what is about to be added is not there yet
        first = insert(_COUNTERS).values(
            tenant_id=require_tenant(), quota=quota, window_at=_window(quota), used=_counter(quota)(session)
        )
        session.execute(first.on_conflict_do_nothing(index_elements=[TENANT_KEY, "quota"]))
    return True


def _counter(quota: Quota) -> Callable[[Session], int]:
    counters: dict[Quota, Callable[[Session], int]] = current_app.extensions[COUNTERS]
    return counters[quota]


# What comes of it -------------------------------------------------------------------------------------


def _exceeded(session: Session, quota: Quota, amount: int, most: int | None) -> QuotaExceededError:
    now = held(session, quota)
    plans = plans_with_more(quota, most)
    next_step = f"{' and '.join(plans)} {'has' if len(plans) == 1 else 'have'} more" if plans else "no plan has more"
    return QuotaExceededError(
        f"Your plan allows {most} of {quota}, and {now.used} are used: {amount} more do not fit; {next_step}.",
        members={"quota": quota, "limit": most, "used": now.used, "asked": amount, "plans": plans},
        headers={} if now.resets_in_s is None else {"Retry-After": str(ceil(now.resets_in_s))},
    )


def plans_with_more(quota: Quota, most: int | None) -> list[str]:
    """Return the plans whose newest version allows more of a quota than this, from the least."""
    catalogue = standings().catalogue
    limits = {plan: catalogue.newest(plan).limits[quota] for plan in catalogue.order}
    return [plan for plan, limit in limits.items() if most is not None and (limit is None or limit > most)]


def _warn(session: Session, quota: Quota, *, before: int, used: int, most: int, window_at: datetime) -> None:
    """Note each threshold that was reached just now. The counter's row is locked, so one transaction reaches it."""
    for percent in WARN_AT_PERCENT:
        if before * 100 < most * percent <= used * 100:
            session.add(QuotaEvent(quota=quota, percent=percent, used=used, most=most, window_at=window_at))
            about = {"quota": quota, "percent": percent, "used": used, "limit": most}
            record(session, "quota.reached", after=about)
            log.warning("quota.reached", extra=about)
