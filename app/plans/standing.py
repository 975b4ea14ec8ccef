"""What a tenant may have now: default, then its plan, then what staff overrode, then what it set itself.

Remembered in each process for as long as the directory's record of the tenant stays the same. Whoever changes a plan,
an override or a value also writes `updated_at` of the tenant, which the database announces, so that every process
forgets within a second; and while nobody is listening, the directory's record itself is remembered for one second.
An override that expires counts no longer at that moment, by the server's clock, without anybody being told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import Any, Literal, TypeVar
from uuid import UUID

from flask import Flask, current_app
from sqlalchemy import DateTime, cast, event, func, literal, null, select, union_all, update
from sqlalchemy.orm import Session

from app import db
from app.configuration.keys import KEYS, SET, UNSET, Key
from app.configuration.models import ConfigurationValue
from app.plans.catalogue import Catalogue, PlanVersion, shipped_catalogue
from app.plans.models import Override
from app.plans.terms import Feature, Quota, TermKind
from app.tenants.models import Tenant
from tenancy.context import require_tenant
from tenancy.directory import Directory, Reference, TenantRecord

EXTENSION = "plans"
_CHANGED = "standing_changed"
_MOST_REMEMBERED = 10_000
_LONGEST_S = 60.0  # for what was changed past the operations, as by hand
_OWN = "own"
Value = TypeVar("Value")

Source = Literal["default", "plan", "override", "own"]


@dataclass(frozen=True)
class Granted:
    """An override as it was read; `counts` unless it had expired by the server's clock."""

    value: Any
    reason: str
    author: str
    expires_at: datetime | None
    counts: bool


@dataclass(frozen=True)
class Step:
    """One step of why a value is what it is. value: what it says, as JSON. counts: whether anything came of it."""

    source: Source
    value: Any
    counts: bool
    why: str


@dataclass(frozen=True)
class Standing:
    """What one tenant may have, as of one moment.

    overrides: by kind and name, expired ones included. own: what the tenant set itself, by key, as it is stored.
    """

    plan: PlanVersion
    overrides: Mapping[tuple[str, str], Granted]
    own: Mapping[str, Any]

    def has_feature(self, feature: Feature) -> bool:
        return bool(self._last(self.why_feature(feature)))

    def limit(self, quota: Quota) -> int | None:
        """Return how much the tenant may have; None is unlimited."""
        found: int | None = self._last(self.why_limit(quota))
        return found

    def granted(self, key: Key[Value]) -> Value:
        """Return what counts for a key before the tenant's own wish."""
        override = self.overrides.get((TermKind.CONFIGURATION, key.name))
        if override is not None and override.counts:
            return key.parse(override.value)
        return self.plan.setting(key)

    def setting(self, key: Key[Value]) -> Value:
        """Return the value that counts for a key.

        Raises: TypeError - it is a secret, which is not remembered; see `secret_of` in app/configuration/operations.py.
        """
        if key.is_secret:
            raise TypeError(f"{key.name} is a secret")
        granted = self.granted(key)
        return key.stricter(granted, key.parse(self.own[key.name])) if key.name in self.own else granted

    def why_feature(self, feature: Feature) -> list[Step]:
        """Return why the tenant has the feature or not, from the most general step; the last that counts decides."""
        steps = [Step("default", False, counts=True, why="a feature is in no plan until one includes it")]
        steps.append(Step("plan", feature in self.plan.features, counts=True, why=self._plan_words()))
        return steps + self._override_steps(TermKind.FEATURE, feature)

    def why_limit(self, quota: Quota) -> list[Step]:
        """Return why the limit is what it is; a value of None is unlimited."""
        steps = [Step("default", 0, counts=True, why="nothing is allowed until a plan says so")]
        steps.append(Step("plan", self.plan.limits[quota], counts=True, why=self._plan_words()))
        return steps + self._override_steps(TermKind.LIMIT, quota)

    def shown(self, key: Key[Any]) -> Any:
        """Return the value that counts for a key as JSON has it; of a secret, whether it is set."""
        if key.is_secret:
            return SET if key.name in self.own else UNSET
        return key.plain(self.setting(key))

    def why_setting(self, key: Key[Any]) -> list[Step]:
        """Return why a key has the value it has. The tenant's own step shows what came of its wish."""
        if key.is_secret:
            unset = Step("default", UNSET, counts=True, why="a secret is unset until the tenant sets it")
            return [unset, Step("own", SET, counts=True, why="set by the tenant")] if key.name in self.own else [unset]
        steps = [
            Step("default", key.plain(key.default), counts=True, why="what the key is where nobody says otherwise")
        ]
        if key.name in self.plan.configuration:
            steps.append(Step("plan", key.plain(self.plan.setting(key)), counts=True, why=self._plan_words()))
        for step in self._override_steps(TermKind.CONFIGURATION, key.name):
            steps.append(Step("override", key.plain(key.parse(step.value)), counts=step.counts, why=step.why))
        if key.name in self.own:
            wanted, counts = key.parse(self.own[key.name]), self.setting(key)
            why = "set by the tenant" if wanted == counts else "set by the tenant, as far as it was granted"
            steps.append(Step("own", key.plain(counts), counts=True, why=why))
        return steps

    @staticmethod
    def _last(steps: Sequence[Step]) -> Any:
        return [step.value for step in steps if step.counts][-1]

    def _plan_words(self) -> str:
        return f"plan {self.plan.plan}, version {self.plan.version}"

    def _override_steps(self, kind: TermKind, name: str) -> list[Step]:
        found = self.overrides.get((kind, name))
        if found is None:
            return []
        until = "" if found.expires_at is None else f", until {found.expires_at.isoformat()}"
        ended = "" if found.counts else " (expired)"
        return [Step("override", found.value, found.counts, f"{found.reason}: by {found.author}{until}{ended}")]


