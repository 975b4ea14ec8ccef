"""Changing what a tenant is: its status, its deletion and its slug. Each needs a reason, and leaves a trace."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.audit.actors import require_actor
from app.audit.entries import record
from app.errors import ForbiddenError, InvalidInputError, TakenError
from app.tenants.models import ProvisioningStep, ReservedSlug, StepState, Tenant, Transition
from app.tenants.registrar import Registrar, locked_tenant
from app.tenants.slugs import refuse_unusable_slug, slug_is_held
from app.tenants.states import InvalidTransitionError, Status, check_transition
from tenancy.directory import TenantRecord

log = logging.getLogger(__name__)

_LONGEST_REASON = 500


def change_status(
    registrar: Registrar, tenant_id: UUID, to: Status, *, reason: str, undoes_deletion: bool = True
) -> TenantRecord:
    """Take a tenant from its status to another one; every process obeys within a second.

    to: `deleting` schedules the deletion after the usual grace; from there, the former status undoes it.
    undoes_deletion: whether whoever asks may do that.
    Raises: ForbiddenError - she may not. InvalidTransitionError - that cannot follow, or somebody was faster.
    RowNotFoundError - no such tenant.
    """
    if to is Status.DELETING:
        return schedule_deletion(registrar, tenant_id, reason=reason)
    _check_reason(reason)
    with registrar.in_tenant(tenant_id, reason=reason) as session:
        tenant = locked_tenant(session, tenant_id)
        was = Status(tenant.status)
        _check(tenant, to)
        if was is Status.DELETING and not undoes_deletion:
            raise ForbiddenError("A deletion is scheduled, and to take that back is not among what you may do.")
        if was is Status.PENDING:
            _refuse_unready(session, tenant)
        tenant.former_status = tenant.erase_after = None
        move(registrar, session, tenant, to, reason=reason)
        return record_of(tenant)


def suspend(registrar: Registrar, tenant_id: UUID, *, reason: str) -> TenantRecord:
    """Stop serving a tenant until it is resumed; its members are told, nobody else is."""
    return change_status(registrar, tenant_id, Status.SUSPENDED, reason=reason)


def resume(registrar: Registrar, tenant_id: UUID, *, reason: str) -> TenantRecord:
    """Serve a suspended or archived tenant again, and let its parked jobs run."""
    return change_status(registrar, tenant_id, Status.ACTIVE, reason=reason)


def archive(registrar: Registrar, tenant_id: UUID, *, reason: str) -> TenantRecord:
    """Close a tenant and keep its data; to everybody it looks as if it were not there."""
    return change_status(registrar, tenant_id, Status.ARCHIVED, reason=reason)


def schedule_deletion(
    registrar: Registrar, tenant_id: UUID, *, reason: str, grace: timedelta | None = None
) -> TenantRecord:
    """Close a tenant now, and have it erased when the grace is over.

    grace: None takes the usual one; zero leaves no time to undo it.
    Raises: InvalidTransitionError, RowNotFoundError
    """
    _check_reason(reason)
    wait = registrar.deletion_grace if grace is None else grace
    if wait < timedelta(0):
        raise InvalidInputError.of("grace_days", "0 or more")
    with registrar.in_tenant(tenant_id, reason=reason) as session:
        tenant = locked_tenant(session, tenant_id)
        was = Status(tenant.status)
        _check(tenant, Status.DELETING)
        tenant.former_status = was
        tenant.erase_after = server_now(session) + wait
        move(registrar, session, tenant, Status.DELETING, reason=reason)
        return record_of(tenant)


def cancel_deletion(registrar: Registrar, tenant_id: UUID, *, reason: str) -> TenantRecord:
    """Undo a scheduled deletion: the tenant is what it was before.

    Raises: InvalidTransitionError - none is scheduled, or the erasure has begun. RowNotFoundError
    """
    _check_reason(reason)
    with registrar.in_tenant(tenant_id, reason=reason) as session:
        tenant = locked_tenant(session, tenant_id)
        former = _former(tenant)
        if tenant.status != Status.DELETING or former is None:
            detail = "The erasure has begun, and cannot be undone." if tenant.erasing_since else "None is scheduled."
            raise InvalidTransitionError(detail, status=Status(tenant.status), allowed=())
        tenant.former_status = tenant.erase_after = None
        move(registrar, session, tenant, former, reason=reason)
        return record_of(tenant)


def change_slug(registrar: Registrar, tenant_id: UUID, slug: str, *, reason: str) -> TenantRecord:
    """Give a tenant another slug. The old one stays reserved, so that links to it lead to nobody else.

    Raises: InvalidInputError - it is no slug. TakenError - it is in use, or reserved. RowNotFoundError.
    InvalidTransitionError - the tenant is erased.
    """
    _check_reason(reason)
    wanted = refuse_unusable_slug(slug)
    with registrar.in_tenant(tenant_id, reason=reason) as session:
        tenant = locked_tenant(session, tenant_id)
        old = tenant.slug
        if tenant.status == Status.DELETED:
            raise InvalidTransitionError("The tenant is erased.", status=Status.DELETED, allowed=())
    if old == wanted:
        raise InvalidInputError.of("slug", "the tenant has this slug already")
    # First and apart: staff's own tables are written for no tenant. Left over from a failure it does no harm.
    with registrar.on_staff_tables(reason=reason) as staff:
        kept = insert(ReservedSlug).values(slug=old, held_by=tenant_id, reason="an earlier slug of a tenant")
        staff.execute(kept.on_conflict_do_nothing())
    try:
        with registrar.in_tenant(tenant_id, reason=reason) as session:
            tenant = locked_tenant(session, tenant_id)
            if tenant.slug != old:
                raise TakenError("Somebody changed the slug at the same moment: look again.")
            tenant.slug = wanted
            session.flush()
            # After the write: it waited for whoever gave this slug up, and now sees the reservation.
            if slug_is_held(session, wanted, by_other_than=tenant_id):
                raise _slug_taken()
            record(
                session,
                "tenant.slug_changed",
                target=("tenant", tenant_id),
                before={"slug": old},
                after={"slug": wanted},
                reason=reason,
            )
            return record_of(tenant)
    except IntegrityError as error:
        if getattr(getattr(error.orig, "diag", None), "constraint_name", None) != "uq_tenants_slug":
            raise
        raise _slug_taken() from None


# What the others build on -----------------------------------------------------------------------------


def move(registrar: Registrar, session: Session, tenant: Tenant, to: Status, *, reason: str) -> None:
    """Set the status in the caller's transaction, note it in the history and the audit, and tell who takes part.

    Checks nothing. What a listener raises undoes all of it.
    """
    was, tenant.status = tenant.status, to.value
    note_transition(session, was, to, reason=reason)
    record(
        session,
        "tenant.status_changed",
        target=("tenant", tenant.id),
        before={"status": was},
        after={"status": to.value},
        reason=reason,
    )
    for listener in registrar.hooks.listeners:
        listener(session, tenant.id, to.value)
    log.info("tenant.status_changed", extra={"tenant": str(tenant.id), "was": was, "status": to.value})


def note_transition(session: Session, was: str | None, to: Status, *, reason: str) -> None:
    """Add to the history of the session's tenant, in the current actor's name. was: None for a new tenant."""
    actor = require_actor()
    session.add(
        Transition(from_status=was, to_status=to.value, reason=reason, actor_kind=actor.kind, actor_label=actor.label)
    )


def record_of(tenant: Tenant) -> TenantRecord:
    """Return the tenant as the directory would, from its row."""
    return TenantRecord(tenant.id, tenant.slug, tenant.name, tenant.status)


def _former(tenant: Tenant) -> Status | None:
    return None if tenant.former_status is None or tenant.erasing_since else Status(tenant.former_status)


def _check(tenant: Tenant, to: Status) -> None:
    check_transition(Status(tenant.status), to, former=_former(tenant))


def _refuse_unready(session: Session, tenant: Tenant) -> None:
    steps = session.scalars(select(ProvisioningStep).where(ProvisioningStep.state != StepState.DONE)).all()
    if steps:
        names = ", ".join(sorted(step.step for step in steps))
        raise InvalidTransitionError(
            f"The tenant is not ready: provision it first, {names} is missing.",
            status=Status.PENDING,
            allowed=(Status.DELETING,),
        )


def _check_reason(reason: str) -> None:
    if not reason.strip() or len(reason) > _LONGEST_REASON:
        raise InvalidInputError.of("reason", f"say why, in 1 to {_LONGEST_REASON} characters")


def _slug_taken() -> TakenError:
    return TakenError("This slug cannot be had: choose another.")


def server_now(session: Session) -> datetime:
    """Return the time by the server's clock, the only one that all processes share."""
    found: datetime = session.execute(select(func.now())).scalar_one()
    return found
