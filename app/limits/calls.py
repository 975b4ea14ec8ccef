"""Calls: how many requests to the API a tenant may make in an hour and in a day, whoever of its people makes them.

A process takes some calls at a time and lets as many requests through without asking anybody; it takes fewer the fewer
are left, at last one by one. What it took and did not use is given back when it stops, and lost when it is killed: the
tenant may then make fewer calls in that window, never more.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from time import monotonic
from uuid import UUID

from flask import Flask, Response, current_app, g, request
from sqlalchemy.orm import Session

from app import db
from app.auth.access import current_principal
from app.configuration.keys import RATE_LIMIT
from app.db import Database
from app.http import is_api
from app.limits.rates import RateLimitedError, Rates
from app.plans.standing import Standing, standing_of
from app.usage.quotas import Quota, QuotaExceededError, consume, plans_with_more, release
from tenancy.context import outside_any_scope, require_tenant, tenant_scope

log = logging.getLogger(__name__)

EXTENSION = "calls"
HOUR_S = 3_600
# At most this part of what is left is taken at once, and never more than so many.
_SHARE = 50
_MOST_AT_ONCE = 50
_MOST_TENANTS = 10_000
# How long a refusal is repeated without asking again.
_REFUSED_S = 1.0
_ANSWERED = "rate_limit"
Source = str


@dataclass
class Lease:
    """Calls that were taken and not used yet. most: None is unlimited. left: of the window, after what was taken."""

    calls: int = 0
    ends: float = 0.0
    most: int | None = 0
    left: int = 0


@dataclass
class Tenant:
    """What one process has of one tenant's calls: from its rate, and from its quotas of an hour and of a day."""

    standing: Standing
    leases: dict[Source, Lease]
    refusal: tuple[float, RateLimitedError] | None = None
    refilling: threading.Lock = field(default_factory=threading.Lock)


_RATE = "rate"
_SOURCES: tuple[Source, ...] = (_RATE, Quota.API_CALLS_HOUR, Quota.API_CALLS_DAY)


class Calls:
    """Lets a tenant's calls through, or refuses them. rates: where its rate is counted, with all other processes."""

    def __init__(self, rates: Rates) -> None:
        self._rates = rates
        self._tenants: dict[UUID, Tenant] = {}
        self._lock = threading.Lock()

    def admit(self, session: Session) -> Lease:
        """Count one call of the session's tenant; sends nothing while calls are left of what was taken.

        session: of a request. When calls must be taken, it is committed first, so that nobody waits holding it.
        Returns: where the scarcest of its limits stands. Raises: RateLimitedError, RatesDownError
        """
        tenant = self._tenant(require_tenant(), standing_of(session))
        while True:
            found = self._use(tenant)
            if found is not None:
                return found
            session.commit()
            with tenant.refilling:
                if self._has_all(tenant):
                    continue
                self._refill(session, tenant)

    def _tenant(self, tenant_id: UUID, standing: Standing) -> Tenant:
        found = self._tenants.get(tenant_id)
        if found is not None and found.standing is standing:
            return found
        with self._lock:
            found = self._tenants.get(tenant_id)
            if found is None:
                while len(self._tenants) >= _MOST_TENANTS:
                    self._tenants.pop(next(iter(self._tenants)))
                found = self._tenants[tenant_id] = Tenant(standing, {source: Lease() for source in _SOURCES})
            elif found.standing is not standing:  # what it may has changed: what was taken by the old limit ends
                found.standing, found.refusal = standing, None
                for source, lease in found.leases.items():
                    if lease.most != most_of(standing, source):
                        lease.ends = 0.0
            return found

    def _has_all(self, tenant: Tenant) -> bool:
        now = monotonic()
        return all(lease.calls > 0 and now < lease.ends for lease in tenant.leases.values())

    def _use(self, tenant: Tenant) -> Lease | None:
        """Use one call of each lease; None where one has none left. Raises: RateLimitedError"""
        now = monotonic()
        refusal = tenant.refusal
        if refusal is not None and now < refusal[0]:
            raise refusal[1]
        with self._lock:
            for lease in tenant.leases.values():
                if lease.calls < 1 or now >= lease.ends:
                    return None
            scarcest = None
            for lease in tenant.leases.values():
                lease.calls -= 1
                if lease.most is not None and (scarcest is None or lease.left + lease.calls < scarcest[0]):
                    scarcest = (lease.left + lease.calls, lease)
            if scarcest is None:
                return Lease(most=None)
            return Lease(ends=scarcest[1].ends, most=scarcest[1].most, left=scarcest[0])

    def _refill(self, session: Session, tenant: Tenant) -> None:
        now = monotonic()
        for source, lease in tenant.leases.items():
            if lease.calls > 0 and now < lease.ends:
                continue
            try:
                taken = self._take(session, tenant.standing, source, _size(lease, now))
            except RateLimitedError as error:
                tenant.refusal = (monotonic() + _REFUSED_S, error)
                raise
            with self._lock:
                tenant.leases[source] = taken

    def _take(self, session: Session, standing: Standing, source: Source, wanted: int) -> Lease:
        """Take calls; where so many are not left, one. Raises: RateLimitedError - not even one is left."""
        most = most_of(standing, source)
        taking: Callable[[int], Lease | None] = (
            (lambda amount: self._take_rate(most or 0, amount))
            if source == _RATE
            else (lambda amount: _take_quota(session, Quota(source), amount))
        )
        found = taking(wanted) if wanted > 1 else None
        if found is None:
            found = taking(1)
        assert found is not None  # noqa: S101 - one call is taken or refused
        return found

    def _take_rate(self, most: int, amount: int) -> Lease | None:
        key = f"calls/{require_tenant()}"
        [found] = self._rates.take([key], HOUR_S, amount)
        if found.taken > most:
            self._rates.take([key], HOUR_S, -amount)
            if amount > 1:
                return None
            raise _refusal(most, found.resets_in_s, members={"limit": most})
        return Lease(amount, monotonic() + found.resets_in_s, most, most - found.taken)

    def give_back(self, database: Database) -> None:
        """Give back what was taken and not used; for a clean stop, in the application's context."""
        with self._lock:
            tenants, self._tenants = self._tenants, {}
        for tenant_id, tenant in tenants.items():
            now = monotonic()
            unused = {s: lease.calls for s, lease in tenant.leases.items() if lease.calls and now < lease.ends}
            try:
                with outside_any_scope(), tenant_scope(tenant_id):
                    if _RATE in unused:
                        self._rates.take([f"calls/{tenant_id}"], HOUR_S, -unused.pop(_RATE))
                    if unused:
                        with database.sessions.begin() as session:
                            for source, calls in unused.items():
                                release(session, Quota(source), calls)
            except Exception:
                log.exception("calls.not_given_back", extra={"tenant": str(tenant_id)})


