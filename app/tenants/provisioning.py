"""Making a tenant: steps that anybody can look at, that can be tried again, and that never happen twice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict, Unpack
from uuid import UUID

from sqlalchemy import func, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.audit.entries import record
from app.errors import InvalidInputError, TakenError
from app.schemas import normalize_email
from app.tenants.domains import normalize_claim
from app.tenants.models import ProvisioningStep, StepState, Tenant
from app.tenants.operations import move, note_transition, record_of, server_now
from app.tenants.registrar import Registrar, locked_tenant
from app.tenants.slugs import refuse_unusable_slug, slug_candidates, slug_is_held
from app.tenants.states import InvalidTransitionError, Status
from app.tenants.steps import STEPS, Progress, Step, progress_of, step_of, steps_of, told
from tenancy.directory import TenantRecord
from tenancy.tables import new_id

log = logging.getLogger(__name__)


class HeldError(Exception):
    """The slug is reserved for somebody else."""


class NewTenant(TypedDict):
    """What a new tenant is to be.

    slug: None takes one from the name. owner_email: who is invited to own it; None invites nobody.
    domain: a custom domain to claim for it.
    """

    name: str
    plan: str
    slug: NotRequired[str | None]
    owner_email: NotRequired[str | None]
    domain: NotRequired[str | None]
    with_examples: NotRequired[bool]


@dataclass(frozen=True)
class Opened:
    """The rows of a tenant that was written in this transaction."""

    tenant: Tenant
    steps: Sequence[ProvisioningStep]


def create_tenant(
    registrar: Registrar, *, reason: str, tenant_id: UUID | None = None, **wanted: Unpack[NewTenant]
) -> TenantRecord:
    """Write the record of a new tenant, pending, with the steps that will make it ready; `provision` takes them.

    tenant_id: makes the call one that can be repeated; the second one changes nothing.
    Raises: InvalidInputError - a value cannot be used. TakenError - the slug or the domain is another's.
    """
    return _create(registrar, wanted, reason=reason, tenant_id=tenant_id, then=lambda _session, _opened: None)


def make_tenant(
    registrar: Registrar,
    *,
    reason: str,
    tenant_id: UUID | None = None,
    steps: Sequence[Step] = STEPS,
    **wanted: Unpack[NewTenant],
) -> tuple[TenantRecord, Sequence[Progress]]:
    """Create a tenant and take its steps, in one transaction; where a step fails, as `create_tenant` and `provision`.

    tenant_id: makes the call one that can be repeated: the second one goes on where the first one stopped.
    Raises: what those two raise.
    """
    taken = list[Progress]()

    def take(session: Session, opened: Opened) -> None:
        try:
            for row in opened.steps:
                if row.state != StepState.DONE:
                    step_of(steps, row).run(registrar, session, row.given)
            _open(registrar, session, opened, reason=reason)
        except Exception as error:
            raise _StepFailedError from error
        taken.extend(progress_of(opened.steps))

    with registrar.at_work(reason=reason):
        try:
            tenant = _create(registrar, wanted, reason=reason, tenant_id=tenant_id, then=take)
        except _StepFailedError:
            tenant = _create(registrar, wanted, reason=reason, tenant_id=tenant_id, then=lambda _session, _opened: None)
        return tenant, taken or provision(registrar, tenant.id, reason=reason, steps=steps)


def _create(
    registrar: Registrar,
    wanted: NewTenant,
    *,
    reason: str,
    tenant_id: UUID | None,
    then: Callable[[Session, Opened], None],
) -> TenantRecord:
    """Write the record, and do `then` what else belongs into its transaction."""
    email, domain, slug = wanted.get("owner_email"), wanted.get("domain"), wanted.get("slug")
    given: dict[str, Mapping[str, Any]] = {
        "owner": {} if email is None else {"email": _email(email)},
        "domain": {} if domain is None else {"domain": normalize_claim(domain, base_domain=registrar.base_domain)},
        "seed": {"with_examples": wanted.get("with_examples", False)},
    }
    own_id, name = tenant_id or new_id(), wanted["name"]
    for candidate in [refuse_unusable_slug(slug)] if slug is not None else slug_candidates(name):
        tenant = TenantRecord(own_id, candidate, name, Status.PENDING)
        try:
            with registrar.in_tenant(own_id, reason=reason) as session:
                found = None if tenant_id is None else session.get(Tenant, own_id)
                if found is not None:
                    return record_of(found)
                opened = write_record(session, tenant, plan=wanted["plan"], given=given, reason=reason)
                then(session, opened)
                return record_of(opened.tenant)
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
    try:
        with registrar.in_tenant(tenant_id, reason=reason) as session:
            return _take_at_once(registrar, session, tenant_id, steps, reason=reason)
    except _StepFailedError:  # nothing of it is left; now what goes well stays, and what does not is named
        with registrar.in_tenant(tenant_id, reason=reason) as session:
            return _take_one_by_one(registrar, session, tenant_id, steps, reason=reason)


class _StepFailedError(Exception):
    """Of steps that were taken at once, one failed; the transaction has to be rolled back."""


def _take_at_once(
    registrar: Registrar, session: Session, tenant_id: UUID, steps: Sequence[Step], *, reason: str
) -> Sequence[Progress]:
    """Take the missing steps without savepoints, and write what they leave together: the way of nearly every tenant."""
    tenant, rows = _opened(session, tenant_id)
    if tenant.status == Status.ACTIVE:
        return progress_of(rows)
    try:
        for row in rows:
            if row.state != StepState.DONE:
                step_of(steps, row).run(registrar, session, row.given)
        move(registrar, session, tenant, Status.ACTIVE, reason=reason)
        session.flush()
    except Exception as error:
        raise _StepFailedError from error
    return _all_done(session, rows)


def _take_one_by_one(
    registrar: Registrar, session: Session, tenant_id: UUID, steps: Sequence[Step], *, reason: str
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
                step_of(steps, row).run(registrar, session, row.given)
        except Exception as error:
            log.warning("tenant.step_failed", extra={"step": row.step}, exc_info=error)
            row.state, row.error = StepState.FAILED, told(error)
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
) -> Opened:
    """Add the tenant's own row, its steps, and the beginning of its history, in the caller's transaction.

    Raises: HeldError - the slug is reserved for somebody else. IntegrityError - it is in use.
    """
    row = Tenant(id=tenant.id, slug=tenant.slug, name=tenant.name, status=Status.PENDING, plan=plan)
    session.add(row)
    session.flush()
    # After the write: it waited for whoever gave this slug up, and now sees the reservation.
    if slug_is_held(session, tenant.slug, by_other_than=tenant.id):
        raise HeldError
    steps = [
        ProvisioningStep(
            step=step.name,
            state=StepState.WAITING,
            attempts=0,
            given=dict(given.get(step.name, {})),
            finished_at=None,  # said for each of them, or they would not go in one statement
        )
        for step in STEPS
    ]
    opened = Opened(row, steps)
    _note_done(opened, steps[:1])  # the record: it is there with the steps themselves
    session.add_all(steps)
    note_transition(session, None, Status.PENDING, reason=reason)
    record(
        session,
        "tenant.created",
        target=("tenant", tenant.id),
        after={"slug": tenant.slug, "name": tenant.name, "plan": plan},
        reason=reason,
    )
    return opened


def take_steps(
    registrar: Registrar, session: Session, opened: Opened, *, reason: str, owner: Callable[[Session], None]
) -> None:
    """Take every step at once in the caller's transaction, in which all of it happens or nothing does.

    owner: makes the owner, instead of an invitation.
    Raises: whatever a step raises.
    """
    for row in opened.steps:
        if row.state == StepState.DONE:
            continue
        if row.step == "owner":
            owner(session)
        else:
            step_of(STEPS, row).run(registrar, session, row.given)
    _open(registrar, session, opened, reason=reason)


def _open(registrar: Registrar, session: Session, opened: Opened, *, reason: str) -> None:
    """Open a tenant all of whose steps were taken in the transaction that made it."""
    _note_done(opened, [row for row in opened.steps if row.state != StepState.DONE])
    move(registrar, session, opened.tenant, Status.ACTIVE, reason=reason)
    session.flush()


def _note_done(opened: Opened, steps: Iterable[ProvisioningStep]) -> None:
    for row in steps:
        row.state, row.attempts, row.finished_at = StepState.DONE, 1, opened.tenant.created_at


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
