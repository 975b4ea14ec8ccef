"""Jobs, as platform staff see them: what waits, what failed, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field, StringConstraints

from app.admin.access import staff_may
from app.admin.blueprint import blueprint
from app.admin.scopes import across_tenants, in_tenant, on_staff_tables
from app.errors import InvalidInputError, RowNotFoundError
from app.openapi import answers
from app.queue.operations import JobState, JobView, cancel_job, count_jobs, find_job, list_jobs, retry_job
from app.schemas import Answer, ListQuery, Query
from app.staff.permissions import StaffPermission
from app.staff.principals import check_reach, require_staff
from app.staff.schemas import BecauseOf
from app.tenants.jobs import carry_on_run
from tenancy.session import PlatformSession, TenantSession

_LARGEST_ID = 2**63 - 1


class JobItem(Answer):
    """One job. What it was asked for with is not shown."""

    id: int
    tenant_id: UUID | None = Field(description="Null for a job of the platform.")
    task: str
    state: JobState
    priority: int
    attempts: int
    asked_at: datetime
    run_at: datetime | None


class JobPage(Answer):
    """A page of jobs, the newest first."""

    items: list[JobItem]
    next_cursor: str | None


class JobCounts(Answer):
    """How many jobs there are in each state."""

    by_state: dict[JobState, int]
    total: int


class JobQuery(ListQuery):
    """The query of the list of jobs."""

    for_tenant: UUID | None = Field(None, description="Id of one tenant; its jobs only.")
    state: JobState | None = None
    task: Annotated[str, StringConstraints(max_length=100, pattern=r"^[a-z_.]+$")] | None = Field(
        None, description="Name of the task, such as `files.tidy`."
    )


class JobCountQuery(Query):
    """The query of the counts."""

    for_tenant: UUID | None = Field(None, description="Id of one tenant; its jobs only.")


@blueprint.get("/jobs")
@staff_may(StaffPermission.JOBS_READ)
@answers(200, JobPage, tag="jobs")
def list_all_jobs(query: JobQuery) -> JobPage:
    """List jobs, of one tenant or of all and the platform, the newest first."""
    before = _position(query.cursor)
    with across_tenants(reason="admin API: list jobs") as session:
        found = list_jobs(
            session,
            tenant_id=query.for_tenant,
            state=query.state,
            task=query.task,
            before=before,
            limit=query.limit + 1,
        )
    page = found[: query.limit]
    return JobPage(
        items=[JobItem.model_validate(job) for job in page],
        next_cursor=str(page[-1].id) if len(found) > len(page) else None,
    )


@blueprint.get("/jobs/counts")
@staff_may(StaffPermission.JOBS_READ)
@answers(200, JobCounts, tag="jobs")
def count_all_jobs(query: JobCountQuery) -> JobCounts:
    """Count jobs by their state, of one tenant or of all and the platform."""
    with across_tenants(reason="admin API: count jobs") as session:
        counted = count_jobs(session, tenant_id=query.for_tenant)
    return JobCounts(by_state=counted, total=sum(counted.values()))


@blueprint.get("/jobs/<int:job_id>")
@staff_may(StaffPermission.JOBS_READ)
@answers(200, JobItem, tag="jobs")
def show_job(job_id: int) -> JobItem:
    """Show one job."""
    return JobItem.model_validate(find_any_job(job_id, reason="admin API: show job"))


@blueprint.post("/jobs/<int:job_id>/retry")
@staff_may(StaffPermission.JOBS_WRITE)
@answers(200, JobItem, tag="jobs")
def run_job_again(job_id: int, json: BecauseOf) -> JobItem:
    """Run a job again that failed or was cancelled."""
    with writing_to(job_id, reason=json.reason) as (session, job):
        if job.task == carry_on_run.name:  # whoever took it out may have done so to save the tenants it deletes
            check_reach(require_staff(), frozenset({StaffPermission.TENANTS_DELETE}))
        retry_job(session, job, reason=json.reason)
        changed = find_job(session, job_id)
    return JobItem.model_validate(changed)


@blueprint.post("/jobs/<int:job_id>/cancel")
@staff_may(StaffPermission.JOBS_WRITE)
@answers(200, JobItem, tag="jobs")
def take_job_out(job_id: int, json: BecauseOf) -> JobItem:
    """Take a job out of the queue that has not begun."""
    with writing_to(job_id, reason=json.reason) as (session, job):
        cancel_job(session, job, reason=json.reason)
        changed = find_job(session, job_id)
    return JobItem.model_validate(changed)


def find_any_job(job_id: int, *, reason: str) -> JobView:
    """Return a job of whichever tenant.

    Raises: RowNotFoundError
    """
    if job_id > _LARGEST_ID:
        raise RowNotFoundError
    with across_tenants(reason=reason) as session:
        return find_job(session, job_id)


@contextmanager
def writing_to(job_id: int, *, reason: str) -> Iterator[tuple[TenantSession | PlatformSession, JobView]]:
    """Act where the job belongs, so that the audit of its tenant has it; the platform's, for its own."""
    job = find_any_job(job_id, reason=reason)
    if job.tenant_id is None:
        with on_staff_tables(reason=reason) as platform:
            yield platform, job
    else:
        with in_tenant(job.tenant_id, reason=reason) as session:
            yield session, job


def _position(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and int(cursor[:20]) <= _LARGEST_ID and len(cursor) < 20):
        raise InvalidInputError.of(
            "query.cursor", "this is no cursor of this list: take `next_cursor` from its last page"
        )
    return int(cursor)
