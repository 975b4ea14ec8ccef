"""The queue's own tasks: what was parked and may run again, and what nobody asks after any more."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, exists, func, select, update

from app.queue.asking import queue, resume_parked
from app.queue.tables import PARKED_QUEUE, JobStatus, jobs, turns
from app.queue.tasks import Job, platform_task
from tenancy.jobs import Standing, standing_of

_KEPT = timedelta(days=14)
_ENDED = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.ABORTED)


@platform_task(name="jobs.sweep_parked", cron="* * * * *")
def sweep_parked(job: Job) -> None:
    """Resume the parked jobs of tenants that are served again, and cancel those of tenants that are gone."""
    carrier = queue().carrier
    parked = (jobs.c.queue_name == PARKED_QUEUE) & (jobs.c.status == JobStatus.TODO)
    with job.database.platform_sessions.begin() as session:
        for tenant_id in session.scalars(select(jobs.c.tenant).where(parked).distinct()).all():
            standing = standing_of(job.directory, tenant_id)
            if standing is Standing.RUN:
                resume_parked(session, tenant_id, carrier=carrier)
            elif standing is Standing.DISCARD:
                session.execute(
                    update(jobs).where(parked, jobs.c.tenant == tenant_id).values(status=JobStatus.CANCELLED)
                )


@platform_task(name="jobs.remove_old", cron="17 * * * *")
def remove_old(job: Job) -> None:
    """Remove jobs that ended two weeks after they were asked for, and turns of tenants that have no jobs."""
    with job.database.platform_sessions.begin() as session:
        session.execute(
            delete(jobs).where(
                jobs.c.status.in_(_ENDED),
                func.coalesce(jobs.c.scheduled_at, jobs.c.created_at) < func.now() - _KEPT,
            )
        )
        session.execute(delete(turns).where(~exists().where(jobs.c.tenant == turns.c.tenant)))
