"""Every task of the application, so that whoever asks for one knows that a worker will know it too."""

from __future__ import annotations

from app.audit import jobs as audit_jobs
from app.files import jobs as file_jobs
from app.keys import jobs as key_jobs
from app.limits import jobs as limit_jobs
from app.queue import upkeep
from app.queue.tasks import PlatformTask, Task
from app.staff import jobs as staff_jobs
from app.tenants import jobs as tenant_jobs
from app.usage import jobs as usage_jobs

TASKS: tuple[Task | PlatformTask, ...] = (
    key_jobs.seal_anew,
    upkeep.sweep_parked,
    upkeep.remove_old,
    file_jobs.tidy_files,
    limit_jobs.sweep_windows,
    usage_jobs.roll_up_usage,
    usage_jobs.take_stock,
    audit_jobs.retain,
    staff_jobs.remove_spent_rows,
    tenant_jobs.erase_due,
    tenant_jobs.check_due,
    tenant_jobs.carry_on_run,
)
