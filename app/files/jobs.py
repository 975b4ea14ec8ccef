"""The nightly look at the storage, tenant by tenant."""

from __future__ import annotations

import logging
from uuid import UUID

from sqlalchemy import select

from app.files.orphans import tidy_tenant
from app.files.storage import files
from app.queue.asking import enqueue_platform
from app.queue.tasks import Job, platform_task
from app.tenants.models import Tenant
from tenancy.jobs import for_each_tenant
from tenancy.namespaces import stored_tenants

log = logging.getLogger(__name__)

_AT_ONCE = 200


@platform_task(name="files.tidy", cron="37 3 * * *")
def tidy_files(job: Job, after: str | None = None) -> None:
    """Remove content that no row speaks of, report rows without content, and mend sums; see `tidy_tenant`.

    after: id of the tenant before the first; None begins with the first of all. A part is done at a time, and the
    next one asked for, so a worker that is stopped or killed loses at most a part, which may be done again.
    Content of tenants that are not in the database at all is reported and kept: it may be the wrong database.
    """
    if after is None:
        _report_strangers(job)
    with job.database.platform_sessions() as session:
        ids = select(Tenant.id).order_by(Tenant.id).limit(_AT_ONCE)
        tenants = session.scalars(ids if after is None else ids.where(Tenant.id > UUID(after))).all()
    if not tenants:
        return
    storage = files().storage
    done = for_each_tenant(tenants, lambda _tenant: tidy_tenant(job.database.sessions, storage))
    for tenant, error in done.failed.items():
        log.error("files.not_tidied", extra={"tenant": str(tenant)}, exc_info=error)
    with job.database.platform_sessions.begin() as session:
        enqueue_platform(session, tidy_files, after=str(tenants[-1]))


def _report_strangers(job: Job) -> None:
    """Log which tenants have content and are not in the database."""
    stored = stored_tenants(files().store)
    with job.database.platform_sessions() as session:
        known = set(session.scalars(select(Tenant.id)))
    for tenant in sorted(stored - known):
        log.error("files.of_no_tenant", extra={"tenant": str(tenant)})
