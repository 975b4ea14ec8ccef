"""Changing a tenant's plan: first a rehearsal, which says what it would mean; then the change, if nothing blocks it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from flask import Flask, current_app
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.audit.entries import record
from app.configuration.keys import KEYS
from app.errors import InvalidInputError, ProblemError
from app.members.models import Member
from app.plans.catalogue import PlanVersion, UnknownPlanError
from app.plans.standing import Standing, lock_tenant, note_change, standings
from app.plans.terms import Feature, Quota

EXTENSION = "plan_counters"
# What a tenant has, rather than does: more of it than the new plan allows blocks the change.
HELD = (Quota.USERS, Quota.STORAGE_BYTES, Quota.CARDS)
Counter = Callable[[Session], int]


class PlanChangeBlockedError(ProblemError):
    """The tenant has more than the new plan allows; `blockers` says of what, and how much."""

    code = 409
    kind = "plan_change_blocked"


@dataclass(frozen=True)
class LimitChange:
    """One quota before and after. used: how much the tenant has; None where nobody counts it, as of API calls."""

    quota: Quota
    before: int | None
    after: int | None
    used: int | None

    @property
    def blocks(self) -> bool:
        return self.after is not None and self.used is not None and self.used > self.after

    @property
    def is_changed(self) -> bool:
        return self.before != self.after


@dataclass(frozen=True)
class SettingChange:
    """One key whose value would be another."""

    key: str
    before: object
    after: object


@dataclass(frozen=True)
class Rehearsal:
    """What a change of plan would mean. Overrides and the tenant's own values are taken into account, and kept."""

    before: PlanVersion
    after: PlanVersion
    direction: Literal["upgrade", "downgrade", "same"]
    gained: Sequence[Feature]
    lost: Sequence[Feature]
    limits: Sequence[LimitChange]
    settings: Sequence[SettingChange]

    @property
    def blockers(self) -> list[LimitChange]:
        return [change for change in self.limits if change.blocks]


def init_app(app: Flask) -> None:
    """Count members from the start; whoever stores files or cards adds how to count them."""
    app.extensions[EXTENSION] = {}
    register_counter(app, Quota.USERS, count_members)


def register_counter(app: Flask, quota: Quota, counter: Counter) -> None:
    """Say how much of a quota a tenant has: asked, in a session of the tenant, when its plan is to change."""
    app.extensions[EXTENSION][quota] = counter


def count_members(session: Session) -> int:
    """Return how many members the session's tenant has."""
    return session.scalar(select(func.count()).select_from(Member)) or 0


def rehearse(session: Session, to_plan: str) -> Rehearsal:
    """Return what moving the session's tenant to the newest version of a plan would mean; changes nothing.

    Raises: InvalidInputError - there is no such plan, or the tenant has its newest version already.
    """
    known = standings()
    now = known.read(session)
    try:
        after = known.catalogue.newest(to_plan)
    except UnknownPlanError as error:
        raise InvalidInputError.of("plan", f"{error}") from None
    if (now.plan.plan, now.plan.version) == (after.plan, after.version):
        raise InvalidInputError.of("plan", "is what the tenant has already, in its newest version: choose another")
    then = Standing(after, now.overrides, now.own)
    counters: dict[Quota, Counter] = current_app.extensions[EXTENSION]
    return Rehearsal(
        before=now.plan,
        after=after,
        direction=known.catalogue.direction(now.plan.plan, after.plan),
        gained=[feature for feature in Feature if then.has_feature(feature) and not now.has_feature(feature)],
        lost=[feature for feature in Feature if now.has_feature(feature) and not then.has_feature(feature)],
        limits=[
            LimitChange(
                quota,
                before=now.limit(quota),
                after=then.limit(quota),
                used=counters[quota](session) if quota in HELD and quota in counters else None,
            )
            for quota in Quota
        ],
        settings=[
            SettingChange(key.name, before=now.shown(key), after=then.shown(key))
            for key in KEYS.values()
            if now.shown(key) != then.shown(key)
        ],
    )


def change_plan(session: Session, to_plan: str, *, reason: str) -> Rehearsal:
    """Move the session's tenant to the newest version of a plan; nothing of its data is touched.

    session: of the platform, in the tenant. Returns: what it meant.
    Raises: PlanChangeBlockedError - the tenant has more than the plan allows; nothing is changed.
    InvalidInputError - as `rehearse`.
    """
    tenant = lock_tenant(session)
    found = rehearse(session, to_plan)
    if found.blockers:
        listed = [
            {"quota": one.quota, "used": one.used, "limit": one.after, "over": (one.used or 0) - (one.after or 0)}
            for one in found.blockers
        ]
        words = "; ".join(f"{one['used']} {one['quota']} where {one['limit']} are allowed" for one in listed)
        raise PlanChangeBlockedError(
            f"The tenant has more than {to_plan} allows: {words}. Remove the excess first.",
            members={"blockers": listed},
        )
    tenant.plan, tenant.plan_version = found.after.plan, found.after.version
    session.flush()
    record(
        session,
        "plan.changed",
        target=("tenant", tenant.id),
        before={"plan": found.before.plan, "plan_version": found.before.version},
        after={"plan": found.after.plan, "plan_version": found.after.version, "lost": found.lost},
        reason=reason,
    )
    note_change(session)
    return found
