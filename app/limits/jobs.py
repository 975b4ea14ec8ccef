"""Windows that have ended are removed each hour; nobody asks after them."""

from __future__ import annotations

import logging

from sqlalchemy import text

from app.queue.tasks import Job, platform_task

log = logging.getLogger(__name__)


@platform_task(name="limits.sweep", cron="27 * * * *")
def sweep_windows(job: Job) -> None:
    """Remove the windows of rate limits that have ended."""
    with job.database.platform_sessions.begin() as session:
        log.info("limits.swept", extra={"windows": session.scalar(text("SELECT limits.sweep()"))})
