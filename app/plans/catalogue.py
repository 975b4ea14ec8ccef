"""The catalogue: every version of every plan, read from a file and checked as a whole."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from app.configuration.keys import KEYS, Key
from app.plans.terms import Feature, Quota
from tenancy.errors import TenancyError

Value = TypeVar("Value")
PLANS_FILE = Path(__file__).with_name("catalogue.toml")


class CatalogueError(TenancyError):
    """The catalogue of plans cannot be used; names every fault."""


class UnknownPlanError(TenancyError):
    """The catalogue has no such plan, or no such version of it."""


def _limit(value: object) -> object:
    return None if value == "unlimited" else value


Limit = Annotated[Annotated[int, Field(ge=0, strict=True)] | None, BeforeValidator(_limit)]


class PlanVersion(BaseModel):
    """One version of one plan.

    limits: None is unlimited. configuration: the values that differ from the keys' own defaults.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    plan: str
    version: int = Field(ge=1)
    since: date
    features: frozenset[Feature]
    limits: Mapping[Quota, Limit]
    configuration: Mapping[str, Any]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        missing = [quota for quota in Quota if quota not in self.limits]
        if missing:
            raise ValueError(f'no limit is given for {", ".join(missing)}: a number, or "unlimited"')
        unknown = [name for name in self.configuration if name not in KEYS]
        if unknown:
            raise ValueError(f"no key of the configuration is named {', '.join(map(repr, unknown))}")
        for name, value in self.configuration.items():
            if KEYS[name].is_secret:
                raise ValueError(f"{name} is a secret: a plan has none")
            try:
                KEYS[name].parse(value)
            except TenancyError as error:
                raise ValueError(str(error)) from None
        return self

    def setting(self, key: Key[Value]) -> Value:
        """Return what the plan says of a key; the key's default where it says nothing."""
        return key.parse(self.configuration[key.name]) if key.name in self.configuration else key.default


class Catalogue(BaseModel):
    """All plans, each with its versions from the oldest; `order` is from the least plan to the greatest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    order: tuple[str, ...] = Field(min_length=1)
    plans: Mapping[str, tuple[PlanVersion, ...]]

    @model_validator(mode="before")
    @classmethod
    def _name_versions(cls, data: Any) -> Any:
        """Let each version know the plan it is listed under."""
        if not isinstance(data, dict) or not isinstance(data.get("plans"), dict):
            return data
        named = {
            plan: [{**one, "plan": plan} if isinstance(one, dict) else one for one in versions]
            if isinstance(versions, list)
            else versions
            for plan, versions in data["plans"].items()
        }
        return {**data, "plans": named}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.order)) != len(self.order) or set(self.order) != set(self.plans):
            odd = sorted(set(self.order) ^ set(self.plans)) or "a plan named twice"
            raise ValueError(f"`order` and the plans differ: {odd}")
        for plan, versions in self.plans.items():
            if [one.version for one in versions] != list(range(1, len(versions) + 1)) or not versions:
                raise ValueError(f"the versions of {plan} are not 1, 2, 3 and so on, in this order")
            if [one.since for one in versions] != sorted({one.since for one in versions}):
                raise ValueError(f"a version of {plan} does not begin after the one before")
        self._check_order()
        return self

    def _check_order(self) -> None:
        """Refuse a plan that includes less than the one before it: a move up would take something away."""
        for lower, higher in zip(self.order, self.order[1:], strict=False):
            less, more = self.newest(lower), self.newest(higher)
            lost: list[str] = [feature for feature in Feature if feature in less.features - more.features]
            lost += [quota for quota in Quota if _is_less(more.limits[quota], less.limits[quota])]
            if lost:
                raise ValueError(f"{higher} comes after {lower} and has less of {', '.join(lost)}")

    def newest(self, plan: str) -> PlanVersion:
        """Return the version that new tenants get.

        Raises: UnknownPlanError
        """
        if plan not in self.plans:
            raise UnknownPlanError(f"there is no plan {plan[:100]!r}", hint=f"use one of {', '.join(self.order)}")
        return self.plans[plan][-1]

    def version(self, plan: str, version: int) -> PlanVersion:
        """Return the version a tenant bought.

        Raises: UnknownPlanError - a version that tenants have was taken out of the file, or never was in it.
        """
        newest = self.newest(plan)
        if not 1 <= version <= newest.version:
            raise UnknownPlanError(
                f"plan {plan!r} has no version {version}", hint="put it back into the catalogue: tenants keep theirs"
            )
        return self.plans[plan][version - 1]

    def direction(self, before: str, after: str) -> Literal["upgrade", "downgrade", "same"]:
        """Tell which way a move between two plans goes."""
        steps = self.order.index(after) - self.order.index(before)
        return "same" if steps == 0 else "upgrade" if steps > 0 else "downgrade"

    def plans_with(self, feature: Feature) -> list[str]:
        """Return the plans whose newest version has the feature, from the least."""
        return [plan for plan in self.order if feature in self.newest(plan).features]


def _is_less(one: int | None, other: int | None) -> bool:
    return one is not None and (other is None or one < other)


def read_catalogue(path: Path) -> Catalogue:
    """Read a catalogue from a TOML file.

    Raises: CatalogueError - names the place and the fault of each mistake. OSError - the file cannot be read.
    """
    try:
        return Catalogue.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{path.name} is no TOML file: {error}", hint="correct the place it names") from None
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or path.name}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise CatalogueError(f"{path.name} cannot be used: {'; '.join(faults)}", hint="correct each place") from None


@cache
def shipped_catalogue() -> Catalogue:
    """Return the catalogue this application is shipped with; read once in a process."""
    return read_catalogue(PLANS_FILE)


def newest_version(plan: str) -> int:
    """Return the version of a plan that is sold now."""
    return shipped_catalogue().newest(plan).version
