"""The worker: takes jobs in turn, runs them in threads, tells that it lives, and picks up after workers that do not."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import procrastinate
import psycopg
from flask import Flask
from procrastinate.exceptions import ConnectorException
from procrastinate.worker import Worker
from psycopg_pool import PoolTimeout
from sqlalchemy import make_url

from app.queue.asking import EXTENSION, Queue
from app.queue.running import run_job
from app.queue.tables import SCHEMA
from app.queue.taking import GIVE_BACK, MOST_LOST_WORKERS, RESCUE, Fate, JobsInTurn
from app.queue.tasks import PlatformTask, Task

log = logging.getLogger(__name__)
# A job that is due at a time is looked for this often; one that is asked for is told of at once.
_POLL_S = 1.0
_RECONNECT_S = 2.0
# What a job that was asked to stop is left to come to an end in, after the time that the settings give it.
_LAST_MOMENT_S = 1.0


class JobWorker:
    """Runs the jobs of one application until it is stopped; a database that goes away is waited for."""

    def __init__(self, app: Flask) -> None:
        found: Queue = app.extensions[EXTENSION]
        self._app = app
        self._queue = found
        self._settings = found.settings
        self._conninfo = _conninfo(found.settings.platform_database_url.get_secret_value())
        self._worker: Worker | None = None
        self._is_stopping = threading.Event()
        self._lock = threading.Lock()

    def run(self, *, is_main: bool) -> None:
        """Work until stopped, and until the jobs that run then have ended.

        is_main: the process is the worker's own: stop on SIGTERM and SIGINT, and when jobs have not ended in
        `job_stop_timeout_s`, give them back and end the process that holds their transactions.
        """
        asyncio.run(self._run(is_main=is_main))

    def stop(self) -> None:
        """Take no more jobs. From any thread."""
        with self._lock:
            self._is_stopping.set()
            if self._worker is not None:
                self._worker.stop()  # type: ignore[no-untyped-call]

    async def _run(self, *, is_main: bool) -> None:
        if is_main:
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self._stop_process)
        while not self._is_stopping.is_set():
            try:
                await self._work()
            except (ConnectorException, PoolTimeout) as error:
                log.warning("worker.database_away", extra={"error": repr(error.__cause__ or error)})
                await asyncio.sleep(_RECONNECT_S)

    async def _work(self) -> None:
        """Work until stopped, or until the connection is lost."""
        settings = self._settings
        connector = procrastinate.PsycopgConnector(
            conninfo=self._conninfo,
            kwargs={"options": f"-c search_path={SCHEMA},pg_catalog", "application_name": "crm worker"},
            min_size=1,
            max_size=4,
            timeout=10.0,
        )
        known = procrastinate.App(connector=connector)
        known.job_manager = taking = JobsInTurn(connector, settings.job_tenant_concurrency)
        known.tasks.clear()
        for task in self._queue.tasks.values():
            self._register(known, task, taking)
        async with known.open_async():
            worker = Worker(
                known,
                name="crm",
                concurrency=settings.job_concurrency,
                fetch_job_polling_interval=_POLL_S,
                shutdown_graceful_timeout=settings.job_stop_timeout_s,
                update_heartbeat_interval=settings.job_stalled_after_s / 3,
                stalled_worker_timeout=settings.job_stalled_after_s,
                install_signal_handlers=False,
            )
            rescuing = asyncio.create_task(self._rescue(connector), name="rescue stalled jobs")
            running = asyncio.create_task(worker.run(), name="worker")  # type: ignore[no-untyped-call]
            # It forgets, as it begins, that it was stopped before.
            await asyncio.sleep(0)
            with self._lock:
                self._worker = worker
                if self._is_stopping.is_set():
                    worker.stop()  # type: ignore[no-untyped-call]
            try:
                await running
            finally:
                self._worker = None
                rescuing.cancel()
                with suppress(asyncio.CancelledError):
                    await rescuing

    def _register(self, known: procrastinate.App, task: Task | PlatformTask, taking: JobsInTurn) -> None:
        def run(context: procrastinate.JobContext, /, timestamp: int | None = None) -> None:
            with self._app.app_context():
                run_job(self._queue, taking.pop(context.job), is_stopping=context.should_abort)

        is_periodic = isinstance(task, PlatformTask) and task.cron is not None
        # The clock asks for nothing that still waits.
        make = known.task(
            name=task.name, pass_context=True, retry=Fate(task), queueing_lock=task.name if is_periodic else None
        )
        made = make(run)
        if isinstance(task, PlatformTask) and task.cron is not None:
            known.periodic(cron=task.cron)(made)  # pyright: ignore[reportArgumentType]  # its types want a task by position

    async def _rescue(self, connector: procrastinate.PsycopgConnector) -> None:
        """Put back the jobs of workers that have died, for as long as this one lives."""
        while True:
            with suppress(ConnectorException):  # the worker meets it too, and says so
                rescued = await connector.execute_query_all_async(
                    RESCUE, most=MOST_LOST_WORKERS, stalled_after_s=self._settings.job_stalled_after_s
                )
                for row in rescued:
                    found = {"job_id": row["id"], "task": row["task_name"], "status": row["status"]}
                    log.warning("job.rescued", extra=found)
            await asyncio.sleep(self._settings.job_stalled_after_s / 3)

    def _stop_process(self) -> None:
        self.stop()
        timer = threading.Timer(self._settings.job_stop_timeout_s + _LAST_MOMENT_S, self._give_back)
        timer.daemon = True
        timer.start()

    def _give_back(self) -> None:
        """End the process, and with it the transactions of the jobs that still run; others may take these."""
        worker = self._worker
        if worker is None or worker.worker_id is None:
            return
        try:
            # tenancy: ignore[TEN403] the worker's own way to the queue, which holds no tenant's rows
            with psycopg.connect(self._conninfo) as connection:
                given = connection.execute(GIVE_BACK, {"worker_id": worker.worker_id}).fetchall()
            log.warning("worker.gave_back", extra={"job_ids": [row[0] for row in given]})
        finally:
            os._exit(0)


@contextmanager
def worker_beside(app: Flask) -> Iterator[JobWorker]:
    """Run a worker in a thread of this process for as long as the block; for development."""
    worker = JobWorker(app)
    thread = threading.Thread(target=worker.run, kwargs={"is_main": False}, name="worker", daemon=True)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join()


def work(app: Flask) -> None:
    """Run a worker as this process, until SIGTERM or SIGINT."""
    JobWorker(app).run(is_main=True)


def _conninfo(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
