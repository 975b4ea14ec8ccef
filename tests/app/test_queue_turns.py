"""Turns: whose job is next, whatever the length of the lines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from uuid import UUID

import pytest
from flask import Flask

from app.config import Settings
from app.queue import Job, enqueue, task
from app.queue.asking import Queue
from tenancy.context import tenant_scope
from tenancy.embedded import Template
from tests.app.queueing import add_tenant, eventually, give_tasks, queueing_app, statuses, working
from tests.conftest import ROLES, Database


@dataclass
class Line:
    app: Flask
    database: Database
    queue: Queue
    order: list[UUID] = field(default_factory=list)
    running: dict[UUID, int] = field(default_factory=dict)
    most: dict[UUID, int] = field(default_factory=dict)
    most_at_once: int = 0
    pause_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, tenant_id: UUID, count: int) -> None:
        with tenant_scope(tenant_id), self.queue.database.sessions.begin() as session:
            for _ in range(count):
                enqueue(session, self.queue.tasks["line.stand"])  # type: ignore[arg-type]

    def ask_in_bulk(self, tenant_id: UUID, count: int) -> None:
        """Copy the tenant's one job, envelope and all."""
        self.ask(tenant_id, 1)
        with self.database.connect("postgres") as truth:
            truth.execute(
                "INSERT INTO jobs.procrastinate_jobs (queue_name, task_name, args, tenant)"
                " SELECT queue_name, task_name, args, tenant FROM jobs.procrastinate_jobs, generate_series(2, %s)"
                " WHERE tenant = %s",
                [count, tenant_id],
            )

    def limit(self, **settings: int) -> None:
        self.app.extensions["queue"] = replace(self.queue, settings=self.queue.settings.model_copy(update=settings))

    def enter(self, tenant_id: UUID) -> None:
        with self.lock:
            self.order.append(tenant_id)
            self.running[tenant_id] = self.running.get(tenant_id, 0) + 1
            self.most[tenant_id] = max(self.most.get(tenant_id, 0), self.running[tenant_id])
            self.most_at_once = max(self.most_at_once, sum(self.running.values()))

    def leave(self, tenant_id: UUID) -> None:
        with self.lock:
            self.running[tenant_id] -= 1


@pytest.fixture
def line(app_template: Template, make_settings: Callable[..., Settings]) -> Iterator[Line]:
    @task(name="line.stand")
    def stand(job: Job) -> None:
        assert job.tenant_id is not None
        made.enter(job.tenant_id)
        time.sleep(made.pause_s)
        made.leave(job.tenant_id)

    with queueing_app(app_template, make_settings) as (app, _, database), app.app_context():
        made = Line(app, database, give_tasks(app, stand))
        yield made


def test_one_job_is_not_held_up_by_another_tenants_ten_thousand(line: Line) -> None:
    crowd, single = sorted([add_tenant(line.app), add_tenant(line.app)])
    line.ask_in_bulk(crowd, 10_000)
    line.ask(single, 1)
    line.limit(job_concurrency=1)

    with working(line.app):
        eventually(lambda: single in line.order)

    assert line.order.index(single) <= 1
    assert len(statuses(line.database, crowd)) == 10_000


def test_tenants_take_turns(line: Line) -> None:
    tenants = [add_tenant(line.app) for _ in range(3)]
    for tenant_id, count in zip(tenants, (30, 3, 3), strict=True):
        line.ask(tenant_id, count)
    line.limit(job_concurrency=1)

    with working(line.app):
        eventually(lambda: len(line.order) == 36)

    assert [set(line.order[place : place + 3]) for place in (0, 3, 6)] == [set(tenants)] * 3
    assert set(line.order[9:]) == {tenants[0]}


def test_tenant_that_comes_later_is_served_before_the_second_job_of_the_first(line: Line) -> None:
    crowd, late = sorted([add_tenant(line.app), add_tenant(line.app)])
    line.pause_s = 0.05
    line.ask(crowd, 40)
    line.limit(job_concurrency=1)

    with working(line.app):
        eventually(lambda: len(line.order) >= 3)
        before = len(line.order)
        line.ask(late, 1)
        eventually(lambda: late in line.order)

    assert line.order.index(late) <= before + 2


def test_tenant_runs_no_more_jobs_at_once_than_the_setting_says(line: Line) -> None:
    crowd, other = add_tenant(line.app), add_tenant(line.app)
    line.pause_s = 0.05
    line.ask(crowd, 20)
    line.ask(other, 20)
    line.limit(job_concurrency=8, job_tenant_concurrency=3)

    with working(line.app), working(line.app):
        eventually(lambda: len(line.order) == 40)

    assert line.most == {crowd: 3, other: 3}


def test_worker_runs_no_more_jobs_at_once_than_the_setting_says(line: Line) -> None:
    tenants = [add_tenant(line.app) for _ in range(4)]
    line.pause_s = 0.05
    for tenant_id in tenants:
        line.ask(tenant_id, 5)
    line.limit(job_concurrency=2, job_tenant_concurrency=2)

    with working(line.app):
        eventually(lambda: len(line.order) == 20)

    assert line.most_at_once == 2


def test_freed_place_is_taken_at_once_rather_than_at_the_next_look(line: Line) -> None:
    crowd = add_tenant(line.app)
    line.pause_s = 0.01
    line.ask(crowd, 30)
    line.limit(job_concurrency=4, job_tenant_concurrency=1)
    began = time.monotonic()

    with working(line.app):
        eventually(lambda: len(line.order) == 30)

    assert time.monotonic() - began < 10  # a look each second would take 30


def test_waiting_jobs_are_found_through_an_index(line: Line) -> None:
    crowd, single = add_tenant(line.app), add_tenant(line.app)
    line.ask_in_bulk(crowd, 10_000)
    line.ask(single, 1)
    with line.database.connect("postgres") as truth:
        truth.execute("ANALYZE jobs.procrastinate_jobs")

    with line.database.connect(ROLES.platform) as plain:
        began = time.monotonic()
        for _ in range(100):
            plain.execute("SELECT jobs.take_job_in_turn(NULL, 1000)")
        spent_s = time.monotonic() - began

    assert spent_s < 5
