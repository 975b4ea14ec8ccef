"""Plans at the command line: what a tenant has and why, another plan after a rehearsal, and overrides."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import click
from flask.cli import AppGroup
from rich.console import Group, RenderableType
from sqlalchemy import select

from app.admin.scopes import in_tenant
from app.cli.operators import REASON, TENANT, amount_of, operated, table_of, tenant_named
from app.configuration.keys import KEYS
from app.errors import InvalidInputError
from app.plans.changes import change_plan, rehearse
from app.plans.models import Override
from app.plans.overrides import override, withdraw_override
from app.plans.schemas import PlanAnswer, PlanVersionAnswer, PlanVersionList, RehearsalAnswer, StepAnswer
from app.plans.standing import standings
from app.plans.terms import Feature, Quota, TermKind
from app.schemas import Answer

plans = AppGroup("plans", help="Show what tenants have and why, move them to other plans, and override what plans say.")
overrides = AppGroup("override", help="Give one tenant more or less than its plan says.")
plans.add_command(overrides)
_KIND = click.argument("kind", type=click.Choice([one.value for one in TermKind]))


class Explained(Answer):
    """Why one thing is what it is."""

    name: str
    steps: list[StepAnswer]


class OverrideItem(Answer):
    """One override. is_over: it has expired, and counts no longer."""

    kind: str
    name: str
    value: Any
    reason: str
    author: str
    expires_at: datetime | None
    is_over: bool


class OverrideItems(Answer):
    """Every override of a tenant."""

    items: list[OverrideItem]


def _catalogue(found: PlanVersionList) -> RenderableType:
    rows = [
        (one.plan, one.version, one.since, ", ".join(one.features), *(amount_of(one.limits[quota]) for quota in Quota))
        for one in found.items
    ]
    return table_of(("plan", "version", "since", "features", *Quota), rows)


def _standing(found: PlanAnswer) -> RenderableType:
    features = [(one.name, "yes" if one.is_included else "no", one.steps[-1].why) for one in found.features]
    limits = [(one.name, amount_of(one.limit), one.steps[-1].why) for one in found.limits]
    said = f"{found.plan}, version {found.version}, sold since {found.since}"
    return Group(said, table_of(("feature", "included", "why"), features), table_of(("limit", "is", "why"), limits))


def _steps(found: Explained) -> RenderableType:
    rows = [(step.source, json.dumps(step.value), "yes" if step.counts else "no", step.why) for step in found.steps]
    return table_of(("source", "says", "counts", "why"), rows)


def _rehearsal(found: RehearsalAnswer) -> RenderableType:
    limits = [
        (
            one.quota,
            amount_of(one.before),
            amount_of(one.after),
            "" if one.used is None else amount_of(one.used),
            one.blocks,
        )
        for one in found.limits
    ]
    return Group(
        f"{found.direction} to {found.plan}, version {found.version}: {'BLOCKED' if found.is_blocked else 'possible'}",
        f"gained: {', '.join(found.gained) or 'nothing'}; lost: {', '.join(found.lost) or 'nothing'}",
        table_of(("limit", "before", "after", "used", ""), limits),
        table_of(("key", "before", "after"), [(one.key, one.before, one.after) for one in found.settings]),
    )


@plans.command("list")
@operated(_catalogue)
def list_plans() -> PlanVersionList:
    """List every version of every plan."""
    catalogue = standings().catalogue
    return PlanVersionList(
        items=[PlanVersionAnswer.of(version) for plan in catalogue.order for version in catalogue.plans[plan]]
    )


@plans.command("show")
@TENANT
@operated(_standing)
def show(tenant: str) -> PlanAnswer:
    """Show what TENANT has: its plan, each feature and limit, and what decided."""
    with in_tenant(tenant_named(tenant), reason="command line: plan") as session:
        return PlanAnswer.of(standings().read(session))


@plans.command("explain")
@TENANT
@click.argument("name")
@operated(_steps)
def explain(tenant: str, name: str) -> Explained:
    """Say why TENANT has a feature, a limit or a setting; of the steps, the last that counts decides."""
    with in_tenant(tenant_named(tenant), reason="command line: why a plan says so") as session:
        standing = standings().read(session)
    if name in list(Feature):
        steps = standing.why_feature(Feature(name))
    elif name in list(Quota):
        steps = standing.why_limit(Quota(name))
    elif name in KEYS:
        steps = standing.why_setting(KEYS[name])
    else:
        raise InvalidInputError.of("name", f"unknown: use one of {', '.join([*Feature, *Quota, *KEYS])}")
    return Explained(name=name, steps=StepAnswer.of(steps))


@plans.command("change")
@TENANT
@click.argument("plan")
@click.option("--do-it", is_flag=True, help="Do it; without this, it is a rehearsal and changes nothing.")
@click.option("--reason", help="Why; needed with --do-it, and stands in the audit.")
@operated(_rehearsal)
def change(tenant: str, plan: str, do_it: bool, reason: str | None) -> RehearsalAnswer:
    """Say what moving TENANT to PLAN means: gained, lost, and what blocks it; and do it with --do-it."""
    if not do_it:
        with in_tenant(tenant_named(tenant), reason="command line: rehearsal of a plan") as session:
            return RehearsalAnswer.of(rehearse(session, plan))
    if not reason:
        raise click.UsageError("--reason is missing: it stands in the audit")
    with in_tenant(tenant_named(tenant), reason=reason) as session:
        return RehearsalAnswer.of(change_plan(session, plan, reason=reason))


# Overrides --------------------------------------------------------------------------------------------


def _items(found: OverrideItems) -> RenderableType:
    rows = [
        (
            one.kind,
            one.name,
            json.dumps(one.value),
            one.expires_at,
            "expired" if one.is_over else "",
            one.reason,
            one.author,
        )
        for one in found.items
    ]
    return table_of(("kind", "name", "is", "until", "", "why", "by"), rows)


@overrides.command("list")
@TENANT
@operated(_items)
def list_overrides(tenant: str) -> OverrideItems:
    """List the overrides of TENANT."""
    with in_tenant(tenant_named(tenant), reason="command line: overrides") as session:
        return _overrides_of(session)


@overrides.command("add")
@TENANT
@_KIND
@click.argument("name")
@click.argument("value")
@click.option("--until", type=click.DateTime(), help="When the plan counts again, UTC; without it, never.")
@REASON
@operated(_items)
def add(tenant: str, kind: str, name: str, value: str, until: datetime | None, reason: str) -> OverrideItems:
    """Give TENANT this VALUE, as JSON, in place of what its plan says: a feature's true or false, a limit's number."""
    expires_at = None if until is None else until.replace(tzinfo=UTC)
    with in_tenant(tenant_named(tenant), reason=reason) as session:
        override(session, TermKind(kind), name, json_of(value), reason=reason, expires_at=expires_at)
        return _overrides_of(session)


@overrides.command("remove")
@TENANT
@_KIND
@click.argument("name")
@REASON
@operated(_items)
def remove(tenant: str, kind: str, name: str, reason: str) -> OverrideItems:
    """Let the plan of TENANT say again what it has."""
    with in_tenant(tenant_named(tenant), reason=reason) as session:
        withdraw_override(session, TermKind(kind), name, reason=reason)
        return _overrides_of(session)


def _overrides_of(session: Any) -> OverrideItems:
    now = datetime.now(UTC)
    rows = session.scalars(select(Override).order_by(Override.kind, Override.name))
    return OverrideItems(
        items=[
            OverrideItem(
                kind=row.kind,
                name=row.name,
                value=row.value,
                reason=row.reason,
                author=row.author,
                expires_at=row.expires_at,
                is_over=row.expires_at is not None and row.expires_at <= now,
            )
            for row in rows
        ]
    )


def json_of(text: str) -> Any:
    """Return the value that the text says as JSON.

    Raises: UsageError - it is none.
    """
    try:
        return json.loads(text)
    except ValueError:
        raise click.UsageError(f"{text!r} is no JSON: write true, 500, null or '\"text\"'") from None
