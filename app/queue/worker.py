"""The worker: takes jobs in turn, runs them in threads, tells that it lives, and picks up after workers that do not."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import procrastinate
from flask import Flask
from procrastinate.exceptions import JobAborted
from procrastinate.jobs import Job as TakenJob
from procrastinate.manager import JobManager
from procrastinate.retry import BaseRetryStrategy, RetryDecision
from procrastinate.worker import Worker
from sqlalchemy import make_url

from app.config import Settings
from app.queue.asking import EXTENSION, Queue
from app.queue.running import Taken, run_job
from app.queue.tables import PARKED_QUEUE, SCHEMA
from app.queue.tasks import JobInterrupted, PlatformTask, Task
from tenancy.errors import DirectoryError, DiscardedJobError, EnvelopeRefusedError, ParkedJobError

log = logging.getLogger(__name__)
# A job that is due at a time is looked for this often; one that is asked for is told of at once.
_POLL_S = 1.0
_DIRECTORY_WAIT = timedelta(seconds=10)
# A job that has taken this many workers down with it is not tried again.
_MOST_LOST_WORKERS = 3
_TAKE = """
    SELECT id, status, task_name, priority, lock, queueing_lock, scheduled_at, queue_name, attempts, worker_id,
           '{}'::jsonb AS args, args AS hidden_args, tenant
    FROM jobs.take_job_in_turn(%(worker_id)s, %(tenant_concurrency)s)
"""
# Of workers that stopped telling that they live. `args` counts them, beside the attempts.
_RESCUE = """
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


class _InTurn(JobManager):
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

    def pop(self, job_id: int) -> Taken:
        return self._taken.pop(job_id)


class _Fate(BaseRetryStrategy):
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


class JobWorker:
    """Runs the jobs of one application until it is stopped.

    Ends with its running jobs done, or after `job_stop_timeout_s` without them: they are then given back,
    and the process that holds their transactions has to end.
    """

    def __init__(self, app: Flask, settings: Settings) -> None:
        found: Queue = app.extensions[EXTENSION]
        self._app = app
        self._queue = found
        self._settings = settings
        self._worker: Worker | None = None
        self._is_stopping = threading.Event()
        self._has_started = threading.Event()

    def run(self, *, handle_signals: bool) -> None:
        """Work until stopped. handle_signals: stop on SIGTERM and SIGINT; in the main thread only."""
        asyncio.run(self._run(handle_signals=handle_signals))

    def stop(self) -> None:
        """Take no more jobs; `run` returns when those that run have ended. From any thread."""
        self._is_stopping.set()
        if self._worker is not None:
            self._worker.stop()  # type: ignore[no-untyped-call]  # Procrastinate's own are untyped

    def wait_until_started(self, timeout_s: float) -> bool:
        return self._has_started.wait(timeout_s)

    async def _run(self, *, handle_signals: bool) -> None:
        settings = self._settings
        connector = procrastinate.PsycopgConnector(
            conninfo=_conninfo(settings.platform_database_url.get_secret_value()),
            kwargs={"options": f"-c search_path={SCHEMA},pg_catalog", "application_name": "crm worker"},
            min_size=1,
            max_size=4,
        )
        tasks = procrastinate.App(connector=connector)
        tasks.job_manager = manager = _InTurn(connector, settings.job_tenant_concurrency)
        tasks.tasks.clear()
        for task in self._queue.tasks.values():
            self._register(tasks, task, manager)
        async with tasks.open_async():
            self._worker = Worker(
                tasks,
                name="crm",
                concurrency=settings.job_concurrency,
                fetch_job_polling_interval=_POLL_S,
                shutdown_graceful_timeout=settings.job_stop_timeout_s,
                update_heartbeat_interval=settings.job_stalled_after_s / 3,
                stalled_worker_timeout=settings.job_stalled_after_s,
                install_signal_handlers=handle_signals,
            )
            rescuing = asyncio.create_task(self._rescue(connector), name="rescue stalled jobs")
            try:
                if not self._is_stopping.is_set():
                    await self._worker.run()  # type: ignore[no-untyped-call]
            finally:
                rescuing.cancel()
                with suppress(asyncio.CancelledError):
                    await rescuing

    def _register(self, tasks: procrastinate.App, task: Task | PlatformTask, manager: _InTurn) -> None:
        def run(context: procrastinate.JobContext, /, timestamp: int | None = None) -> None:  # noqa: ARG001
            if context.job.id is None:
                raise LookupError("a job without an id was taken")
            with self._app.app_context():
                run_job(self._queue, manager.pop(context.job.id), is_stopping=context.should_abort)

        make = tasks.task(name=task.name, pass_context=True, retry=_Fate(task), queueing_lock=_lock_of(task))
        made = make(run)
        if isinstance(task, PlatformTask) and task.cron is not None:
            tasks.periodic(cron=task.cron)(made)  # type: ignore[arg-type]  # its timestamp is passed by name

    async def _rescue(self, connector: procrastinate.PsycopgConnector) -> None:
        """Give back the jobs of workers that have died, for as long as this one lives."""
        self._has_started.set()
        while True:
            try:
                lost = await connector.execute_query_all_async(
                    _RESCUE, most=_MOST_LOST_WORKERS, stalled_after_s=self._settings.job_stalled_after_s
                )
            except procrastinate.exceptions.ConnectorException:
                log.warning("jobs.rescue_failed", exc_info=True)
            else:
                for row in lost:
                    log.warning(
                        "job.rescued", extra={"job_id": row["id"], "task": row["task_name"], "as": row["status"]}
                    )
            await asyncio.sleep(self._settings.job_stalled_after_s / 3)


@contextmanager
def worker_beside(app: Flask, settings: Settings) -> Iterator[JobWorker]:
    """Run a worker in a thread of this process for as long as the block; for development."""
    worker = JobWorker(app, settings)
    thread = threading.Thread(target=worker.run, kwargs={"handle_signals": False}, name="worker", daemon=True)
    thread.start()
    try:
        worker.wait_until_started(10)
        yield worker
    finally:
        worker.stop()
        thread.join(settings.job_stop_timeout_s + 1)
        if thread.is_alive():
            log.warning("worker.left_behind")


def work(app: Flask, settings: Settings) -> None:
    """Run a worker in this process until SIGTERM or SIGINT; jobs that do not end in time are given back."""
    JobWorker(app, settings).run(handle_signals=True)


def _lock_of(task: Task | PlatformTask) -> str | None:
    """A periodic task is not asked for again while it still waits."""
    return task.name if isinstance(task, PlatformTask) and task.cron is not None else None


def _conninfo(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
