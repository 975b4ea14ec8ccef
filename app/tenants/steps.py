"""The steps that make a tenant ready: what each does, and how far it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.errors import ProblemError
from app.tenants.domains import add_claim
from app.tenants.models import ProvisioningStep, StepState
from app.tenants.registrar import Registrar

_LONGEST_ERROR = 300


class ProvisioningError(ProblemError):
    """A step of provisioning failed; what came before it stays, and the tenant stays closed."""

    code = 409
    kind = "provisioning_failed"


@dataclass(frozen=True)
class Progress:
    """How far one step is."""

    step: str
    state: StepState
    attempts: int
    error: str | None
    finished_at: datetime | None


@dataclass(frozen=True)
class Step:
    """One step; `run` writes in the tenant's transaction, and must bear being called again after a failure."""

    name: str
    run: Callable[[Registrar, Session, Mapping[str, Any]], None]


def _already_there(_registrar: Registrar, _session: Session, _given: Mapping[str, Any]) -> None:
    """The record is written with the steps themselves, so whoever finds this step finds it done."""


def _set_defaults(registrar: Registrar, session: Session, given: Mapping[str, Any]) -> None:
    for fill in registrar.hooks.defaults:
        fill(session, given)


def _invite_owner(registrar: Registrar, session: Session, given: Mapping[str, Any]) -> None:
    email = given.get("email")
    if email is None:
        return
    if registrar.hooks.invite_owner is None:
        raise ProvisioningError("Nobody can be invited here: no way to invite is set up.")
    registrar.hooks.invite_owner(session, email)


def _claim_domain(registrar: Registrar, session: Session, given: Mapping[str, Any]) -> None:
    domain = given.get("domain")
    if domain is not None:
        add_claim(session, domain)


def _seed(registrar: Registrar, session: Session, given: Mapping[str, Any]) -> None:
    for fill in registrar.hooks.seeds:
        fill(session, given)


STEPS: tuple[Step, ...] = (
    Step("record", _already_there),
    Step("defaults", _set_defaults),
    Step("owner", _invite_owner),
    Step("domain", _claim_domain),
    Step("seed", _seed),
)


def progress_of(rows: Sequence[ProvisioningStep]) -> list[Progress]:
    """Return how far each step is, apart from the session they were read in."""
    return [Progress(row.step, StepState(row.state), row.attempts, row.error, row.finished_at) for row in rows]


def steps_of(session: Session) -> list[ProvisioningStep]:
    """Return the steps of the session's tenant, in the order they are taken."""
    order = {step.name: place for place, step in enumerate(STEPS)}
    return sorted(session.scalars(select(ProvisioningStep)), key=lambda row: order.get(row.step, len(order)))


def step_of(steps: Sequence[Step], row: ProvisioningStep) -> Step:
    """Return what is done at the row's name."""
    return next(step for step in steps if step.name == row.step)


def told(error: Exception) -> str:
    """What may be shown of a failure: the words of an error of our own, and of any other only its kind."""
    return (error.detail if isinstance(error, ProblemError) else type(error).__name__)[:_LONGEST_ERROR]
