"""The queue's own tasks, and the clock that asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from uuid import UUID

import pytest
from flask import Flask

from app.config import Settings
from app.queue import Job, PlatformTask, enqueue, platform_task, remove_jobs, task, upkeep
from app.queue.asking import Queue, derived_key, open_queue
from app.queue.running import Taken, run_job
from app.queue.tables import PLATFORM
from tenancy.context import platform_scope, tenant_scope
from tenancy.embedded import Template
from tenancy.jobs import Carrier
from tests.app.queueing import add_tenant, eventually, give_tasks, queueing_app, set_status, statuses, working
from tests.conftest import Database


@dataclass
class Depot:
    app: Flask
    database: Database
    queue: Queue

    def ask(self, tenant_id: UUID) -> None:
        with tenant_scope(tenant_id), self.queue.database.sessions.begin() as session:
            enqueue(session, self.queue.tasks["depot.stand"])  # type: ignore[arg-type]

    def tick(self, task: PlatformTask) -> None:
        run_job(self.queue, Taken(0, task.name, PLATFORM, 0, {"timestamp": 1}))

    def sql(self, statement: str, *values: object) -> None:
        with self.database.connect("postgres") as truth:
            truth.execute(statement, values)  # type: ignore[arg-type]


@pytest.fixture
def depot(app_template: Template, make_settings: Callable[..., Settings]) -> Iterator[Depot]:
    @task(name="depot.stand")
    def stand(job: Job) -> None: ...

    with queueing_app(app_template, make_settings) as (app, _, database), app.app_context():
        yield Depot(app, database, give_tasks(app, stand, upkeep.sweep_parked, upkeep.remove_old))


PARK = "UPDATE jobs.procrastinate_jobs SET queue_name = 'parked', attempts = 1 WHERE tenant = %s"


def test_parked_job_is_resumed_by_the_sweep_when_nobody_did(depot: Depot) -> None:
    back, suspended = add_tenant(depot.app), add_tenant(depot.app, status="suspended")
    for tenant_id in (back, suspended):
        depot.ask(tenant_id)
        depot.sql(PARK, tenant_id)

    depot.tick(upkeep.sweep_parked)

    assert statuses(depot.database, back) == [("default", "todo", 0)]
    assert statuses(depot.database, suspended) == [("parked", "todo", 1)]


def test_parked_job_of_gone_tenant_is_cancelled_by_the_sweep(depot: Depot) -> None:
    gone = add_tenant(depot.app, status="suspended")
    depot.ask(gone)
    depot.sql(PARK, gone)
    set_status(depot.database, gone, "deleting")

    depot.tick(upkeep.sweep_parked)

    assert statuses(depot.database, gone) == [("parked", "cancelled", 1)]


def test_job_that_was_parked_for_longer_than_envelopes_live_runs_when_it_is_resumed(depot: Depot) -> None:
    acme = add_tenant(depot.app)
    keys = {kid: derived_key(key) for kid, key in depot.queue.settings.jwt_keys.items()}
    long_ago = Carrier(keys, signing="dev", clock=lambda: 1_700_000_000.0)
    depot.app.extensions["queue"] = replace(depot.queue, carrier=long_ago)
    depot.ask(acme)
    depot.sql(PARK, acme)
    depot.app.extensions["queue"] = depot.queue

    depot.tick(upkeep.sweep_parked)

    with working(depot.app):
        eventually(lambda: statuses(depot.database, acme) == [("default", "succeeded", 1)])


def test_ended_jobs_are_removed_after_two_weeks_and_others_kept(depot: Depot) -> None:
    acme = add_tenant(depot.app)
    for _ in range(4):
        depot.ask(acme)
    depot.sql("UPDATE jobs.procrastinate_jobs SET created_at = now() - interval '15 days' WHERE tenant = %s", acme)
    with depot.database.connect("postgres") as truth:
        ids = [
            row[0]
            for row in truth.execute(
                "SELECT id FROM jobs.procrastinate_jobs WHERE tenant = %s ORDER BY id", [acme]
            ).fetchall()
        ]
    depot.sql("UPDATE jobs.procrastinate_jobs SET status = 'succeeded' WHERE id = %s", ids[0])
    depot.sql("UPDATE jobs.procrastinate_jobs SET status = 'failed' WHERE id = %s", ids[1])
    depot.sql("UPDATE jobs.procrastinate_jobs SET status = 'failed', created_at = now() WHERE id = %s", ids[2])

    depot.tick(upkeep.remove_old)

    assert statuses(depot.database, acme) == [("default", "failed", 0), ("default", "todo", 0)]


def test_jobs_of_an_erased_tenant_are_removed_and_no_others(depot: Depot) -> None:
    acme, globex = add_tenant(depot.app), add_tenant(depot.app)
    depot.ask(acme)
    depot.ask(acme)
    depot.ask(globex)

    with (
        platform_scope(actor="ana", reason="erasure"),
        tenant_scope(acme),
        depot.queue.database.staff_sessions.begin() as session,
    ):
        removed = remove_jobs(session, acme)

    assert removed == 2
    assert statuses(depot.database, acme) == []
    assert statuses(depot.database, globex) == [("default", "todo", 0)]


def test_clock_asks_once_however_many_workers_there_are(depot: Depot) -> None:
    ticks: list[UUID | None] = []

    @platform_task(name="clock.tick", cron="0 0 1 1 *")
    def yearly(job: Job) -> None:
        ticks.append(UUID(int=1))

    @platform_task(name="clock.often", cron="* * * * *")
    def often(job: Job) -> None:
        ticks.append(job.tenant_id)
        assert job.asked_by is None

    depot.app.extensions["queue"] = replace(depot.queue, tasks={one.name: one for one in (yearly, often)})

    with working(depot.app), working(depot.app):
        eventually(lambda: ticks != [])

    assert set(ticks) == {None}
    with depot.database.connect("postgres") as truth:
        rows = truth.execute(
            "SELECT count(*), count(DISTINCT args->>'timestamp'), bool_and(tenant = %s) FROM jobs.procrastinate_jobs"
            " WHERE task_name = 'clock.often'",
            [PLATFORM],
        ).fetchone()
    assert rows is not None
    assert rows[0] == rows[1]
    assert rows[2] is True


def test_two_tasks_of_one_name_are_refused(depot: Depot) -> None:
    @task(name="depot.stand")
    def other(job: Job) -> None: ...

    with pytest.raises(ValueError, match=r"two tasks are called 'depot\.stand'"):
        open_queue(
            depot.queue.settings,
            depot.queue.database,
            depot.queue.directory,
            [depot.queue.tasks["depot.stand"], other],
        )
