"""Workers as processes: stopped, killed in the middle of a job, and cut off from the database."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from pydantic import SecretStr
from sqlalchemy import select

from app.config import Settings
from app.crm.models import Company
from app.queue import enqueue
from app.queue.asking import Queue
from tenancy.context import tenant_scope
from tenancy.embedded import Template
from tests.app.queue_process import slow_task
from tests.app.queueing import add_tenant, eventually, give_tasks, queueing_app, statuses, working
from tests.conftest import Database


@dataclass
class Yard:
    app: Flask
    settings: Settings
    database: Database
    queue: Queue
    folder: Path
    workers: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, **settings: Any) -> subprocess.Popen[str]:
        given = {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in self.settings.model_copy(update=settings).model_dump().items()
        }
        given["jwt_keys"] = {kid: key.get_secret_value() for kid, key in self.settings.jwt_keys.items()}
        worker = subprocess.Popen(
            [sys.executable, "-m", "tests.app.queue_process", str(self.folder)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert worker.stdin is not None
        worker.stdin.write(json.dumps(given, default=_plain))
        worker.stdin.close()
        self.workers.append(worker)
        return worker

    def ask(self, tenant_id: UUID, **given: Any) -> None:
        with tenant_scope(tenant_id), self.queue.database.sessions.begin() as session:
            enqueue(session, self.queue.tasks["slow.write"], **given)  # type: ignore[arg-type]

    def wait_for_start(self, times: int = 1) -> None:
        eventually(lambda: len(list(self.folder.glob("started-*"))) == times, within_s=30)

    def let_go(self) -> None:
        (self.folder / "go").touch()

    def companies(self, tenant_id: UUID) -> list[str]:
        with tenant_scope(tenant_id), self.queue.database.sessions() as session:
            return list(session.scalars(select(Company.name)))


def _plain(value: object) -> object:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


@pytest.fixture
def yard(app_template: Template, make_settings: Callable[..., Settings], tmp_path: Path) -> Iterator[Yard]:
    with queueing_app(app_template, make_settings) as (app, settings, database), app.app_context():
        made = Yard(app, settings, database, give_tasks(app, slow_task(tmp_path)), tmp_path)
        try:
            yield made
        finally:
            for worker in made.workers:
                if worker.poll() is None:
                    worker.kill()
                worker.wait(10)
                if worker.stderr is not None:
                    worker.stderr.close()


def test_job_of_a_killed_worker_is_rolled_back_and_run_by_another(yard: Yard) -> None:
    acme = add_tenant(yard.app)
    yard.ask(acme)
    worker = yard.start(job_stalled_after_s=2.0)
    yard.wait_for_start()

    worker.kill()
    worker.wait(10)

    assert yard.companies(acme) == []
    yard.start(job_stalled_after_s=2.0)
    yard.wait_for_start(2)
    yard.let_go()
    eventually(lambda: statuses(yard.database, acme) == [("default", "succeeded", 1)])
    assert yard.companies(acme) == ["attempt 2"]


def test_job_that_kills_its_workers_is_given_up_after_three(yard: Yard) -> None:
    acme = add_tenant(yard.app)
    yard.ask(acme)

    for times in (1, 2, 3):
        worker = yard.start(job_stalled_after_s=1.0)
        yard.wait_for_start(times)
        worker.kill()
        worker.wait(10)
    yard.start(job_stalled_after_s=1.0)

    eventually(lambda: statuses(yard.database, acme) == [("default", "failed", 0)])
    assert yard.companies(acme) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_worker_asked_to_stop_finishes_its_job_and_takes_no_other(yard: Yard, number: signal.Signals) -> None:
    acme = add_tenant(yard.app)
    yard.ask(acme)
    worker = yard.start()
    yard.wait_for_start()

    worker.send_signal(number)
    yard.ask(acme)
    yard.let_go()

    assert worker.wait(15) == 0
    assert statuses(yard.database, acme) == [("default", "succeeded", 1), ("default", "todo", 0)]
    assert yard.companies(acme) == ["attempt 1"]


def test_job_that_does_not_end_in_time_is_given_back_and_rolled_back(yard: Yard) -> None:
    acme = add_tenant(yard.app)
    yard.ask(acme)
    worker = yard.start(job_stop_timeout_s=0.5)
    yard.wait_for_start()

    worker.send_signal(signal.SIGTERM)

    assert worker.wait(15) == 0
    assert statuses(yard.database, acme) == [("default", "todo", 0)]
    assert yard.companies(acme) == []


def test_job_that_stops_when_asked_is_given_back(yard: Yard) -> None:
    acme = add_tenant(yard.app)
    yard.ask(acme, patient=False)
    worker = yard.start(job_stop_timeout_s=0.2)
    yard.wait_for_start()

    worker.send_signal(signal.SIGTERM)

    assert worker.wait(15) == 0
    assert statuses(yard.database, acme) == [("default", "todo", 1)]
    assert yard.companies(acme) == []


def test_worker_goes_on_after_its_connections_were_cut(yard: Yard) -> None:
    acme = add_tenant(yard.app)
    yard.let_go()
    with working(yard.app):
        yard.ask(acme)
        eventually(lambda: statuses(yard.database, acme) == [("default", "succeeded", 1)])

        with yard.database.connect("postgres") as truth:
            truth.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'crm worker'"
            )
        yard.ask(acme)

        eventually(lambda: statuses(yard.database, acme) == [("default", "succeeded", 1)] * 2, within_s=30)
