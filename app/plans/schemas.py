"""What the routes of plans take and answer."""

from __future__ import annotations

from datetime import date
from typing import Any, Literal

from pydantic import Field

from app.configuration.keys import KEYS, Key
from app.plans.catalogue import PlanVersion
from app.plans.changes import Rehearsal
from app.plans.standing import Standing, Step
from app.plans.terms import Feature, Quota
from app.schemas import Answer


class StepAnswer(Answer):
    """One step of why a value is what it is; the last that counts decides."""

    source: Literal["default", "plan", "override", "own"]
    value: Any = Field(description="What this step says; null is unlimited, for a limit.")
    counts: bool = Field(description="False for an override that has expired.")
    why: str

    @classmethod
    def of(cls, steps: list[Step]) -> list[StepAnswer]:
        return [cls.model_validate(step) for step in steps]


class FeatureAnswer(Answer):
    """Whether a tenant has a feature, and why."""

    name: Feature
    is_included: bool
    steps: list[StepAnswer]

    @classmethod
    def of(cls, standing: Standing, feature: Feature) -> FeatureAnswer:
        return cls(
            name=feature,
            is_included=standing.has_feature(feature),
            steps=StepAnswer.of(standing.why_feature(feature)),
        )


class FeatureList(Answer):
    """Every feature there is."""

    items: list[FeatureAnswer]


class LimitAnswer(Answer):
    """How much a tenant may have of one quota, and why."""

    name: Quota
    limit: int | None = Field(description="Null is unlimited.")
    steps: list[StepAnswer]

    @classmethod
    def of(cls, standing: Standing, quota: Quota) -> LimitAnswer:
        return cls(name=quota, limit=standing.limit(quota), steps=StepAnswer.of(standing.why_limit(quota)))


class LimitList(Answer):
    """Every quota there is."""

    items: list[LimitAnswer]


class SettingAnswer(Answer):
    """The value of one key that counts, and why; of a secret, only whether it is set."""

    key: str
    description: str
    value: Any
    is_secret: bool
    is_yours: bool = Field(description="Whether a tenant may set it, within what it was granted.")
    steps: list[StepAnswer]

    @classmethod
    def of(cls, standing: Standing, key: Key[Any]) -> SettingAnswer:
        return cls(
            key=key.name,
            description=key.description,
            value=standing.shown(key),
            is_secret=key.is_secret,
            is_yours=key.is_tenants,
            steps=StepAnswer.of(standing.why_setting(key)),
        )


class SettingList(Answer):
    """Every key there is."""

    items: list[SettingAnswer]

    @classmethod
    def of(cls, standing: Standing) -> SettingList:
        return cls(items=[SettingAnswer.of(standing, key) for key in KEYS.values()])


class PlanAnswer(Answer):
    """What a tenant has: its plan, in the version it bought, and what comes with it."""

    plan: str
    version: int
    since: date = Field(description="When this version began to be sold.")
    features: list[FeatureAnswer]
    limits: list[LimitAnswer]

    @classmethod
    def of(cls, standing: Standing) -> PlanAnswer:
        return cls(
            plan=standing.plan.plan,
            version=standing.plan.version,
            since=standing.plan.since,
            features=[FeatureAnswer.of(standing, feature) for feature in Feature],
            limits=[LimitAnswer.of(standing, quota) for quota in Quota],
        )


class PlanVersionAnswer(Answer):
    """One version of one plan."""

    plan: str
    version: int
    since: date
    features: list[Feature]
    limits: dict[Quota, int | None] = Field(description="Null is unlimited.")
    configuration: dict[str, Any]

    @classmethod
    def of(cls, one: PlanVersion) -> PlanVersionAnswer:
        return cls(
            plan=one.plan,
            version=one.version,
            since=one.since,
            features=[feature for feature in Feature if feature in one.features],
            limits=dict(one.limits),
            configuration=dict(one.configuration),
        )


class PlanVersionList(Answer):
    """Every version of every plan, from the least plan and the oldest version."""

    items: list[PlanVersionAnswer]


class LimitChangeAnswer(Answer):
    """One quota before and after a change of plan."""

    quota: Quota
    before: int | None
    after: int | None
    used: int | None = Field(description="How much the tenant has; null where that is not counted.")
    blocks: bool = Field(description="The tenant has more than it could have after.")


class SettingChangeAnswer(Answer):
    """One key whose value would be another."""

    key: str
    before: Any
    after: Any


class RehearsalAnswer(Answer):
    """What a change of plan means. Nothing of the tenant's data is touched by it."""

    plan: str
    version: int
    direction: Literal["upgrade", "downgrade", "same"]
    gained: list[Feature]
    lost: list[Feature]
    limits: list[LimitChangeAnswer] = Field(description="Those that change, or block.")
    settings: list[SettingChangeAnswer]
    is_blocked: bool

    @classmethod
    def of(cls, found: Rehearsal) -> RehearsalAnswer:
        return cls(
            plan=found.after.plan,
            version=found.after.version,
            direction=found.direction,
            gained=list(found.gained),
            lost=list(found.lost),
            limits=[LimitChangeAnswer.model_validate(one) for one in found.limits if one.is_changed or one.blocks],
            settings=[SettingChangeAnswer.model_validate(one) for one in found.settings],
            is_blocked=bool(found.blockers),
        )