@dataclass(frozen=True)
class _Remembered:
    record: TenantRecord
    until: float
    standing: Standing


class Standings:
    """What tenants may have, remembered. catalogue: the plans. directory: says when to forget."""

    def __init__(self, catalogue: Catalogue, directory: Directory) -> None:
        self.catalogue = catalogue
        self._directory = directory
        self._remembered: dict[UUID, _Remembered] = {}

    def of(self, session: Session) -> Standing:
        """Return the standing of the session's tenant; no statement is sent while it is remembered.

        The directory is not asked to look anything up: a tenant that is being created is not known to it yet,
        and would be remembered as unknown.
        """
        tenant_id = require_tenant()
        answer = self._directory.peek(Reference("id", str(tenant_id)))
        if answer is None or answer.tenant is None or session.info.get(_CHANGED):
            return self.read(session)
        found = self._remembered.get(tenant_id)
        if found is not None and found.record == answer.tenant and monotonic() < found.until:
            return found.standing
        record = answer.tenant
        plan = self.catalogue.version(record.extra["plan"], record.extra["plan_version"])
        standing, until = _read(session, plan)
        while len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.pop(next(iter(self._remembered)), None)
        self._remembered[tenant_id] = _Remembered(record, until, standing)
        return standing

    def forget(self, tenant_id: UUID) -> None:
        """Forget what is remembered of one tenant in this process."""
        self._remembered.pop(tenant_id, None)

    def read(self, session: Session) -> Standing:
        """Return the standing of the session's tenant as the database has it in this transaction; two statements.

        Raises: UnknownPlanError - the catalogue lacks the tenant's version.
        """
        plan, version = session.execute(
            select(Tenant.plan, Tenant.plan_version).where(Tenant.id == require_tenant())
        ).one()
        return _read(session, self.catalogue.version(plan, version))[0]


def _read(session: Session, plan: PlanVersion) -> tuple[Standing, float]:
    """Return the standing, and until when it may be remembered: monotonic, the next expiry of an override."""
    asked_at = monotonic()
    nothing = cast(null(), DateTime(timezone=True))
    rows = session.execute(
        union_all(
            select(
                Override.kind,
                Override.name,
                Override.value,
                Override.reason,
                Override.author,
                Override.expires_at,
                func.clock_timestamp().label("now"),
            ).where(Override.tenant_id == require_tenant()),
            select(
                literal(_OWN),
                ConfigurationValue.key,
                ConfigurationValue.value,  # NULL of a secret, which stays where it is
                literal(""),
                literal(""),
                nothing,
                func.clock_timestamp(),
            ).where(ConfigurationValue.tenant_id == require_tenant()),
        )
    ).all()
    until, overrides, own = asked_at + _LONGEST_S, {}, {}
    for kind, name, value, reason, author, expires_at, now in rows:
        if kind == _OWN:
            own[name] = value
            continue
        left_s = float("inf") if expires_at is None else (expires_at - now).total_seconds()
        overrides[kind, name] = Granted(value, reason, author, expires_at, counts=left_s > 0)
        until = min(until, asked_at + left_s) if left_s > 0 else until
    # Keys and terms that this version of the program does not know count for nothing, and are kept.
    return Standing(plan, overrides, {name: value for name, value in own.items() if name in KEYS}), until


def note_change(session: Session) -> None:
    """Tell every process, when this transaction commits, that what the session's tenant may have has changed.

    This process does not wait to be told; the session itself reads what it wrote already before that.
    """
    known, tenant_id = standings(), require_tenant()

    def forget(committed: Session) -> None:
        known.forget(tenant_id)
        committed.info.pop(_CHANGED, None)

    if _CHANGED not in session.info:
        session.info[_CHANGED] = True
        event.listen(session, "after_commit", forget, once=True)
    # Not now(), which is when the transaction began: of two that wait for each other, the later must not look older.
    session.execute(update(Tenant).where(Tenant.id == require_tenant()).values(updated_at=func.clock_timestamp()))


def lock_tenant(session: Session) -> Tenant:
    """Return the session's tenant as it is now, locked until the transaction ends: changes come one after another."""
    return session.scalars(
        select(Tenant)
        .where(Tenant.id == require_tenant())
        # Not FOR UPDATE: rows that refer to the tenant may still be added.
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).one()


def init_app(app: Flask, directory: Directory) -> Standings:
    """Give the application what it knows of plans, by the shipped catalogue; returns it."""
    app.extensions[EXTENSION] = found = Standings(shipped_catalogue(), directory)
    return found


def standings() -> Standings:
    """Return what the current application knows of plans."""
    found = current_app.extensions[EXTENSION]
    if not isinstance(found, Standings):
        raise TypeError(f"extension {EXTENSION!r} is {type(found).__name__}, not Standings")
    return found


def standing_of(session: Session) -> Standing:
    """Return what the tenant of a session may have: in a request, a job or a command of the application."""
    return standings().of(session)


def current_standing() -> Standing:
    """Return what the tenant of the current request may have."""
    return standing_of(db.session())
