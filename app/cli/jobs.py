"""Jobs at the command line: what waits, what failed, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable

import click
from flask.cli import AppGroup
from rich.console import Console, RenderableType
from rich.progress import track

from app.admin.jobs import JobCounts, JobItem, JobPage, find_any_job, writing_to
from app.admin.scopes import across_tenants, in_tenant
from app.audit.entries import record
from app.cli.operators import REASON, TENANT, operated, table_of, tenant_named
from app.errors import ProblemError
from app.queue.asking import resume_parked
from app.queue.operations import JobState, cancel_job, count_jobs, list_jobs, retry_job
from app.schemas import Answer

jobs = AppGroup("jobs", help="List jobs, run failed ones again, take waiting ones out of the queue.")
Change = Callable[..., None]
_TENANT = click.option("--tenant", help="Slug or id of one tenant; without it all, and the platform's own.")
_JOBS = click.argument("job_ids", type=click.IntRange(min=1), nargs=-1, required=True)


class Resumed(Answer):
    """How many jobs were put back."""

    resumed: int


def _page(found: JobPage) -> RenderableType:
    rows = [(j.id, j.task, j.state, j.attempts, f"{j.asked_at:%Y-%m-%d %H:%M:%S}", j.tenant_id) for j in found.items]
    return table_of(("id", "task", "state", "attempts", "asked for", "tenant"), rows)


def _counts(found: JobCounts) -> RenderableType:
    return table_of(("state", "jobs"), [*found.by_state.items(), ("all", found.total)])


def _resumed(found: Resumed) -> RenderableType:
    return f"{found.resumed} jobs were put back."


@jobs.command("list")
@_TENANT
@click.option("--state", type=click.Choice([one.value for one in JobState]))
@click.option("--task", help="Name of the task, such as files.tidy.")
@click.option("--before", type=click.IntRange(min=1), help="Only those with a lower id.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)
@operated(_page)
def show_jobs(tenant: str | None, state: str | None, task: str | None, before: int | None, limit: int) -> JobPage:
    """List jobs, the newest first."""
    tenant_id = None if tenant is None else tenant_named(tenant)
    wanted = None if state is None else JobState(state)
    with across_tenants(reason="command line: list jobs") as session:
        found = list_jobs(session, tenant_id=tenant_id, state=wanted, task=task, before=before, limit=limit)
    return JobPage(items=[JobItem.model_validate(job) for job in found], next_cursor=None)


@jobs.command("counts")
@_TENANT
@operated(_counts)
def show_counts(tenant: str | None) -> JobCounts:
    """Count jobs by their state."""
    tenant_id = None if tenant is None else tenant_named(tenant)
    with across_tenants(reason="command line: count jobs") as session:
        counted = count_jobs(session, tenant_id=tenant_id)
    return JobCounts(by_state=counted, total=sum(counted.values()))


@jobs.command("retry")
@_JOBS
@REASON
@operated(_page)
def retry(job_ids: tuple[int, ...], reason: str) -> JobPage:
    """Run jobs again that failed or were cancelled. One that cannot be is named, and stops the rest."""
    return _each(job_ids, retry_job, reason)


@jobs.command("cancel")
@_JOBS
@REASON
@operated(_page)
def cancel(job_ids: tuple[int, ...], reason: str) -> JobPage:
    """Take jobs out of the queue that have not begun. One that cannot be is named, and stops the rest."""
    return _each(job_ids, cancel_job, reason)


@jobs.command("resume-parked")
@TENANT
@REASON
@operated(_resumed)
def resume(tenant: str, reason: str) -> Resumed:
    """Put the parked jobs of TENANT back into the queue; to resume the tenant does so by itself."""
    tenant_id = tenant_named(tenant)
    with in_tenant(tenant_id, reason=reason) as session:
        resumed = resume_parked(session, tenant_id)
        record(session, "jobs.resumed", after={"jobs": resumed}, reason=reason)
    return Resumed(resumed=resumed)


def _each(job_ids: tuple[int, ...], change: Change, reason: str) -> JobPage:
    done: list[JobItem] = []
    for job_id in track(job_ids, "Jobs", console=Console(stderr=True), disable=len(job_ids) == 1):
        try:
            with writing_to(job_id, reason=reason) as (session, job):
                change(session, job, reason=reason)
        except ProblemError as error:
            raise click.ClickException(f"Job {job_id}: {error.detail} {len(done)} were changed before it.") from None
        done.append(JobItem.model_validate(find_any_job(job_id, reason=reason)))
    return JobPage(items=done, next_cursor=None)