def _size(lease: Lease, now: float) -> int:
    """Return how many calls to take: a share of what was left when some were taken last."""
    if lease.ends == 0.0:
        return 10
    left = lease.left if now < lease.ends else lease.most or 0
    return _MOST_AT_ONCE if lease.most is None else max(1, min(_MOST_AT_ONCE, left // _SHARE))


def _take_quota(session: Session, quota: Quota, amount: int) -> Lease | None:
    try:
        found = consume(session, quota, amount)
        session.commit()
    except QuotaExceededError as error:
        session.commit()
        if amount > 1:
            return None
        standing = standing_of(session)
        most = standing.limit(quota)
        members: dict[str, object] = {**error.members, "plans": plans_with_more(quota, most)}
        raise _refusal(most or 0, float(error.headers.get("Retry-After", 1)), members=members) from None
    left = 0 if found.most is None else found.most - found.used
    return Lease(amount, monotonic() + (found.resets_in_s or 0.0), found.most, left)


def most_of(standing: Standing, source: Source) -> int | None:
    """Return how many calls a source allows in its window; None is unlimited."""
    return standing.setting(RATE_LIMIT) if source == _RATE else standing.limit(Quota(source))


def _refusal(most: int, resets_in_s: float, *, members: dict[str, object]) -> RateLimitedError:
    wait_s = str(max(1, ceil(resets_in_s)))
    headers = {"Retry-After": wait_s} | _headers(most, 0, wait_s)
    return RateLimitedError(
        f"The {most} calls that your plan or your settings allow are used: try again in {wait_s} seconds.",
        members=members,
        headers=headers,
    )


def _headers(most: int, left: int, resets_in_s: str) -> dict[str, str]:
    return {"RateLimit-Limit": str(most), "RateLimit-Remaining": str(left), "RateLimit-Reset": resets_in_s}


# In the application -----------------------------------------------------------------------------------


def init_app(app: Flask, rates: Rates) -> None:
    """Count what signed-in people and programs ask of the API; after the guard, which says who they are."""
    app.extensions[EXTENSION] = Calls(rates)
    app.before_request(_admit)
    app.after_request(_tell)


def close_app(app: Flask, database: Database) -> None:
    """Give back what this process took and did not use."""
    with app.app_context():
        calls().give_back(database)


def calls() -> Calls:
    """Return the calls of the current application."""
    found = current_app.extensions[EXTENSION]
    if not isinstance(found, Calls):
        raise TypeError(f"extension {EXTENSION!r} is {type(found).__name__}, not Calls")
    return found


def _admit() -> None:
    if is_api(request) and current_principal() is not None:
        setattr(g, _ANSWERED, calls().admit(db.session()))


def _tell(response: Response) -> Response:
    found: Lease | None = g.get(_ANSWERED)
    if found is not None and found.most is not None:
        resets_in_s = str(max(0, ceil(found.ends - monotonic())))
        response.headers.update(_headers(found.most, found.left, resets_in_s))
    return response
