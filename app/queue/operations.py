"""What platform staff do to jobs: look at them, run one again, take one out of the queue."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, case, func, literal, select, update
from sqlalchemy.orm import Session

from app.audit.entries import record, record_platform
from app.errors import ProblemError, RowNotFoundError
from app.queue.asking import queue, renewed
from app.queue.tables import DEFAULT_QUEUE, PARKED_QUEUE, PLATFORM, JobStatus, jobs
from tenancy.session import PlatformSession, TenantSession

_ENDED_BADLY = (JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.ABORTED)


class JobState(StrEnum):
    """Where a job is, as people say it."""

    WAITING = "waiting"
    PARKED = "parked"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobStateError(ProblemError):
    """What was asked for cannot be done to a job in its state."""

    code = 409
    kind = "job_state"


@dataclass(frozen=True)
class JobView:
    """One job, as staff see it. What it was asked for with is its tenant's, and is not shown.

    tenant_id: None for a job of the platform. run_at: not before then; None for at once.
    """

    id: int
    tenant_id: UUID | None
    task: str
    state: JobState
    priority: int
    attempts: int
    asked_at: datetime
    run_at: datetime | None


_IS_PARKED = and_(jobs.c.status == JobStatus.TODO, jobs.c.queue_name == PARKED_QUEUE)
_STATE: ColumnElement[str] = case(
    (_IS_PARKED, literal(JobState.PARKED.value)),
    (jobs.c.status == JobStatus.TODO, literal(JobState.WAITING.value)),
    (jobs.c.status == JobStatus.DOING, literal(JobState.RUNNING.value)),
    (jobs.c.status == JobStatus.SUCCEEDED, literal(JobState.SUCCEEDED.value)),
    (jobs.c.status == JobStatus.FAILED, literal(JobState.FAILED.value)),
    else_=literal(JobState.CANCELLED.value),
)
_SHOWN = select(
    jobs.c.id,
    jobs.c.tenant,
    jobs.c.task_name,
    _STATE.label("state"),
    jobs.c.priority,
    jobs.c.attempts,
    jobs.c.created_at,
    jobs.c.scheduled_at,
)


def list_jobs(
    session: Session,
    *,
    tenant_id: UUID | None = None,
    state: JobState | None = None,
    task: str | None = None,
    before: int | None = None,
    limit: int,
) -> list[JobView]:
    """Return jobs of the given tenant, state and task, the newest first; `before` is the id of the page's last."""
    wanted = [
        *([jobs.c.tenant == tenant_id] if tenant_id is not None else []),
        *([_in(state)] if state is not None else []),
        *([jobs.c.task_name == task] if task is not None else []),
        *([jobs.c.id < before] if before is not None else []),
    ]
    return [_view(row) for row in session.execute(_SHOWN.where(*wanted).order_by(jobs.c.id.desc()).limit(limit))]


def count_jobs(session: Session, *, tenant_id: UUID | None = None) -> dict[JobState, int]:
    """Return how many jobs there are in each state, of one tenant or of all and the platform."""
    counted = select(_STATE.label("state"), func.count().label("jobs")).group_by("state")
    if tenant_id is not None:
        counted = counted.where(jobs.c.tenant == tenant_id)
    found = session.execute(counted).all()
    return dict.fromkeys(JobState, 0) | {JobState(row.state): row.jobs for row in found}


def find_job(session: Session, job_id: int) -> JobView:
    """Return one job, of whichever tenant.

    Raises: RowNotFoundError
    """
    row = session.execute(_SHOWN.where(jobs.c.id == job_id)).one_or_none()
    if row is None:
        raise RowNotFoundError
    return _view(row)


def retry_job(session: TenantSession | PlatformSession, job: JobView, *, reason: str) -> None:
    """Run a job again that failed or was cancelled, as if it had not run before.

    session: writing, of the job's tenant or the platform.
    Raises: JobStateError - it has not ended, or ended well.
    """
    row = session.execute(
        select(jobs.c.status, jobs.c.task_name, jobs.c.args).where(jobs.c.id == job.id).with_for_update()
    ).one()
    if row.status not in _ENDED_BADLY:
        raise JobStateError("Only a job that failed or was cancelled can be run again.")
    args = {name: value for name, value in row.args.items() if name != "lost"}
    session.execute(
        update(jobs)
        .where(jobs.c.id == job.id)
        .values(
            status=JobStatus.TODO,
            queue_name=DEFAULT_QUEUE,
            scheduled_at=None,
            attempts=0,
            args=renewed(queue().carrier, row.task_name, args),
        )
    )
    _record(session, "job.retried", job, reason)


def cancel_job(session: TenantSession | PlatformSession, job: JobView, *, reason: str) -> None:
    """Take a job out of the queue that waits or is parked.

    Raises: JobStateError - it runs already, or has ended.
    """
    cancelled = session.execute(
        update(jobs)
        .where(jobs.c.id == job.id, jobs.c.status == JobStatus.TODO)
        .values(status=JobStatus.CANCELLED)
        .returning(jobs.c.id)
    ).one_or_none()
    if cancelled is None:
        raise JobStateError("Only a job that waits can be cancelled; this one runs, or has ended.")
    _record(session, "job.cancelled", job, reason)


def _record(session: TenantSession | PlatformSession, action: str, job: JobView, reason: str) -> None:
    done = {"job": job.id, "task": job.task}
    if isinstance(session, PlatformSession):
        record_platform(session, action, before={"state": job.state}, after=done, reason=reason)
    else:
        record(session, action, before={"state": job.state}, after=done, reason=reason)


def _in(state: JobState) -> ColumnElement[bool]:
    """Say it so that the indexes on status serve."""
    match state:
        case JobState.PARKED:
            return _IS_PARKED
        case JobState.WAITING:
            return and_(jobs.c.status == JobStatus.TODO, jobs.c.queue_name != PARKED_QUEUE)
        case JobState.RUNNING:
            return jobs.c.status == JobStatus.DOING
        case JobState.CANCELLED:
            return jobs.c.status.in_((JobStatus.CANCELLED, JobStatus.ABORTED))
        case JobState.SUCCEEDED | JobState.FAILED:
            return jobs.c.status == JobStatus(state.value)


def _view(row: Any) -> JobView:
    return JobView(
        id=row.id,
        tenant_id=None if row.tenant == PLATFORM else row.tenant,
        task=row.task_name,
        state=JobState(row.state),
        priority=row.priority,
        attempts=row.attempts,
        asked_at=row.created_at,
        run_at=row.scheduled_at,
    )
