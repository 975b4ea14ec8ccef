"""Changing the status of many tenants: looked at first, then run over exactly those, one tenant at a time."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from app.audit.actors import require_actor
from app.audit.entries import record_platform
from app.errors import ForbiddenError, InvalidInputError, ProblemError, RowNotFoundError
from app.tenants.models import BulkItem, BulkRun, BulkState, Tenant
from app.tenants.operations import change_status
from app.tenants.registrar import Registrar
from app.tenants.states import InvalidTransitionError, Status, allowed_from
from tenancy.session import PlatformSession

log = logging.getLogger(__name__)

_SHOWN = 100
_LONGEST_ERROR = 300


class BulkChangedError(ProblemError):
    """Other tenants match now than when somebody looked."""

    code = 409
    kind = "selection_changed"


@dataclass(frozen=True)
class Wanted:
    """Which tenants: those that match everything that is given; a filter that names nothing matches none."""

    status: Status | None = None
    plan: str | None = None
    created_before: datetime | None = None
    ids: tuple[UUID, ...] = ()

    @property
    def is_empty(self) -> bool:
        return self.status is None and self.plan is None and self.created_before is None and not self.ids


@dataclass(frozen=True)
class Preview:
    """What a run would do. token: names exactly these tenants and this change; the run has to bring it.

    changed: those that would change, the first of them in `shown`. refused: those that match and cannot go there.
    """

    changed: int
    refused: int
    shown: Sequence[tuple[UUID, str, str]]
    token: str


@dataclass(frozen=True)
class Outcome:
    """How far a run is."""

    run_id: UUID
    done: int = 0
    failed: int = 0
    waiting: int = 0
    errors: Mapping[UUID, str] | None = None

    @property
    def total(self) -> int:
        return self.done + self.failed + self.waiting


def preview(registrar: Registrar, wanted: Wanted, to: Status) -> Preview:
    """Say who would change, and change nothing."""
    with registrar.across_tenants(reason=f"dry run: {to} for many") as session:
        return _preview(session, wanted, to)


def start_run(
    registrar: Registrar,
    wanted: Wanted,
    to: Status,
    *,
    token: str,
    reason: str,
    undoes_deletions: bool = True,
    then: Callable[[PlatformSession, UUID], object] | None = None,
) -> UUID:
    """Note a run over the tenants that were looked at; `carry_on` does it.

    token: of the preview. undoes_deletions: whether whoever asks may take a scheduled deletion back.
    then: called in the same transaction with the run's id, such as to ask for a job.
    Raises: BulkChangedError - other tenants match by now; nothing is noted.
    """
    with registrar.on_staff_tables(reason=reason) as staff:
        # Read in the same transaction: who may write staff's own tables reads all tenants' rows, too.
        found = _preview(staff, wanted, to)
        if found.token != token:
            raise BulkChangedError(
                f"Other tenants match than were looked at: {found.changed} would change now. Look again first.",
                members={"changed": found.changed, "refused": found.refused},
            )
        rows = list(_targets(staff, wanted, to))
        if not undoes_deletions and any(status == Status.DELETING for _tenant_id, _slug, status in rows):
            raise ForbiddenError("Some of these are to be deleted, and to take that back is not among what you may do.")
        targets = [tenant_id for tenant_id, _slug, _status in rows]
        run = BulkRun(to_status=to.value, wanted=_as_json(wanted), reason=reason, actor_label=require_actor().label)
        staff.add(run)
        staff.flush()
        if targets:
            staff.execute(insert(BulkItem), [{"run_id": run.id, "target": target} for target in targets])
        record_platform(
            staff,
            "tenants.bulk_started",
            target=("bulk_run", run.id),
            after={"status": to.value, "tenants": len(targets), "wanted": _as_json(wanted)},
            reason=reason,
        )
        if then is not None:
            then(staff, run.id)
        return run.id


def carry_on(registrar: Registrar, run_id: UUID) -> Iterator[Outcome]:
    """Change the tenants of a run that are still waiting, and yield how far it is after each; may be called again.

    A tenant that cannot change is noted with the reason, and stops no other. One that was changed just before the
    program was killed is found changed, and not changed twice.
    Raises: RowNotFoundError - there is no such run.
    """
    with registrar.on_staff_tables(reason="a run over many tenants goes on") as staff:
        run = staff.get(BulkRun, run_id)
        if run is None:
            raise RowNotFoundError
        waiting = staff.scalars(
            select(BulkItem.target)
            .where(BulkItem.run_id == run_id, BulkItem.state == BulkState.WAITING)
            .order_by(BulkItem.target)
        ).all()
    now = outcome(registrar, run_id)
    for target in waiting:
        error = _change(registrar, target, Status(run.to_status), reason=run.reason)
        state = BulkState.DONE if error is None else BulkState.FAILED
        with registrar.on_staff_tables(reason="a run over many tenants goes on") as staff:
            staff.execute(
                update(BulkItem)
                .where(BulkItem.run_id == run_id, BulkItem.target == target)
                .values(state=state, error=error)
            )
        now = replace(
            now, waiting=now.waiting - 1, done=now.done + (error is None), failed=now.failed + (error is not None)
        )
        yield now
    _finish(registrar, run_id)


def outcome(registrar: Registrar, run_id: UUID) -> Outcome:
    """Return how far a run is, with what failed.

    Raises: RowNotFoundError
    """
    with registrar.across_tenants(reason="a run over many tenants is looked at") as session:
        if session.get(BulkRun, run_id) is None:
            raise RowNotFoundError
        by_state = session.execute(
            select(BulkItem.state, func.count()).where(BulkItem.run_id == run_id).group_by(BulkItem.state)
        )
        counts = {str(state): int(number) for state, number in by_state}
        failures = session.execute(
            select(BulkItem.target, BulkItem.error)
            .where(BulkItem.run_id == run_id, BulkItem.state == BulkState.FAILED)
            .order_by(BulkItem.target)
            .limit(_SHOWN)
        )
        return Outcome(
            run_id,
            done=counts.get(BulkState.DONE, 0),
            failed=counts.get(BulkState.FAILED, 0),
            waiting=counts.get(BulkState.WAITING, 0),
            errors={target: error or "" for target, error in failures},
        )


def _change(registrar: Registrar, tenant_id: UUID, to: Status, *, reason: str) -> str | None:
    """Change one tenant, and return what went wrong."""
    try:
        change_status(registrar, tenant_id, to, reason=reason)
    except InvalidTransitionError as error:
        return None if error.members["status"] == to.value else error.detail[:_LONGEST_ERROR]
    except ProblemError as error:
        return error.detail[:_LONGEST_ERROR]
    except Exception as error:
        log.exception("tenants.bulk_failed", extra={"tenant": str(tenant_id)})
        return type(error).__name__
    return None


def _finish(registrar: Registrar, run_id: UUID) -> None:
    found = outcome(registrar, run_id)
    with registrar.on_staff_tables(reason="a run over many tenants ends") as staff:
        run = staff.get_one(BulkRun, run_id, with_for_update=True)
        if run.finished_at is None and not found.waiting:
            run.finished_at = func.now()
            record_platform(
                staff,
                "tenants.bulk_finished",
                target=("bulk_run", run_id),
                after={"done": found.done, "failed": found.failed},
                reason=run.reason,
            )


def _preview(session: Session, wanted: Wanted, to: Status) -> Preview:
    targets = list(_targets(session, wanted, to))
    matching = session.execute(_narrowed(select(func.count()).select_from(Tenant), wanted)).scalar_one()
    digest = hashlib.sha256(to.value.encode())
    for tenant_id, _slug, _status in targets:
        digest.update(tenant_id.bytes)
    return Preview(
        changed=len(targets), refused=matching - len(targets), shown=targets[:_SHOWN], token=digest.hexdigest()[:32]
    )


def _targets(session: Session, wanted: Wanted, to: Status) -> Iterator[tuple[UUID, str, str]]:
    """Yield id, slug and status of those that would change, in the order of their ids."""
    rows: Any = session.execute(
        _narrowed(select(Tenant.id, Tenant.slug, Tenant.status, Tenant.former_status), wanted).order_by(Tenant.id)
    )
    for tenant_id, slug, status, former in rows:
        if to in allowed_from(Status(status), former=Status(former) if former else None):
            yield tenant_id, slug, status


def _narrowed(rows: Any, wanted: Wanted) -> Any:
    if wanted.is_empty:
        raise InvalidInputError("The filter names nothing: say which tenants are meant.")
    if wanted.status is not None:
        rows = rows.where(Tenant.status == wanted.status)
    if wanted.plan is not None:
        rows = rows.where(Tenant.plan == wanted.plan)
    if wanted.created_before is not None:
        rows = rows.where(Tenant.created_at < wanted.created_before)
    if wanted.ids:
        rows = rows.where(Tenant.id.in_(wanted.ids))
    return rows


def _as_json(wanted: Wanted) -> dict[str, Any]:
    return {
        name: value.isoformat()
        if isinstance(value, datetime)
        else [str(one) for one in value]
        if name == "ids"
        else value
        for name, value in asdict(wanted).items()
        if value
    }
