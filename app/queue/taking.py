"""What of Procrastinate is done our way: who is next, what becomes of a job that raised, what is logged."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import procrastinate
from procrastinate.exceptions import JobAborted
from procrastinate.jobs import Job as TakenJob
from procrastinate.manager import JobManager
from procrastinate.retry import BaseRetryStrategy, RetryDecision

from app.queue.running import Taken
from app.queue.tables import PARKED_QUEUE
from app.queue.tasks import JobInterrupted, PlatformTask, Task
from tenancy.errors import DirectoryError, DiscardedJobError, EnvelopeRefusedError, ParkedJobError

log = logging.getLogger(__name__)
_DIRECTORY_WAIT = timedelta(seconds=10)
# A job that has taken this many workers down with it is not tried again.
MOST_LOST_WORKERS = 3
_TAKE = """
    SELECT id, status, task_name, priority, lock, queueing_lock, scheduled_at, queue_name, attempts, worker_id,
           '{}'::jsonb AS args, args AS hidden_args, tenant
    FROM jobs.take_job_in_turn(%(worker_id)s, %(tenant_concurrency)s)
"""
# Of workers that stopped telling that they live. `args` counts them, beside the attempts.
RESCUE = """
    UPDATE jobs.procrastinate_jobs j
    SET status = CASE WHEN coalesce((j.args->>'lost')::int, 0) + 1 >= %(most)s THEN 'failed' ELSE 'todo'
                 END::jobs.procrastinate_job_status,
        args = j.args || jsonb_build_object('lost', coalesce((j.args->>'lost')::int, 0) + 1),
        worker_id = NULL, abort_requested = false
    WHERE j.status = 'doing' AND NOT EXISTS (
        SELECT FROM jobs.procrastinate_workers w
        WHERE w.id = j.worker_id AND w.last_heartbeat > now() - make_interval(secs => %(stalled_after_s)s))
    RETURNING j.id, j.task_name, j.status::text AS status
"""
# Of this worker, which ends without them; they have not failed.
GIVE_BACK = """
    UPDATE jobs.procrastinate_jobs SET status = 'todo', worker_id = NULL, abort_requested = false
    WHERE status = 'doing' AND worker_id = %(worker_id)s RETURNING id
"""


class JobsInTurn(JobManager):
    """Takes jobs by the queue's own turns. What they carry is kept from Procrastinate, which would log it."""

    def __init__(self, connector: procrastinate.BaseConnector, tenant_concurrency: int) -> None:
        super().__init__(connector)
        self._tenant_concurrency = tenant_concurrency
        self._taken: dict[int, Taken] = {}

    async def fetch_job(self, queues: Iterable[str] | None, worker_id: int) -> TakenJob | None:
        row = await self.connector.execute_query_one_async(
            query=_TAKE, worker_id=worker_id, tenant_concurrency=self._tenant_concurrency
        )
        if row["id"] is None:
            return None
        args = {name: value for name, value in row["hidden_args"].items() if name != "lost"}
        self._taken[row["id"]] = Taken(row["id"], row["task_name"], row["tenant"], row["attempts"], args)
        return TakenJob.from_row(row)

    def pop(self, job: TakenJob) -> Taken:
        """Return what the job carries, once."""
        if job.id is None:
            raise LookupError("a job without an id was taken")
        return self._taken.pop(job.id)


class Fate(BaseRetryStrategy):
    """What becomes of a job that raised."""

    def __init__(self, task: Task | PlatformTask) -> None:
        self._task = task

    def get_retry_decision(self, *, exception: BaseException, job: TakenJob) -> RetryDecision | None:
        match exception:
            case ParkedJobError():
                log.info("job.parked", extra={"job_id": job.id, "task": job.task_name})
                return RetryDecision(queue=PARKED_QUEUE)
            case DiscardedJobError() | EnvelopeRefusedError():
                log.error("job.discarded", extra={"job_id": job.id, "task": job.task_name, "why": exception.message})
                return None
            case JobInterrupted():
                return RetryDecision()
            case DirectoryError():
                return RetryDecision(retry_at=datetime.now(UTC) + _DIRECTORY_WAIT)
            case JobAborted():
                return None
        wait = self._task.retry.after(job.attempts)
        return None if wait is None else RetryDecision(retry_at=datetime.now(UTC) + wait)
