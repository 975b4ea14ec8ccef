"""Making a tenant: steps that anybody can look at, that can be tried again, and that never happen twice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.audit.entries import record
from app.errors import InvalidInputError, ProblemError, TakenError
from app.schemas import normalize_email
from app.tenants.domains import add_claim, normalize_claim
from app.tenants.models import ProvisioningStep, StepState, Tenant
from app.tenants.operations import move, note_transition, record_of, server_now
from app.tenants.registrar import Registrar, locked_tenant
from app.tenants.slugs import refuse_unusable_slug, slug_candidates, slug_is_held
from app.tenants.states import InvalidTransitionError, Status
from tenancy.directory import TenantRecord
from tenancy.tables import new_id

log = logging.getLogger(__name__)

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


class HeldError(Exception):
    """The slug is reserved for somebody else."""


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


def create_tenant(
    registrar: Registrar,
    *,
    name: str,
    plan: str,
    reason: str,
    slug: str | None = None,
    owner_email: str | None = None,
    domain: str | None = None,
    with_examples: bool = False,
    tenant_id: UUID | None = None,
) -> TenantRecord:
    """Write the record of a new tenant, pending, with the steps that will make it ready; `provision` takes them.

    slug: None takes one from the name. owner_email: who is invited to own it; None invites nobody.
    domain: a custom domain to claim for it. tenant_id: makes the call one that can be repeated; the second one
    changes nothing.
    Raises: InvalidInputError - a value cannot be used. TakenError - the slug or the domain is another's.
    """
    given: dict[str, Mapping[str, Any]] = {
        "owner": {} if owner_email is None else {"email": _email(owner_email)},
        "domain": {} if domain is None else {"domain": normalize_claim(domain, base_domain=registrar.base_domain)},
        "seed": {"with_examples": with_examples},
    }
    own_id = tenant_id or new_id()
    for candidate in [refuse_unusable_slug(slug)] if slug is not None else slug_candidates(name):
        tenant = TenantRecord(own_id, candidate, name, Status.PENDING)
        try:
            with registrar.in_tenant(own_id, reason=reason) as session:
                found = None if tenant_id is None else session.get(Tenant, own_id)
                if found is not None:
                    return record_of(found)
                write_record(session, tenant, plan=plan, given=given, reason=reason)
            return tenant
        except HeldError:
            continue
        except IntegrityError as error:
            if violated(error) == "pk_tenants":  # the same call, made twice at once
                return _written_meanwhile(registrar, own_id, reason=reason)
            if violated(error) != "uq_tenants_slug":
                raise
    raise TakenError("No free slug was found: choose another.")


def provision(
    registrar: Registrar, tenant_id: UUID, *, reason: str, steps: Sequence[Step] = STEPS
) -> Sequence[Progress]:
    """Take the steps that are still missing, and open the tenant; may be called again, and from many processes.

    Returns: every step as it stands now, in order. After a failure the step says why, and the tenant stays pending.
    steps: what is done at each name; for the tests of a crash.
    Raises: InvalidTransitionError - it has left the state `pending` for another one than `active`.
    RowNotFoundError - no such tenant.
    """
    work = {step.name: step for step in steps}
    try:
        with registrar.in_tenant(tenant_id, reason=reason) as session:
            return _take_at_once(registrar, session, tenant_id, work=work, reason=reason)
    except _StepFailedError:  # nothing of it is left; now what goes well stays, and what does not is named
        with registrar.in_tenant(tenant_id, reason=reason) as session:
            return _take_one_by_one(registrar, session, tenant_id, work=work, reason=reason)


class _StepFailedError(Exception):
    """Of steps that were taken at once, one failed; the transaction has to be rolled back."""


def _take_at_once(
    registrar: Registrar, session: Session, tenant_id: UUID, *, work: Mapping[str, Step], reason: str
) -> Sequence[Progress]:
    """Take the missing steps without savepoints, and write what they leave together: the way of nearly every tenant."""
    tenant, rows = _opened(session, tenant_id)
    if tenant.status == Status.ACTIVE:
        return progress_of(rows)
    try:
        for row in rows:
            if row.state != StepState.DONE:
                work[row.step].run(registrar, session, row.given)
        move(registrar, session, tenant, Status.ACTIVE, reason=reason)
        session.flush()
    except Exception as error:
        raise _StepFailedError from error
    return _all_done(session, rows)


def _take_one_by_one(
    registrar: Registrar, session: Session, tenant_id: UUID, *, work: Mapping[str, Step], reason: str
) -> Sequence[Progress]:
    """Take the missing steps, each in a savepoint, up to the first that fails."""
    tenant, rows = _opened(session, tenant_id)
    if tenant.status == Status.ACTIVE:  # somebody else was faster, and luckier
        return progress_of(rows)
    now = server_now(session)
    for row in rows:
        if row.state == StepState.DONE:
            continue
        row.attempts += 1
        try:
            with session.begin_nested():
                work[row.step].run(registrar, session, row.given)
        except Exception as error:
            log.warning("tenant.step_failed", extra={"step": row.step}, exc_info=error)
            row.state, row.error = StepState.FAILED, _told(error)
            return progress_of(rows)
        row.state, row.error, row.finished_at = StepState.DONE, None, now
    move(registrar, session, tenant, Status.ACTIVE, reason=reason)
    return progress_of(rows)


def _opened(session: Session, tenant_id: UUID) -> tuple[Tenant, list[ProvisioningStep]]:
    """Return the tenant, locked, and its steps. An active one has none that is missing.

    Raises: InvalidTransitionError - it is in no state to be provisioned. RowNotFoundError
    """
    tenant = locked_tenant(session, tenant_id)
    rows = steps_of(session)
    is_ready = tenant.status == Status.ACTIVE and all(row.state == StepState.DONE for row in rows)
    if tenant.status != Status.PENDING and not is_ready:
        raise InvalidTransitionError(
            f"The tenant is {tenant.status}: only a pending one is provisioned.",
            status=Status(tenant.status),
            allowed=(),
        )
    return tenant, rows


def _all_done(session: Session, rows: Sequence[ProvisioningStep]) -> list[Progress]:
    """Note in one statement that every missing step is done, and return how all of them stand now."""
    done = (
        update(ProvisioningStep)
        .where(ProvisioningStep.state != StepState.DONE)
        .values(state=StepState.DONE, attempts=ProvisioningStep.attempts + 1, error=None, finished_at=func.now())
        .returning(ProvisioningStep.step, ProvisioningStep.attempts, ProvisioningStep.finished_at)
        .execution_options(synchronize_session=False)
    )
    now = {
        row.step: Progress(row.step, StepState.DONE, row.attempts, None, row.finished_at)
        for row in session.execute(done)
    }
    return [now.get(progress.step, progress) for progress in progress_of(rows)]


def write_record(
    session: Session, tenant: TenantRecord, *, plan: str, given: Mapping[str, Mapping[str, Any]], reason: str
) -> None:
    """Add the tenant's own row, its steps, and the beginning of its history, in the caller's transaction.

    Raises: HeldError - the slug is reserved for somebody else. IntegrityError - it is in use.
    """
    row = Tenant(id=tenant.id, slug=tenant.slug, name=tenant.name, status=Status.PENDING, plan=plan)
    session.add(row)
    session.flush()
    # After the write: it waited for whoever gave this slug up, and now sees the reservation.
    if slug_is_held(session, tenant.slug, by_other_than=tenant.id):
        raise HeldError
    for step in STEPS:
        is_record = step.name == "record"
        session.add(
            ProvisioningStep(
                step=step.name,
                state=StepState.DONE if is_record else StepState.WAITING,
                attempts=1 if is_record else 0,
                given=dict(given.get(step.name, {})),
                finished_at=row.created_at if is_record else None,  # a value: the steps go in one statement
            )
        )
    note_transition(session, None, Status.PENDING, reason=reason)
    record(
        session,
        "tenant.created",
        target=("tenant", tenant.id),
        after={"slug": tenant.slug, "name": tenant.name, "plan": plan},
        reason=reason,
    )


def take_steps(registrar: Registrar, session: Session, *, reason: str, owner: Callable[[Session], None]) -> None:
    """Take every step at once in the caller's transaction, in which all of it happens or nothing does.

    owner: makes the owner, instead of an invitation.
    Raises: whatever a step raises.
    """
    tenant, rows = session.scalars(select(Tenant)).one(), steps_of(session)
    for row in rows:
        if row.state == StepState.DONE:
            continue
        if row.step == "owner":
            owner(session)
        else:
            next(step for step in STEPS if step.name == row.step).run(registrar, session, row.given)
    move(registrar, session, tenant, Status.ACTIVE, reason=reason)
    _all_done(session, rows)


def progress_of(rows: Sequence[ProvisioningStep]) -> list[Progress]:
    """Return how far each step is, apart from the session they were read in."""
    return [Progress(row.step, StepState(row.state), row.attempts, row.error, row.finished_at) for row in rows]


def steps_of(session: Session) -> list[ProvisioningStep]:
    """Return the steps of the session's tenant, in the order they are taken."""
    order = {step.name: place for place, step in enumerate(STEPS)}
    return sorted(session.scalars(select(ProvisioningStep)), key=lambda row: order.get(row.step, len(order)))


def violated(error: IntegrityError) -> str | None:
    """Return the name of the constraint that a write violated."""
    return getattr(getattr(error.orig, "diag", None), "constraint_name", None)


def _written_meanwhile(registrar: Registrar, tenant_id: UUID, *, reason: str) -> TenantRecord:
    with registrar.in_tenant(tenant_id, reason=reason) as session:
        return record_of(session.get_one(Tenant, tenant_id))


def _email(text: str) -> str:
    try:
        return normalize_email(text)
    except ValueError as error:
        raise InvalidInputError.of("owner_email", str(error)) from None


def _told(error: Exception) -> str:
    """What may be shown of a failure: the words of an error of our own, and of any other only its kind."""
    return (error.detail if isinstance(error, ProblemError) else type(error).__name__)[:_LONGEST_ERROR]
